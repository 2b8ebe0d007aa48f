"""The locks that keep the consumers of several hosts from sweeping one lane at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from huey.exceptions import TaskLockedException

from .courier import Courier
from .storage import Storage


class Locks:
    """Hold a slot of a lane while it is swept. Only a politeness: without the store everybody may sweep.

    :param courier: asks the store.
    """

    LASTS = 5.0
    """Seconds after which a lock that nobody renews is free."""

    def __init__(self, courier: Courier):
        self._courier = courier
        self._held: dict[str, str] = {}

    @contextmanager
    def hold(self, lane: str, owner: int, slots: int = 1) -> Iterator[None]:
        """Hold one of a lane's slots within the block, or none where the store does not answer in time.

        :raises TaskLockedException: where other consumers hold all of them.
        """
        name = self._courier.ask(partial(self._take_one, _names(lane, slots), str(owner)))
        if name == "":
            raise TaskLockedException(f"another consumer sweeps {lane}")
        if name is None:
            yield
            return
        self._held[name] = str(owner)
        try:
            yield
        finally:
            del self._held[name]
            self._let_go(name, owner)

    def renew(self) -> None:
        """Keep what is held from being free."""
        for name, owner in list(self._held.items()):
            self._courier.send(partial(self._renew_one, name, owner), ("renew", name))

    def free(self, owner: int, lanes: Sequence[str], slots: int = 1) -> None:
        """Free what a consumer that died may hold of these lanes."""
        for name in (name for lane in lanes for name in _names(lane, slots)):
            self._let_go(name, owner)

    def _take_one(self, names: Sequence[str], owner: str, storage: Storage) -> str:
        """Return which of these locks the owner has now, or nothing."""
        return next((name for name in names if storage.hold(name, owner, self.LASTS)), "")

    def _renew_one(self, name: str, owner: str, storage: Storage) -> None:
        if name in self._held:  # Else it was let go meanwhile.
            storage.hold(name, owner, self.LASTS)

    def _let_go(self, name: str, owner: int) -> None:
        self._courier.send(lambda storage: storage.let_go(name, str(owner)))


def _names(lane: str, slots: int) -> list[str]:
    return [f"sweep:{lane}:{slot}" for slot in range(slots)]
