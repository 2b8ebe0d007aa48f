"""The registry: which handler does which kind, and how a site registers them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import Any, get_overloads, overload

from ..adapters.rows import OwnRows
from ..config import Backoff, Overrides, Problems
from ..errors import ConfigError, UnknownKind
from ..gates.budgets import Budget
from ..gates.quiet import Quiet
from ..gates.rates import Rate
from ..modules import import_matching
from ..payloads import short
from ..schedules.declared import Declarations
from .handler import UNFIT_FOR_ROWS, Handler, P, R, Site
from .options import Options


class Handlers:
    """Hold the handlers of a FlagSweep, by kind.

    :param site: whose they are.
    """

    def __init__(self, site: Site):
        self._site = site
        self.by_kind: dict[str, Handler] = {}
        """Aliases included."""
        self._given: dict[str, Mapping[str, Any]] = {}
        self.schedules = Declarations()
        """What is declared to be raised, and when."""

    def own(self) -> dict[str, Handler]:
        """Return the handlers by kind, without aliases."""
        return {kind: handler for kind, handler in self.by_kind.items() if kind == handler.kind}

    def lanes(self) -> set[str]:
        """Return the lanes that handlers name."""
        return {handler.lane for handler in self.by_kind.values()}

    def add(self, function: Any, kind: str | None, options: Mapping[str, Any], rows: OwnRows | None = None) -> Handler:
        """Make a function the handler of a kind.

        :raises ConfigError: naming every bad option at once, a second handler of a kind, or a signature that cannot be kept
            by name.
        """
        if isinstance(function, Handler):
            function = function.function
        checked = Options.checked(kind if kind is not None else kind_of(function), options)
        for name in (checked.kind, *checked.aliases):
            if name in self.by_kind:
                other = where_is(self.by_kind[name].function)
                raise ConfigError(f"the kind {name!r} has a handler already ({other}): give this one another kind=")
        handler: Handler = Handler(self._site, function, checked, rows)
        _refuse_async(handler)
        handler.override(options, self._site.overrides())
        self._given[handler.kind] = options
        self.by_kind.update(dict.fromkeys((checked.kind, *checked.aliases), handler))
        return handler

    def override(self, overrides: Overrides) -> None:
        """Have what settings say of kinds hold for the handlers there are.

        :raises ConfigError: naming every bad option of every kind at once.
        """
        problems = Problems()
        for kind, handler in self.own().items():
            problems.take(handler.override, self._given[kind], overrides)
        problems.raise_any()

    def of(self, kind: str) -> Handler:
        """Return the handler of a kind or of one of its aliases.

        :raises UnknownKind: naming the kinds there are.
        """
        if kind not in self.by_kind:
            raise UnknownKind(
                f"no handler is registered for the kind {kind!r}; there are {', '.join(sorted(self.by_kind)) or 'none'}"
            )
        return self.by_kind[kind]

    def enter(self, rows: OwnRows) -> None:
        """Have own rows take note of the database, where it is known already."""
        self._site.enter(rows)


def _bound_as_overloaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the parameters and defaults of its last overload, which are written there and nowhere else."""
    signature = inspect.signature(get_overloads(function)[-1])

    @wraps(function)
    def bound(*args: Any, **named: Any) -> Any:
        try:
            call = signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{function.__qualname__}() {error}") from None
        call.apply_defaults()
        return function(**call.arguments)

    vars(bound)["__signature__"] = signature
    return bound


class Registry:
    """Let a site register its handlers, and ask for them."""

    def __init__(self, handlers: Handlers):
        self._handlers = handlers

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by kind; aliases are not listed."""
        return self._handlers.own()

    @property
    def handled(self) -> Collection[str]:
        """The kinds that there are handlers for, aliases included."""
        return self._handlers.by_kind.keys()

    @overload
    def handler(self, function: Callable[P, R], /) -> Handler[P, R]: ...
    @overload
    def handler(
        self,
        kind: str | None = None,
        lane: str = "default",
        max_attempts: int = 8,
        backoff: Backoff | object = None,
        priority: int = 0,
        unique: bool = True,
        atomic: bool = False,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
        discard_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        aliases: str | Iterable[str] = (),
        slow_after: object = None,
        history: bool = False,
        result: bool = False,
        expires: object = None,
        debounce: object = None,
        longest: object = None,
        replace: bool = True,
        rate: str | Rate | None = None,
        budget: str | Budget | None = None,
        limit: int | None = None,
        quiet: str | Quiet | None = None,
        breaker: int | None = 5,
        per: str | None = None,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]: ...

    @_bound_as_overloaded
    def handler(self, kind: Any = None, **options: Any) -> Any:
        """Make a function the handler of a kind. It stays an ordinary function, and gets ``raise_flag`` and the like.

        :param kind: the stable name of the work; by default the function's name. Never a dotted path.
        :param lane: flags of one lane are swept together and share its threads.
        :param max_attempts: after that many failed attempts the flag is dead.
        :param backoff: the wait before the next attempt: a ``Backoff``, or one duration for all.
        :param priority: -100 to 100, the higher the sooner.
        :param unique: raised again with the same arguments, it is the same flag; a handler without arguments has one flag for
            everybody. False: every raise is a flag of its own.
        :param atomic: the handler and the lowering commit together, on ``flags.database``: exactly once for what it writes there.
            On SQLite it holds the only writer, so keep slow work out of it.
        :param retry_on: what is tried again; any other exception buries the flag at once.
        :param discard_on: exceptions that lower the flag, with a line of history.
        :param aliases: former kinds, whose flags this handler takes over.
        :param slow_after: a handler that runs longer is reported once a minute.
        :param history: keep a line of history of each success, too; of failures there is one always.
        :param result: keep what it returns, JSON of at most 32 KiB, with a line of history of each success: ``flags.result``
            finds it.
        :param expires: how long after it is due the work is worth doing: later it is lowered unrun, with a line of history.
        :param debounce: a flag is due so long after its latest raise ...
        :param longest: ... but at the latest so long after its first.
        :param replace: False: raised again while it waits, a flag keeps the payload and expiry of its first raise.
        :param rate: how many may start in a time, such as ``"300/m"`` or ``"100/h burst 20"``, over all consumers.
        :param budget: how many may start in a calendar day of the setting ``timezone``, such as ``"500/d"``.
        :param limit: how many may run at the same time, over all consumers.
        :param quiet: hours in which none starts, such as ``"22:00-07:00"``.
        :param breaker: after so many different flags that failed alike, with no success between, the others wait for their
            provider; None: they never do.
        :param per: the argument by whose values flags take turns, and for each of which limits hold.
        :raises ConfigError: naming every bad option at once, a second handler of a kind, or a signature that cannot be kept
            by name.
        """
        if (callable(kind) or isinstance(kind, classmethod)) and not isinstance(kind, str):
            return self._handlers.add(kind, None, options)
        return lambda function: self._handlers.add(function, kind, options)

    def when(
        self,
        what: Any = None,
        *,
        lower: str = "after",
        kind: str | None = None,
        table: str | None = None,
        column: str | None = None,
        pk: str = "id",
        **options: Any,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]:
        """Make a function the handler of the site's own rows: work is whatever a column or condition finds.

        :param what: a Boolean column (true: owed), a nullable column (not null: owed), any condition on one model, or a
            function that returns a condition and is asked anew each time. Of Peewee; of Django a field or a queryset, of
            SQLAlchemy a mapped attribute, a criterion or a ``select``.
        :param lower: ``after``: the column comes down with the flag, so false means done; setting a Boolean again while its
            handler runs cannot be seen. ``before``: it comes down when the flag is claimed, so setting it again is new work.
        :param table: instead of ``what``: a table of any origin, with its ``column`` and its primary key ``pk``.
        :param options: as for ``handler``.

        The handler gets the model's instance, or the row of a table as a dict. A condition that has no column must
        be made false by the handler.
        """
        from ..adapters.own import own_rows  # With other layers' rows, which few sites have.

        rows = own_rows(what, lower, table, column, pk)
        self._handlers.enter(rows)
        known = [name for name in Options.names() if name not in (*UNFIT_FOR_ROWS, "unique", "per")]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(
                f"flags.when does not know {', '.join(unknown)}; known are lower, kind, table, column, pk, {', '.join(known)}"
            )
        return lambda function: self._handlers.add(function, kind, options, rows)

    def every(self, interval: object, **plan: Any) -> Callable[[Handler[P, R]], Handler[P, R]]:
        """Have the flag of a handler raised again and again: ``@flags.every("10m")`` above ``@flags.handler()``.

        :param plan: as for ``Handler.every``.
        """
        return _declaring("every", interval, sys._getframe(1).f_globals, plan)

    def cron(self, spec: str, **plan: Any) -> Callable[[Handler[P, R]], Handler[P, R]]:
        """Have the flag of a handler raised at the times of a cron expression: ``@flags.cron("0 4 * * 1", tz="Asia/Seoul")``.

        :param plan: as for ``Handler.every``.
        """
        return _declaring("cron", spec, sys._getframe(1).f_globals, plan)

    def autodiscover(self, *patterns: str) -> list[str]:
        """Import every module whose name matches, so that the handlers in it are registered; return their names.

        :param patterns: such as ``"shop.*.work"``: a ``*`` stands for any part of a name between two dots.
        :raises ConfigError: where nothing matches a pattern; or naming the module, and its line, that is broken.

        What only a consumer needs to import goes into a function that ``--app`` names:
        ``def consumer(): flags.autodiscover("shop.*.work"); return flags``.
        """
        return [name for pattern in patterns for name in import_matching(pattern)]

    def handler_of(self, kind: str) -> Handler:
        """Return the handler of a kind or of one of its aliases.

        :raises UnknownKind: naming the kinds there are.
        """
        return self._handlers.of(kind)


def _refuse_async(handler: Handler) -> None:
    """Refuse an async handler that would share with all tasks of its thread what must be its own."""
    if not handler.is_async:
        return
    if handler.options.atomic:
        raise ConfigError(
            f"the handler {handler.kind!r} is async and atomic=True: its transaction would be that of every task in its thread; "
            "make it an ordinary function, or leave atomic out"
        )
    if handler.rows is not None and handler.rows.is_threads_own:
        raise ConfigError(
            f"the handler {handler.kind!r} is async, and rows of {handler.rows.layer} come over what all tasks of its "
            "thread would share; make it an ordinary function, or name them by flags.when(table=..., column=...)"
        )


def _declaring(
    sort: str, spec: object, names: dict[str, Any], plan: Mapping[str, Any]
) -> Callable[[Handler[P, R]], Handler[P, R]]:
    """Return what declares a schedule of a handler.

    :param names: the global names of the module that does so.
    """

    def declare(handler: Handler[P, R]) -> Handler[P, R]:
        if not isinstance(handler, Handler):
            raise ConfigError(f"@flags.{sort}(...) stands above @flags.handler(), not below it: got {short(handler)}")
        handler._declare(sort, spec, names, **plan)
        return handler

    return declare


def kind_of(function: Any) -> str:
    """Return the kind that a function has where none is given."""
    name = getattr(function, "__name__", "")
    if name == "<lambda>":
        raise ConfigError("a lambda has no name that could be its kind: write a function, or give kind='...'")
    return name


def where_is(function: Any) -> str:
    """Return module and name of a function."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
