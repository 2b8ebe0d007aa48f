"""What a shared queue is for: nudges from whoever raises to whoever sweeps, and the lock that keeps two hosts from one sweep.

Nothing depends on it. A consumer's own sweeps go through Huey's memory; the store is asked for a lock, with half a second for the
answer, and told of raises, by a thread that nobody waits for. While it is away, sweeps go on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..config import Clock
from .courier import Courier
from .listener import Listener
from .locks import Locks
from .nudges import Nudges
from .place import Place


class SharedQueue:
    """Be the queue that the setting ``queue`` names, for the site and for a consumer. Creating one opens nothing.

    :param url: ``sqlite:///queue.db``, ``redis://...`` or ``postgresql://...``.
    :param keys: as the setting ``queue_key``; where none is given, a file beside the SQLite queue has one.
    :param identity: returns what tells this database from every other that may share the store; asked in a thread of ours.
    :raises ConfigError: where the URL or its driver is no good.
    """

    ANSWER = 0.5
    """Seconds for which a sweep waits for its lock."""

    def __init__(self, url: str, keys: Sequence[str], clock: Clock, identity: Callable[[], str]):
        self.place = Place(url, keys, clock, identity)
        self.where = self.place.where
        self.path = self.place.path
        self._postman = Courier(self.place.open, self.place.outage, pause=0.005)
        self._asker = Courier(self.place.open, self.place.outage, idle=60.0, budget=self.ANSWER)
        self._nudges = Nudges(self.place, self._postman)
        self._locks = Locks(self._asker)
        self._listener: Listener | None = None

    def nudge(self, lane: str, database: Any) -> None:
        """Tell the consumers, once the open transaction has committed, that a flag of this lane is due. Never raises or waits."""
        self._nudges.send_after_commit(lane, database)

    def check(self) -> None:
        """Read the keys.

        :raises ConfigError: where there are none to be had.
        """
        self.place.check()

    def listen(
        self, lanes: Sequence[str], ask: Callable[[str], None], may: Callable[[str], bool] = lambda lane: True
    ) -> Listener:
        """Call ``ask`` for every lane of these that a nudge names, in a thread, until ``stop``.

        :param may: says whether a lane is swept here just now; the nudges of others are left to those who sweep them.
        """
        listener = Listener(self.place, list(lanes), ask, may, self._locks.renew)
        listener.start()
        self._listener = listener
        self._asker.send(lambda storage: None)  # The first sweep finds a connection.
        return listener

    def stop(self) -> None:
        """End the listening at once, and let go of what is open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.done.set()
            self._asker.send(lambda storage: storage.wake())
            listener.join(self.place.PATIENCE)
        self._asker.close()

    def lock(self, lane: str, owner: int, slots: int = 1) -> AbstractContextManager[None]:
        """Hold one of a lane's slots while it is swept; without the store everybody may sweep, since the claim is what counts.

        :raises TaskLockedException: on entering, where other consumers hold all of them.
        """
        return self._locks.hold(lane, owner, slots)

    def forget(self, owner: int, lanes: Sequence[str], slots: int = 1) -> None:
        """Free the locks of a consumer that died."""
        self._locks.free(owner, lanes, slots)
