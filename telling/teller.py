"""Who is told what happened: functions of the site's, Sentry, and the people whom settings name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from ..consumer.opened import Opened, Opening
from ..durations import microseconds
from ..errors import ConfigError
from ..handlers import Handlers
from ..payloads import short
from ..sweep.lane import OnOutage
from ..sweep.notices import Failure, Notices, OnDead

if TYPE_CHECKING:
    from .alarms import Alarm, Alarms
    from .digest import Digest, Digested
    from .people import People
    from .sentry import Sentry

OnFailure = Callable[[Failure], Any]
F = TypeVar("F", bound=Callable[..., Any])


class Teller:
    """Tell the site in threads of its own, one for each sort of listener, so that none holds up another, or the work.

    :param opening: what knows the settings.
    """

    def __init__(self, opening: Opening):
        self.deaths = Notices("on_dead")
        self.outages = Notices("on_outage")
        self.failures = Notices("on_failure")
        self.alarms = Notices("on_alarm")
        self._opening = opening
        self._people: People | None = None
        self._sentry: Sentry | None = None
        self._wants: list[tuple[bool, bool]] = []

    def hear_failures(self, function: OnFailure, first: bool, final: bool) -> None:
        """Have a function called with failures."""

        def told(failure: Failure) -> None:
            if (first and failure.first) or (final and failure.final):
                function(failure)

        self._wants.append((first, final))
        self.failures.listeners.append(told)

    def failed(self, failure: Failure, error: BaseException | None) -> None:
        """Tell everybody who wants to know of a flag that failed for the first time, or died. Never raises, never waits."""
        if failure.final:
            self.deaths.tell(failure.kind, failure.key, failure.payload, failure.error)
        if failure.final and self._people is not None:
            self._people.died(failure)
        if any((first and failure.first) or (final and failure.final) for first, final in self._wants):
            self.failures.tell(failure)
        opened = self._opening.opened()
        if opened.settings.sentry and (failure.final or opened.settings.sentry != "final"):
            self._tell_sentry(failure, error)

    def prepare(self, opened: Opened, handlers: Handlers, send: Callable[[str], Any]) -> None:
        """Make what settings switch on, once they are known.

        :param send: sends a digest.
        """
        self._people = self._sentry = None
        if opened.settings.tell:
            from .digest import name_of
            from .people import People

            name = partial(name_of, opened.connections)
            self._people = People(opened.store, opened.settings, handlers, self._opening.clock, name)
        if opened.settings.digest:
            from .daily import DIGEST, declare

            if DIGEST not in handlers.by_kind:
                declare(handlers, opened.settings.digest["to"], opened.settings.digest["at"], send)

    def promises(self) -> Alarms | None:
        """Return what looks whether lanes keep their promises, where any is promised."""
        opened = self._opening.opened()
        if not opened.settings.promise:
            return None
        from .alarms import Alarms

        write = self._people.alarm if self._people is not None else lambda alarm: None
        handlers = self._opening.handlers.by_kind
        return Alarms(opened.store, opened.settings, handlers, self._opening.clock.now, write, self.alarms.tell)

    def say(self, title: str, body: str) -> None:
        """Tell all whom the setting ``tell`` names.

        :raises ConfigError: where it names nobody.
        """
        if self._people is None:
            raise ConfigError("nobody is to be told: give the digest an address, or name somebody in the setting tell")
        self._people.say(title, body)

    def _tell_sentry(self, failure: Failure, error: BaseException | None) -> None:
        if "sentry_sdk" not in sys.modules:
            return
        if self._sentry is None:
            from .sentry import Sentry, is_there

            if not is_there():
                return
            opened = self._opening.opened()
            self._sentry = Sentry(opened.connections, self._opening.clock)
        self._sentry.tell(failure, error)

    def flush(self) -> None:
        """Wait until all that has happened so far has been told, for some seconds at the most."""
        for notices in (self.deaths, self.outages, self.failures, self.alarms):
            notices.flush()
        if self._people is not None:
            self._people.flush()
        if self._sentry is not None:
            self._sentry.flush()


class Tells:
    """Let a site say who is told."""

    _teller: Teller
    _handlers: Handlers

    def on_alarm(self, function: Callable[[Alarm], Any]) -> Callable[[Alarm], Any]:
        """Call a function with an ``Alarm`` where a lane breaks its promise (``event`` is ``began``), and where it keeps it
        again (``ended``): once each, in the consumer that saw it first. Usable as a decorator.

        It runs in a thread of its own; its errors are logged and harm nothing.
        """
        self._teller.alarms.listeners.append(function)
        return function

    def digest_to(self, to: str, at: str = "07:30") -> None:
        """Have a digest mailed each day, by a schedule of the name ``flagsweep.digest``.

        :param at: a time of day, by the setting ``timezone``.
        :raises ConfigError: where either is none.
        """
        from .daily import declare
        from .mail import addresses

        addresses(to)
        declare(self._handlers, to, at, self._send_daily)

    def _send_daily(self, to: str) -> None:
        if to:
            self.send_digest(to)
            return
        from .digest import note_sent

        made = self.digest(to="tell")
        self._teller.say(made.subject, made.text())
        note_sent(cast("Digested", self), "tell", microseconds(made.at))

    def on_dead(self, function: OnDead) -> OnDead:
        """Call ``function(kind, key, payload, error)`` once for every flag that dies, so that the site can tell someone.

        It runs in a thread of its own; its errors are logged and harm nothing. Usable as a decorator.
        """
        self._teller.deaths.listeners.append(function)
        return function

    def on_outage(self, function: OnOutage) -> OnOutage:
        """Call ``function(kind, event, why)`` where the breaker of a kind holds its flags back, since they fail alike (``event``
        is ``began``), and when its provider answers again (``ended``).

        It runs in a thread of its own; its errors are logged and harm nothing. Usable as a decorator.
        """
        self._teller.outages.listeners.append(function)
        return function

    @overload
    def on_failure(self, function: F, /) -> F: ...
    @overload
    def on_failure(
        self, function: None = None, /, *, first: bool | OnFailure | None = None, final: bool | OnFailure | None = None
    ) -> Any: ...

    def on_failure(self, function: Any = None, /, *, first: Any = None, final: Any = None) -> Any:
        """Call a function with a ``Failure`` for the first failed attempt of a flag (``first``), and for its death (``final``).

        ``@flags.on_failure`` alone is told of both; ``@flags.on_failure(final=True)`` of what is named alone; and
        ``flags.on_failure(first=warn, final=page)`` gives each a function of its own. A flag that dies of its first attempt is
        told once to a function that wants both. ``failure.first`` and ``failure.final`` say which it is; the others of
        ``Failure`` are ``kind``, ``key``, ``flag``, ``attempt``, ``error``, ``fingerprint`` and ``payload``.

        It runs in a thread of its own, after the commit; its errors are logged and harm nothing.

        :raises ConfigError: where neither is wanted, or what is given is no function.
        """
        if function is None and not callable(first) and not callable(final):
            wanted = _wanted(first, final)
            return lambda function: self._hear(function, *wanted)
        if function is not None:
            return self._hear(function, *_wanted(first, final))
        for each, wanted in ((first, (True, False)), (final, (False, True))):
            if each not in (None, False):
                self._hear(each, *wanted)
        return self._decorated_already

    def digest(self, since: Any = None, to: str = "") -> Digest:
        """Return on one page how the site is, and what happened: ``subject`` and ``text()``.

        :param since: how far it looks back, a duration; by default to the last one sent to this address, or a day.
        """
        from .digest import digest

        return digest(cast("Digested", self), since, to)

    def send_digest(self, to: str, made: Digest | None = None) -> Digest:
        """Mail a digest, by the settings ``smtp`` and ``mail_from``; the next one to this address tells what came after it.

        :raises NotSent: where the mail server does not take it.
        """
        from .digest import note_sent
        from .mail import addresses, send

        site = cast("Digested", self)
        addresses(to)
        made = self.digest(to=to) if made is None else made
        send(site.settings, to, made.subject, made.text())
        note_sent(site, to, microseconds(made.at))
        return made

    def _hear(self, function: Any, first: bool, final: bool) -> Any:
        if not callable(function):
            raise ConfigError(f"on_failure takes a function that is called with a Failure, got {short(function)}")
        self._teller.hear_failures(function, first, final)
        return function

    def _decorated_already(self, function: Any) -> Any:
        raise ConfigError("on_failure(first=function, final=function) has registered them: it decorates nothing besides")


def _wanted(first: Any, final: Any) -> tuple[bool, bool]:
    """Return whether first and final failures are told: where one is named, what is not named is its contrary."""
    named = [each for each in (first, final) if each is not None]
    unnamed = not any(named)
    wanted = (unnamed if first is None else bool(first), unnamed if final is None else bool(final))
    if not any(wanted):
        raise ConfigError("on_failure(first=False, final=False) would never be called: leave one out, or make it True")
    return wanted
