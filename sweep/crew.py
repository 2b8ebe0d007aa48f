"""The crew: how the threads of a consumer are shared out among its lanes, while these run."""

from __future__ import annotations

import threading

from .threads import Pool


class Crew:
    """Let lanes have more threads, or fewer, as long as there are not too many in all.

    :param most: as many threads as there are slots in the black box, or connections in the site's pool.
    """

    def __init__(self, most: int):
        self._most = most
        self._pools: list[Pool] = []
        self._lock = threading.Lock()

    def join(self, pool: Pool) -> None:
        """Count the threads of a lane from now on."""
        self._pools.append(pool)

    def resize(self, pool: Pool, wanted: int) -> int:
        """Give a lane so many threads, or as many as the others leave; return how many it has from now on."""
        with self._lock:
            others = sum(each.manned for each in self._pools if each is not pool)
            size = max(1, min(wanted, self._most - others))
            if size != pool.size:
                pool.resize(size)
        return size
