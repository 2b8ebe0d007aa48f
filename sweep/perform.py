"""Perform: take a claimed flag through its handler to an outcome, whatever the handler does."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import CoroutineType, GeneratorType, TracebackType
from typing import Any

from peewee import Database, OperationalError

from ..adapters.rows import Row, StillOwed
from ..config import SECOND, Clock, seconds
from ..databases.alive import discard
from ..databases.dialect import DATABASE_ERRORS, Damaged, Dialect
from ..errors import ClaimLost, Discard, Retry, Snooze
from ..handlers import Handler, encode
from .claims import Claimed, Step, Store

log = logging.getLogger("flagsweep")

ERROR_LIMIT = 8192
"""Bytes of error text that are kept with a flag."""

CURSOR_LIMIT = 32_768
"""Bytes of JSON that ``flag.progress`` keeps."""


@dataclass(frozen=True)
class Lowered:
    """The work is done. ``row`` is the own row whose column comes down with the flag."""

    row: Row | None = None


@dataclass(frozen=True)
class Settled:
    """Nothing is left to settle: ``lowered`` or ``again`` by an atomic handler's own transaction, or ``lost`` before it began."""

    how: str


@dataclass(frozen=True)
class Failed:
    """The attempt failed."""

    error: str
    exception: BaseException
    after: float | None = None
    final: bool = False


@dataclass(frozen=True)
class Snoozed:
    """The handler asked for later."""

    delay: float


@dataclass(frozen=True)
class Discarded:
    """The handler gave the work up."""

    reason: str


@dataclass(frozen=True)
class Parked:
    """The flag cannot be run at all: its row is damaged."""

    reason: str


DONE = Lowered()

_STARTS = ("Traceback (most recent call last):", "  + Exception Group Traceback (most recent call last):")
"""Lines behind which the last error of a text is told, and the last group of errors."""

_OF_A_GROUP = re.compile(r"^[ |+-]*\| (?!Traceback \(most recent call last\):$)(\S.*)$")
"""A line of an exception group, as Python prints it, that names the group or a part of it."""

_UNCLOSABLE: tuple[type[Exception], ...] = (*DATABASE_ERRORS, OSError)


class LeakedTransaction(Exception):
    """A handler returned with a transaction open on ``flags.database``: nobody else would ever see what it wrote."""


class BrokenTransaction(Exception):
    """The transaction of an atomic handler ended before its handler did."""


class FlagContext:
    """What a handler that names a parameter ``flag`` gets."""

    def __init__(self, claimed: Claimed, atomic: bool, store: Store, stopping: Callable[[], bool]):
        self.id = claimed.id
        self.kind = claimed.kind
        self.key = claimed.key
        self.attempt = claimed.attempts + 1
        self.cursor = claimed.cursor
        self._token = claimed.token
        self._atomic = atomic
        self._store = store
        self._stopping = stopping

    def should_stop(self) -> bool:
        """Return whether the consumer is stopping: save your progress and raise ``Snooze(0)`` to go on after the restart."""
        return self._stopping()

    def progress(self, cursor: Any) -> None:
        """Keep how far the work has come; the next attempt finds it as ``flag.cursor``.

        :param cursor: any small JSON value.
        :raises PayloadError: where it is not.
        :raises ClaimLost: where the flag was lowered by hand meanwhile, or is no longer this consumer's.
        """
        text = encode({"cursor": cursor}, f"progress of {self.kind}", CURSOR_LIMIT)
        if not self._store.progress(self.id, self._token, text[len('{"cursor":') : -1], self._atomic):
            raise ClaimLost(f"flag {self.id} of {self.kind} is no longer up: stop working on it")
        self.cursor = json.loads(text)["cursor"]


class Performer:
    """Perform flags in the calling thread.

    :param handlers: by kind, aliases included.
    :param stopping: whether the consumer is stopping.
    """

    def __init__(self, store: Store, handlers: Mapping[str, Handler], clock: Clock, stopping: Callable[[], bool]):
        self.store = store
        self.handlers = handlers
        self.clock = clock
        self.stopping = stopping
        self.alone = threading.Lock()
        self.turns: threading.Semaphore | None = None
        """Where the site's pool has fewer connections than there are threads: as many perform at once."""

    def perform(self, claimed: Claimed) -> Any:
        """Return the outcome of one flag."""
        handler = self.handlers[claimed.kind]
        payload = claimed.payload
        if type(payload) is not dict:
            return Parked(str(payload) if isinstance(payload, Damaged) else "its payload is not a JSON object")
        try:
            if claimed.trouble:
                raise claimed.trouble
            if handler.wants_flag:
                payload = {**payload, "flag": FlagContext(claimed, handler.options.atomic, self.store, self.stopping)}
            run = partial(self._atomically, handler, claimed) if handler.options.atomic else partial(self._call, handler, claimed)
            outcome = run(payload)
        except BaseException as error:
            outcome = self._failed(handler, error)
        return outcome if self.store.site.is_closed() else self._tidied(handler, outcome)

    def _tidied(self, handler: Handler, outcome: Any) -> Any:
        """Leave nothing on the site's connection for the next handler, and return what becomes of this one's outcome."""
        if leak := leaked(self.store.site, self.store.dialect):
            leak.__context__ = getattr(outcome, "exception", None)
            return self._failed(handler, leak)
        if not self.store.in_memory:  # That one ends with its connection.
            self.store.spare.let_go() if isinstance(outcome, Failed) else self.store.spare.put_away()
        return outcome

    def _call(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Any:
        if handler.rows is None:
            _refuse_unrun(handler.function(**payload))
            return DONE
        arguments = dict(payload)
        # Not on the site's connection, which is the handler's to open; but within its transaction it sees what it wrote.
        db = self.store.site if handler.options.atomic else self.store.engine
        row = claimed.row = handler.rows.load(db, self.store.dialect, str(arguments.pop("row", "")))
        if row is None:
            return DONE  # Done already: discovery can meet a row whose lowering is not committed yet.
        name = next(name for name, p in handler.signature.parameters.items() if p.default is p.empty)
        _refuse_unrun(handler.function(**{name: row.instance}, **arguments))
        if handler.rows.still_owed(db, row.key):
            raise StillOwed(
                f"{handler.kind} returned, but its condition still holds for row {row.key}: change the row so that it does not"
            )
        return Lowered(row)

    def _atomically(self, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> Any:
        """Run and settle in one transaction on the site's connection: both take effect, or neither does."""
        with self.store.writing if self.store.dialect.one_writer else nullcontext():
            began = self.clock.monotonic()
            with self.store.borrowed() as site:
                try:
                    with kept_open(site):
                        how = self._in_transaction(site, handler, claimed, payload)
                except BaseException as error:
                    leaked(site, self.store.dialect)
                    raise unmasked(error) from None
            held = self.clock.monotonic() - began
        if held > 1 and self.store.dialect.one_writer:
            log.warning(
                "%s is atomic and held the database's only writer for %.1f s: keep slow work out of it",
                handler.kind,
                held,
            )
        return Settled(how)

    def _in_transaction(self, site: Database, handler: Handler, claimed: Claimed, payload: dict[str, Any]) -> str:
        with ExitStack() as stack:
            try:
                stack.enter_context(site.atomic(*self.store.dialect.begin))
            except DATABASE_ERRORS as error:
                if not self.store.dialect.is_busy(error):
                    raise
                raise Snooze(1) from error  # The site holds the writer: nothing that the handler did.
            with guarded(site):
                outcome = self._call(handler, claimed, payload)
            return self.store.settle_within(claimed.id, claimed.token, self._row_lowering(handler, outcome))

    def _row_lowering(self, handler: Handler, outcome: Lowered) -> Callable[[Database], None] | None:
        if handler.rows is None or handler.rows.early or outcome.row is None:
            return None
        return partial(handler.rows.lower_done, dialect=self.store.dialect, row=outcome.row)

    def _failed(self, handler: Handler, error: BaseException) -> Any:
        try:
            if isinstance(error, Snooze):
                return Snoozed(seconds(error.delay, "Snooze"))
            if isinstance(error, Discard):
                return Discarded(clean(str(error)))
            if isinstance(error, Retry):
                return Failed(clean(str(error)), error, None if error.after is None else seconds(error.after, "Retry(after)"))
        except BaseException as bad:  # A bad duration, or a reason that has no text.
            error = bad
        if isinstance(error, handler.options.discard_on):
            return Discarded(headline(describe(error)))
        return Failed(describe(error), error, final=not isinstance(error, handler.options.retry_on))


def _refuse_unrun(result: Any) -> None:
    """Refuse what a hidden coroutine function or generator returns: nothing of it has run, and taken for done it is lost."""
    if isinstance(result, (CoroutineType, GeneratorType)):
        result.close()
        raise TypeError(f"the handler returned a {type(result).__name__}, of which nothing has run: wrap it in asyncio.run(...)")


class guarded:
    """Notice a transaction that ends early: a full disk makes SQLite roll it all back, and a handler can swallow that error."""

    def __init__(self, db: Database):
        self._db = db

    def __enter__(self) -> None:
        self._depth = self._db.transaction_depth()
        self._db.execute_sql("SAVEPOINT flagsweep_guard")

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            return
        if self._db.transaction_depth() != self._depth:
            raise LeakedTransaction("the handler left a transaction open")
        try:
            self._db.execute_sql("RELEASE SAVEPOINT flagsweep_guard")
        except DATABASE_ERRORS as gone:
            raise BrokenTransaction(
                f"the handler's transaction ended before it returned ({gone}): it committed, or swallowed a database error"
            ) from gone


@contextmanager
def kept_open(db: Any) -> Iterator[None]:
    """Keep a connection open in which our transaction is: a ``connection_context()`` within leaves it to who is around it.

    :raises OperationalError: Peewee's own where a handler connects or closes, saying why that cannot be.
    """
    db._state.ctx.append(None)
    try:
        yield
    except OperationalError as error:
        if error.args[:1] in _TAKEN:
            text = "an atomic handler runs in a transaction on flags.database, whose connection is open: leave connect() and "
            error.args = (f"{error.args[0]} {text}close() out, or write 'with flags.database.connection_context():'",)
        raise
    finally:
        if db._state.ctx:
            db._state.ctx.pop()


_TAKEN = (("Connection already opened.",), ("Attempting to close database while transaction is open.",))
"""What Peewee says to a handler that connects or closes within our transaction."""


def unmasked(error: BaseException) -> BaseException:
    """Return what broke a transaction: leaving one that has vanished fails in its own way, and hides why."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (BrokenTransaction, LeakedTransaction)):
        cause = cause.__context__
    return cause or error


def leaked(db: Any, dialect: Dialect) -> LeakedTransaction | None:
    """Roll back and close a connection on which a transaction was left open, and return what to say about it."""
    connection = db.connection()
    try:
        if not db.transaction_depth() and not dialect.in_transaction(db):
            return None
    except DATABASE_ERRORS:
        pass  # The handler closed it behind Peewee's back.
    while db.transaction_depth():
        db.pop_transaction()
    try:
        connection.rollback() if hasattr(connection, "rollback") else db.rollback()
        if getattr(db, "database", None) != ":memory:":  # That one ends with its connection.
            db.close()
    except _UNCLOSABLE:
        discard(db)
        db._state.reset()
    return LeakedTransaction(
        "the handler left a transaction open on flags.database, or closed its connection: it was rolled back; "
        "use 'with flags.database.atomic():'"
    )


def describe(error: BaseException) -> str:
    """Return the traceback as clean text. Never raises, whatever ``__str__`` of the error does."""
    try:
        text = "".join(traceback.format_exception(type(error), error, theirs(error), limit=-12)).rstrip()
    except Exception:
        text = f"{type(error).__name__} (its text cannot be shown)"
    return clean(text)


def theirs(error: BaseException) -> TracebackType | None:
    """Return the traceback without our own frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
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


def printable(text: str) -> str:
    """Return text that stays on its line of the log: characters that steer a terminal are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clean(text: str) -> str:
    """Return text that every database takes: no NUL, no lone surrogates, and the last 8 KiB of it."""
    data = text.replace("\0", "\\0").encode("utf-8", "backslashreplace")
    if len(data) > ERROR_LIMIT:
        data = b"... " + data[4 - ERROR_LIMIT :]
    return data.decode("utf-8", "ignore")


def plan(handler: Handler, claimed: Claimed, outcome: Any, now: int) -> Step:
    """Return how a claimed flag leaves *claimed* when it is not lowered.

    :param outcome: ``Failed``, ``Snoozed``, ``Parked``, or ``Discarded`` where a condition would find it anew.
    """
    options, attempts = handler.options, claimed.attempts + 1
    if isinstance(outcome, Snoozed):
        due = now + int(outcome.delay * SECOND)
        return Step("waiting", claimed.attempts, due, claimed.attempts, due, earlier=True)
    longest = now + int(options.backoff.longest() * SECOND)
    if isinstance(outcome, (Parked, Discarded)):
        return Step("dead", claimed.attempts, now, 0, longest, error=clean(f"parked: {outcome.reason}"))
    if outcome.final or attempts >= options.max_attempts:
        return Step("dead", attempts, now, 0, longest, error=outcome.error)
    wait = options.backoff.delay(attempts) if outcome.after is None else outcome.after
    due = now + int(wait * SECOND)
    return Step("waiting", attempts, due, attempts, due, error=outcome.error)
