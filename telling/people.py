"""People: whom the setting ``tell`` names hears of deaths and alarms. A message is a flag, so that it is kept and tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..config import SECOND, Clock, Settings
from ..errors import ConfigError, Discard, FlagSweepError
from ..handlers import Handler, Handlers
from ..logs import headline, printable
from ..models import AWAY, Fact
from ..sweep.claims import Store
from ..sweep.notices import Failure, Notices
from .alarms import Alarm
from .discreet import digest_of, discreet
from .mail import NotSent, send
from .turns import Turns, is_new, take

log = logging.getLogger("flagsweep")

TELL = "flagsweep.tell"
"""The kind of messages. What dies of it is told to nobody, or a mail server that is down would be told by mail."""

LANE = "flagsweep"
"""The lane of what flagsweep does itself: a lane that stands still must not keep its own alarm."""

OURS = "flagsweep."

EVERY = 3600.0
"""Seconds from one message of a cause to the next."""

MOST = 20
"""Messages of deaths within an hour, of all causes."""

ERROR = 600
"""Characters of an error."""


class People:
    """Tell people by mail, and by what apprise knows.

    :param name: returns what the site is called.
    """

    def __init__(self, store: Store, settings: Settings, handlers: Handlers, clock: Clock, name: Callable[[], str]):
        self._store = store
        self._connections = store.connections
        self._settings = settings
        self._clock = clock
        self._name = name
        self._turns = Turns(store.connections, clock)
        self._deaths = Notices("tell", store.connections.close_thread)
        self._deaths.listeners.append(self._died)
        self._handler = add(handlers, TELL, partial(_deliver, settings), {"max_attempts": 10, "expires": "1d"})

    def died(self, failure: Failure) -> None:
        """Tell of a death, unless its cause was told within the hour. Never raises, never waits."""
        if not failure.kind.startswith(OURS) and self._turns.may_ask(_cause(failure), EVERY):
            self._deaths.tell(failure)

    def alarm(self, alarm: Alarm) -> None:
        """Tell of an alarm, within the transaction that notes it."""
        fixes = "\n\nflagsweep check\nflagsweep gates\nflagsweep doctor" if alarm.event == "began" else ""
        late = f"lane {alarm.lane} {'late' if alarm.event == 'began' else 'well again'}"
        self._raise(f"flagsweep: {late} on {self._name()}", f"{alarm.text}{fixes}")

    def flush(self) -> None:
        """Wait until what happened so far is kept as flags."""
        self._deaths.flush()

    def say(self, title: str, body: str) -> None:
        """Send one message to everybody, as flags in a transaction of their own."""
        with self._connections.write():
            self._raise(title, body)

    def _died(self, failure: Failure) -> None:
        title = f"flagsweep: {failure.kind} died on {self._name()}"
        body = (
            f"{failure.kind}, key {discreet(failure.key)} (flag {failure.flag}), is dead after attempt {failure.attempt}:\n"
            f"{headline(failure.error)[:ERROR]}\n\nOthers that die of it within the hour are not told.\n\n"
            f"flagsweep show {failure.flag}\nflagsweep dead\nflagsweep retry {failure.flag}"
        )
        try:
            with self._connections.write():
                now = self._clock.now()
                if take(self._connections, _cause(failure), EVERY, now) and (room := self._room(now)):
                    self._raise(title, body if room > 1 else f"{body}\n\nNo other death is told within this hour.")
        except AWAY as error:
            log.error("nobody is told of the death of %s (flag %d): %s", failure.kind, failure.flag, printable(str(error)))

    def _room(self, now: int) -> int:
        """Take one of the hour's messages; return how many there were before."""
        name, hour = f"told:hour:{now // (3600 * SECOND)}", self._connections.engine
        if is_new(self._connections, name, "1", now):
            return MOST
        (row,) = Fact.select(Fact.value).where(Fact.name == name).tuples().execute(hour) or (("0",),)
        told = int(row[0]) if str(row[0]).isdigit() else MOST
        Fact.update(value=str(told + 1)).where(Fact.name == name).execute(hour)
        return max(0, MOST - told)

    def _raise(self, title: str, body: str) -> None:
        """Raise a flag for each target within the open transaction. It names its target, and not its URL, which is secret."""
        for target in self._settings.tell:
            arguments = {"target": digest_of(target), "title": printable(title)[:150], "body": body[:4000]}
            item = self._handler.item_of(arguments, 32_768)
            terms = self._handler.terms(None)  # type: ignore[arg-type]
            self._connections.dialect.raise_over(self._connections.engine.execute_sql, TELL, item, terms)


def add(handlers: Handlers, kind: str, function: Callable[..., Any], options: dict[str, Any]) -> Handler:
    """Return the handler of a kind of ours, which is made once."""
    if kind in handlers.by_kind:
        return handlers.by_kind[kind]
    return handlers.add(function, kind, {"lane": LANE, "backoff": None, "breaker": None, **options})


def shown(target: str) -> str:
    """Return a target without its secrets."""
    return f"{target.partition('://')[0]}://***" if "://" in target else target


def _cause(failure: Failure) -> str:
    return f"tell:{digest_of(failure.kind, failure.fingerprint)}"


def _deliver(settings: Settings, target: str, title: str, body: str) -> None:
    """Send one message to one target."""
    url = next((each for each in settings.tell if digest_of(each) == target), None)
    if url is None:
        raise Discard("the setting tell no longer names whom it was for")
    if "://" in url:
        _by_apprise(url, title, body)
    else:
        send(settings, url, title, body)


def _by_apprise(url: str, title: str, body: str) -> None:
    try:
        import apprise
    except ImportError:
        raise ConfigError(f"tell names {shown(url)}, which needs a package: pip install 'flagsweep[apprise]'") from None
    with _quiet():
        sender = apprise.Apprise()
        known = sender.add(url)
        done = bool(known and sender.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT))
    if not known:
        raise FlagSweepError(f"tell names {shown(url)}, which apprise does not understand")
    if not done:
        raise NotSent(f"a message to {shown(url)} was not sent: apprise says no more")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what apprise logs meanwhile out of the log, from whichever of its threads: it has URLs, and with them secrets."""
    logger = logging.getLogger("apprise")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
