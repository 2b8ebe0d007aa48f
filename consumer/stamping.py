"""Stamping: a consumer looks whether the database is the one that was swept here before, and notes how far it has come.

Where it is a backup or a copy, all is paused before anything is claimed, until somebody confirms it.
"""

from __future__ import annotations

import json
import logging
import platform
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from peewee import Database

from ..config import SECOND
from ..databases.dialect import Dialect
from ..gates.shut import ALL
from ..logs import AS_EVENT, printable, tell_event
from ..models import AWAY, Fact, Flag, Gate, bump, fact, forget_fact
from ..sweep.parts import Parts
from .duties import Duties
from .membership import Enlisted, when
from .origin import Finding, Here, Sighting, Stamp, judge
from .sightings import Sightings

log = logging.getLogger("flagsweep")

BY = "flagsweep"
"""Who has paused a database that must be confirmed."""

STAMP, HELD = "stamp", "stamp:held"
"""The names of the notes."""

EVERY = 60.0
"""Seconds between two counts of a stamp, while work is done."""

SURE = 3.0
"""Seconds after which a sighting is noted: by then a server that commits before it is on the disk has written it."""

MOST_BEFORE = 50
"""Tokens that a stamp remembers, besides the first."""

YOUNG = 3600 * SECOND
"""Age of a database up to which nothing is noted in the user's home: tests make thousands, and throw them away."""

COLUMNS = ("paused_at", "paused_by", "paused_until", "reason")


class Held(NamedTuple):
    """Say why a database is held back.

    :param finding: what it was found to be.
    :param why: a sentence.
    :param where: where the original is, or was; empty: not known.
    :param until: up to when the database knows what was done, in microseconds UTC.
    :param seen: up to when something was done elsewhere, or later; None: not known.
    :param tokens: those of the sighting that knows better: once this is confirmed they count no more.
    :param paused: what the gate of all said before.
    """

    finding: str
    why: str
    where: str = ""
    until: int | None = None
    seen: int | None = None
    tokens: Sequence[str] = ()
    paused: Mapping[str, Any] = {}

    @classmethod
    def parse(cls, text: object) -> Held:
        """Return what a note says; one that a hand has damaged still holds."""
        try:
            said = json.loads(text)  # type: ignore[arg-type]
            return cls(**{name: said[name] for name in cls._fields if name in said})
        except (TypeError, ValueError, RecursionError):
            return cls(Finding.ELSEWHERE.value, "it may be a copy")


class Stamping:
    """Know, for one consumer, which database it has.

    :param member: the consumer, which is entered already, and has claimed nothing.
    """

    def __init__(self, duties: Duties, member: Enlisted):
        self._store = duties.store
        self._clock = duties.clock
        self._connections = duties.store.connections
        self._engine = self._connections.engine
        self._dialect = self._connections.dialect
        self._settings = duties.settings
        self._member = member
        self._parts = Parts(self._connections)
        self._stamp: Stamp | None = None
        self._made = 0
        self._home: tuple[str, ...] = ()
        self._done = duties.store.done
        self._counted_at = duties.clock.monotonic() - EVERY
        self._looked_at = duties.clock.monotonic()
        self._at = 0
        self._sure: Stamp | None = None
        """The last that is noted outside."""
        self._to_note_at: float | None = None
        self.held: Held | None = None
        """Why all is paused; None: it is not, or not by this."""
        self._sightings: Sightings | None = None
        if duties.settings.restore_check and not self._connections.in_memory and member.folder is not None:
            self._sightings = Sightings(member.folder, self._connections.file, str(duties.settings.state_dir))

    # The start.

    def check(self) -> None:
        """Look whether the database is the one that was swept here before; pause all where it is a backup or a copy of it."""
        if self._sightings is None:
            return
        self._made = self._store.made_at()
        self._home = self._dialect.home(self._engine)
        found = self._notes()
        if (held := found.get(HELD)) is not None:
            if self._is_paused():
                self.held = Held.parse(held.value)
                self._tell(self.held)
                return
            self._parts.take(self._confirmed_by_hand)
            found = self._notes()
        self._judge(found.get(STAMP))

    def _notes(self) -> dict[str, Fact]:
        rows = Fact.select().where(Fact.name.in_([STAMP, HELD])).execute(self._engine)
        return {str(row.name): row for row in rows}

    def _judge(self, row: Fact | None) -> None:
        stamp = None if row is None else Stamp.parse(row.value)
        here = self._here(stamp)
        finding, seen = judge(stamp, here)
        if finding.is_alarm:
            self._hold(_held(finding, stamp, None if row is None else row.at, seen))
        elif finding is not Finding.SAME or stamp is None:
            self._parts.take(partial(self._settle_down, stamp))
        else:
            self._stamp = stamp
        if self._stamp is not None:
            self._at = 0 if row is None else row.at
            self._sure = self._stamp
            if not self._is_noted(here, self._stamp):
                self._note()

    def _here(self, stamp: Stamp | None) -> Here:
        assert self._sightings is not None
        beside, is_original = self._sightings.beside()
        shared = self._dialect.shared
        return Here(
            host=platform.node(),
            where=self._where,
            home=self._home,
            made=self._made,
            beside=beside,
            is_original=is_original,
            on_host=() if stamp is None else self._sightings.on_host(stamp),
            shared=shared,
            is_home=self._dialect.is_same_home,
            is_there=self._sightings.is_there,
            is_swept=self._is_swept,
            has_flags=self._has_flags,
        )

    @property
    def _where(self) -> str:
        file = self._connections.file
        return self._connections.where if file is None else str(file.resolve())

    def _is_swept(self) -> bool:
        peers = [id for id in self._store.peers() if id != self._member.id]
        return any(self._member.leases.is_held(id) for id in peers)

    def _has_flags(self) -> bool:
        return bool(list(Flag.select(Flag.id).limit(1).tuples().execute(self._engine)))

    def _settle_down(self, stamp: Stamp | None) -> None:
        """Write where the database is swept from now on; of consumers that start at the same time one makes a new stamp."""
        place = partial(replace, host=platform.node(), where=self._where, home=self._home, placed=True)
        now = self._clock.now()
        with self._connections.write() as db:
            if stamp is None:
                new = {"value": place(new_stamp()).text(), "at": now}
                Fact.insert(name=STAMP, **new).on_conflict_ignore().execute(db)
            row = self._locked()
            found = None if row is None else Stamp.parse(row.value)
            self._stamp = placed = place(new_stamp() if found is None else found)
            if placed != found:
                self._dialect.note_fact(db, STAMP, placed.text(), now if row is None else row.at)

    def _locked(self) -> Fact | None:
        """Return the stamp's row, within a ``write``, as nobody else changes it meanwhile."""
        query = Fact.select().where(Fact.name == STAMP)
        return next(iter((query.for_update() if self._dialect.shared else query).execute(self._engine)), None)

    # An alarm.

    def _hold(self, held: Held) -> None:
        """Pause all, and say why, in one transaction. A pause that somebody had made comes back once this is confirmed."""
        self._stamp = self._sure = None
        self.held = self._parts.take(partial(self._pause, held))
        self._tell(self.held)
        tell_event("restored", logging.ERROR, finding=held.finding, why=held.why)

    def _pause(self, held: Held) -> Held:
        now = self._clock.now()
        with self._connections.write() as db:
            row = gate_of_all(db)
            if row is not None and row.paused_at is not None and row.paused_by != BY:
                held = held._replace(paused={name: getattr(row, name) for name in COLUMNS})
            reason = f"{held.why}; 'flagsweep confirm' has it go on"
            values = {"paused_at": now, "paused_by": BY, "paused_until": None, "reason": reason}
            self._dialect.set_by_hand(db, ALL, "", values)
            self._dialect.note_fact(db, HELD, json.dumps(held._asdict()), now)
            bump(db)
        return held

    def _tell(self, held: Held) -> None:
        cure = "'flagsweep confirm' says what waits, and has it go on"
        why = f"{held.why}. Nothing is swept, so that nothing is done a second time: {cure}"
        log.error("PAUSED: %s: %s", printable(self._connections.where), printable(why), extra=AS_EVENT)

    def _is_paused(self) -> bool:
        return is_held(self._engine, self._clock.now())

    def _confirmed_by_hand(self) -> None:
        """Take it for confirmed where somebody has lifted the pause."""
        with self._connections.write() as db:
            restamp(self._dialect, db, self._clock.now())

    # While it runs.

    def look(self) -> None:
        """Count the stamp up where work was done, note it outside, and see whether the database went back in time."""
        if self._sightings is None:
            return
        with suppress(*AWAY):  # The lanes tell of a database that is away.
            now = self._clock.monotonic()
            if self.held is not None:
                self._look_whether_confirmed()
            elif self._stamp is not None:
                self._look(now)

    def _look_whether_confirmed(self) -> None:
        if fact(self._engine, HELD) is None or not self._is_paused():
            self.held = None
            log.info("confirmed: %s is swept from here", printable(self._connections.where), extra=AS_EVENT)
            self.check()

    def _look(self, now: float) -> None:
        worked, back = self._store.done != self._done, None
        if worked and now - self._counted_at >= EVERY:
            back = self._parts.take(self._count)
            self._counted_at = self._looked_at = now
        elif worked or now - self._looked_at >= EVERY:
            back = self._compare(fact(self._engine, STAMP))
            self._looked_at = now
        if back is not None:
            self._hold(back)
        elif self._to_note_at is not None and now >= self._to_note_at:
            self._note()

    def _count(self) -> Held | None:
        """Count the stamp up, in a transaction that waits for the disk: what is noted outside must never be ahead of it.

        :return: why all must be paused instead.
        """
        done, now = self._store.done, self._clock.now()
        with self._connections.write() as db:
            if (back := self._compare(self._locked())) is not None:
                return back
            counted = replace(self._stamp or new_stamp(), n=self._stamp.n + 1 if self._stamp else 1)
            self._dialect.note_fact(db, STAMP, counted.text(), now)
        self._stamp, self._at, self._done = counted, now, done
        self._to_note_at = self._clock.monotonic() + SURE
        return None

    def _compare(self, row: Fact | None) -> Held | None:
        """Take over what others have counted, and what somebody has confirmed; return why all must be paused, or None.

        A server that was cut off may have forgotten the last count: only what is noted outside counts as having been there.
        """
        stamp, sure = None if row is None else Stamp.parse(row.value), self._sure
        assert sure is not None
        if stamp is None or not (sure.token in stamp.before or (stamp.token == sure.token and stamp.n >= sure.n)):
            return _held(Finding.OLDER, stamp, None if row is None else row.at, self._sighting(sure))
        if (stamp.token, stamp.n) != (sure.token, sure.n):
            self._to_note_at = self._to_note_at or self._clock.monotonic() + SURE
        self._stamp = stamp
        return None

    def _note(self) -> None:
        """Note outside how far the database has come."""
        assert self._sightings is not None and self._stamp is not None
        self._to_note_at, self._sure = None, self._stamp
        self._sightings.note(self._sighting(self._stamp), self._stamp, self._notes_at_home)

    def _is_noted(self, here: Here, stamp: Stamp) -> bool:
        """Return whether what would be noted stands there already: a start then writes nothing."""
        new = self._sighting(stamp)
        seen = [here.beside if here.is_original else None, *(here.on_host if self._notes_at_home else [here.beside])]
        same = [each is not None and replace(each, at=0, file=0) == replace(new, at=0, file=0) for each in seen]
        return len(same) > 1 and same[0] and any(same[1:])

    @property
    def _notes_at_home(self) -> bool:
        return bool(self._settings.state_dir) or self._clock.now() - self._made > YOUNG

    def _sighting(self, stamp: Stamp) -> Sighting:
        now = self._clock.now()
        return Sighting(stamp.token, stamp.before, stamp.n, platform.node(), self._where, self._made, now)

    def close(self) -> None:
        """Note what was done last, so that a backup from before is known by it."""
        if self._sightings is None or self._sure is None or self.held is not None:
            return
        worked = self._store.done != self._done and self._clock.now() - self._at >= SECOND
        try:
            back = self._parts.take(self._count) if worked else None
            if back is not None:
                self._hold(back)
            elif self._to_note_at is not None:
                self._note()
        except AWAY as error:
            log.debug("what was done last could not be stamped: %s", error)


def new_stamp(before: tuple[str, ...] = ()) -> Stamp:
    """Return the stamp of a database that nobody sweeps yet."""
    return Stamp(secrets.token_hex(8), before, placed=False)


def restamp(dialect: Dialect, db: Database, now: int) -> None:
    """Take a database for the right one, wherever it is swept next: nothing that was seen of it before counts any more."""
    row = fact(db, STAMP)
    held, old = fact(db, HELD), None if row is None else Stamp.parse(row.value)
    tokens = [] if held is None else [str(token) for token in Held.parse(held.value).tokens]
    tokens += [] if old is None else [*old.before, old.token]
    first, *more = [*dict.fromkeys(tokens)] or [""]
    before = (first, *more[-MOST_BEFORE:]) if first else ()
    dialect.note_fact(db, STAMP, new_stamp(before).text(), now)
    forget_fact(db, HELD)


def gate_of_all(db: Database) -> Gate | None:
    """Return the gate of all, or None."""
    found = Gate.select().where(Gate.sort == ALL, Gate.name == "", Gate.bucket == "").execute(db)
    return next(iter(found), None)


def is_held(db: Database, now: int) -> bool:
    """Return whether all is paused; a person may have paused it, too, since it was found out."""
    row = gate_of_all(db)
    return row is not None and row.paused_at is not None and (row.paused_until is None or row.paused_until > now)


def _held(finding: Finding, stamp: Stamp | None, at: int | None, seen: Sighting | None) -> Held:
    """Return why a database is held back.

    :param at: when its stamp was written.
    :param seen: what says so.
    """
    where = seen.where if seen is not None else "" if stamp is None else stamp.where
    if finding is Finding.OLDER:
        known = f"it knows what was done until {when(at)}" if at is not None else "it is from before it was stamped"
        since = f", and here work was done until {when(seen.at)}" if seen is not None else ""
        why = f"this database was restored from a backup, it seems: {known}{since}"
        if seen is not None:
            return Held(finding.value, why, where, at, seen.at, (*seen.before, seen.token))
        return Held(finding.value, why, where, at)
    what = "is a copy" if finding is Finding.COPIED else "comes from elsewhere"
    whose = f" on {stamp.host}" if stamp is not None and stamp.host != platform.node() else ""
    last = f", last on {when(at)}" if at is not None else ""
    return Held(finding.value, f"this database {what}, it seems: it was swept as {where}{whose}{last}", where, at)
