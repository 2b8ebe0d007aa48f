"""Sentry, as the site has set it up: one event for each cause and hour, and no payload in it."""

import json
import sys

import pytest
import sentry_sdk
from rig import FakeClock
from sentry_sdk.transport import Transport

from flagsweep import FlagSweep
from flagsweep.errors import ConfigError
from flagsweep.sweep.notices import Failure
from flagsweep.telling.discreet import discreet

SECRET = "s3cret-of-the-payload"


class Kept(Transport):
    """Be where Sentry's SDK sends to."""

    def __init__(self, options=None):
        super().__init__(options)
        self.events = []

    def capture_envelope(self, envelope):
        self.events += [item.payload.json for item in envelope.items if item.headers.get("type") == "event"]


@pytest.fixture
def sentry():
    transport = Kept()
    sentry_sdk.init("http://public@127.0.0.1:9/1", transport=transport, attach_stacktrace=True, include_local_variables=True)
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(ready_url, clock):
    made = []

    def make(**settings):
        flags = FlagSweep(ready_url, clock=clock, **settings)
        flags.init()
        made.append(flags)

        @flags.handler(max_attempts=2, backoff=10, breaker=None)
        def send(user_id, word):
            hidden = word * 2
            raise ValueError(f"no user {user_id}, {len(hidden)}")

        flags.send = send
        return flags

    yield make
    for flags in made:
        flags.connections.close_thread()


def ours(transport):
    return [event for event in transport.events if event.get("logger") == "flagsweep" and "flagsweep" in event["contexts"]]


def test_one_cause_is_one_event_an_hour_with_kind_key_attempt_and_traceback_and_no_payload(make, sentry, clock):
    flags = make()
    flags.send.raise_many([{"user_id": number, "word": SECRET} for number in range(30)])
    flags.send.using(key="user-7").raise_flag(user_id=7, word=SECRET)
    flags.sweep()
    (event,) = ours(sentry)
    assert {name: event["tags"][name] for name in ("kind", "attempt", "final")} == {
        "kind": "send",
        "attempt": "1",
        "final": "False",
    }
    assert event["tags"]["key"].startswith("sha256:")
    assert event["fingerprint"][:2] == ["flagsweep", "send"]
    assert event["fingerprint"][2].startswith("ValueError test_sentry.py:send:")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"].split(",")[0][:7]) == ("ValueError", "no user")
    assert error["stacktrace"]["frames"][-1]["function"] == "send"
    assert SECRET not in json.dumps(event)
    clock.advance(3700)
    flags.sweep()
    assert [event["tags"]["attempt"] for event in ours(sentry)] == ["1", "2"]
    assert ours(sentry)[1]["level"] == "error"


def test_a_restart_tells_nothing_again_and_two_consumers_tell_once(make, sentry):
    for _ in range(2):
        flags = make()
        flags.send.raise_flag(user_id=7, word="a")
        flags.sweep()
        flags.lower("send", flags.find()[0].key)
    assert len(ours(sentry)) == 1


@pytest.mark.parametrize(("told", "attempts"), [(True, ["1"]), ("final", ["2"]), (False, [])])
def test_a_setting_says_what_is_told(make, sentry, clock, told, attempts):
    flags = make(sentry=told)
    flags.send.using(key="user-7").raise_flag(user_id=7, word="a")
    for _ in range(2):
        flags.sweep()
        clock.advance(60)
    assert [event["tags"]["attempt"] for event in ours(sentry)] == attempts
    assert all(event["tags"]["key"] == "user-7" for event in ours(sentry))


def test_what_has_no_exception_is_an_event_without_any_stack(make, sentry, client):
    flags = make()
    flags.send.raise_flag(user_id=7, word=SECRET)
    client.ask(f"UPDATE flagsweep_flag SET payload = '[\"{SECRET}\"'")
    flags.sweep()
    (event,) = ours(sentry)
    assert event["fingerprint"] == ["flagsweep", "send", "parked"]
    assert SECRET not in json.dumps(event)
    assert event["level"] == "error"


def test_what_the_site_wants_ignored_is_ignored(make, sentry):
    sentry_sdk.get_client().options["ignore_errors"] = [ValueError]
    flags = make()
    flags.send.raise_flag(user_id=7, word="a")
    flags.sweep()
    assert ours(sentry) == []


def test_an_error_of_the_sdk_harms_nothing(make, sentry, monkeypatch):
    def broken(*arguments, **named):
        raise RuntimeError("no such function in this version")

    monkeypatch.setattr(sys.modules["sentry_sdk.utils"], "event_from_exception", broken)
    flags = make()
    flags.send.raise_flag(user_id=7, word="a")
    assert +flags.sweep() == {"again": 1}


def test_it_is_never_imported_where_the_site_has_not(spawn, tmp_path):
    (tmp_path / "work.py").write_text(
        "import sys\nfrom flagsweep import FlagSweep\nflags = FlagSweep('site.db')\nflags.init()\n"
        "@flags.handler(max_attempts=1)\ndef send():\n    1 / 0\n"
        "send.raise_flag()\nassert flags.sweep()['dead'] == 1\n"
        "print('sentry_sdk' in sys.modules, 'flagsweep.telling.sentry' in sys.modules)\n"
    )
    child = spawn(sys.executable, "work.py")
    assert child.wait(60) == 0
    assert child.log.read_text().splitlines()[-1] == "False False"


def test_a_bad_setting_is_refused():
    with pytest.raises(ConfigError, match="sentry must be True, False or 'final', got 'sometimes'"):
        FlagSweep("site.db", sentry="sometimes")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("user-7", "user-7"),
        ("17", "17"),
        ('{"email":"a@b.c"}', "sha256:"),
        ('["a@b.c"]', "sha256:"),
        ('{"cut', "sha256:"),
        ("a\nb", "a\\nb"),
    ],
)
def test_a_key_that_is_the_arguments_is_not_shown(key, shown):
    assert discreet(key).startswith(shown)
    assert "a@b.c" not in discreet(key)
    assert Failure("send", key, 1, 1, "", "", True, False).key == key
