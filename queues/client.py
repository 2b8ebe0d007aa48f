"""What a shared queue is for: nudges from whoever raises to whoever sweeps, and the lock that keeps two hosts from one sweep.

Nothing depends on it. A consumer's own sweeps go through Huey's memory; the store is asked for a lock, with half a second for the
answer, and told of raises, by a thread that nobody waits for. While it is away, sweeps go on without it.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import logging
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from huey.exceptions import TaskLockedException
from peewee import Database

from ..config import MAKE_KEY, SECOND, SHORTEST_KEY, Clock, hidden
from ..errors import ConfigError
from ..sweep.claims import Store
from .courier import Courier, Outage
from .storage import LARGEST, LIFE, Storage, make_private, opener

log = logging.getLogger("flagsweep")


class Refused(Exception):
    """Say why a message of the queue was dropped."""


class Seal:
    """Sign nudges, and accept those alone that somebody with one of the keys has signed, for this database.

    :param keys: the first signs.
    :param scope: the queue's name: a message for another database is none for this one.
    """

    def __init__(self, keys: Sequence[bytes], scope: str):
        self._keys = keys
        self._scope = scope.encode() + b"\0"

    def close(self, lane: str, now: int) -> bytes:
        """Return the message that asks for a sweep of a lane, at ``now``, in microseconds UTC."""
        body = json.dumps({"sweep": lane, "until": now // SECOND + LIFE}).encode()
        return self._sign(self._keys[0], body) + b" " + body

    def open(self, message: bytes, now: int) -> str:
        """Return the lane that a message asks for.

        :raises Refused: where it is too large, not signed by us, or too old. Nothing of it is parsed before the signature holds.
        """
        if len(message) > LARGEST:
            raise Refused("too large")
        signature, _, body = message.partition(b" ")
        if not any(hmac.compare_digest(signature, self._sign(key, body)) for key in self._keys):
            raise Refused("not signed with our key")
        try:
            content = json.loads(body)
            lane, until = str(content["sweep"]), int(content["until"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused("signed with our key, but no nudge") from error
        if until < now // SECOND:
            raise Refused("too old")
        return lane

    def _sign(self, key: bytes, body: bytes) -> bytes:
        return hmac.new(key, self._scope + body, hashlib.sha256).hexdigest().encode()


class Listener(threading.Thread):
    """Ask for the sweeps that the nudges of other processes ask for, and have the locks renewed meanwhile.

    :param may: says whether a lane is swept here just now.
    :param every: called about once a second.
    """

    def __init__(
        self,
        open: Callable[[], Storage],
        seal: Callable[[], Seal],
        lanes: Sequence[str],
        ask: Callable[[str], None],
        may: Callable[[str], bool],
        every: Callable[[], None],
        clock: Clock,
        outage: Outage,
    ):
        super().__init__(name="flagsweep-listener", daemon=True)
        self.dropped: Counter[str] = Counter()
        self.done = threading.Event()
        self._open = open
        self._seal = seal
        self._lanes = lanes
        self._ask = ask
        self._may = may
        self._every = every
        self._clock = clock
        self._outage = outage
        self._told = -60.0

    def run(self) -> None:
        """Listen until done; a store that is away is tried again every second."""
        storage: Storage | None = None
        renewed, missed = 0.0, False
        while not self.done.is_set():
            try:
                if lanes := [lane for lane in self._lanes if self._may(lane)]:
                    storage = storage or self._open()
                    self._heed(storage.take(lanes, 1.0, self.done), missed)
                    missed = False
                else:
                    self.done.wait(0.25)
            except Exception as error:
                missed = True
                self._outage.tell(error)
                self._disconnect(storage)
                storage = None
                self.done.wait(1.0)
            if time.monotonic() - renewed >= 1:
                renewed = time.monotonic()
                self._every()
        self._disconnect(storage)

    def _heed(self, messages: Sequence[bytes], missed: bool) -> None:
        lanes = set(self._lanes) if missed else set()  # Nudges may have been lost.
        now, seal = self._clock.now(), self._seal()
        for message in messages:
            try:
                lanes.add(seal.open(message, now))
            except Refused as error:
                self.dropped[str(error)] += 1
        for lane in lanes.intersection(self._lanes):
            self._ask(lane)
        if self.dropped and time.monotonic() - self._told >= 60:
            self._told = time.monotonic()
            log.warning("dropped messages of the queue: %s", ", ".join(f"{n} {why}" for why, n in self.dropped.items()))

    def _disconnect(self, storage: Storage | None) -> None:
        if storage is not None:
            with suppress(Exception):
                storage.disconnect()


def identity_of(store: Store) -> str:
    """Return what tells a database from every other: the moment, in microseconds, at which its tables were made.

    A path or URL would not do: two hosts may each have a /srv/site.db, and one database may be reached under several names.
    """
    try:
        return str(store.made_at())
    finally:
        store.close_engine()


class SharedQueue:
    """Be the queue that the setting ``queue`` names, for the site and for a consumer. Creating one opens nothing.

    :param url: ``sqlite:///queue.db``, ``redis://...`` or ``postgresql://...``.
    :param keys: as the setting ``queue_key``; where none is given, a file beside the SQLite queue has one.
    :param identity: returns what tells this database from every other that may share the store; asked in a thread of ours.
    :raises ConfigError: where the URL or its driver is no good.
    """

    PATIENCE = 0.2
    """Seconds for which a connection waits for the store."""
    ANSWER = 0.5
    """Seconds for which a sweep waits for its lock."""
    LOCK = 5.0
    """Seconds after which a lock that nobody renews is free."""

    def __init__(self, url: str, keys: Sequence[str], clock: Clock, identity: Callable[[], str]):
        self.where = hidden(url)
        self.path = check(url)
        self._keys = keys
        self._clock = clock
        self._identity = identity
        self._token = secrets.token_hex(4)
        self._open_store = opener(url, self.path, self._token)
        self._name = ""
        self._seal: Seal | None = None
        self._held: dict[str, str] = {}
        self._outage = Outage(self.where, passwords(url))
        self._nudges = Courier(self._open, self._outage, pause=0.005)
        self._locks = Courier(self._open, self._outage, idle=60.0, budget=self.ANSWER)
        self._nudgers: dict[str, Callable[[], None]] = {}
        self._listener: Listener | None = None

    # The site's side.

    def nudge(self, lane: str, database: Database) -> None:
        """Tell the consumers, once the open transaction has committed, that a flag of this lane is due. Never raises or waits."""
        try:
            if lane not in self._nudgers:
                self._nudgers[lane] = partial(self._send_nudge, lane)
            database.after_commit(self._nudgers[lane])
        except Exception as error:  # Within manual_commit() nobody knows when it commits: the consumers look by themselves.
            log.debug("no nudge after commit: %s", error)

    def _send_nudge(self, lane: str) -> None:
        """Run after a commit: an error here would make a committed transaction look like a failed one."""
        with suppress(Exception):
            self._nudges.send(partial(self._post, lane), lane)

    def _post(self, lane: str, storage: Storage) -> None:
        storage.post(lane, self.seal().close(lane, self._clock.now()))

    # A consumer's side.

    def check(self) -> None:
        """Read the keys.

        :raises ConfigError: where there are none to be had.
        """
        read_keys(self._keys, self.path)

    def listen(
        self, lanes: Sequence[str], ask: Callable[[str], None], may: Callable[[str], bool] = lambda lane: True
    ) -> Listener:
        """Call ``ask`` for every lane of these that a nudge names, in a thread, until ``stop``.

        :param may: says whether a lane is swept here just now; the nudges of others are left to those who sweep them.
        """
        open = partial(self._open, 1.0)
        listener = Listener(open, self.seal, list(lanes), ask, may, self._renew, self._clock, self._outage)
        listener.start()
        self._listener = listener
        self._locks.send(lambda storage: None)  # The first sweep finds a connection.
        return listener

    def stop(self) -> None:
        """End the listening at once, and let go of what is open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.done.set()
            self._locks.send(lambda storage: storage.wake())
            listener.join(self.PATIENCE)
        self._locks.close()

    @contextmanager
    def lock(self, lane: str, owner: int, slots: int = 1) -> Iterator[None]:
        """Hold one of a lane's slots while it is swept; without the store everybody may sweep, since the claim is what counts.

        :raises TaskLockedException: where other consumers hold all of them.
        """
        names = [f"sweep:{lane}:{slot}" for slot in range(slots)]
        name = self._locks.ask(partial(_hold_one, names, str(owner), self.LOCK))
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
            self._locks.send(partial(_let_go, name, str(owner)))

    def forget(self, owner: int, lanes: Sequence[str], slots: int = 1) -> None:
        """Free the locks of a consumer that died."""
        for name in (f"sweep:{lane}:{slot}" for lane in lanes for slot in range(slots)):
            self._locks.send(partial(_let_go, name, str(owner)))

    def _renew(self) -> None:
        for name, owner in list(self._held.items()):
            self._locks.send(partial(_renew_one, self._held, name, owner, self.LOCK), ("renew", name))

    # Both.

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

    def _open(self, more: float = 0.0) -> Storage:
        return self._open_store(self.name(), self.PATIENCE + more)


def _hold_one(names: Sequence[str], owner: str, seconds: float, storage: Storage) -> str:
    """Return which of these locks the owner has now, or nothing."""
    return next((name for name in names if storage.hold(name, owner, seconds)), "")


def _renew_one(held: dict[str, str], name: str, owner: str, seconds: float, storage: Storage) -> None:
    if name in held:  # Else it was let go meanwhile.
        storage.hold(name, owner, seconds)


def _let_go(name: str, owner: str, storage: Storage) -> None:
    storage.let_go(name, owner)


def check(url: str) -> Path | None:
    """Return the file that a queue's URL names, None for a server.

    :raises ConfigError: where it cannot be read, or the package that talks to it is not installed.
    """
    if url.startswith("sqlite:"):
        return Path(unquote(url.removeprefix("sqlite:///"))).absolute()
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigError(f"the queue {hidden(url)!r} cannot be read as a URL: write 'redis://host:6379/0'") from None
    package, extra = ("psycopg", "postgres") if url.startswith("postgres") else ("redis", "redis")
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"the queue {hidden(url)} needs the package {package}: pip install 'flagsweep[{extra}]'")
    return None


def passwords(url: str) -> list[str]:
    """Return what in a URL may be a password, as written and as meant."""
    parts = urlsplit(url)
    found = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if "pass" in name)]
    return sorted({form for secret in found if secret for form in (secret, unquote(secret))}, key=len, reverse=True)


def read_keys(keys: Sequence[str], path: Path | None) -> list[bytes]:
    """Return the keys themselves.

    :param path: the SQLite queue, beside which a key is made where none is given.
    :raises ConfigError: where a file of keys cannot be read, can be by everybody, or has none.
    """
    if not keys and path is not None:
        file = path.with_name(path.name + "-key")
        if path.parent.is_dir() and path.parent.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"everybody can write into {path.parent}: give a queue_key, or the queue a folder of its own")
        try:
            make_private(file, secrets.token_urlsafe(32).encode())
        except OSError as error:
            raise ConfigError(f"{file}, which keeps the queue's key, cannot be made: {error.strerror}") from error
        keys = [f"file:{file}"]
    found = [secret for key in keys for secret in (_read(Path(key[5:])) if key.startswith("file:") else [key.encode()])]
    return found


def _read(file: Path) -> list[bytes]:
    """Return the keys of a file, one on each line."""
    try:
        if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise ConfigError(f"everybody can read the queue's key {file}, or others can change it: chmod 600 {file}")
        found = [line.strip() for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"the queue's key {file} cannot be read: {error.strerror}; {MAKE_KEY}") from error
    if not found or any(len(key) < SHORTEST_KEY for key in found):
        raise ConfigError(f"{file} must have a key of at least {SHORTEST_KEY} characters: {MAKE_KEY}")
    return found
