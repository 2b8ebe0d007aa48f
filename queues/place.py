"""Where a shared queue lives, what it is called there, and whose messages count."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence

from ..config import Clock, hidden
from ..logs import Outage
from ..sweep.claims import Store
from .keys import read_keys
from .messages import Seal
from .opening import file_of, opener, passwords
from .storage import Storage


class Place:
    """Be what a site and a consumer must know of a shared queue to speak through it. Making one opens nothing.

    :param url: ``sqlite:///queue.db``, ``redis://...`` or ``postgresql://...``.
    :param keys: as the setting ``queue_key``; where none is given, a file beside the SQLite queue has one.
    :param identity: returns what tells this database from every other that may share the store; asked in a thread of ours.
    :raises ConfigError: where the URL or its driver is no good.
    """

    PATIENCE = 0.2
    """Seconds for which a connection waits for the store."""

    def __init__(self, url: str, keys: Sequence[str], clock: Clock, identity: Callable[[], str]):
        self.where = hidden(url)
        self.path = file_of(url)
        self.clock = clock
        self.outage = Outage(f"the queue {self.where}", "sweeps go on without it", hide=passwords(url))
        self._keys = keys
        self._identity = identity
        self._open_store = opener(url, self.path, secrets.token_hex(4))
        self._name = ""
        self._seal: Seal | None = None

    def check(self) -> None:
        """Read the keys.

        :raises ConfigError: where there are none to be had.
        """
        read_keys(self._keys, self.path)

    def name(self) -> str:
        """Return the queue's name, which no other database shares. Asks the database, once."""
        if not self._name:
            self._name = "flagsweep." + hashlib.sha256(self._identity().encode()).hexdigest()[:12]
        return self._name

    def seal(self) -> Seal:
        """Return what signs the messages. Reads the keys, once."""
        if self._seal is None:
            self._seal = Seal(read_keys(self._keys, self.path), self.name())
        return self._seal

    def open(self, more: float = 0.0) -> Storage:
        """Open the store.

        :param more: seconds for which a connection waits beyond ``PATIENCE``.
        """
        return self._open_store(self.name(), self.PATIENCE + more)


def identity_of(store: Store) -> str:
    """Return what tells a database from every other: the moment, in microseconds, at which its tables were made.

    A path or URL would not do: two hosts may each have a /srv/site.db, and one database may be reached under several names.
    """
    try:
        return str(store.made_at())
    finally:
        store.connections.close_engine()
