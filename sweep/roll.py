"""The roll: who is entered as a consumer, what each says of itself, and who has left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ..databases.connections import Connections
from ..databases.schema import Schema
from ..models import Consumer, Fact, fact

PING = "ping"
"""The note of when somebody outside was called."""

ONCE = "sweep"
"""What the row of a consumer says that does what is due, and leaves."""


class Roll:
    """Enter consumers, and note what is known of them. Whether one lives is asked of its lease."""

    def __init__(self, connections: Connections):
        self.connections = connections
        self._engine = connections.engine
        self._dialect = connections.dialect
        self._entered: dict[int, Consumer] = {}

    def made_at(self) -> int:
        """Return when the tables were made: this tells a database, or one schema of it, from every other."""
        query = Schema.select(Schema.applied_at).order_by(Schema.version).limit(1)
        return next(iter(query.tuples().execute(self._engine)))[0]

    def enlist(self, mode: str, pid: int, host: str, now: int, hold: Callable[[int], None], app: str | None = None) -> int:
        """Enter a consumer under a new id.

        :param app: the modules that its handlers are in.
        :param hold: takes the lease of that id; called before others can see the row, so that none finds it without its lease.
        """
        files = self.connections.files.before_entering()
        with self.connections.write():
            said = {"mode": mode, "pid": pid, "host": host, "started_at": now, "app": app, "ticked_at": now}
            id = Consumer.insert(**said).execute(self._engine)
            hold(id)
        self._entered[id] = Consumer(id=id, **said)
        # Only now the log is open; and it stays so, with this thread's connection, as long as the consumer is entered.
        self.connections.files.entered(id, files)
        return id

    def entered(self, consumer: int) -> Consumer | None:
        """Return who was entered here under an id, once: who leaves need not read its own row."""
        return self._entered.pop(consumer, None)

    def tick(self, consumer: int, lanes: str, now: int) -> None:
        """Note that a consumer goes on, and what its lanes do, as JSON."""
        with self.connections.write(only_claims=True):
            Consumer.update(ticked_at=now, lanes=lanes).where(Consumer.id == consumer).execute(self._engine)

    def may_ping(self, now: int, apart: int) -> bool:
        """Note that somebody outside is called now; return False where one of us has called a moment ago.

        :param apart: microseconds between two calls.
        """
        with self.connections.write():
            free = (Fact.at <= now - apart) | (Fact.at > now + apart)  # A clock that was set back silences nobody.
            if Fact.update(at=now).where(Fact.name == PING, free).execute(self._engine):
                return True
            if fact(self._engine, PING) is not None:
                return False
            self._dialect.note_fact(self._engine, PING, "", now)
        return True

    def note_served(self, kinds: Mapping[str, str], now: int) -> None:
        """Note who serves kinds: what is said of each, as JSON."""
        with self.connections.write(only_claims=True):
            for kind, said in sorted(kinds.items()):
                self._dialect.note_fact(self._engine, f"kind:{kind}", said, now)

    def peers(self) -> dict[int, Consumer]:
        """Return all that are entered, alive or not, by their ids, as the engine sees them."""
        return {each.id: each for each in Consumer.select().execute(self._engine)}

    def come_back(self, consumer: int) -> bool:
        """Note that a consumer has taken its lease again; return whether it is still entered: nobody took it for dead."""
        with self.connections.write():
            again = Consumer.update(comebacks=Consumer.comebacks + 1).where(Consumer.id == consumer)
            return again.execute(self._engine) == 1

    def consumers(self) -> list[Consumer]:
        """Return who is entered, alive or not."""
        with self.connections.lent("consumers could not be read") as db:
            return list(Consumer.select().order_by(Consumer.id).execute(db))

    def note_end(self, peer: Consumer, how: str, now: int) -> None:
        """Note who has left last, of those that stay and of those that sweep once."""
        said = {"id": peer.id, "mode": peer.mode, "pid": peer.pid, "host": peer.host, "app": peer.app, "how": how}
        self._dialect.note_fact(self._engine, "swept" if peer.mode == ONCE else "left", json.dumps(said), now)
