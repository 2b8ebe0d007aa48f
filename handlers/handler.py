"""A handler: the site's function for a kind, and the raises of its flags."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial, update_wrapper
from inspect import iscoroutinefunction
from operator import itemgetter
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from ..adapters.over import VerbsOver
from ..adapters.rows import OwnRows
from ..config import Clock, Overrides, Settings
from ..databases.raising import Occurrence, Terms
from ..errors import ConfigError, PayloadError, SignatureError
from ..models import Raised, SiteVerbs
from ..payloads import CHUNK, RESULT_LIMIT, Calls, Item, chunks_of, element, short
from ..schedules.declared import Declarations, Declared, module_of
from .options import AS_EVER, OF_CODE, Options, Raise
from .tracing import is_traced, raising

UNFIT_FOR_ROWS = ("key", "expires", "debounce", "longest", "replace")
"""Options of a raise that do not go with a row of the site's: the row says what is owed, and discovery raises it, too."""

MOST_BYTES = 1_048_576
"""The largest payload that a setting allows."""

P = ParamSpec("P")
R = TypeVar("R")


Verbs = SiteVerbs | VerbsOver


class Opened(Protocol):
    """What is there of a FlagSweep once it is in use."""

    @property
    def settings(self) -> Settings: ...

    @property
    def verbs(self) -> SiteVerbs: ...

    def verbs_over(self, connection: Any) -> Verbs:
        """Return the verbs of a raise over a connection; None: the FlagSweep's own."""

    async def awaited(self, connection: Any, do: Callable[[Verbs], Any]) -> Any:
        """Do something with them where the connection's layer has to be waited for."""

    def tell(self, commits: Any, lane: str, kind: str, priority: int) -> None:
        """Tell consumers, once the open transaction commits, that a flag is due. Never raises, never waits."""


class Site(Protocol):
    """What a handler needs of its FlagSweep."""

    clock: Clock

    @property
    def declared(self) -> Declarations:
        """What is to be raised again and again."""

    def opened(self) -> Opened: ...

    def overrides(self) -> Overrides:
        """Return what settings say of kinds, as far as these are known already."""

    def enter(self, rows: OwnRows) -> None:
        """Have own rows take note of the database, where it is known already."""


class Handler(Generic[P, R]):
    """Stay the function that was decorated, and raise flags for it.

    Without arguments, or with ``unique=True`` and the same arguments, a raise meets the flag that is up already.
    """

    def __init__(self, site: Site, function: Callable[P, R], options: Options, rows: OwnRows | None = None):
        self.function = function
        self.options = options
        self.kind = options.kind
        self.lane = options.lane
        self.rows = rows
        self.result_limit = RESULT_LIMIT
        self.spare = False
        """Whether nobody but a flag of its kind brings it up: it is there in case one comes."""
        self._site = site
        self.overrides: Mapping[str, Any] = {}
        """The options that settings say instead of the code."""
        self._calls = Calls(options.kind, function, rows is not None, options.unique, options.per)
        self.signature, self.wants_flag = self._calls.signature, self._calls.wants_flag
        self.is_async = iscoroutinefunction(function)
        update_wrapper(self, function)

    @property
    def module(self) -> str:
        """The module that its function is in."""
        return str(getattr(self.function, "__module__", None) or "?")

    def override(self, given: Mapping[str, Any], overrides: Overrides) -> None:
        """Have what settings say of this kind hold from now on.

        :param given: the options that the code gives.
        :raises ConfigError: naming the kind, every bad option, and where it stands.
        """
        if (table := overrides.get(self.kind, {})) == self.overrides:
            return
        fixed = OF_CODE if self.rows is None else (*OF_CODE, *UNFIT_FOR_ROWS, "per")
        options = Options.overridden(self.kind, given, table, overrides.where, fixed)
        try:
            self._calls = Calls(self.kind, self.function, self.rows is not None, options.unique, options.per)
        except ConfigError as error:
            raise ConfigError(f"[kinds.{self.kind}] of {overrides.where}: {error}") from error
        self.options, self.lane, self.overrides = options, options.lane, table

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.kind!r} in lane {self.lane!r}>"

    def raise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put this flag up, in the transaction that is open on ``flags.database`` if there is one.

        :return: the flag's id, and ``new``, ``coalesced``, ``bumped`` or ``revived``.
        :raises SignatureError: where the handler would not accept the arguments.
        :raises PayloadError: where they are not JSON, too large or too deep.
        :raises NotReady: where the database or its tables are missing.
        :raises DatabaseAway: where it cannot be written just now. With either, nothing was raised.
        """
        return self._raise(AS_EVER, args, kwargs)

    def raise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up in one transaction.

        :param arguments: for each flag a dict of keyword arguments or a tuple of positional ones.
        :return: how many were new, coalesced, bumped and revived.
        :raises SignatureError, PayloadError: naming the item; then none was raised.

        On SQLite they run in the order given, where due time and priority are the same. On a server they are written in the
        order of their keys, so that two that raise the same flags never wait for each other.
        """
        return self._raise_many(AS_EVER, arguments)

    async def araise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put this flag up as ``raise_flag`` does, over a connection that has to be waited for, such as an ``AsyncSession``."""
        return await self._araise(AS_EVER, self._raised, args, kwargs)

    async def araise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up as ``raise_many`` does, over a connection that has to be waited for."""
        return await self._araise(AS_EVER, self._raised_many, arguments)

    def using(
        self,
        delay: object = None,
        at: datetime | None = None,
        key: str | None = None,
        priority: int | None = None,
        expires: object = None,
        debounce: object = None,
        longest: object = None,
        replace: bool | None = None,
        connection: Any = None,
    ) -> Using[P]:
        """Set options for one raise: ``send.using(delay="5m").raise_flag(17)``.

        :param delay: how long to wait before it is due: seconds, a ``timedelta`` or text such as ``"5m"``.
        :param at: instead, when: a ``datetime`` with a time zone. Past times are refused.
        :param key: what makes the flag this flag, instead of its arguments: up to 200 characters.
        :param priority: -100 to 100, the higher the sooner.
        :param expires: how long after it is due the work is worth doing, or a ``datetime`` until when: later it is lowered unrun.
        :param debounce: it is due so long after the latest raise.
        :param longest: but at the latest so long after the first.
        :param replace: False: where it waits already, the payload and expiry of the first raise hold.
        :param connection: the site's own, in whose open transaction it is raised: of Peewee, Django (or an alias), SQLAlchemy, or
            a driver; or a function that returns one. See docs/embedding.md.
        :raises ConfigError: naming every bad option at once.
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        if self.rows is not None and (unfit := [name for name in UNFIT_FOR_ROWS if given.get(name) is not None]):
            raise ConfigError(
                f"{self.kind} is raised for a row, and its primary key is the flag's: leave out "
                + ", ".join(f"{name}={short(given[name])}" for name in unfit)
            )
        return Using(self, Raise.checked(given, self.options, self._site.clock.now()))

    # Schedules.

    def every(self, interval: object, **plan: Any) -> Handler[P, R]:
        """Have a flag raised again and again: ``report.every("10m")``.

        :param interval: seconds, a ``timedelta`` or text such as ``"1h30m"``; 1 second and more.
        :param plan: ``name`` (by default the kind), ``arguments`` (a dict, or a tuple of positional ones), ``tz`` (the zone
            of its times; by default the setting ``timezone``), and what becomes of times that were missed: ``missed`` is
            ``"once"`` (one run for all), ``"skip"`` (none that is later than ``grace``, 60 s) or ``"all"`` (one for each
            of the latest ``cap``, 100).
        :raises ConfigError: where the spec is none, or the name is taken.

        The schedule is a row, written when a consumer starts; what is changed there by hand wins over the code.
        """
        self._declare("every", interval, sys._getframe(1).f_globals, **plan)
        return self

    def cron(self, spec: str, **plan: Any) -> Handler[P, R]:
        """Have a flag raised at the times of a cron expression: ``report.cron("0 4 * * 1", tz="Asia/Seoul")``.

        :param plan: as for ``every``.
        """
        self._declare("cron", spec, sys._getframe(1).f_globals, **plan)
        return self

    def at(self, moment: object, **plan: Any) -> Handler[P, R]:
        """Have a flag raised once: at a ``datetime``, or at what the clock of ``tz`` shows, such as ``"2026-12-24 18:00"``.

        :param plan: as for ``every``.
        """
        self._declare("at", moment, sys._getframe(1).f_globals, **plan)
        return self

    def _declare(
        self,
        sort: str,
        spec: object,
        names: dict[str, Any],
        name: str | None = None,
        arguments: Mapping[str, Any] | tuple = (),
        tz: str | None = None,
        **plan: Any,
    ) -> None:
        item = self.item_of(arguments, MOST_BYTES)
        single = self.options.unique
        declared = Declared(name or self.kind, self.kind, item, sort, spec, tz, plan, module_of(names), single)
        self._site.declared.add(declared)

    def item_of(self, arguments: Mapping[str, Any] | tuple, limit: int) -> Item:
        """Return key, payload and bucket of a call.

        :param arguments: a dict of keyword arguments or a tuple of positional ones.
        :raises ConfigError: where the handler is for rows of the site's, which no schedule names.
        :raises SignatureError, PayloadError: where it would not accept them, or they are no JSON.
        """
        if self.rows is not None:
            raise ConfigError(f"{self.kind} is work for rows of the site's own: the rows say when, and no schedule")
        args, named = ((), dict(arguments)) if isinstance(arguments, Mapping) else (tuple(arguments), {})
        return self._calls.written(args, named, limit)

    def bucket_of(self, payload: str) -> str | None:
        """Return the bucket of a payload that is written already."""
        return self._calls.bucket_of(payload)

    def terms(self, occurrence: Occurrence) -> Terms:
        """Return how its flags are raised for a time of a schedule."""
        return AS_EVER.terms(self.options, self._site.clock.now())._replace(occurrence=occurrence)

    # Raising.

    def _raise(self, said: Raise, args: tuple, kwargs: dict) -> Raised:
        opened = self._site.opened()
        return self._raised(opened, opened.verbs_over(said.connection), said, args, kwargs)

    def _raise_many(self, said: Raise, arguments: Iterable[Any]) -> Counter[str]:
        opened = self._site.opened()
        return self._raised_many(opened, opened.verbs_over(said.connection), said, arguments)

    async def _araise(self, said: Raise, do: Callable[..., Any], *what: Any) -> Any:
        opened = self._site.opened()
        return await opened.awaited(said.connection, lambda verbs: do(opened, verbs, said, *what))

    def _raised(self, opened: Opened, verbs: Verbs, said: Raise, args: tuple, kwargs: dict) -> Raised:
        item = self._item(opened, args, kwargs)
        terms = said.terms(self.options, self._site.clock.now())
        item = item if said.key is None else item._replace(key=said.key)
        if is_traced():
            with raising(self.kind, self.lane) as trace:
                raised = verbs.raise_(self.kind, item, terms._replace(trace=trace))
        else:
            raised = verbs.raise_(self.kind, item, terms)
        if terms.due_at <= terms.now:
            opened.tell(verbs.commits, self.lane, self.kind, terms.priority)
        return raised

    def _raised_many(self, opened: Opened, verbs: Verbs, said: Raise, arguments: Iterable[Any]) -> Counter[str]:
        if said.key:
            raise ConfigError(f"key={said.key!r} names one flag: raise it with raise_flag, or leave the keys to raise_many")
        terms = said.terms(self.options, self._site.clock.now())
        chunks = self._chunks(opened, arguments)
        if is_traced():
            with raising(self.kind, self.lane) as trace:
                counts = verbs.raise_many(self.kind, chunks, terms._replace(trace=trace))
        else:
            counts = verbs.raise_many(self.kind, chunks, terms)
        if terms.due_at <= terms.now:
            opened.tell(verbs.commits, self.lane, self.kind, terms.priority)
        return counts

    def _chunks(self, opened: Opened, arguments: Iterable[Any]) -> list[str]:
        """Return the items of a ``raise_many`` as statements take them."""
        limit = opened.settings.payload_limit
        long_way = partial(self._numbered_item, opened)
        keyed: Iterable[tuple[str, str, str | None]]
        if self.rows is None:
            keyed = self._calls.keyed(arguments, limit, long_way)
        else:
            keyed = (long_way(index, item) for index, item in enumerate(arguments))
        if not opened.verbs.dialect.one_writer:  # Two that raise the same flags in different orders would deadlock.
            keyed = sorted(keyed, key=itemgetter(0))
        items = [element(*item) for item in keyed]
        return [chunk for start in range(0, len(items), CHUNK) for chunk in chunks_of(items[start : start + CHUNK])]

    def _numbered_item(self, opened: Opened, index: int, item: Any) -> Item:
        if not isinstance(item, (dict, tuple)):
            raise SignatureError(
                f"item {index} of raise_many must be a dict of keyword arguments or a tuple of positional ones, got {item!r}"
            )
        args, kwargs = ((), item) if isinstance(item, dict) else (item, {})
        try:
            return self._item(opened, args, kwargs)
        except PayloadError as error:
            raise type(error)(f"item {index} of raise_many: {error}") from error

    def _item(self, opened: Opened, args: tuple, kwargs: dict) -> Item:
        """Return key, payload and bucket, all as text, for one call."""
        if self.rows is not None:
            return self.rows.item(self._calls.bind(args, kwargs), opened.verbs)
        return self._calls.written(args, kwargs, opened.settings.payload_limit)


class Using(Generic[P]):
    """A handler with options for one raise."""

    def __init__(self, handler: Handler[P, Any], options: Raise):
        self._handler = handler
        self._options = options

    def raise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put the flag up as ``Handler.raise_flag`` does, with these options."""
        return self._handler._raise(self._options, args, kwargs)

    def raise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up as ``Handler.raise_many`` does, with these options but without a key."""
        return self._handler._raise_many(self._options, arguments)

    async def araise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put the flag up as ``Handler.araise_flag`` does, with these options."""
        return await self._handler._araise(self._options, self._handler._raised, args, kwargs)

    async def araise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up as ``Handler.araise_many`` does, with these options but without a key."""
        return await self._handler._araise(self._options, self._handler._raised_many, arguments)
