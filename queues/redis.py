"""A shared queue on Redis or Valkey."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from huey.storage import RedisStorage
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from .messages import LIFE
from .storage import BATCH, KEPT, Storage


class RedisQueue(RedisStorage, Storage):
    """Keep a list of nudges for each lane, and each lock as a key that expires: all of it works on Redis 7.0.

    :param patience: seconds for which an answer is waited.
    :param token: names who may be woken.
    """

    HOLD = """
    local holder = redis.call('get', KEYS[1])
    if holder and holder ~= ARGV[1] then return 0 end
    redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
    """
    LET_GO = """
    if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
    return 0
    """

    def __init__(self, name: str, url: str, patience: float, token: str):
        times = {"socket_timeout": patience, "socket_connect_timeout": min(patience, 0.2)}
        if url.startswith("valkey"):
            url = "redis" + url.removeprefix("valkey")
        pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **times)
        super().__init__(name, connection_pool=pool, clean_name=False)
        self._hold = self.conn.register_script(self.HOLD)
        self._let_go = self.conn.register_script(self.LET_GO)
        self._waking = f"{name}:wake:{token}"

    def post(self, lane: str, message: bytes) -> None:
        key = self._nudges(lane)
        self.conn.pipeline().lpush(key, message).ltrim(key, 0, KEPT - 1).expire(key, LIFE).execute()

    def take(self, lanes: Sequence[str], wait: float, done: threading.Event) -> list[bytes]:
        keys = [*(self._nudges(lane) for lane in lanes), self._waking]
        first = self.conn.brpop(keys, timeout=wait)
        if first is None:
            return []
        rest = self.conn.pipeline(transaction=False)
        for key in keys:
            rest.rpop(key, BATCH)
        return [message for found in ([first[1]], *rest.execute()) for message in found or () if message]

    def hold(self, lock: str, owner: str, seconds: float) -> bool:
        return bool(self._hold(keys=[self._lock_key(lock)], args=[owner, int(seconds * 1000)]))

    def let_go(self, lock: str, owner: str) -> None:
        self._let_go(keys=[self._lock_key(lock)], args=[owner])

    def wake(self) -> None:
        self.conn.pipeline().lpush(self._waking, b"").expire(self._waking, 5).execute()

    def disconnect(self) -> None:
        self.pool.disconnect()

    def _nudges(self, lane: str) -> str:
        return f"{self.name}:nudges:{lane}"

    def _lock_key(self, lock: str) -> str:
        return f"{self.name}:{lock}"
