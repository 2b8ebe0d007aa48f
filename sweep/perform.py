"""Perform: take a claimed flag through its handler to an outcome, whatever the handler does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import CoroutineType, GeneratorType
from typing import Any

from peewee import Database

from ..adapters.rows import Row, StillOwed
from ..config import Clock, seconds
from ..databases.errors import DATABASE_ERRORS
from ..databases.flags import Damaged
from ..errors import Discard, Retry, Snooze
from ..gates.fingerprint import fingerprint
from ..handlers import Handler, tracing
from ..logs import clean, describe, headline
from ..models import record
from ..payloads import encode_result, short
from .atomic import BrokenTransaction, LeakedTransaction, guarded, kept_open, leaked, unmasked
from .claims import NO_RARE, Claimed, Store
from .context import FlagContext
from .outcomes import CUT_OFF, DONE, EXPIRED, Discarded, Failed, Lowered, Outcome, Parked, Settled, Snoozed, succeeded
from .steps import Run

log = logging.getLogger("flagsweep")

Surrounding = Callable[[], AbstractContextManager[Any]]
"""What makes the context that a handler runs in."""


class Performer:
    """Perform flags in the calling thread.

    :param handlers: by kind, aliases included.
    :param stopping: whether the consumer is stopping.
    :param around: what each handler runs within, the first outermost.
    """

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        clock: Clock,
        stopping: Callable[[], bool],
        around: Sequence[Surrounding] = (),
    ):
        self.store = store
        self.handlers = handlers
        self.clock = clock
        self.stopping = stopping
        self.around = around
        self.alone = threading.Lock()
        self.turns: threading.Semaphore | None = None
        """Where the site's pool has fewer connections than there are threads: as many perform at once."""
        self.traces = False
        """Whether spans are recorded, as of the last time that flags were handed over."""

    def take_turns(self, most: int) -> None:
        """Perform no more than so many flags at once."""
        self.turns = threading.Semaphore(most)

    def look_for_spans(self) -> None:
        """Look whether spans are recorded: once for all flags of a claim, since to ask takes as long as much of the rest."""
        self.traces = tracing.records()

    def perform(self, claimed: Claimed) -> Outcome:
        """Return the outcome of one flag."""
        if not self.traces:
            return self._perform(claimed)
        span = self._span(claimed)
        outcome = self._perform(claimed)
        span.end(outcome.counted, outcome.exception, outcome.error)
        return outcome

    def _span(self, claimed: Claimed) -> tracing.Processing:
        lane = self.handlers[claimed.kind].lane
        return tracing.Processing(claimed.kind, lane, claimed.id, claimed.attempts + 1, claimed.rare.trace, claimed.raises)

    def _perform(self, claimed: Claimed) -> Outcome:
        handler = self.handlers[claimed.kind]
        payload = claimed.payload
        if (type(payload) is not dict or claimed.rare is not NO_RARE) and (unfit := self._unfit(claimed)) is not None:
            return unfit
        outcome: Outcome
        try:
            if claimed.trouble:
                raise claimed.trouble
            if handler.wants_flag:
                payload = self._with_flag(handler, claimed)
            perform = self._atomically if handler.options.atomic else self._call
            if not self.around:
                outcome = perform(handler, claimed, payload)
            else:
                with self._surrounded():
                    outcome = perform(handler, claimed, payload)
        except BaseException as error:
            outcome = self.failed(handler, error)
        return outcome if self.store.connections.site.is_closed() else self._tidied(handler, outcome)

    async def perform_async(self, claimed: Claimed, run: Run) -> Outcome:
        """Return the outcome of one flag whose handler is async.

        :param run: says whether the consumer has cancelled it.
        """
        if not self.traces:
            return await self._perform_async(claimed, run)
        span = self._span(claimed)
        outcome = await self._perform_async(claimed, run)
        span.end(outcome.counted, outcome.exception, outcome.error)
        return outcome

    async def _perform_async(self, claimed: Claimed, run: Run) -> Outcome:
        from asyncio import CancelledError  # Whoever gets here has it loaded; all others do without.

        handler = self.handlers[claimed.kind]
        if (unfit := self._unfit(claimed)) is not None:
            return unfit
        outcome: Outcome
        try:
            if claimed.trouble:
                raise claimed.trouble
            with self._surrounded():
                outcome = await self._await(handler, claimed)
        except BaseException as error:
            outcome = CUT_OFF if run.is_cut_off and isinstance(error, CancelledError) else self.failed(handler, error)
        return outcome if self.store.connections.site.is_closed() else self._tidied(handler, outcome)

    def _unfit(self, claimed: Claimed) -> Outcome | None:
        """Return the outcome of a flag that is not to run at all, or None."""
        payload, until = claimed.payload, claimed.rare.expires_at
        if type(payload) is not dict:
            return Parked(str(payload) if isinstance(payload, Damaged) else "its payload is not a JSON object")
        if until is None:
            return None
        if type(until) is not int:
            return Parked(f"its time to expire is none: {short(until)}")
        return EXPIRED if until <= self.clock.now() else None

    def _with_flag(self, handler: Handler, claimed: Claimed) -> dict[str, Any]:
        return {**claimed.payload, "flag": FlagContext(claimed, handler.options.atomic, self.store, self.stopping)}

    @contextmanager
    def _surrounded(self) -> Iterator[None]:
        """Be within what the site wants around each handler; no such context hides that a handler has failed."""
        failed: BaseException | None = None
        with ExitStack() as stack:
            for context in self.around:
                stack.enter_context(context())
            try:
                yield
            except BaseException as error:
                failed = error
                raise
        if failed is not None:  # A context has swallowed it.
            raise failed

    def _tidied(self, handler: Handler, outcome: Outcome) -> Outcome:
        """Leave nothing on the site's connection for the next handler, and return what becomes of this one's outcome."""
        if leak := leaked(self.store.connections.site, self.store.connections.dialect):
            leak.__context__ = outcome.exception
            return self.failed(handler, leak)
        if not self.store.connections.in_memory:  # That one ends with its connection.
            self.store.connections.spare.let_go() if isinstance(outcome, Failed) else self.store.connections.spare.put_away()
        return outcome

    def _call(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Lowered:
        if handler.rows is None:
            if (result := handler.function(**payload)) is not None:
                _refuse_unrun(result)
            return DONE if not handler.options.result else _with_result(handler, result)
        with handler.rows.performing():
            if (found := self._load(handler, claimed, payload)) is None:
                return DONE
            row, arguments = found
            _refuse_unrun(result := handler.function(**arguments))
        return self._no_longer_owed(handler, row, result)

    async def _await(self, handler: Handler, claimed: Claimed) -> Lowered:
        payload = self._with_flag(handler, claimed) if handler.wants_flag else claimed.payload
        if handler.rows is None:
            _refuse_unrun(result := await handler.function(**payload))
            return DONE if not handler.options.result else _with_result(handler, result)
        with handler.rows.performing():
            if (found := self._load(handler, claimed, payload)) is None:
                return DONE
            row, arguments = found
            _refuse_unrun(result := await handler.function(**arguments))
        return self._no_longer_owed(handler, row, result)

    def _load(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> tuple[Row, dict[str, Any]] | None:
        """Return the row of the site's that a flag is for, and the arguments of its handler; None: nothing is owed any more."""
        assert handler.rows is not None
        arguments = dict(payload)
        # Not on the site's connection, which is the handler's to open; but within its transaction it sees what it wrote.
        db = self._db_of(handler)
        row = claimed.row = handler.rows.load(db, self.store.connections.dialect, str(arguments.pop("row", "")))
        if row is None:
            return None  # Done already: discovery can meet a row whose lowering is not committed yet.
        name = next(name for name, p in handler.signature.parameters.items() if p.default is p.empty)
        return row, {name: row.instance, **arguments}

    def _db_of(self, handler: Handler) -> Database:
        return self.store.connections.site if handler.options.atomic else self.store.connections.engine

    def _no_longer_owed(self, handler: Handler, row: Row, result: Any) -> Lowered:
        assert handler.rows is not None
        if handler.rows.still_owed(self._db_of(handler), row.key):
            raise StillOwed(
                f"{handler.kind} returned, but its condition still holds for row {row.key}: change the row so that it does not"
            )
        return Lowered(row) if not handler.options.result else _with_result(handler, result, row)

    def _atomically(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Settled:
        """Run and settle in one transaction on the site's connection: both take effect, or neither does."""
        with self.store.connections.writing if self.store.connections.dialect.one_writer else nullcontext():
            began = self.clock.monotonic()
            with self.store.connections.borrowed() as site:
                try:
                    with kept_open(site):
                        how = self._in_transaction(site, handler, claimed, payload)
                except BaseException as error:
                    leaked(site, self.store.connections.dialect)
                    raise unmasked(error) from None
            held = self.clock.monotonic() - began
        if held > 1 and self.store.connections.dialect.one_writer:
            log.warning(
                "%s is atomic and held the database's only writer for %.1f s: keep slow work out of it",
                handler.kind,
                held,
            )
        return Settled(how)

    def _in_transaction(self, site: Database, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> str:
        began = self.clock.monotonic()
        with ExitStack() as stack:
            try:
                stack.enter_context(site.atomic(*self.store.connections.dialect.begin))
            except DATABASE_ERRORS as error:
                if not self.store.connections.dialect.is_busy(error):
                    raise
                raise Snooze(1) from error  # The site holds the writer: nothing that the handler did.
            with guarded(site):
                outcome = self._call(handler, claimed, payload)
            write = partial(self._write_result, claimed, outcome, began) if handler.options.result else None
            return self.store.settle_within(claimed, self._row_lowering(handler, outcome), write)

    def _write_result(self, claimed: Claimed, outcome: Lowered, began: float, db: Database) -> None:
        record(db, [succeeded(claimed, outcome, self.clock.monotonic() - began)], self.clock.now())

    def _row_lowering(self, handler: Handler, outcome: Lowered) -> Callable[[Database], None] | None:
        if handler.rows is None or handler.rows.early or outcome.row is None:
            return None
        return partial(handler.rows.lower_done, dialect=self.store.connections.dialect, row=outcome.row)

    def failed(self, handler: Handler, error: BaseException) -> Outcome:
        """Return the outcome of a handler that has raised an error."""
        try:
            if isinstance(error, Snooze):
                return Snoozed(seconds(error.delay, "Snooze"))
            if isinstance(error, Discard):
                return Discarded(clean(str(error)))
            if isinstance(error, Retry):
                return _asked_again(error)
        except BaseException as bad:  # A bad duration, or a reason that has no text.
            error = bad
        if isinstance(error, handler.options.discard_on):
            return Discarded(headline(describe(error)))
        alike = None if self._is_of_our_database(handler, error) else fingerprint(error)
        return Failed(describe(error), error, final=not isinstance(error, handler.options.retry_on), fingerprint=alike)

    def _is_of_our_database(self, handler: Handler, error: BaseException) -> bool:
        """Return whether an error tells nothing of a kind's provider, but of our own database: it is away, or its disk full,
        whereupon transactions break; or of what an atomic handler does in it."""
        if isinstance(error, (BrokenTransaction, LeakedTransaction)):
            return True
        return (handler.options.atomic and isinstance(error, DATABASE_ERRORS)) or self.store.connections.dialect.is_away(error)


def _asked_again(error: Retry) -> Failed:
    """Return the outcome of a handler that asked to be tried again; one with a wait of its own, or for all, says nothing of its
    provider that a breaker were to guess."""
    after = None if error.after is None else seconds(error.after, "Retry(after)")
    alike = fingerprint(error) if error.after is None and not error.all else None
    return Failed(clean(str(error)), error, after, closes=error.all, fingerprint=alike)


def _with_result(handler: Handler, result: Any, row: Row | None = None) -> Lowered:
    return Lowered(row, encode_result(result, handler.kind, handler.result_limit))


def _refuse_unrun(result: Any) -> None:
    """Refuse what a hidden coroutine function or generator returns: nothing of it has run, and taken for done it is lost."""
    if isinstance(result, (CoroutineType, GeneratorType)):
        result.close()
        raise TypeError(
            f"the handler returned a {type(result).__name__}, of which nothing has run: "
            "a function that hands on a coroutine must be an 'async def' that awaits it"
        )
