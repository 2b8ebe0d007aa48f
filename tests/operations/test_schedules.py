"""Looking after schedules: list, add, edit, pause, resume, run now, remove, reset, on every database."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from clients import at_once
from rig import let_go, only

from flagsweep import ConfigError, FlagSweep, PayloadError, ScheduleInfo, SignatureError, UnknownKind, UnknownSchedule
from flagsweep.schedules import SpecError

HOUR, DAY = 3600, 86400


@pytest.fixture
def make(url, clock, tmp_path):
    """Give `make(*kinds)`: a site that has handlers of these kinds."""
    made = []

    def make(*kinds, **options):
        made.append(FlagSweep(url, clock=clock, state_dir=str(tmp_path / "state"), threads=1))
        made[-1].init()
        for kind in kinds:
            made[-1].handler(kind, **options)(lambda n=0, flag=None: RAN.append((flag.intended, flag.missed)))
        return made[-1]

    RAN.clear()
    yield make
    for flags in made:
        flags.connections.close_thread()
    let_go(tmp_path)


RAN = []
"""For which times the handlers ran, and how many those stand for."""


@pytest.fixture
def flags(make):
    return make("work")


@pytest.fixture
def declared(flags):
    """Give a site with a schedule that its code declares, as a start has written it."""
    flags.handlers["work"].cron("0 4 * * *", name="nightly", tz="Asia/Seoul", arguments=(3,))
    flags.sweep()
    return flags


def shown(flags, name):
    (info,) = [info for info in flags.schedules.list() if info.name == name]
    return info


# Adding.


def test_a_schedule_that_is_added_is_shown_and_fires(flags, clock):
    info = flags.schedules.add("weekly", "work", cron="0 4 * * mon", tz="Asia/Seoul", arguments=(5,), by="ada")
    assert (info.kind, info.payload, info.sort, info.spec, info.zone) == ("work", {"n": 5}, "cron", "0 4 * * MON", "Asia/Seoul")
    assert (info.plain, info.origin, info.changed_by, info.notes) == ("Mondays at 04:00", "hand", "ada", ())
    assert [str(time) for time in info.next] == [f"2026-01-{day} 04:00:00+09:00" for day in ("05", "12", "19")]
    assert (info.last, info.outcome, info.due, info.paused_since, info.problem, info.handled) == (*[None] * 5, True)
    clock.advance(6 * DAY)
    assert str(shown(flags, "weekly").due) == "2026-01-05 04:00:00+09:00"
    flags.sweep()
    info = shown(flags, "weekly")
    assert (str(info.last), info.outcome, info.due) == ("2026-01-05 04:00:00+09:00", "succeeded", None)
    assert info.ended_at == datetime(2026, 1, 7, tzinfo=UTC) and [str(intended) for intended, _ in RAN] == [str(info.last)]


def test_every_and_at_and_what_becomes_of_missed_times_can_be_said(flags):
    info = flags.schedules.add("often", "work", every=timedelta(minutes=90), missed="all", grace="5m", cap=7)
    assert (info.plain, info.missed, info.grace_s, info.cap) == ("every 1 hour 30 minutes", "all", 300.0, 7)
    assert [(time - datetime(2026, 1, 1, tzinfo=UTC)) / timedelta(minutes=90) for time in info.next] == [1, 2, 3]
    info = flags.schedules.add("once", "work", at="2026-12-24 18:00")
    assert [str(time) for time in info.next] == ["2026-12-24 18:00:00+00:00"]


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({}, ConfigError, "say when 'x' fires: cron='0 4 "),
        ({"cron": "0 4 * * *", "every": "1h"}, ConfigError, "only one of cron='0 4 "),
        ({"cron": "0 4 * * *", "kind": "wrok"}, UnknownKind, "no handler is registered for the kind 'wrok'; there are work"),
        ({"cron": "0 4 * * *", "arguments": {"m": 1}}, SignatureError, "unexpected keyword argument 'm'"),
        ({"cron": "0 4 * * *", "arguments": {"n": {1}}}, PayloadError, "not JSON"),
        ({"every": "1h", "tz": "Asia/Soul"}, SpecError, "Asia/Seoul"),
        ({"every": "1h", "tz": "Asia/Soul", "missed": "no"}, ConfigError, "Asia/Seoul.*missed must be"),
        ({"every": "1h", "name": "a b"}, ConfigError, "a schedule's name must be"),
        ({"every": "1h", "name": "there"}, ConfigError, "there is a schedule 'there' already: edit it"),
        ({"at": "2025-12-24 18:00"}, ConfigError, "lies in the past"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_added(flags, given, error, told):
    flags.schedules.add("there", "work", every="1d")
    with pytest.raises(error, match=told):
        flags.schedules.add(**{"name": "x", "kind": "work", **given})
    assert [info.name for info in flags.schedules.list()] == ["there"]


def test_the_error_of_a_spec_says_where_the_mistake_is(flags):
    with pytest.raises(SpecError) as caught:
        flags.schedules.add("x", "work", cron="0 25 * * *")
    assert caught.value.position == 2


def test_it_is_added_in_the_transaction_of_the_site(flags):
    with flags.database.connection_context():
        with flags.database.atomic() as transaction:
            flags.schedules.add("x", "work", every="1h")
            assert len(flags.schedules.list()) == 1
            transaction.rollback()
        assert flags.schedules.list() == []


def test_of_two_who_add_one_name_at_once_the_second_is_told(flags):
    def add():
        try:
            return flags.schedules.add("x", "work", every="1h").name
        except ConfigError as error:
            return str(error)

    assert sorted(at_once(flags, add, add)) == ["there is a schedule 'x' already: edit it, or give this one another name", "x"]


def test_who_adds_is_told_which_schedules_share_its_flag(flags):
    flags.schedules.add("first", "work", every="1h")
    told = "the same kind and arguments as 'first': they share one flag, and one run where they are due together"
    assert flags.schedules.add("second", "work", every="2h").notes == (told,)
    assert flags.schedules.add("third", "work", every="2h", arguments=(1,)).notes == ()
    assert flags.schedules.add("fourth", "work", every="2h", missed="all").notes == ()


def test_who_adds_is_told_what_the_next_clock_change_does(flags, clock):
    clock.advance(50 * DAY)
    info = flags.schedules.add("x", "work", cron="30 2 * * *", tz="America/New_York")
    assert info.notes == ("on 2026-03-08 there is no 02:30 in America/New_York: it fires at 03:00",)


def test_without_handlers_arguments_are_a_dict_that_nothing_checks_and_the_key_is_that_of_the_raise(make, clock):
    bare = make()
    info = bare.schedules.add("x", "work", every="1h", arguments={"n": 7})
    assert info.handled is None and info.notes == ("nothing here knows the kind 'work': its arguments are not checked",)
    with pytest.raises(ConfigError, match="give a dict such as"):
        bare.schedules.add("y", "work", every="1h", arguments=(7,))
    assert bare.schedules.run_now("x").how == "new"
    assert make("work").handlers["work"].raise_flag(7).how == "coalesced"


# Editing, and what the code says.


def test_an_edit_changes_what_is_given_and_new_times_owe_no_past(flags, clock):
    flags.schedules.add("x", "work", cron="0 * * * *", tz="Asia/Seoul", arguments=(1,), by="ada")
    clock.advance(5 * HOUR)
    info = flags.schedules.edit("x", every="2h", by="bob")
    assert (info.plain, info.zone, info.payload, info.changed_by) == ("every 2 hours", "Asia/Seoul", {"n": 1}, "bob")
    assert (info.due, info.changed) == (None, {}) and info.next[0] == datetime(2026, 1, 1, 7, tzinfo=UTC)
    info = flags.schedules.edit("x", missed="skip", grace=5)
    assert info.next[0] == datetime(2026, 1, 1, 7, tzinfo=UTC), "its times stay, where they were not changed"
    assert flags.schedules.edit("x") == info


def test_what_a_hand_changes_is_shown_beside_what_the_code_says_and_wins_over_it(declared, make):
    info = declared.schedules.edit("nightly", cron="0 5 * * *", grace="2m", arguments={"n": 4}, by="ada")
    said = {"sort": "cron", "spec": "0 4 * * *", "grace_s": 60.0, "payload": {"n": 3}}
    assert (info.origin, info.changed, info.changed_by) == ("code", said, "ada")
    new = make("work")
    new.handlers["work"].every("3h", name="nightly", tz="Europe/Berlin")
    new.sweep()
    info = shown(new, "nightly")
    assert (info.spec, info.zone, info.payload, info.grace_s) == ("0 5 * * *", "Europe/Berlin", {"n": 4}, 120.0)
    assert info.changed == {"sort": "every", "spec": "3h", "grace_s": 60.0, "payload": {}}
    info = new.schedules.reset("nightly")
    assert (info.plain, info.payload, info.changed, info.changed_by) == ("every 3 hours", {}, {}, None)
    assert info.next[0] == datetime(2026, 1, 1, 3, tzinfo=UTC)


def test_a_policy_that_is_changed_changes_whose_flag_is_raised(flags, clock):
    flags.schedules.add("x", "work", cron="0 * * * *", arguments=(1,), missed="all")
    flags.schedules.edit("x", missed="once")
    flags.schedules.run_now("x")
    assert flags.handlers["work"].raise_flag(1).how == "coalesced"
    flags.schedules.edit("x", missed="all")
    assert flags.schedules.run_now("x").how == "new"


@pytest.mark.parametrize(("by_hand", "in_code"), [("once", "all"), ("all", "once")])
def test_the_key_follows_where_code_and_hand_say_a_part_each(make, by_hand, in_code):
    old, new = make("work"), make("work")
    old.handlers["work"].every("1h", missed=in_code, arguments=(1,))
    old.sweep()
    old.schedules.edit("work", missed=by_hand)
    new.handlers["work"].every("2h", missed=in_code, arguments=(2,))
    new.sweep()
    new.schedules.run_now("work")
    assert new.handlers["work"].raise_flag(2).how == ("coalesced" if by_hand == "once" else "new")


def test_arguments_by_hand_have_the_key_that_the_policy_of_the_code_gives(make):
    old, new = make("work"), make("work")
    old.handlers["work"].every("1h", arguments=(1,))
    old.sweep()
    old.schedules.edit("work", arguments=(3,))
    new.handlers["work"].every("1h", missed="all", arguments=(1,))
    new.sweep()
    new.schedules.run_now("work")
    assert only(new).payload == {"n": 3} and only(new).key.startswith("@work/")


def test_what_code_has_fire_again_and_again_is_not_changed_to_fire_once(declared):
    with pytest.raises(ConfigError, match="'at' would end it; run it now, or add another one"):
        declared.schedules.edit("nightly", at="2026-12-24 18:00")
    declared.schedules.add("x", "work", every="1h")
    assert declared.schedules.edit("x", at="2026-12-24 18:00").sort == "at"


def test_a_schedule_that_is_not_there_is_named_with_the_nearest_that_are(flags):
    for n, name in enumerate(("nightly", "weekly", "monthly", "often", "hourly", "daily")):
        flags.schedules.add(name, "work", every="1h", arguments={"n": n})
    for verb in ("edit", "pause", "resume", "run_now", "remove", "reset"):
        with pytest.raises(UnknownSchedule, match="there is no schedule 'nihgtly'; did you mean 'nightly'"):
            getattr(flags.schedules, verb)("nihgtly")


def test_only_what_code_declares_can_be_reset(flags):
    flags.schedules.add("x", "work", every="1h")
    with pytest.raises(ConfigError, match="no code declares the schedule 'x': edit it, or remove it"):
        flags.schedules.reset("x")


# Pausing.


def test_a_schedule_that_is_paused_does_not_fire_until_it_is_resumed(flags, clock):
    flags.schedules.add("x", "work", cron="0 * * * *")
    info = flags.schedules.pause("x", reason="the printer is away\0", by="ada")
    assert (info.paused_since, info.paused_until) == (datetime(2026, 1, 1, tzinfo=UTC), None)
    assert (info.paused_by, info.reason, info.next) == ("ada", "the printer is away\\0", ())
    clock.advance(3 * HOUR)
    flags.sweep()
    assert RAN == [] and shown(flags, "x").due is None
    info = flags.schedules.resume("x")
    assert (info.paused_since, info.paused_by, info.reason) == (None, None, None)
    flags.sweep()
    assert [missed for _, missed in RAN] == [2]
    assert flags.schedules.resume("x").paused_since is None


@pytest.mark.parametrize("until", ["90m", 5400, timedelta(minutes=90), datetime(2026, 1, 1, 1, 30, tzinfo=UTC)])
def test_a_pause_may_end_by_itself(flags, clock, until):
    flags.schedules.add("x", "work", cron="0 * * * *", missed="skip", tz="Asia/Seoul")
    info = flags.schedules.pause("x", until=until)
    assert str(info.paused_until) == "2026-01-01 10:30:00+09:00"
    assert [time.hour for time in info.next] == [11, 12, 13]
    clock.advance(2 * HOUR)
    flags.sweep()
    assert [intended.hour for intended, _ in RAN] == [11]
    assert shown(flags, "x").paused_since is None


@pytest.mark.parametrize(
    ("until", "told"),
    [
        ("soon", "until, if it is no datetime with a time zone, must be seconds"),
        (datetime(2027, 1, 1), "until must have a time zone"),
        (datetime(2025, 1, 1, tzinfo=UTC), "until lies in the past"),
    ],
)
def test_a_pause_that_cannot_be_meant_is_refused(flags, until, told):
    flags.schedules.add("x", "work", every="1h")
    with pytest.raises(ConfigError, match=told):
        flags.schedules.pause("x", until=until)


# Running now.


def test_run_now_raises_the_flag_of_the_schedule_and_leaves_its_times(declared, clock):
    before = shown(declared, "nightly")
    raised = declared.schedules.run_now("nightly")
    flag = only(declared)
    assert (raised.how, flag.id, flag.schedule, flag.missed) == ("new", raised.id, "nightly", 0)
    assert flag.intended == datetime(2026, 1, 1, tzinfo=UTC)
    assert declared.handlers["work"].raise_flag(3).how == "coalesced"
    declared.sweep()
    assert [(str(intended), missed) for intended, missed in RAN] == [("2026-01-01 09:00:00+09:00", 0)]
    after = shown(declared, "nightly")
    assert (after.next, after.last, after.outcome) == (before.next, None, "succeeded")


def test_what_has_a_flag_for_each_time_has_one_for_now(make, clock):
    flags = make("log", unique=False)
    flags.schedules.add("x", "log", every="1h")
    flags.schedules.run_now("x")
    clock.advance(1)
    flags.schedules.run_now("x")
    assert [flag.key for flag in flags.find()] == [f"@x/2026-01-01T00:00:0{n}.000000+00:00" for n in range(2)]


def test_a_schedule_runs_now_within_the_transaction_of_the_site(flags):
    flags.schedules.add("x", "work", every="1h")
    with flags.database.connection_context(), flags.database.atomic() as transaction:
        flags.schedules.run_now("x")
        transaction.rollback()
    assert flags.find() == []


# Removing.


def test_a_schedule_that_is_removed_is_gone(flags):
    flags.schedules.add("x", "work", every="1h")
    flags.schedules.remove("x")
    assert flags.schedules.list() == []


def test_what_code_declares_is_not_removed_but_by_the_code(declared, make, client):
    told = f"'nightly' is declared in {__name__}, and the next start.*pause it, or take it out of the code"
    for flags in (declared, make()):
        with pytest.raises(ConfigError, match=told):
            flags.schedules.remove("nightly")
    client.ask("UPDATE flagsweep_schedule SET module = 'a_module.that_was_deleted'")
    make("work").schedules.remove("nightly")
    assert declared.schedules.list() == []


# Damage, and JSON.


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("spec = 'every day'", "every day"),
        ("sort = 'x'", "the sort of a spec"),
        ("zone = 'Mars/Olympus'", "Mars/Olympus"),
        ("missed = 'twice'", "missed must be"),
        ("cap = -1", "cap must be"),
        ("grace = -1", "grace must lie"),
        ("payload = '{'", "its arguments are no JSON object"),
        ("payload = '[1]'", "its arguments are no JSON object"),
        ("next_at = 9223372036854775807", "its next time"),
        ("code = '{', changed = '{', last_at = 9223372036854775807", None),
    ],
)
def test_a_damaged_row_is_shown_with_its_problem_hides_no_other_and_can_be_mended(declared, client, damage, told):
    declared.schedules.add("other", "work", every="1h")
    client.ask(f"UPDATE flagsweep_schedule SET {damage} WHERE name = 'nightly'")
    other, info = sorted(declared.schedules.list(), key=lambda info: info.name, reverse=True)
    assert (other.name, other.problem) == ("other", None) and json.dumps(info.to_dict())
    assert info.problem is None if told is None else told in info.problem
    if told is not None:
        with pytest.raises(ConfigError, match="cannot fire"):
            declared.schedules.run_now("nightly")
    mending = {"cron": "0 4 * * *", "tz": "UTC", "missed": "once", "grace": 5, "cap": 5, "arguments": ()}
    assert declared.schedules.edit("nightly", **mending).problem is None


def test_reset_mends_what_a_hand_has_damaged_in_the_row(declared, client):
    client.ask("UPDATE flagsweep_schedule SET spec = 'every day', payload = '{', next_at = NULL")
    info = declared.schedules.reset("nightly")
    assert (info.problem, info.spec, info.payload) == (None, "0 4 * * *", {"n": 3}) and len(info.next) == 3


def test_a_schedule_is_shown_as_json_takes_it(declared, clock):
    info = declared.schedules.pause("nightly", until="1h")
    shown = json.loads(json.dumps(info.to_dict()))
    assert shown["next"][0] == "2026-01-02T04:00:00+09:00" and shown["paused_until"] == "2026-01-01T10:00:00+09:00"
    assert isinstance(info, ScheduleInfo)
    with pytest.raises(AttributeError):
        info.name = "other"
