"""One of the two databases of a move: who lives there, its pause, and what is noted in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ...config import Clock
from ...consumer.leases import Leases
from ...consumer.membership import folder_for
from ...consumer.session_lease import SessionLease
from ...databases.bulk import Record
from ...databases.connections import Connections
from ...errors import ConfigError, DatabaseAway, LeaseHeld
from ...models import bump
from ...sweep.claims import Store
from .tables import shapes

PAUSE = ("paused_at", "paused_by", "paused_until", "reason")
"""The columns of a gate's pause."""

NOTE = "move:to"
"""The fact of the database that is left."""
LOCK = "move"
"""The name under which a move holds a server's database, so that no second one goes on beside it."""


class Side:
    """Be one of the two databases.

    :param note: the name of the fact in which it is written how far a move is.
    """

    def __init__(self, connections: Connections, clock: Clock, state_dir: str, note: str):
        self.connections = connections
        self.dialect = connections.dialect
        self.db = connections.engine
        self.where = connections.where
        self.clock = clock
        self._state_dir = state_dir
        self._note = note
        self._store = Store(connections)
        self._session: SessionLease | None = None

    # Who else is there.

    @contextmanager
    def to_itself(self) -> Iterator[None]:
        """Hold the database meanwhile, so that no second move comes, nor, beside a file, a consumer.

        :raises LeaseHeld: where a consumer lives, or another move goes on.
        """
        if self.connections.in_memory:
            raise ConfigError("a database in memory is nobody else's: nothing is moved from it or into it")
        with ExitStack() as stack:
            leases = Leases(self.connections, folder_for(self._store, self._state_dir))
            stack.callback(leases.close)
            self.refuse_the_living(leases)
            self._leases = leases
            try:
                leases.take_run()
            except LeaseHeld:
                raise LeaseHeld(f"a consumer, or another move, has just begun on {self.where}: stop it first") from None
            self._session = leases.session
            if self._session is not None and not self._session.take_name(LOCK):
                raise LeaseHeld(f"another move goes on with {self.where}: wait until it has ended")
            yield

    def refuse_the_living(self, leases: Leases | None = None) -> None:
        """Refuse to go on beside a consumer: by its lease, not by its row, which a dead one has left.

        :raises LeaseHeld: naming those that live.
        :raises DatabaseAway: where the hold on a server was lost, and somebody else may have it.
        """
        leases = self._leases if leases is None else leases
        if self._session is not None and not self._session.keep(again=False):
            raise DatabaseAway(f"the connection that held {self.where} was lost: do the same again, it goes on where it was")
        peers = list(self._store.peers().values())
        while any(leases.may_be_dying(peer) for peer in peers):
            time.sleep(0.1)
        alive = [f"{peer.id} (pid {peer.pid} on {peer.host})" for peer in peers if not leases.is_dead(peer)]
        if alive:
            raise LeaseHeld(
                f"consumer {', '.join(alive)} lives on {self.where}: stop it first, and start one on the new database afterwards"
            )

    def made_at(self) -> int:
        """Return what tells this database from every other."""
        return self._store.made_at()

    # What is noted.

    def noted(self) -> dict[str, Any] | None:
        """Return how far a move is, or None."""
        shape = shapes()["fact"]
        for row in self.dialect.these(self.db, shape, shape.key, [(self._note,)]):
            with suppress(ValueError, TypeError, RecursionError):
                value = json.loads(row[shape.columns.index("value")])
                return value if isinstance(value, dict) else None
        return None

    def note(self, value: dict[str, Any]) -> None:
        """Write how far a move is, within a transaction."""
        self.dialect.note_fact(self.db, self._note, json.dumps(value, sort_keys=True), self.clock.now())

    # Its pause.

    def pause(self) -> dict[str, Any]:
        """Return the pause of all as it is, by column."""
        shape = shapes()["gate"]
        rows: list[Record] = self.dialect.these(self.db, shape, shape.key, [("all", "", "")])
        values = dict(zip(shape.columns, rows[0], strict=True)) if rows else {}
        return {column: values.get(column) for column in PAUSE}

    def set_pause(self, values: dict[str, Any]) -> None:
        """Write the pause of all, within a transaction, and have everybody read it."""
        self.dialect.set_by_hand(self.db, "all", "", values)
        bump(self.db, "gate")

    def close(self) -> None:
        """Close what this thread has open."""
        self.connections.close_engine()
