"""A queue on Redis: whatever becomes of it, flags are raised and swept."""

import logging

import pytest
from queue_rig import KEY, goes_on
from work import command, running

from flagsweep.queues.opening import file_of, opener
from flagsweep.queues.redis import RedisQueue


def test_a_wiped_redis_changes_nothing(redis_url, make, until, impatient, patient):
    redis = pytest.importorskip("redis")
    work = make(redis_url)
    with running(work.flags, until), redis.Redis.from_url(redis_url) as client:
        for round in range(10):
            client.flushdb()
            client.script_flush()
            goes_on(work, until, range(10 * round, 10 * round + 10))
        assert work.flags.queue.place.outage.since is None, "nothing failed: scripts and keys are made anew"


def test_a_redis_that_is_killed_frozen_and_restarted_changes_nothing(private_redis, make, until, impatient, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    queue = private_redis.url
    work = make(queue)
    with running(work.flags, until):
        goes_on(work, until, range(10))
        private_redis.freeze()
        goes_on(work, until, range(10, 20))
        private_redis.thaw()
        goes_on(work, until, range(20, 30))
        private_redis.kill()
        goes_on(work, until, range(30, 40))
        private_redis.start()
        until(lambda: work.flags.queue.place.outage.since is None)
        goes_on(work, until, range(40, 50))
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("the queue")]
    assert len([line for line in told if "away" in line]) == 1, told
    assert not [r for r in caplog.records if r.exc_info]


def test_a_consumer_starts_without_its_redis_and_finds_it_later(private_redis, make, until, impatient):
    private_redis.kill()
    work = make(private_redis.url, watch="poll", poll_every=0.2)
    with running(work.flags, until):
        goes_on(work, until, range(5))
        private_redis.start()
        until(lambda: work.flags.queue.place.outage.since is None)
        goes_on(work, until, range(5, 10))


def test_a_consumer_stops_at_once_although_its_redis_is_frozen(private_redis, make, until, db_path, tmp_path, spawn):
    work = make(private_redis.url)
    child = spawn(*command("run", (db_path, tmp_path / "journal"), queue=private_redis.url, queue_key=KEY))
    goes_on(work, until, [1])
    private_redis.freeze()
    child.terminate()
    assert child.wait(5) == 0, child.log.read_text()
    assert "stopped" in child.log.read_text() and "Traceback" not in child.log.read_text()
    private_redis.thaw()


def test_a_valkey_is_spoken_to_like_a_redis(redis_url, never):
    url = redis_url.replace("redis", "valkey", 1)
    store = opener(url, file_of(url), "t")("q", 2.0)
    store.post("mail", b"message")
    assert store.take(["mail"], 0.01, never) == [b"message"]
    store.disconnect()
    store = RedisQueue("q", "redis://valkey.example/0", 1.0, "t")
    assert store.pool.connection_kwargs["host"] == "valkey.example"
