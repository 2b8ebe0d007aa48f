"""The site's FlagSweep: what Django's settings say of it, and what each of its handlers runs within."""

from __future__ import annotations

import atexit
from collections import Counter
from typing import TYPE_CHECKING, Any

from ...app import FlagSweep
from ...errors import FlagSweepError
from ...models import Raised
from ...operations.results import Result
from .fresh import fresh_connections

if TYPE_CHECKING:
    from .latecomers import Latecomers


class DjangoFlags(FlagSweep):
    """Keep the flags of a Django site: in a database of DATABASES, raised over Django's own connection to it."""

    def __init__(self) -> None:
        super().__init__()
        self._opening.ask = _asked
        self.around(fresh_connections)
        self._late: Latecomers | None = None

    def sweep(self, *args: Any, **options: Any) -> Counter[str]:
        """Do all that is due, as ``FlagSweep.sweep`` does; a task whose module nobody has imported yet is met, and done, too."""
        refused: set[str] = set()
        self._meet(refused)
        total = super().sweep(*args, **options)
        while self._meet(refused):
            total += super().sweep(*args, **options)
        return total

    def _meet(self, refused: set[str]) -> bool:
        """Have a handler for each task whose flags wait; return whether one was new.

        :param refused: kinds that were found to be no task's.
        """
        if not _has_backend():
            return False
        from .latecomers import meet

        connections = self.connections
        mine = connections.engine.is_closed()
        with connections.explained("nothing was swept"):
            try:
                return bool(meet(self, self.store.waiting_kinds(), refused))
            finally:
                if mine:
                    connections.close_engine()

    def run(self, listen: str | None = None) -> bool:
        """Be the consumer, as ``FlagSweep.run`` is; a task whose module nobody has imported yet is met, and done, too."""
        if not _has_backend():
            return super().run(listen)
        from .latecomers import Latecomers

        late = Latecomers(self)
        late.start()
        try:
            return super().run(listen)
        finally:
            late.stop()

    def start(self) -> None:
        """Sweep in this process, as ``FlagSweep.start`` does; tasks of modules that nobody has imported yet are done, too."""
        super().start()
        if not _has_backend():
            return
        from .latecomers import Latecomers

        with self._starting:
            if self._late is None or not self._late.is_alive():  # As in a forked child.
                self._late = late = Latecomers(self, lambda: self.sweeping)
                late.start()
                atexit.register(late.stop)

    def stop(self, wait: bool = False) -> None:
        """Ask what sweeps to stop, as ``FlagSweep.stop`` does."""
        if (late := self._late) is not None:
            late.ask_to_stop()
        super().stop(wait)
        if late is not None and wait:
            late.stop()

    def result(self, raised: Raised) -> Result:
        """Return what became of a raise, as ``FlagSweep.result`` does; ``wait`` is refused in a transaction of Django's, too."""
        from .settings import alias_of_settings, is_in_transaction

        found = super().result(raised)
        if not is_in_transaction(alias_of_settings()) or (found.is_over and found.state != "gone"):
            return found
        # Raised in this transaction, as like as not: our own connection sees nothing of it yet.
        return Result("waiting" if found.state == "gone" else found.state, error=found.error, _again=_refuse_to_wait)


def _has_backend() -> bool:
    """Return whether the site's tasks are kept by flagsweep."""
    from django.conf import settings

    name = "flagsweep.embed.django"
    return any(str(each.get("BACKEND", "")).startswith(name) for each in (getattr(settings, "TASKS", None) or {}).values())


def _asked() -> dict[str, object]:
    from .settings import configured

    return configured()


def _refuse_to_wait(timeout: float | None) -> Result:
    raise FlagSweepError("wait() within an open transaction would wait for ever: its flag is seen once that commits")


flags = DjangoFlags()
"""The site's FlagSweep. It opens nothing, and asks Django's settings at its first use."""
