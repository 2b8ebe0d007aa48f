"""Databases that are backed up, restored, copied and moved for real, and what a start makes of them."""

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from rig import FakeClock, plain

from flagsweep import FlagSweep

SITE = """
from flagsweep import FlagSweep
flags = FlagSweep("site.db")

@flags.handler
def send(n):
    open("sent", "a").write(f"{n} ")
"""


class Shop:
    """Be a site that sends mails, over and over again opened anew, as by another process each time."""

    def __init__(self, database, state_dir, clock=None, host=None):
        self.database, self.state_dir, self.clock, self.host = database, state_dir, clock or FakeClock(), host
        self.sent = []

    def flags(self, **settings):
        flags = FlagSweep(self.database, clock=self.clock, threads=1, state_dir=str(self.state_dir), **settings)

        @flags.handler
        def send(n):
            self.sent.append(n)

        flags.init()
        return flags

    def do(self, act, **settings):
        self.clock.advance(5)
        flags = self.flags(**settings)
        try:
            return act(flags)
        finally:
            flags.connections.close_thread()

    def raise_(self, n):
        return self.do(lambda flags: flags.handler_of("send").raise_flag(n))

    def sweep(self, **options):
        """Sweep; return what was sent."""
        self.sent.clear()
        self.do(lambda flags: flags.sweep(**options))
        return sorted(self.sent)

    def restored(self):
        return self.do(lambda flags: flags.restored)

    def confirm(self, **options):
        return self.do(lambda flags: flags.confirm(**options))


@pytest.fixture
def shop(ready_url, tmp_path):
    return Shop(ready_url, tmp_path / "state")


@pytest.fixture
def small(db_path, empty_site, tmp_path):
    """Give the same on a file."""
    (tmp_path / "srv").mkdir()
    shutil.copyfile(empty_site, tmp_path / "srv" / "site.db")
    shop = Shop(tmp_path / "srv" / "site.db", tmp_path / "state")
    shop.raise_(1)
    assert shop.sweep() == [1]
    return shop


def tool(url, of_postgres, of_mysql, **options):
    """Run a server's own program on a database."""
    at = urlsplit(url)
    if url.startswith("postgres"):
        command = [*of_postgres, url]
    else:
        command = [*of_mysql, f"-h{at.hostname}", f"-P{at.port or 3306}", f"-u{at.username or 'root'}", at.path[1:]]
        command += [f"-p{at.password}"] if at.password else []
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    return subprocess.run(command, check=True, capture_output=True, timeout=60, **options).stdout


def back_up(url):
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            return "\n".join(db.iterdump())
    return tool(url, ["pg_dump", "--clean", "--if-exists"], ["mysqldump"])


def restore(url, backup):
    if not url.startswith("sqlite"):
        tool(url, ["psql", "-q"], ["mysql"], input=backup)
        return
    path = url.removeprefix("sqlite:///")
    for name in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(name):
            os.unlink(name)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(backup)


def test_a_restored_backup_waits_until_it_is_confirmed(shop, caplog):
    shop.raise_(1)
    shop.raise_(2)
    backup = back_up(shop.database)
    assert shop.sweep() == [1, 2]
    shop.raise_(3)
    later = back_up(shop.database)
    assert shop.sweep() == [3]
    for dump, up in ((later, [3]), (backup, [1, 2])):
        restore(shop.database, dump)
        caplog.clear()
        assert shop.sweep() == []
        loud = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(loud) == 1
        assert "PAUSED" in loud[0].message and "flagsweep confirm" in loud[0].message
        found = shop.restored()
        assert (found.finding, found.due) == ("older", {"send": len(up)})
        assert shop.sweep() == []
        shop.confirm()
        assert shop.restored() is None
        assert shop.sweep() == up
        assert shop.sweep() == []


def test_a_restart_and_a_host_that_comes_to_it_are_no_alarm(shop, monkeypatch, tmp_path):
    shop.raise_(1)
    assert shop.sweep() == [1]
    shop.raise_(2)
    assert shop.sweep() == [2]
    if not shop.database.startswith("sqlite"):
        shop.state_dir = tmp_path / "another host's"
    monkeypatch.setattr(platform, "node", lambda: "another")
    shop.raise_(3)
    assert shop.sweep() == [3]


def test_a_backup_of_what_is_there_already_is_no_alarm(shop):
    shop.raise_(1)
    assert shop.sweep() == [1]
    backup = back_up(shop.database)
    restore(shop.database, backup)
    shop.raise_(2)
    assert shop.sweep() == [2]


def test_what_is_dropped_at_the_confirmation_leaves_a_line_of_history(shop):
    shop.raise_(1)
    backup = back_up(shop.database)
    assert shop.sweep() == [1]
    restore(shop.database, backup)
    assert shop.sweep() == []
    assert shop.confirm(drop=True) == 1
    assert shop.sweep() == []
    shop.raise_(2)
    assert shop.sweep() == [2]


def test_whoever_insists_sweeps_it_all_the_same(shop):
    shop.raise_(1)
    backup = back_up(shop.database)
    assert shop.sweep() == [1]
    restore(shop.database, backup)
    assert shop.sweep(force=True) == [1]
    assert shop.restored() is not None


def test_a_pause_of_somebodys_is_there_again_once_it_is_confirmed(shop):
    shop.raise_(1)
    shop.do(lambda flags: flags.pause(reason="a holiday", by="ann"))
    backup = back_up(shop.database)
    shop.do(lambda flags: flags.resume())
    assert shop.sweep() == [1]
    restore(shop.database, backup)
    assert shop.sweep() == []
    shop.confirm()
    assert [gate.why for gate in shop.do(lambda flags: flags.gates())] == ["all paused by ann: a holiday"]


def test_who_resumes_all_has_confirmed_it(shop):
    shop.raise_(1)
    backup = back_up(shop.database)
    assert shop.sweep() == [1]
    restore(shop.database, backup)
    assert shop.sweep() == []
    shop.do(lambda flags: flags.resume())
    assert shop.sweep() == [1]
    shop.raise_(2)
    assert shop.sweep() == [2]


def test_the_check_can_be_switched_off(shop):
    shop.raise_(1)
    backup = back_up(shop.database)
    assert shop.sweep() == [1]
    restore(shop.database, backup)
    shop.sent.clear()
    shop.do(lambda flags: flags.sweep(), restore_check=False)
    assert shop.sent == [1]


def test_a_dump_that_is_restored_into_another_database_is_no_production(postgres_url, tmp_path):
    import psycopg

    shop = Shop(postgres_url, tmp_path / "state")
    shop.raise_(1)
    assert shop.sweep() == [1]
    shop.raise_(2)
    name = f"{urlsplit(postgres_url).path[1:]}_staging"
    staging = Shop(postgres_url.replace(urlsplit(postgres_url).path, f"/{name}"), tmp_path / "another host's")
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"')
        try:
            restore(staging.database, back_up(shop.database))
            assert staging.sweep() == []
            assert staging.restored().finding == "elsewhere"
            assert shop.sweep() == [2]
            staging.confirm(drop=True)
            staging.raise_(3)
            assert staging.sweep() == [3]
            assert shop.sweep() == []
        finally:
            db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# Files.


def test_a_file_that_is_copied_back_is_older(small, tmp_path):
    small.raise_(2)
    for file in (tmp_path / "srv").glob("site.db*"):
        if file.is_file():
            shutil.copy2(file, tmp_path)
    assert small.sweep() == [2]
    for file in (tmp_path / "srv").glob("site.db-*"):
        file.unlink()
    for file in tmp_path.glob("site.db*"):
        shutil.copy2(file, tmp_path / "srv")
    assert small.sweep() == []
    assert small.restored().finding == "older"


def test_a_folder_that_is_brought_back_with_its_notes_is_known_by_those_of_the_host(small, tmp_path):
    small.raise_(2)
    shutil.copytree(tmp_path / "srv", tmp_path / "backup")
    assert small.sweep() == [2]
    shutil.rmtree(tmp_path / "srv")
    shutil.copytree(tmp_path / "backup", tmp_path / "srv")
    assert small.sweep() == []


@pytest.mark.parametrize("forgets", [False, True])
def test_a_copied_folder_is_a_copy_while_its_original_goes_on(small, tmp_path, forgets):
    small.raise_(2)
    shutil.copytree(tmp_path / "srv", tmp_path / "staging")
    if forgets:
        shutil.rmtree(small.state_dir)
    staging = Shop(tmp_path / "staging" / "site.db", small.state_dir, small.clock)
    assert staging.sweep() == []
    assert staging.restored().finding == "copied"
    assert str(tmp_path / "srv") in staging.restored().why
    assert small.sweep() == [2]
    assert staging.sweep() == []


@pytest.mark.parametrize("what", ["with its notes", "alone", "and nothing is remembered"])
def test_what_was_moved_goes_on(small, tmp_path, what):
    small.raise_(2)
    if what != "with its notes":
        shutil.rmtree(f"{small.database}.flagsweep")
    if what == "and nothing is remembered":
        shutil.rmtree(small.state_dir)
    os.rename(tmp_path / "srv", tmp_path / "moved")
    small.database = tmp_path / "moved" / "site.db"
    assert small.sweep() == [2]


@pytest.mark.parametrize("what", ["beside", "on the host", "both", "damaged"])
def test_notes_that_are_lost_are_no_alarm(small, tmp_path, what):
    small.raise_(2)
    stamp = tmp_path / "srv" / "site.db.flagsweep" / "stamp"
    if what in ("beside", "both"):
        shutil.rmtree(stamp.parent)
    if what in ("on the host", "both"):
        shutil.rmtree(small.state_dir)
    if what == "damaged":
        for file in (stamp, *(small.state_dir / "stamps").iterdir()):
            file.write_bytes(b"\x00" * 40)
    assert small.sweep() == [2]


def test_notes_that_cannot_be_written_are_no_alarm(small, tmp_path):
    (tmp_path / "srv" / "site.db.flagsweep" / "stamp").unlink()
    (tmp_path / "srv" / "site.db.flagsweep" / "stamp").mkdir()
    shutil.rmtree(small.state_dir)
    small.state_dir.write_text("no folder")
    for n in (2, 3):
        small.raise_(n)
        assert small.sweep() == [n]


def test_a_container_that_is_made_anew_has_its_volume(small, monkeypatch):
    for name in ("3f2a", "77b1"):
        monkeypatch.setattr(platform, "node", lambda name=name: name)
        shutil.rmtree(small.state_dir, ignore_errors=True)
        small.raise_(2)
        assert small.sweep() == [2]


def test_a_container_whose_files_get_other_numbers_has_its_state_dir(small, monkeypatch, tmp_path):
    small.raise_(2)
    monkeypatch.setattr(platform, "node", lambda: "3f2a")
    shutil.copytree(tmp_path / "srv", tmp_path / "other numbers")
    shutil.rmtree(tmp_path / "srv")
    os.rename(tmp_path / "other numbers", tmp_path / "srv")
    assert small.sweep() == [2]


@pytest.mark.parametrize("with_notes", [False, True])
def test_a_folder_on_another_host_is_from_elsewhere(small, monkeypatch, tmp_path, with_notes):
    small.raise_(2)
    shutil.copytree(tmp_path / "srv", tmp_path / "sent")
    shutil.rmtree(tmp_path / "srv")
    os.rename(tmp_path / "sent", tmp_path / "srv")
    if not with_notes:
        shutil.rmtree(f"{small.database}.flagsweep")
    monkeypatch.setattr(platform, "node", lambda: "staging")
    small.state_dir = tmp_path / "another host's"
    assert small.sweep() == []
    assert small.restored().finding == "elsewhere"
    small.confirm()
    assert small.sweep() == [2]


def test_who_confirms_before_the_first_start_is_not_asked(small, tmp_path):
    small.raise_(2)
    shutil.copytree(tmp_path / "srv", tmp_path / "staging")
    staging = Shop(tmp_path / "staging" / "site.db", small.state_dir, small.clock)
    staging.confirm(drop=True)
    staging.raise_(3)
    assert staging.sweep() == [3]


def test_one_from_before_there_were_stamps_is_stamped(small):
    plain(small.database, "DELETE FROM flagsweep_fact")
    shutil.rmtree(f"{small.database}.flagsweep")
    small.raise_(2)
    assert small.sweep() == [2]


def test_a_database_in_memory_is_nobodys_copy(tmp_path):
    flags = FlagSweep("sqlite:///:memory:", state_dir=str(tmp_path / "state"))
    flags.init()
    flags.sweep()
    assert flags.restored is None
    assert not (tmp_path / "state").exists()
    flags.database.close()


def test_a_young_database_leaves_nothing_in_the_users_home(make, clock, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    flags = make(tmp_path / "new.db")
    flags.sweep()
    assert not (tmp_path / "home").exists()
    clock.advance(7200)
    flags.sweep()
    assert list((tmp_path / "home" / "flagsweep" / "stamps").iterdir())


@pytest.mark.long
def test_a_running_consumer_waits_and_goes_on_once_it_is_confirmed(tmp_path, spawn, until, env):
    (tmp_path / "work.py").write_text(SITE)
    path, command = tmp_path / "site.db", [sys.executable, "-m", "flagsweep", "--app", "work:flags"]

    def call(*words):
        return subprocess.run([*command, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    call("init")
    call("raise", "send", '{"n": 1}')
    shutil.copyfile(path, tmp_path / "backup.db")
    assert call("sweep").returncode == 0
    shutil.copyfile(tmp_path / "backup.db", path)
    child = spawn(*command, "run")
    until(lambda: b"PAUSED" in child.log.read_bytes(), limit=30)
    until(lambda: b"commits seen by" in child.log.read_bytes(), limit=30)
    refused = call("sweep")
    assert refused.returncode == 1 and "flagsweep confirm" in refused.stderr
    assert (tmp_path / "sent").read_text() == "1 "
    said = call("confirm", "--yes").stdout
    assert "1 flag would start at once: 1 send" in said and "it goes on" in said
    until(lambda: (tmp_path / "sent").read_text() == "1 1 ", limit=30)
    assert call("confirm").stdout.startswith("nothing is held back")
