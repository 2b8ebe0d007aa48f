"""Outcomes: what became of an attempt, and what each kind of it makes of its flag."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from ..adapters.rows import OwnRows, Row
from ..config import SECOND
from ..databases.connections import Connections
from ..gates.fingerprint import fingerprint
from ..handlers import Handler
from ..logs import AS_EVENT, clean, headline
from ..models import Event, record
from .claims import STRIKES, Claimed, Step

log = logging.getLogger("flagsweep")


class Outcome:
    """Say what becomes of a flag: it is lowered where the outcome says so, else its step says how it leaves *claimed*."""

    settled: str | None = None
    """How the flag left *claimed* already: nothing is left to do."""
    again = "again"
    """What it is called where the flag waits again."""
    lowered = "lowered"
    """What it is called where the flag is gone."""
    counted = "succeeded"
    """What it counts as, unless the flag dies."""
    error: str | None = None
    """What is told of an attempt that failed."""
    exception: BaseException | None = None
    fingerprint: str | None = None
    closes = False
    """Whether all others of its kind, or its bucket, wait as long as this flag."""

    def cause(self) -> str:
        """Return what tells failures of one cause from others."""
        return ""

    def kept(self) -> str | None:
        """Return what is kept with its line of history, as JSON, where its kind keeps results."""
        return None

    def lowers(self, handler: Handler) -> bool:
        """Return whether the flag comes down."""
        return False

    def lowers_row(self, claimed: Claimed) -> bool:
        """Return whether a row of the site's comes down with the flag."""
        return False

    def lower_row(self, connections: Connections, handler: Handler, claimed: Claimed, now: int) -> None:
        """Do what goes with a flag that was lowered just now, in the same transaction."""

    def step(self, handler: Handler, claimed: Claimed, now: int) -> Step:
        """Return how a claimed flag leaves *claimed* where it is not lowered.

        :param now: microseconds UTC.
        """
        raise NotImplementedError(f"{type(self).__name__} is not settled by a step")

    def wait(self, handler: Handler, claimed: Claimed) -> float:
        """Return the seconds until the flag may be tried again."""
        return 0.0

    def tell(self, claimed: Claimed, how: str) -> None:
        """Say what is to be said of a flag that was lowered, once that has committed."""


@dataclass(frozen=True)
class Lowered(Outcome):
    """The work is done.

    :param row: the own row whose column comes down with the flag.
    :param result: what the handler returned, as JSON, where its kind keeps results.
    """

    row: Row | None = None
    result: str | None = None

    def kept(self) -> str | None:
        return self.result

    def lowers(self, handler: Handler) -> bool:
        return True

    def lowers_row(self, claimed: Claimed) -> bool:
        return claimed.row is not None and self.row is not None

    def lower_row(self, connections: Connections, handler: Handler, claimed: Claimed, now: int) -> None:
        if self.row is not None and (rows := _lowered_after(handler)) is not None:
            rows.lower_done(connections.engine, connections.dialect, self.row)


@dataclass(frozen=True)
class Settled(Outcome):
    """Nothing is left to settle: ``lowered`` or ``again`` by an atomic handler's own transaction."""

    settled: str


@dataclass(frozen=True)
class Failed(Outcome):
    """The attempt failed.

    :param after: seconds until the next, instead of the handler's backoff.
    :param closes: all other flags of its kind, or its bucket, wait for that long, too.
    :param fingerprint: what tells failures of one cause from others; None: it says nothing of the kind's provider.
    """

    error: str
    exception: BaseException
    after: float | None = None
    final: bool = False
    closes: bool = False
    fingerprint: str | None = None
    counted = "failed"

    def kept(self) -> str:
        of = type(self.exception)
        return json.dumps({"exception": f"{of.__module__}.{of.__qualname__}", "error": self.error})

    def step(self, handler: Handler, claimed: Claimed, now: int) -> Step:
        attempts, forgiven = claimed.before + 1, claimed.attempts - claimed.before
        if self.final or attempts >= handler.options.max_attempts:
            return Step("dead", attempts, now, 0, _longest(handler, now), error=self.error, died_as=self.cause())
        failed, most = (claimed.strikes or 0) + forgiven + attempts, STRIKES * handler.options.max_attempts
        if claimed.strikes is not None and failed >= most:
            error = f"{self.error}\nIt came further each time, and has failed {failed} times without a success."
            return Step("dead", attempts, now, 0, _longest(handler, now), error=error, died_as=self.cause())
        due = now + int(self.wait(handler, claimed) * SECOND)
        return Step("waiting", attempts, due, attempts, due, error=self.error, strikes=forgiven)

    def wait(self, handler: Handler, claimed: Claimed) -> float:
        return handler.options.backoff.delay(claimed.before + 1) if self.after is None else self.after

    def cause(self) -> str:
        return self.fingerprint or fingerprint(self.exception)


@dataclass(frozen=True)
class Snoozed(Outcome):
    """The handler asked for later, in so many seconds."""

    delay: float
    again = counted = "snoozed"

    def step(self, handler: Handler, claimed: Claimed, now: int) -> Step:
        due, attempts = now + int(self.delay * SECOND), claimed.before
        made_good = 0 if claimed.strikes is None else claimed.attempts - 1
        return Step("waiting", attempts, due, attempts, due, earlier=True, strikes=made_good)


class CutOff(Snoozed):
    """The consumer could wait no longer and cancelled it: what was still to do is done by whoever claims it next."""

    again = "released"


@dataclass(frozen=True)
class Parked(Outcome):
    """The flag cannot be run at all: its row is damaged."""

    reason: str
    counted = "dead"

    @property
    def error(self) -> str:  # type: ignore[override]
        return self.reason

    def cause(self) -> str:
        return "parked"

    def step(self, handler: Handler, claimed: Claimed, now: int) -> Step:
        error = clean(f"parked: {self.reason}")
        return Step("dead", claimed.attempts, now, 0, _longest(handler, now), error=error, died_as=self.cause())


@dataclass(frozen=True)
class Discarded(Parked):
    """The handler gave the work up. Where a condition would find it anew, the flag stays, parked."""

    lowered = counted = "discarded"

    def lowers(self, handler: Handler) -> bool:
        return handler.rows is None or handler.rows.column is not None

    def lowers_row(self, claimed: Claimed) -> bool:
        return claimed.row is not None

    def lower_row(self, connections: Connections, handler: Handler, claimed: Claimed, now: int) -> None:
        if (rows := _lowered_after(handler)) is not None:
            where = (connections.engine, connections.dialect)
            rows.lower(*where, claimed.key) if claimed.row is None else rows.lower_done(*where, claimed.row)
        record(connections.engine, [Event(claimed.id, claimed.kind, claimed.key, "discarded", self.reason)], now)

    def tell(self, claimed: Claimed, how: str) -> None:
        log.info("%s (flag %d) %s: %s", claimed.kind, claimed.id, how, headline(self.reason), extra=AS_EVENT)


class Expired(Outcome):
    """It was not worth doing any more before it began: lowered unrun, with a line of history."""

    lowered = counted = "expired"

    def lowers(self, handler: Handler) -> bool:
        return True

    def lower_row(self, connections: Connections, handler: Handler, claimed: Claimed, now: int) -> None:
        late = (now - (claimed.rare.expires_at or now)) / SECOND
        record(
            connections.engine, [Event(claimed.id, claimed.kind, claimed.key, "expired", f"{late:.0f} s too late, unrun")], now
        )

    def tell(self, claimed: Claimed, how: str) -> None:
        log.info("%s (flag %d) was not worth doing any more: %s", claimed.kind, claimed.id, how, extra=AS_EVENT)


class NotStarted(Outcome):
    """Its claim was given back just as a thread took it: whoever claims it next runs it."""


DONE = Lowered()
EXPIRED = Expired()
NOT_STARTED = NotStarted()
CUT_OFF = CutOff(0.0)


def succeeded(claimed: Claimed, outcome: Outcome, took: float) -> Event:
    """Return the line of history of a success.

    :param took: seconds that the handler ran.
    """
    return attempted(claimed, outcome, "succeeded", "", took)


def attempted(claimed: Claimed, outcome: Outcome, event: str, reason: str, took: float) -> Event:
    """Return the line of history of an attempt; with what is kept of it, where its kind keeps results."""
    ran = (claimed.attempts + 1, int(took * SECOND))
    kept = () if claimed.generation is None else (claimed.generation, claimed.consumer, outcome.kept())
    return Event(claimed.id, claimed.kind, claimed.key, event, reason, *ran, *kept)


def _lowered_after(handler: Handler) -> OwnRows | None:
    """Return the rows whose columns come down with their flags; what comes down before is down already."""
    return None if handler.rows is None or handler.rows.early else handler.rows


def _longest(handler: Handler, now: int) -> int:
    return now + int(handler.options.backoff.longest() * SECOND)
