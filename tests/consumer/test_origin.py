"""Whether a database is the one that was swept here, whatever happens to databases in whichever order; of them only stamps."""

from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsweep.consumer.origin import Finding, Here, Sighting, Stamp, judge

MADE = 1000


@dataclass
class Folder:
    """Be a site's folder: its database's stamp, and the sighting beside it."""

    stamp: Stamp | None
    beside: Sighting | None = None
    inode: int = 0


@dataclass
class World:
    """Start, copy and lose databases; ``folders`` are by host's disk and path."""

    folders: dict = field(default_factory=lambda: {("disk", "/srv"): Folder(None)})
    memory: dict = field(default_factory=dict)
    names: dict = field(default_factory=lambda: {"disk": "a", "other": "b"})
    ticks: count = field(default_factory=lambda: count(1))

    def look(self, disk="disk", path="/srv"):
        folder = self.folders[disk, path]
        there = {at for (its, at), each in self.folders.items() if its == disk and at != path}
        here = Here(
            host=self.names[disk],
            where=path,
            made=MADE,
            beside=folder.beside,
            is_original=folder.beside is not None and folder.beside.file == folder.inode,
            on_host=[seen for (its, _), seen in self.memory.items() if its == disk],
            is_there=lambda at, token: at in there,
        )
        return judge(folder.stamp, here)[0]

    def start(self, disk="disk", path="/srv"):
        finding = self.look(disk, path)
        if not finding.is_alarm:
            folder = self.folders[disk, path]
            stamp = folder.stamp or Stamp(f"new {next(self.ticks)}")
            folder.stamp = replace(stamp, host=self.names[disk], where=path, placed=True)
            self.note(disk, path)
        return finding

    def work(self, noted=True, disk="disk", path="/srv"):
        folder = self.folders[disk, path]
        folder.stamp = replace(folder.stamp, n=folder.stamp.n + 1)
        if noted:
            self.note(disk, path)

    def note(self, disk, path):
        folder, at = self.folders[disk, path], next(self.ticks)
        stamp = folder.stamp
        seen = Sighting(stamp.token, stamp.before, stamp.n, self.names[disk], path, MADE, at, file=at)
        folder.beside, folder.inode = seen, at
        self.memory[disk, stamp.token] = seen

    def copy(self, disk, path, with_folder, to="/srv"):
        here = self.folders["disk", to]
        self.folders[disk, path] = Folder(here.stamp, here.beside if with_folder else None, next(self.ticks))

    def confirm(self, disk="disk", path="/srv"):
        folder = self.folders[disk, path]
        known = [] if folder.beside is None else [*folder.beside.before, folder.beside.token]
        before = tuple(dict.fromkeys([*known, *folder.stamp.before, folder.stamp.token]))
        folder.stamp = Stamp(f"confirmed {next(self.ticks)}", before, placed=False)


def at_home(world):
    """Return where the site is."""
    return next(path for disk, path in world.folders if disk == "disk")


def innocent(world, what):
    """Do something after which a start must find nothing."""
    path = at_home(world)
    if what == "work":
        world.work(path=path)
    elif what == "crash between the two":
        world.work(noted=False, path=path)
    elif what == "move":
        world.folders["disk", path + "+"] = world.folders.pop(("disk", path))
    elif what == "rename":
        world.names["disk"] += "+"
    elif what == "lose the folder":
        world.folders["disk", path].beside = None
    elif what == "lose the host's":
        world.memory.clear()
    elif what == "lose both":
        world.folders["disk", path].beside = None
        world.memory.clear()
    elif what == "move the file alone":
        world.folders["disk", path].beside = None
        world.folders["disk", path + "+"] = world.folders.pop(("disk", path))
    elif what == "another disk":
        world.folders["disk", path].inode = next(world.ticks)


INNOCENT = (
    *("nothing", "work", "crash between the two", "move", "rename", "lose the folder", "lose the host's", "lose both"),
    *("move the file alone", "another disk"),
)
INNOCENTS = st.lists(st.sampled_from(INNOCENT), max_size=8)


def started(whats):
    world = World()
    assert world.start() is Finding.FRESH
    world.work()
    for what in whats:
        innocent(world, what)
        assert not world.start(path=at_home(world)).is_alarm, what
    return world


@given(INNOCENTS)
def test_nothing_innocent_is_ever_an_alarm(whats):
    started(whats)


@given(INNOCENTS, st.integers(1, 3), st.sampled_from(["file", "folder"]))
def test_what_is_older_than_what_was_seen_is_an_alarm(whats, works, sort):
    world = started(whats)
    path = at_home(world)
    backup = replace(world.folders["disk", path])
    for _ in range(works):
        world.work(path=path)
    now = world.folders["disk", path]
    kept = (now.beside, now.inode) if sort == "file" else (backup.beside, next(world.ticks))
    world.folders["disk", path] = Folder(backup.stamp, *kept)
    assert world.start(path=path) is Finding.OLDER
    assert world.start(path=path) is Finding.OLDER  # Until somebody confirms it.
    world.confirm(path=path)
    assert not world.start(path=path).is_alarm
    world.work(path=path)
    assert not world.start(path=path).is_alarm
    now = world.folders["disk", path]
    world.folders["disk", path] = Folder(backup.stamp, now.beside, now.inode)
    assert world.start(path=path) is Finding.OLDER  # The same backup again.


@given(INNOCENTS)
def test_a_backup_of_what_is_there_now_is_no_alarm(whats):
    world = started(whats)
    path = at_home(world)
    now = world.folders["disk", path]
    world.folders["disk", path] = Folder(now.stamp, now.beside, now.inode)
    assert not world.start(path=path).is_alarm


@given(INNOCENTS, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_copy_is_an_alarm_and_its_original_is_none(whats, elsewhere, with_folder, works, forgotten):
    world = started(whats)
    path = at_home(world)
    disk, target = ("other", path) if elsewhere else ("disk", "/staging")
    world.copy(disk, target, with_folder, path)
    if works:
        world.work(path=path)
    if forgotten:
        world.memory.clear()
    assert world.start(disk, target).is_alarm
    assert not world.start(path=path).is_alarm
    world.confirm(disk, target)
    assert not world.start(disk, target).is_alarm
    world.work(disk=disk, path=target)
    assert not world.start(path=path).is_alarm
    assert not world.start(disk, target).is_alarm
    there = world.folders[disk, target]
    world.folders[disk, target] = Folder(world.folders["disk", path].stamp, there.beside, there.inode)
    assert world.start(disk, target).is_alarm  # Refreshed from the original, on another day.


HOME = ("cluster", "16384", "17000")


def on_server(stamp=None, home=HOME, swept=False, **values):
    where = values.pop("where", "db/site")
    here = Here("b", where, home, MADE, shared=True, is_swept=lambda: swept, **values)
    return judge(stamp, here)[0]


def seen(n, where="db/site", token="one", before=()):
    return Sighting(token, before, n, "a", where, MADE, n)


STAMPED = Stamp("one", n=5, host="a", where="db/site", home=HOME)
OTHER = ("another", "16384", "17001")


@pytest.mark.parametrize(
    ("what", "finding"),
    [
        ({}, Finding.SAME),  # A new host of several.
        ({"where": "localhost/site"}, Finding.SAME),
        ({"beside": seen(5)}, Finding.SAME),
        ({"beside": seen(2)}, Finding.SAME),  # A host that was off for a while.
        ({"beside": seen(6)}, Finding.OLDER),
        ({"on_host": [seen(6, where="elsewhere/site")]}, Finding.OLDER),
        ({"home": OTHER}, Finding.ELSEWHERE),
        ({"home": OTHER, "swept": True}, Finding.MOVED),
        ({"home": OTHER, "beside": seen(5)}, Finding.MOVED),  # Upgraded, or a copy has taken over.
        ({"home": OTHER, "beside": seen(6)}, Finding.OLDER),
        ({"home": OTHER, "on_host": [seen(5)]}, Finding.MOVED),
        ({"home": OTHER, "where": "db/staging", "on_host": [seen(5)]}, Finding.COPIED),
        ({"beside": seen(0, token="two", before=("one",))}, Finding.OLDER),
        ({"on_host": [seen(0, token="two", before=("one",), where="db/staging")]}, Finding.SAME),
    ],
)
def test_on_a_server_a_host_that_knows_nothing_asks_which_server_it_is(what, finding):
    assert on_server(STAMPED, **what) is finding


def test_one_without_a_stamp_is_new_unless_it_was_seen_since():
    assert on_server() is Finding.FRESH
    assert on_server(beside=seen(3)) is Finding.OLDER
    assert on_server(beside=replace(seen(3), made=7)) is Finding.FRESH
    assert on_server(beside=seen(3), has_flags=lambda: False) is Finding.FRESH


def test_one_that_was_confirmed_is_right_wherever_it_is():
    confirmed = Stamp("two", ("one",), placed=False)
    assert on_server(confirmed, home=OTHER, beside=seen(6)) is Finding.MOVED


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "17", '{"token": 3}', '{"token": ""}', '{"token": "a", "n": "b"}', b"\xff", "[" * 9999]
)
def test_what_is_damaged_is_not_known(text):
    assert Stamp.parse(text) is None
    assert Sighting.parse(text) is None


def test_a_stamp_and_a_sighting_are_read_as_they_were_written():
    assert Stamp.parse(STAMPED.text()) == STAMPED
    assert Sighting.parse(seen(3, before=("zero",)).text()) == seen(3, before=("zero",))
