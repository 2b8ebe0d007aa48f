"""Inline: what is raised is swept in the thread that raises it, once that has committed. For development."""

from __future__ import annotations

import logging
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..databases.connections import Connections
from ..databases.doorbell import is_waiting
from .once import Once

if TYPE_CHECKING:
    from .duties import Duties

log = logging.getLogger("flagsweep")

Aside = Callable[[], AbstractContextManager[None]]


class Inline:
    """Sweep the flags of a kind right after a raise.

    :param duties: returns what is swept: all that is registered by then.
    """

    def __init__(self, duties: Callable[[], Duties]):
        self._duties = duties
        self._here = threading.local()
        self._sweeps: dict[str, Callable[[], None]] = {}

    def sweep_after_commit(self, commits: Any, connections: Connections, kind: str, aside: Aside = nullcontext) -> None:
        """Sweep a kind once the open transaction commits, or at once. Never raises.

        :param commits: tells of that commit, as Peewee's databases do.
        :param aside: holds back what else the site has open in this thread.
        """
        sweep = self._sweeps.setdefault(kind, partial(self._sweep, connections, kind, aside))
        try:
            if not is_waiting(commits, sweep):
                commits.after_commit(sweep)
        except Exception as error:  # As within manual_commit(), where nobody knows when it commits. The flag is written.
            log.warning("%s waits for the next raise of its kind: nobody tells of the commit of this one: %s", kind, error)

    def _sweep(self, connections: Connections, kind: str, aside: Aside) -> None:
        """Run after a commit: an error here would make a committed transaction look like a failed one."""
        kinds: list[str] | None = getattr(self._here, "kinds", None)
        if kinds is not None:  # A handler raises: the sweep that it is in does not end before this one's turn has come.
            kinds.append(kind)
            return
        kinds = self._here.kinds = [kind]
        try:
            with nullcontext() if connections.in_memory else set_aside(connections.site), aside():
                while kinds:
                    self._sweep_kind(kinds.pop())
        except Exception as error:
            log.error("%s could not be swept after its raise, its flags stay up: %s", kind, error)
        except KeyboardInterrupt:
            log.warning("interrupted: what was not done stays up")
            threading.Timer(INTERRUPTED, interrupt_main).start()
        finally:
            self._here.kinds = None

    def _sweep_kind(self, kind: str) -> None:
        duties = self._duties()
        handlers = {name: handler for name, handler in duties.handlers.items() if handler.kind == kind}
        if handlers:
            Once(replace(duties, handlers=handlers), handlers[kind].lane, breakers=False, inline=True, fires=False).sweep()


INTERRUPTED = 0.1
"""Seconds until Ctrl-C has its way, which had to wait for the commit to look like one."""


@contextmanager
def set_aside(db: Any) -> Iterator[None]:
    """Have this thread's connection be closed in the eyes of handlers, as in a thread of their own, and as it was afterwards."""
    state = db._state
    kept = dict(vars(state))
    state.reset()
    try:
        yield
    finally:
        if not state.closed:
            db.close()
        vars(state).update(kept)
