"""The site: once a week it collects the timetables of all schools, page by page, from an API that wants to be asked gently.

`flagsweep --app collector:flags run` is all that has to run.
"""

import json
import os
import urllib.error
import urllib.request
from datetime import datetime

from peewee import BigIntegerField, CharField, ForeignKeyField, IntegerField, Model, SqliteDatabase

from flagsweep import Backoff, FlagSweep, Retry, Snooze, retry_after
from flagsweep.config import SECOND, Clock

API = os.environ.get("TIMETABLES_API", "http://127.0.0.1:8000")
SEOUL = "Asia/Seoul"

database = SqliteDatabase(os.environ.get("TIMETABLES_DATABASE", "timetables.db"), timeout=10)


class ShiftedClock(Clock):
    """Go as the system's clock does, so many seconds ahead: a show cannot wait for Monday.

    :param shift: seconds.
    """

    def __init__(self, shift):
        self.shift = shift

    def now(self):
        """Return the wall-clock time in microseconds UTC."""
        return super().now() + round(self.shift * SECOND)


clock = ShiftedClock(float(os.environ.get("TIMETABLES_SHIFT", "0")))
flags = FlagSweep(database, clock=clock, timezone=SEOUL, lanes={"api": 4})


class Table(Model):
    """A table of the site's."""

    class Meta:
        database = database


class School(Table):
    """A school that the API knows."""

    name = CharField()
    rows = IntegerField()


class Lesson(Table):
    """A lesson of the week. Its number is the API's, so that one which comes twice is kept once."""

    id = BigIntegerField(primary_key=True)
    school = ForeignKeyField(School, index=True)
    day = IntegerField()
    period = IntegerField()
    form = CharField()
    subject = CharField()
    room = IntegerField()


class Outage(Table):
    """What the breaker told: `began`, and `ended`."""

    kind = CharField()
    event = CharField()
    at = BigIntegerField()


@flags.cron("0 6 * * 1", tz=SEOUL)
@flags.handler(lane="api", backoff=1)
def collect_week(flag):
    """Begin the week: a flag for each school. Flags and schools are there together, or none of them."""
    schools = ask("/schools")
    week = (flag.intended or datetime.now().astimezone()).strftime("%G-W%V")
    with database:
        School.insert_many(schools).on_conflict_replace().execute()
        collect.raise_many([{"school": school["id"], "week": week} for school in schools])


@flags.handler(
    lane="api",
    rate="15/s burst 2",  # what the API grants: a run is a request
    limit=4,
    breaker=3,
    backoff=Backoff(first=1, factor=1, cap=1),
    max_attempts=50,  # of all pages together: coming further does not set them back
)
def collect(school, week, flag):
    """Fetch one page, keep it together with how far that is, and ask for another turn: so each page counts against the rate."""
    page = ask(f"/lessons?school={school}&after={flag.cursor or 0}")
    with database:  # one commit: rows and cursor
        Lesson.insert_many(page["lessons"]).on_conflict_replace().execute()
        if page["next"] is not None:
            flag.progress(page["next"])
    if page["next"] is not None:
        raise Snooze(0)


@flags.on_outage
def note_outage(kind, event, why):
    """Keep for the show what the breaker tells."""
    with database:
        Outage.create(kind=kind, event=event, at=clock.now())


def ask(path):
    """Return what the API answers. A 429 holds back all that would ask; any other trouble is an error of this flag."""
    try:
        with urllib.request.urlopen(API + path, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 429:
                raise Retry(after=retry_after(error) or 1, reason="429: asked to wait", all=True) from None
            raise


def create_tables():
    """Prepare the database: once, before anything else."""
    flags.init()
    with database:
        database.create_tables([School, Lesson, Outage])
