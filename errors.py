"""Everything flagsweep raises, and the three outcomes that a handler may raise."""

from __future__ import annotations

from collections.abc import Iterable


class FlagSweepError(Exception):
    """Stand above every error of flagsweep, so that one ``except`` catches them all."""


class ConfigError(FlagSweepError, ValueError):
    """Tell every problem found in the settings at once.

    :param problems: one readable sentence each.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class PayloadError(FlagSweepError, ValueError):
    """Refuse arguments that cannot be kept as JSON, or are too large or too deep."""


class SignatureError(PayloadError, TypeError):
    """Refuse arguments that the handler would not accept."""


class UnknownKind(FlagSweepError, LookupError):
    """Name a kind that no handler is registered for."""


class UnknownSchedule(FlagSweepError, LookupError):
    """Name a schedule that is not there, and the nearest names that are."""


class NotReady(FlagSweepError):
    """Say that the database or its tables are missing, damaged, or newer than this code: it takes a person to go on."""


class LaneStuck(FlagSweepError):
    """Say why a lane could do nothing any more, so that the consumer ended: what watches over it is to start it again."""


class LeaseHeld(FlagSweepError):
    """Say which consumer holds the lease that this one asked for."""


class DatabaseAway(FlagSweepError):
    """Say that the database could not be read or written just now: locked, full, read-only, failing. Nothing is half done."""


class ClaimLost(FlagSweepError):
    """Say that a flag is no longer this consumer's: an atomic handler rolls back, and whoever has the flag now decides."""


class NotDone(FlagSweepError, TimeoutError):
    """Say that what was waited for was not done within its time, and in which state it is."""


class Outcome(Exception):
    """Stand above what a handler raises to choose its outcome. None of these is a failure of its own."""


class Snooze(Outcome):
    """Ask for later: the flag waits again and no attempt is counted.

    :param delay: seconds, a ``timedelta`` or text such as ``"5m"``.
    """

    def __init__(self, delay: object):
        self.delay = delay
        super().__init__(f"snoozed for {delay}")


class Discard(Outcome):
    """Lower the flag although the work was not done.

    :param reason: kept in the history and the log.
    """

    def __init__(self, reason: str = ""):
        self.reason = reason
        super().__init__(reason or "discarded by its handler")


class Retry(Outcome):
    """Count the attempt as failed and try again.

    :param after: seconds, a ``timedelta`` or text such as ``"5m"``; without it the handler's backoff.
    :param reason: kept as the flag's error.
    :param all: the other flags of its kind, or of its bucket where the kind has ``per``, wait for that long, too: one 429 holds
        back the others.
    """

    def __init__(self, after: object = None, reason: str = "", *, all: bool = False):
        self.after = after
        self.all = all
        super().__init__(reason or "asked to be tried again")
