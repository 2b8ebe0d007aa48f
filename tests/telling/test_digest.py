"""The digest: one page for a person who was not there, printed or mailed."""

import json

import pytest
from post import mail_server
from rig import FakeClock, plain

from flagsweep import FlagSweep
from flagsweep.errors import ConfigError
from flagsweep.models import Schedule
from flagsweep.telling.mail import NotSent, Server

SECRET = "s3cret-of-the-payload"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(ready_url, clock, tmp_path):
    made = []

    def make(**settings):
        flags = FlagSweep(ready_url, clock=clock, state_dir=str(tmp_path / "state"), **settings)
        flags.init()
        made.append(flags)

        @flags.handler(lane="mail", max_attempts=1, breaker=None)
        def send(user_id, word=SECRET):
            raise ValueError(f"no user {user_id}\r\nBcc: everybody@example.org")

        @flags.handler(lane="mail")
        def fine():
            pass

        flags.send, flags.fine = send, fine
        return flags

    yield make
    for flags in made:
        flags.connections.close_thread()


def part(made, title):
    return next(part for part in made.to_dict()["parts"] if part["title"].startswith(title))


def test_a_site_where_all_is_well_says_so_in_the_subject(make):
    flags = make()
    flags.fine.raise_flag()
    flags.sweep()
    flags.check = lambda *since: FlagSweep.check(flags, *since, needs_consumer=False)
    made = flags.digest()
    assert made.subject.startswith("flagsweep: all well on ")
    assert made.to_dict()["well"]
    assert "fine: 0 due, 100% of the day's attempts succeeded" in " ".join(part(made, "Healthy")["lines"])


def test_it_names_what_died_what_is_late_what_is_closed_and_what_mends_it(make, clock):
    flags = make(promise={"mail": "1m"})
    flags.send.raise_many([{"user_id": number} for number in range(3)])
    flags.sweep()
    flags.pause("fine", reason="new mail server", by="ann")
    flags.fine.raise_flag()
    clock.advance(600)
    made, text = flags.digest(), flags.digest().text()
    assert "3 dead, 1 lane late, 1 paused on " in made.subject
    (line,) = part(made, "Dead")["lines"]
    assert line in [f"    3  send: ValueError: no user {n}" for n in range(3)], "one of those that died at the same moment"
    (group,) = flags.dead()
    assert f"flagsweep dead retry {group.id}" in part(made, "Dead")["fixes"]
    assert "fine waits for 10 min, promised are 60 s (paused by ann: new mail server)" in part(made, "Due")["lines"][0]
    assert part(made, "Closed")["fixes"][0] == "flagsweep resume fine"
    assert part(made, "Errors")["lines"][0].startswith("    3  send: ValueError: no user ")
    assert max(map(len, text.splitlines())) <= 72
    assert SECRET not in text + json.dumps(made.to_dict())


def test_a_schedule_whose_last_run_died_is_named(make, clock):
    flags = make()

    @flags.every("1h")
    @flags.handler(max_attempts=1)
    def nightly():
        raise ValueError("no disk")

    flags._duties().firing()
    with flags.connections.write() as db:
        db.execute_sql("UPDATE flagsweep_schedule SET outcome = 'dead'")
    made = flags.digest()
    assert "1 schedule failed" in made.subject
    assert part(made, "Schedules")["fixes"] == ["flagsweep schedule show nightly"]


def test_a_schedule_that_comes_in_years_is_a_line_and_one_that_never_does_is_not_well(make):
    flags = make()
    flags.check = lambda *since: FlagSweep.check(flags, *since, needs_consumer=False)
    flags.schedules.add("leap", "fine", cron="0 0 29 2 *")
    made = flags.digest()
    assert made.to_dict()["well"]
    assert part(made, "Schedules")["lines"] == ["leap: its next time is 2028-02-29 00:00 UTC, in 789 days"]
    assert part(made, "Schedules")["fixes"] == ["flagsweep schedule show leap"]
    with flags.connections.write() as db:
        Schedule.update(next_at=None).execute(db)
    made = flags.digest()
    assert "a schedule does not fire on " in made.subject
    assert part(made, "Schedules")["lines"] == ["never fires again: schedule leap"]


def test_a_kind_that_only_fails_and_a_provider_that_is_away_are_not_well(make, clock):
    flags = make()

    @flags.handler(lane="mail", breaker=None)
    def poor(n):
        raise KeyError(n)

    @flags.handler(lane="mail")
    def post(n):
        raise ConnectionRefusedError(111, "Connection refused")

    for number in range(6):
        poor.raise_flag(number), post.raise_flag(number)
    flags.sweep()
    made = flags.digest()
    assert "1 provider away" in made.subject and "1 kind only fails" in made.subject
    (poor_line, post_line) = sorted(part(made, "Failing")["lines"])
    assert poor_line == "each of 6 runs of poor within the hour failed"
    assert post_line.startswith("post waits for its provider since ")
    assert part(made, "Failing")["fixes"] == ["'flagsweep why post'", "'flagsweep why poor'"]


def test_a_full_disk_is_not_well(small_disk):
    flags = FlagSweep(small_disk / "site.db")
    flags.init()
    assert "disk full" not in flags.digest().subject
    with (small_disk / "fill").open("wb", buffering=0) as fill:
        fill.write(bytes(4 << 20))
    made = flags.digest()
    assert "disk full" in made.subject
    assert f"KiB are free on the disk of {small_disk}" in part(made, "Disk")["lines"][0]
    flags.connections.close_thread()


def test_it_is_mailed_as_plain_text_and_the_next_one_tells_what_came_after(make, clock):
    with mail_server(login=True) as box:
        flags = make(smtp=box.url, mail_from="Shop <shop@example.org>")
        flags.send.raise_flag(7)
        flags.sweep()
        clock.advance(60)
        flags.send_digest("owner@example.org, Ann <ann@example.org>")
        clock.advance(60)
        flags.send_digest("owner@example.org, Ann <ann@example.org>")
    (first, second) = box.mails
    assert first[0] == ["owner@example.org", "ann@example.org"]
    assert first[1]["from"] == "shop@example.org"
    assert first[1].get_content_type() == "text/plain"
    assert "1 dead" in first[1]["subject"]
    assert "1 dead" not in second[1]["subject"]
    assert first[1]["bcc"] is None
    assert SECRET not in first[1].get_content()
    assert box.logins[0] == ("me", "pa/ss:w@rd")


@pytest.mark.parametrize("bad", ["owner", "a@b\r\nBcc: c@d", "", "a@b, c"])
def test_an_address_that_is_none_is_refused(make, bad):
    with pytest.raises(ConfigError, match="goes to an address"):
        make().send_digest(bad or " ")


def test_a_mail_server_that_is_down_or_refuses_says_so_without_its_password(make, clock):
    with mail_server(login=True) as box:
        box.refuse = True
        flags = make(smtp=box.url)
        with pytest.raises(NotSent, match="451") as refused:
            flags.send_digest("owner@example.org")
        wrong = make(smtp=box.url.replace("rd@", "rdwrong@"))
        with pytest.raises(NotSent) as unknown:
            wrong.send_digest("owner@example.org")
    with pytest.raises(NotSent) as down:
        flags.send_digest("owner@example.org")
    for error in (refused, unknown, down):
        assert "pa/ss" not in str(error.value)
        assert "pa%2Fss" not in str(error.value)
    assert "pa%2Fss" not in repr(flags.settings)


@pytest.mark.parametrize("url", ["mail.example.org", "http://x", "smtp://", "smtp://h:port"])
def test_a_server_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="smtp must be"):
        FlagSweep("site.db", smtp=url)
        Server.of(url)


@pytest.mark.parametrize("by", ["setting", "code"])
def test_it_is_a_schedule_that_is_tried_again_as_any_other(make, clock, by):
    with mail_server() as box:
        flags = make(smtp=box.url, **({"digest": {"to": "owner@example.org", "at": "07:30"}} if by == "setting" else {}))
        if by == "code":
            flags.digest_to("owner@example.org", at="07:30")
        firing = flags._duties().firing()
        (schedule,) = flags.schedules.list()
        assert (schedule.name, schedule.kind, schedule.spec) == ("flagsweep.digest", "flagsweep.digest", "30 7 * * *")
        box.refuse = True
        clock.advance(8 * 3600)
        firing.fire()
        assert +flags.sweep() == {"again": 1}
        box.refuse = False
        clock.advance(3600)
        assert +flags.sweep() == {"lowered": 1}
        assert [to for to, _ in box.mails] == [["owner@example.org"]]
    flags.connections.close_thread()


@pytest.mark.parametrize("bad", ["noon", {"at": "25:00"}, {"to": "a@b.c", "when": "07:30"}, {"to": 7}])
def test_a_bad_setting_is_refused(bad):
    if bad == "noon":
        bad = {"to": "a@b.c", "at": "noon"}
    with pytest.raises(ConfigError, match="digest"):
        FlagSweep("site.db", digest=bad)


def test_rows_that_a_hand_has_damaged_are_shown_as_they_are(ready_url, make):
    if not ready_url.startswith("sqlite"):
        pytest.skip("other databases refuse such values")
    flags = make()
    flags.send.raise_flag(1)
    flags.sweep()
    plain(flags.path, "UPDATE flagsweep_history SET reason = X'ff00', kind = 7")
    plain(flags.path, "UPDATE flagsweep_flag SET error = 5")
    assert "1 dead" in flags.digest().subject
