"""Steps: a coroutine runs from one ``await`` to the next, and each time leaves what its thread shares as it should be."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..databases.connections import Connections
from ..databases.errors import DATABASE_ERRORS
from .atomic import LeakedTransaction, leaked
from .claims import Claimed
from .outcomes import Outcome


class Run:
    """One flag on its way through an async handler.

    :param slot: where it stands in the black box; 0: nowhere.
    """

    __slots__ = ("claimed", "is_cut_off", "is_kept_waiting", "outcome", "slot", "task")

    def __init__(self, claimed: Claimed, slot: int = 0):
        self.claimed = claimed
        self.slot = slot
        self.task: Any = None
        self.outcome: Outcome | None = None
        """What became of it; None where it has not begun."""
        self.is_kept_waiting = False
        """Whether others of its kind failed before it began, so that it waits for their gate."""
        self.is_cut_off = False
        """Whether the consumer cancels it, which can wait no longer."""


class Watch(Protocol):
    """Know who has the thread just now."""

    def begin(self, run: Run) -> Run | None:
        """Take note of whose step begins; return whose it interrupts."""

    def end(self, before: Run | None) -> None:
        """Take note that it has ended."""


class SharedConnection:
    """Keep the site's connection apart for the tasks of one thread: each has it from one ``await`` to the next at the most.

    Peewee's transactions belong to a thread. What another task writes while one of them waits would be its part, and vanish
    with it.
    """

    def __init__(self, connections: Connections):
        self._connections = connections
        self._site: Any = connections.site

    def enter(self, contexts: list[Any]) -> None:
        """Have it open again for a task that is within ``connection_context()``."""
        if self._site.is_closed():
            self._site.connect()
        self._site._state.ctx = contexts  # To connect forgets those of before.

    def leave(self) -> list[Any]:
        """Have it closed in everyone's sight; return the contexts that the task is within."""
        state = self._site._state
        if self._connections.in_memory or (self._site.is_closed() and not state.ctx):
            return []
        contexts, state.ctx = state.ctx, []
        if not self._site.is_closed():
            self._connections.spare.put_away()
        return contexts

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        if self._site.is_closed():
            return False
        try:
            return self._connections.is_site_in_transaction()
        except DATABASE_ERRORS:  # It was closed behind Peewee's back.
            return True

    def tidied(self) -> LeakedTransaction | None:
        """End a transaction that was left open, and return what to say about it."""
        return None if self._site.is_closed() else leaked(self._site, self._connections.dialect)


class Steps(Coroutine[Any, Any, Any]):
    """Stand for a coroutine, so that each of its steps is watched.

    :param run: whose it is.
    :param on_end: called once it has ended in any way.
    """

    __slots__ = ("_connection", "_contexts", "_coroutine", "_on_end", "_run", "_watch")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        run: Run,
        watch: Watch,
        connection: SharedConnection,
        on_end: Callable[[Run], None] | None = None,
    ):
        self._coroutine = coroutine
        self._run = run
        self._watch = watch
        self._connection = connection
        self._on_end = on_end
        self._contexts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # A debugger asks a task's coroutine for its frame.

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def send(self, value: Any) -> Any:
        """Go on to the next ``await``, and return what is awaited."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self._step(self._coroutine.throw, *error)

    def _step(self, go: Callable[..., Any], *given: Any) -> Any:
        before, over = self._watch.begin(self._run), True
        try:
            awaited = self._go(go, given)
            over = False
            return awaited
        finally:
            self._watch.end(before)
            if over and self._on_end is not None:
                self._on_end(self._run)

    def _go(self, go: Callable[..., Any], given: tuple) -> Any:
        connection = self._connection
        if self._contexts:
            try:
                connection.enter(self._contexts)
            except Exception as error:
                go, given = self._coroutine.throw, (error,)
        try:
            awaited = go(*given)
            if connection.in_transaction():
                awaited = self._refuse(awaited)
        except BaseException:  # It has ended; StopIteration is how it returns.
            if leak := connection.tidied():
                raise leak from None
            connection.leave()
            raise
        connection.tidied()  # It took no notice of the refusal.
        self._contexts = connection.leave()
        return awaited

    def _refuse(self, awaited: Any) -> Any:
        """Tell a coroutine that it must not wait now; return what it awaits instead, where it went on."""
        if getattr(awaited, "_asyncio_future_blocking", False):
            awaited._asyncio_future_blocking = False  # As a task does: it may be awaited again.
        return self._coroutine.throw(
            LeakedTransaction(
                "the handler awaits within a transaction on flags.database, which other tasks of its thread would write into: "
                "end the transaction before 'await', or make the handler an ordinary function"
            )
        )
