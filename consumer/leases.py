"""Leases: what proves that consumers live. Beside a file the kernel's word, on a server that of a session, and the kernel's
for those of this host.
"""

from __future__ import annotations

import platform
from pathlib import Path

from ..databases.connections import Connections
from ..databases.state_folder import folder_of
from ..models import Consumer
from ..sweep.blackbox import BlackBox
from .file_lease import RUN, Lease
from .session_lease import SessionLease


class Leases:
    """Hold a consumer's own leases, and know of others whether they live.

    :param folder: where consumers of this host note what they run; None for a database in memory.
    """

    def __init__(self, connections: Connections, folder: Path | None):
        self.session: SessionLease | None = None
        self._folder = folder
        self._on_host: Lease | None = None
        self._lease = open_lease(connections)
        if isinstance(self._lease, SessionLease):
            self.session = self._lease
            try:
                self._on_host = None if folder is None else Lease(folder)
            except BaseException:
                self._lease.close()
                raise

    def take(self, id: int) -> None:
        """Take the leases of an id.

        :raises LeaseHeld: where somebody has one of them.
        """
        for lease in (self._on_host, self._lease):
            if lease:
                lease.take(id)

    def take_run(self) -> None:
        """Be the one that runs, beside a file.

        :raises LeaseHeld: where somebody does.
        """
        if isinstance(self._lease, Lease):
            self._lease.take(RUN)

    def give_up_run(self) -> None:
        """Let another be the one that runs, beside a file."""
        if isinstance(self._lease, Lease):
            self._lease.give_up(RUN)

    def is_held(self, id: int) -> bool:
        """Return whether somebody holds the lease of an id."""
        return self._lease is not None and self._lease.is_held(id)

    def is_dead(self, peer: Consumer) -> bool:
        """Return whether another consumer is dead."""
        if self._lease is None:
            return False
        if isinstance(self._lease, Lease):
            return self._lease.is_dead(peer.id)
        alive = self._knows_alive(peer)
        return self._lease.is_dead(peer.id, peer.comebacks) if alive is None else not (alive or self._lease.is_held(peer.id))

    def may_be_dying(self, peer: Consumer) -> bool:
        """Return whether another consumer's lock is free, but not for long enough to tell that it is dead."""
        if self.session is None or self._knows_alive(peer) is not None:
            return False
        return not self.session.is_held(peer.id) and not self.session.is_dead(peer.id, peer.comebacks)

    def _knows_alive(self, peer: Consumer) -> bool | None:
        """Return whether a consumer of this host lives, by the kernel's word, or None for one of another host.

        Its session alone would have to be gone for a while: a connection may break, and the process live on.
        """
        if self._on_host is None or self._folder is None or peer.host != platform.node():
            return None
        if not BlackBox.is_there(self._folder, peer.id):  # The same name in another container, or it is just being entered.
            return None
        return self._on_host.is_held(peer.id)

    def lost(self) -> str | None:
        """Return why the lease no longer proves anything, or None."""
        if isinstance(self._lease, Lease) and not self._lease.is_intact():
            return f"the lease {self._lease.path} was deleted or replaced"
        return None

    def close(self) -> None:
        """Give up all that is held."""
        for lease in (self._lease, self._on_host):
            if lease:
                lease.close()


def open_lease(connections: Connections) -> Lease | SessionLease | None:
    """Return what proves that consumers live: beside a file, or in a session of the server; None for a database in memory."""
    if connections.file is not None:
        return Lease(folder_of(connections.file))
    return None if connections.session is None else SessionLease(connections.session, connections.dialect)  # type: ignore[arg-type]
