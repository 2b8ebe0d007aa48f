"""Ten sites, broken for real, and mended by somebody who reads only the terminal."""

import json
import shutil
import socket
import sys

import pytest
from aiosmtpd.controller import Controller
from night import Night, copy, fill
from rig import plain

pytestmark = pytest.mark.long


@pytest.fixture
def night(tmp_path, spawn, env, until):
    """Give a site whose code can be written, and a terminal."""
    night = Night(tmp_path / "site", spawn, env, until)
    night.write()
    night.ask("init", code=0)
    yield night
    print(night.show())


def test_1_the_consumer_was_stopped(night):
    child = night.start()
    night.raise_mails(1)
    night.wait_for("mail 1")
    night.stop(child)
    night.raise_mails(2)
    said = night.ask("why").names("no consumer", "was stopped at")
    assert night.ask("check").code != 0
    night.ask("why", "mail").names("no consumer", "was stopped at")
    assert ["run"] in [command[:1] for command in said.commands()], said
    night.start()
    night.wait_for("mail 2")
    assert night.is_well()


def test_2_the_disk_was_full(small_disk, tmp_path, spawn, env, until):
    night = Night(tmp_path / "site", spawn, env, until, database=small_disk / "site.db")
    night.write()
    night.ask("init", code=0)
    night.raise_mails(1)
    child = night.start()
    night.wait_for("mail 1")
    fill(small_disk)
    long = json.dumps({"n": "x" * 30_000})  # A short one may find room in what the log has already.
    refused = next(said for said in (night.ask("raise", "mail", "-", input=long) for _ in range(200)) if said.code)
    refused.names("full")
    night.ask("why").names("full|no space", str(small_disk))
    night.ask("doctor").names("full|no space", str(small_disk))
    (small_disk / "filler").unlink()
    night.raise_mails(2)
    night.wait_for("mail 2")
    assert child.poll() is None
    assert night.is_well()


def test_3_a_handler_always_fails(night):
    night.write(mail='raise ValueError("no template welcome.txt")')
    night.raise_mails(1, 2, 3)
    child = night.start()
    night._until(lambda: '"dead": 3' in night.ask("status", "--json").text, limit=30)
    said = night.ask("why").names("died", r"work\.py", "mail", "retry")
    night.ask("why", "mail").names("dead|died", "no template welcome.txt")
    night.ask("dead").names("3", "no template welcome.txt", r"work\.py")
    assert night.ask("check").code != 0
    night.write()  # The handler is mended, and the consumer has the old one.
    for asked in (night.ask("why"), night.ask("why", "mail")):
        asked.names("older-code", rf"\(pid {child.pid} ", r"work\.py was changed at", f"kill {child.pid}", "'?flagsweep run")
    night.stop(child)
    night.start()
    night.do(said, "retry")
    night.wait_for("mail 1", "mail 2", "mail 3")
    assert night.is_well()


def test_4_a_schedule_never_fired(night):
    night.start()
    night.ask("schedule", "add", "leap", "tidy", "--cron", "0 0 29 2 1#5", code=0)
    night.ask("schedule", "pause", "leap", "--reason", "moving house", code=0)
    said = night.ask("why", "leap").names("paused", "moving house")
    night.do(said, "resume")
    night.ask("why", "leap").names("20[0-9]{2}-02-29", "days", "schedule edit leap --cron")
    night.ask("why").names("leap", "20[0-9]{2}-02-29", "schedule edit leap --cron")
    said = night.ask("doctor").names("leap")
    night.ask("schedule", "edit", "leap", "--every", "1s", code=0)
    night.wait_for("tidy")


def test_5_a_lane_was_paused_and_forgotten(night):
    night.start()
    night.ask("pause", "--lane", "post", "--reason", "moving the mail server", code=0)
    night.raise_mails(1)
    said = night.ask("why", "mail").names("paused", "moving the mail server", "post")
    night.ask("why").names("paused", "post")
    night.ask("why", "post").names("paused", "moving the mail server")
    night.do(said, "resume")
    night.wait_for("mail 1")
    assert night.is_well()


LOCKER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(600)
"""


def test_6_another_program_locks_the_database(night, spawn, until):
    night.start()
    thief = spawn(sys.executable, "-c", LOCKER, night.folder / "site.db")
    until(lambda: "locked" in thief.log.read_text())
    refused = night.ask("raise", "mail", '{"n": 1}')
    assert refused.code != 0
    refused.names("locked")
    night.ask("doctor").names(str(thief.pid), "writer|writes|holds")
    night.ask("why").names("the site: open-transaction", rf"pid {thief.pid}\b", f"kill {thief.pid}")
    thief.kill()
    thief.wait()
    night.raise_mails(1)
    night.wait_for("mail 1")
    assert night.is_well()


def test_7_the_mail_server_was_down(night, until):
    class Inbox:
        got = 0

        async def handle_DATA(self, server, session, envelope):
            Inbox.got += 1
            return "250 OK"

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mail = 'sendmail("a@example.org", ["b@example.org"], f"Subject: {n}\\n\\nx")'
    night.write(mail=f'smtplib.SMTP("127.0.0.1", {port}, timeout=5).{mail}')
    night.raise_mails(*range(12))
    night.start()
    until(lambda: "refused" in night.ask("why", "mail").text, limit=30)
    night.ask("why", "mail").names("refused", "breaker|provider|fail alike|again", "mail")
    night.ask("gates").names("mail")
    server = Controller(Inbox(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        night.wait_for(*(f"mail {n}" for n in range(12)), limit=120)
    finally:
        server.stop()
    assert Inbox.got == 12, "each mail went out once"
    assert night.is_well()


def test_8_a_backup_was_restored(night, tmp_path):
    night.raise_mails(1)
    plain(night.folder / "site.db", "VACUUM INTO ?", str(tmp_path / "backup.db"))
    child = night.start()
    night.wait_for("mail 1")
    night.stop(child)
    for path in night.folder.glob("site.db-*"):
        path.unlink()
    shutil.copy(tmp_path / "backup.db", night.folder / "site.db")
    night.start()
    said = night.ask("why").names("restored|backup|copy|older", "confirm")
    night.ask("check").names("paused|confirm")
    assert night.done == ["mail 1"], "the mail did not go out again"
    asked = night.ask("confirm").names("1")
    assert asked.code != 0, "without a terminal it does not guess"
    night.ask("discard", "--all", "--yes")
    night.ask("lower", "mail", '{"n":1}')
    assert ["confirm"] in [command[:1] for command in said.commands()]
    night.ask("confirm", "--yes", code=0)
    night.raise_mails(2)
    night.wait_for("mail 2")
    assert night.done == ["mail 1", "mail 2"]
    assert night.is_well()


def test_9_two_consumers_ran_on_two_copies(night, tmp_path, spawn, env, until):
    child = night.start()
    night.raise_mails(1)
    night.wait_for("mail 1")
    night.ask("raise", "mail", '{"n": 2}', "--delay", "1h", code=0)
    staging = Night(tmp_path / "staging", spawn, env, until)
    staging.write()
    copy(night.folder / "site.db", staging.folder)
    staging.start()
    staging.raise_mails(3)
    staging.ask("why").names("copy|another place|restored", "confirm")
    assert staging.ask("check").code != 0
    assert child.poll() is None and night.is_well(), "the original goes on"
    staging.ask("confirm", "--yes", code=0)
    staging.wait_for("mail 3")
    assert night.done == ["mail 1"]


def test_10_a_handler_was_renamed(night, until):
    child = night.start()
    noted = "SELECT count(*) FROM flagsweep_fact WHERE name = 'kind:mail'"
    until(lambda: plain(night.folder / "site.db", noted) == [(1,)])
    night.stop(child)
    night.raise_mails(1)
    code = (night.folder / "work.py").read_text()
    (night.folder / "work.py").write_text(code.replace("def mail(n)", "def mails(n)"))
    child = night.start()
    until(lambda: "no handler" in night.ask("why", "mail").flat.lower(), limit=30)  # Once the consumer has said what it serves.
    said = night.ask("why", "mail").names("no handler", "work", "alias")
    assert "mails" in said.text
    night.stop(child)
    mended = code.replace("def mail(n)", "def mails(n)").replace('lane="post", max', 'lane="post", aliases=["mail"], max')
    (night.folder / "work.py").write_text(mended)
    night.start()
    night.wait_for("mail 1")
    assert night.is_well()
