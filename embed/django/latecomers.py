"""Latecomers: tasks of modules that nobody has imported yet, met when their flags wait; and sweeping those beside a consumer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings

from ...app import FlagSweep
from ...consumer.once import Once
from ...errors import FlagSweepError
from ...models import AWAY
from .frameworks import InvalidTask
from .performing import Performing

log = logging.getLogger("flagsweep")

_PASSING: tuple[type[Exception], ...] = (*AWAY, FlagSweepError)

EVERY = 1.0
"""Seconds between two looks for kinds that nobody here knows."""
REST = 15.0
"""Seconds until the next sweep where one has found all of them paused, or held back."""
AGAIN = 60.0
"""Seconds until kinds that were refused are asked again: what hindered the import of a module may be gone."""


def task_of(flags: FlagSweep, kind: str) -> Any:
    """Return the task of a kind, imported where that is its module's first use; None where it is no task of this backend.

    Nothing is called but the import of a module of the site's own, and only a task that uses this backend is ever run.
    """
    path = kind.partition("@")[0]
    if path not in flags.handlers:
        _import(path)
    handler = flags.handlers.get(path)
    return handler.function.task if handler is not None and isinstance(handler.function, Performing) else None


def _import(path: str) -> None:
    """Import the module of a path, where it is one of an installed app's, or of the site's."""
    module, _, name = path.rpartition(".")
    site = str(getattr(settings, "ROOT_URLCONF", None) or "").partition(".")[0]
    if module.rpartition(".")[2] == "__main__":  # A program, which would run.
        return
    if not module or not name.isidentifier() or not (apps.get_containing_app_config(module) or module.partition(".")[0] == site):
        return
    try:
        import_module(module)
    except (Exception, SystemExit) as error:
        log.error("flags of %s wait, and %s cannot be imported: %r", path, module, error)


def meet(flags: FlagSweep, kinds: Iterable[str], refused: set[str]) -> list[str]:
    """Have a handler for each of these kinds that is a task's; return those that are new.

    :param refused: kinds that were no task's before, which are not asked again.
    """
    found = []
    for kind in kinds:
        if kind in flags.handled or kind in refused:
            continue
        task, queue = task_of(flags, kind), kind.partition("@")[2]
        if task is not None and queue:
            with suppress(InvalidTask):  # A queue that the backend has no more, or never had.
                task.using(queue_name=queue)
        if kind in flags.handled:
            found.append(kind)
        else:
            refused.add(kind)
    return found


class Latecomers(threading.Thread):
    """Sweep, beside a consumer that has begun without them, tasks that were met since.

    :param is_due: whether this process is to sweep just now.
    """

    def __init__(self, flags: FlagSweep, is_due: Callable[[], bool] = lambda: True):
        super().__init__(name="flagsweep-latecomers", daemon=True)
        self._flags = flags
        self._is_due = is_due
        self._known = set(flags.handled)
        self._refused: set[str] = set()
        self._asks_again = 0.0
        self._done = threading.Event()
        self._once: Once | None = None
        self._rests_until = 0.0

    def ask_to_stop(self) -> None:
        """Have what runs finish, and nothing begin."""
        self._done.set()
        if once := self._once:
            once.stop()

    def stop(self) -> None:
        """Stop, and have what runs finish."""
        self.ask_to_stop()
        if self.ident is not None:
            self.join(self._flags.settings.shutdown_timeout)

    def run(self) -> None:
        """Look for them once a second."""
        while not self._done.wait(EVERY):
            try:
                if self._is_due():
                    self._look()
            except _PASSING as error:
                log.debug("tasks that nobody knows yet are looked for later: %s", error)
        self._flags.connections.close_thread()

    def _look(self) -> None:
        waiting = set(self._flags.store.waiting_kinds()) - self._known
        if not waiting:
            return
        if (now := self._flags.clock.monotonic()) >= self._asks_again:
            self._refused.clear()
            self._asks_again = now + AGAIN
        meet(self._flags, waiting, self._refused)
        duties = self._flags._duties()
        late = {kind: handler for kind, handler in duties.handlers.items() if kind not in self._known}
        due = [
            kind
            for kind, _, earliest in duties.store.agenda(sorted(waiting & late.keys()))
            if earliest <= self._flags.clock.now()
        ]
        if not due or now < self._rests_until:
            return
        self._once = Once(replace(duties, handlers=late))
        if not self._done.is_set() and not +self._once.sweep():
            self._rests_until = self._flags.clock.monotonic() + REST
