"""What the log gets: text that stays on its line, once a minute what would fill it, and how long something is away."""

from __future__ import annotations

import json
import logging
import math
import re
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

log = logging.getLogger("flagsweep")

ERROR_LIMIT = 8192
"""Bytes of error text that are kept with a flag."""

_STARTS = ("Traceback (most recent call last):", "  + Exception Group Traceback (most recent call last):")
"""Lines behind which the last error of a text is told, and the last group of errors."""

_OF_A_GROUP = re.compile(r"^[ |+-]*\| (?!Traceback \(most recent call last\):$)(\S.*)$")
"""A line of an exception group, as Python prints it, that names the group or a part of it."""


# Text.


def printable(text: str) -> str:
    """Return text that stays on its line of the log: characters that steer a terminal are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clean(text: str) -> str:
    """Return text that every database takes: no NUL, no lone surrogates, and the last 8 KiB of it."""
    data = text.replace("\0", "\\0").encode("utf-8", "backslashreplace")
    if len(data) > ERROR_LIMIT:
        data = b"... " + data[4 - ERROR_LIMIT :]
    return data.decode("utf-8", "ignore")


def describe(error: BaseException) -> str:
    """Return the traceback as clean text. Never raises, whatever ``__str__`` of the error does."""
    try:
        text = "".join(traceback.format_exception(type(error), error, theirs(error), limit=-12)).rstrip()
    except Exception:
        text = f"{type(error).__name__} (its text cannot be shown)"
    return clean(text)


def theirs(error: BaseException) -> TracebackType | None:
    """Return the traceback without the frames of our own sweep."""
    trace, ours = error.__traceback__, f"{__package__}.sweep."
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(ours):
        trace = trace.tb_next
    return trace


def headline(error: str) -> str:
    """Return the line of an error's text that names it: of a traceback the one behind the last frame, else the first.

    Of a group it is the group's own, and that of its first part.
    """
    lines = error.strip("\n").rstrip().splitlines() or [""]
    starts = [number for number, line in enumerate(lines) if line in _STARTS]
    after = lines[starts[-1] + 1 :] if starts else lines
    if (starts and lines[starts[-1]] == _STARTS[1]) or (after[:1] and after[0].startswith("  | ")):
        names = [match[1] for line in after if (match := _OF_A_GROUP.match(line))]
        return printable(": ".join(names[:2]))
    return printable(next((line for line in after if not line.startswith(" ")), lines[-1]))


# Events.

EVENT = 5
"""The level of events: below that of every line of text, so that nothing but JSON logs asks for them."""

AS_EVENT = {"as_event": True}
"""What a line of text has besides of which an event tells, too: JSON logs leave the line out."""

_events = logging.getLogger("flagsweep.events")


def tells_events() -> bool:
    """Return whether anybody wants events: whoever would have to gather something for them asks first."""
    return _events.isEnabledFor(EVENT)


def tell_event(event: str, level: int = logging.INFO, **what: Any) -> None:
    """Tell of an event, where anybody wants it.

    :param event: its name, one word; ``what``: what is known of it, small and printable as JSON. No payload.
    """
    if tells_events():
        of = f" {what['kind']} (flag {what['flag']})" if "flag" in what else ""
        _events.log(EVENT, "%s%s", event, of, extra={"event": {"event": event, "level": logging.getLevelName(level), **what}})


class JsonLines(logging.Formatter):
    """Write a record as one line of JSON: an event with all that it tells, or the text of another line.

    Whatever a site's data holds, it is one line: JSON in ASCII spells out every character that could end or steer it.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = getattr(record, "event", None)
        if told is None:
            told = {"event": "log", "level": record.levelname, "logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[1] is not None:
                told["error"] = headline(describe(record.exc_info[1]))
        return json.dumps({"at": at, **told}, default=str)


# Time.


class Seldom:
    """Let something be told once a minute."""

    EVERY = 60.0
    """Seconds from one time to the next."""

    def __init__(self) -> None:
        self._next = -math.inf

    def may_tell(self, now: float | None = None) -> bool:
        """Return whether to tell it, and take note that it is told.

        :param now: seconds of the monotonic clock; by default the system's.
        """
        now = time.monotonic() if now is None else now
        if now < self._next:
            return False
        self._next = now + self.EVERY
        return True

    def begin_anew(self) -> None:
        """Have the next one be told, whenever the last was."""
        self._next = -math.inf


class Outage:
    """Keep count of how long something is away: a line in the log when it goes, one a minute, and one when it is back.

    :param what: what may be away, without a password.
    :param so: what that means for the reader.
    :param hide: what no error may show.
    """

    FIRST, LONGEST = 1.0, 30.0
    """Seconds to wait after the first error, which double, and at the most."""

    def __init__(self, what: str, so: str, level: int = logging.WARNING, hide: Sequence[str] = ()):
        self.since: float | None = None
        self._what = what
        self._so = so
        self._level = level
        self._hide = hide
        self._seldom = Seldom()
        self._said = False
        self._wait = self.FIRST

    def tell(self, error: BaseException) -> float:
        """Take note that it did not do what it was asked; return the seconds to wait before it is asked again."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
        if self._seldom.may_tell(now):
            self._said = True
            long = f" since {now - self.since:.0f} s" if now - self.since >= 1 else ""
            # Its text: the error itself would hold a cursor, and with it the connection, as long as the record is kept.
            log.log(self._level, "%s is away%s: %s; %s", self._what, long, self._plain(error), self._so)
        wait, self._wait = self._wait, min(self.LONGEST, self._wait * 2)
        return wait

    def is_back(self) -> None:
        """Take note that it answers."""
        since, self.since = self.since, None
        self._wait = self.FIRST
        if since is not None and self._said:
            self._said = False
            log.info("%s is back after %.0f s", self._what, time.monotonic() - since)

    def _plain(self, error: BaseException) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in self._hide:
            text = text.replace(secret, "***")
        return text[:300]
