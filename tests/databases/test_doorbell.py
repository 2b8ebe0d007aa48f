"""The doorbell: a raise rings once its transaction has committed, and nothing that is there, or not, makes it fail or wait."""

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from flagsweep import FlagSweep
from flagsweep.consumer.wakeups import choose_bell
from flagsweep.databases import doorbell
from flagsweep.databases.doorbell import Door, Doorbell
from flagsweep.databases.news import news

DATABASES = ["sqlite", *(pytest.param(name, marks=pytest.mark.servers) for name in ("postgresql", "mysql"))]
pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)


@pytest.fixture(autouse=True)
def no_pause(request, monkeypatch):
    """Have every ring be heard, but in the test of the pause."""
    if "pause" not in request.node.name:
        monkeypatch.setattr(doorbell, "PAUSE", -1.0)


@pytest.fixture
def folder():
    """Give a folder with a short path: that of a socket has a hundred characters at the most."""
    folder = Path(tempfile.mkdtemp(prefix="fs"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def flags(url, folder):
    flags = FlagSweep(url if "://" in url and not url.startswith("sqlite") else f"sqlite:///{folder}/site.db", notify="off",
                      state_dir=str(folder / "state"))  # fmt: skip
    flags.init()
    for kind in ("work", "other"):
        flags.handler(kind)(lambda n: None)
    yield flags
    flags.database.close()
    flags.connections.close_thread()


@pytest.fixture
def door(flags):
    """Give the door of a consumer that is entered."""
    place = flags._opening.opened().doorbell._find()
    place.mkdir(parents=True, exist_ok=True)
    door = Door(place)
    yield door
    door.close()


def work(flags, kind="work"):
    return flags.handlers[kind]


def test_a_raise_by_itself_rings_with_its_sort(flags, door):
    work(flags).raise_flag(n=1)
    assert door.heard() == {(0, "work")}
    work(flags).using(priority=7).raise_many([{"n": 2}, {"n": 3}])
    assert door.heard() == {(7, "work")}
    work(flags).using(delay="1h").raise_flag(n=4)
    assert door.heard() == set(), "nothing is due"


def test_a_transaction_rings_once_for_each_sort_after_it_has_committed(flags, door):
    with flags.database.connection_context():
        with flags.database.atomic():
            with flags.database.atomic():
                for n in range(5):
                    work(flags).raise_flag(n=n)
                work(flags, "other").raise_flag(n=1)
            assert door.heard() == set()
        first = door._socket.recv(100), door._socket.recv(100)
        assert {*first} == {news("work", 0).encode(), news("other", 0).encode()} and door.heard() == set()
        with flags.database.atomic() as transaction:
            work(flags).raise_flag(n=9)
            transaction.rollback()
        assert door.heard() == set()
        work(flags).raise_flag(n=9)
        assert door.heard() == {(0, "work")}


def test_where_nobody_knows_when_it_commits_nothing_rings_and_the_raise_counts(flags, door):
    with flags.database.connection_context(), flags.database.manual_commit():
        flags.database.begin()
        work(flags).raise_flag(n=1)
        flags.database.commit()
    assert door.heard() == set() and len(flags.find()) == 1


def test_a_consumer_hears_it_at_once_whatever_it_would_wait_for(flags, door):
    bell = choose_bell("auto", flags.store, 60.0, door.path.parent)
    try:
        work(flags).raise_flag(n=1)
        for _ in range(50):  # A file that is written rings first.
            bell.wait(60, None)
            if heard := bell.heard():
                break
        assert heard == {(0, "work")}
    finally:
        bell.close()
        bell.free()


@pytest.mark.long
def test_a_full_bell_and_one_that_nobody_has_any_more_hinder_no_raise(flags, door):
    gone = door.path.with_name("bell-gone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(gone))
    for n in range(100):
        work(flags).raise_flag(n=n)
    assert door.heard() == {(0, "work")} and len(flags.find()) == 100
    next_one = Door(door.path.parent)
    assert not gone.exists() and door.path.exists(), "what is left of the dead is cleared away, and nothing else"
    work(flags).raise_flag(n=100)
    assert next_one.heard() == door.heard() == {(0, "work")}, "all that are there are told"
    next_one.close()
    assert not next_one.path.exists()


@pytest.mark.parametrize("garbage", [b"", b"work", b"9999 work", b"\xff\xfe\x00", b"x" * 5000, b"0 " + b"k" * 2000])
def test_what_anybody_says_is_a_hint_or_nothing(flags, door, garbage):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(garbage, str(door.path))
        stranger.sendto(b"0 work", str(door.path))
    assert (0, "work") in door.heard()
    assert door.heard() == set()


@pytest.mark.long
def test_raises_in_a_loop_ring_after_a_pause_and_not_each(flags, door, monkeypatch):
    monkeypatch.setattr(doorbell, "PAUSE", 3600.0)
    for n in range(50):
        work(flags).raise_flag(n=n)
        work(flags, "other").raise_flag(n=n)
    told = [door._socket.recv(100), door._socket.recv(100)]
    assert {*told} == {news("work", 0).encode(), news("other", 0).encode()} and door.heard() == set()


def test_without_a_folder_or_with_one_that_cannot_be_read_a_raise_is_as_ever(flags, folder):
    for place in (None, folder / "nowhere", Path("/proc/1/fdinfo"), Path("x" * 300)):
        flags._opening.opened().doorbell.__init__(lambda place=place: place)
        work(flags).raise_flag(n=1)
    flags._opening.opened().doorbell.__init__(lambda: 1 / 0)
    work(flags).raise_flag(n=2)
    assert len(flags.find()) == 2


def test_a_path_that_is_too_long_leaves_a_consumer_without_a_door(flags, folder):
    deep = folder / ("d" * 120)
    deep.mkdir()
    bell = choose_bell("poll", flags.store, 0.01, deep)
    assert bell._door is None and list(deep.iterdir()) == []
    bell.free()


def test_a_bell_that_comes_within_a_tick_of_the_clock_is_found(flags, folder):
    """The folder's time of change may be that of the last look."""
    heard, bell = [], Doorbell(lambda: folder)
    for _ in range(20):
        bell.ring_after_commit(flags.database, "work", 0)
        door = Door(folder)
        bell.ring_after_commit(flags.database, "work", 0)
        heard.append(door.heard())
        door.close()
    assert heard == [{(0, "work")}] * 20
