"""From a URL to a store: what cannot be is refused, and no password is shown."""

import logging

import pytest
from queue_rig import KEY, goes_on
from work import running

from flagsweep import ConfigError, FlagSweep
from flagsweep.logs import Outage
from flagsweep.queues.opening import passwords


@pytest.mark.parametrize("queue", ["redis://user:s3cret@127.0.0.1:1/0", "postgresql://user:s3cret@127.0.0.1:1/name"])
def test_no_password_and_no_key_is_shown(make, queue, until, caplog):
    caplog.set_level(logging.DEBUG)
    work = make(queue)
    with running(work.flags, until):
        goes_on(work, until, [1])
        until(lambda: "is away" in caplog.text)
    assert "127.0.0.1" in caplog.text
    for shown in (caplog.text, repr(work.flags.settings), str(work.flags.status()), work.flags.queue.where):
        assert "s3cret" not in shown and KEY not in shown


def test_an_error_of_the_store_shows_no_password(caplog):
    outage = Outage("the store", "sweeps go on without it", hide=passwords("redis://u:p%40ss@host/0?password=w0rd"))
    outage.tell(OSError("cannot connect with p@ss, p%40ss or w0rd\nat all"))
    assert caplog.messages == ["the store is away: cannot connect with ***, *** or *** at all; sweeps go on without it"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"queue": "redis://u:s3cret@host/0"}, "needs a queue_key"),
        ({"queue": "postgresql://u:s3cret@host/name"}, "needs a queue_key"),
        ({"queue": "redis://u:s3cret@host:port/0", "queue_key": KEY}, "cannot be read as a URL"),
        ({"queue": "ftp://u:s3cret@host"}, "queue must be 'memory'"),
    ],
)
def test_a_queue_that_cannot_be_is_refused_without_its_password(db_path, settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        FlagSweep(db_path, **settings)
    assert "s3cret" not in str(caught.value)


def test_a_queue_without_its_driver_is_refused_with_the_command(db_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package redis: pip install 'flagsweep\[redis\]'"):
        FlagSweep(db_path, queue="redis://host/0", queue_key=KEY)
