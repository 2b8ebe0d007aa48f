"""Durations, backoff and settings: what they may be, where they are read from, and what is said of bad ones."""

import math
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsweep import Backoff, ConfigError, FlagSweep
from flagsweep.config import EVENTS, LONGEST, Clock, Settings, check_name, seconds

# Durations.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (90, 90),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        ("90", 90),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("7us", 7e-6),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        (" 5 M ", 300),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_text_with_units(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["", "soon", "5 minutes", "m", "5m30", "m5", "--5", "1h-5m", "5m!", True, None, [], {}, b"5m"])
def test_what_is_no_duration_is_refused_with_the_forms_there_are(value):
    with pytest.raises(ConfigError, match=r"delay must be seconds, a timedelta or text such as '30s'.*got"):
        seconds(value, "delay")


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, "-5", "nan", "inf", math.nan, math.inf, -math.inf, 1e300, 10**400, "9" * 400 + "w", timedelta(days=-1)],
    ids=lambda value: repr(value)[:20],
)
def test_a_negative_endless_or_absurd_duration_is_refused(value):
    with pytest.raises(ConfigError, match="delay must lie between 0 seconds and ten years, got"):
        seconds(value, "delay")


def test_ten_years_are_the_longest_duration():
    assert seconds(LONGEST) == LONGEST
    with pytest.raises(ConfigError):
        seconds(math.nextafter(LONGEST, math.inf))


@pytest.mark.long
@given(st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.timedeltas(), st.booleans(), st.none()))
def test_any_duration_is_taken_within_its_bounds_or_refused_as_a_config_error(value):
    try:
        assert 0 <= seconds(value) <= LONGEST
    except ConfigError as error:
        assert repr(value) in str(error)


# Backoff.

PLAN = st.builds(
    lambda first, factor, cap, jitter: Backoff(first, factor, cap, jitter),
    st.floats(0, LONGEST),
    st.floats(1, 1000),
    st.floats(0, LONGEST),
    st.floats(0, 1),
)
ATTEMPT = st.one_of(st.integers(1, 100), st.integers(1, 10**30))
CHANCE = st.floats(0, 1)


@given(PLAN, ATTEMPT, CHANCE)
def test_a_wait_is_never_negative_nor_above_the_cap_and_its_jitter(backoff, attempt, chance):
    wait = backoff.delay(attempt, lambda: chance)
    assert 0 <= wait <= backoff.cap * (1 + backoff.jitter) * (1 + 1e-9)
    assert wait <= backoff.longest() * (1 + 1e-9)


@pytest.mark.long
@given(PLAN, st.lists(ATTEMPT, min_size=2).map(sorted))
def test_without_jitter_waits_never_shrink(backoff, attempts):
    steady = Backoff(backoff.first, backoff.factor, backoff.cap, 0)
    waits = [steady.delay(attempt) for attempt in attempts]
    assert all(earlier <= later for earlier, later in pairwise(waits))


@pytest.mark.parametrize("first", [0, 1e-300, 10])
@pytest.mark.parametrize("factor", [1, 1 + 1e-15, 2, 1000])
def test_a_huge_attempt_neither_overflows_nor_hangs(first, factor):
    assert 0 <= Backoff(first, factor, "1h", 0).delay(10**400) <= 3600


def test_the_default_waits_ten_seconds_twice_as_long_each_time_and_an_hour_at_most():
    least = lambda: 0.0  # noqa: E731
    waits = [Backoff().delay(attempt, least) for attempt in (1, 2, 3, 9, 10, 100)]
    assert waits == pytest.approx([10, 20, 40, 2560, 3600, 3600])


def test_jitter_makes_a_wait_longer_by_its_share_and_never_shorter():
    backoff = Backoff(first=100, jitter=0.1)
    assert [backoff.delay(1, lambda chance=chance: chance) for chance in (0, 0.5, 1)] == pytest.approx([100, 105, 110])


def test_a_first_wait_above_the_cap_is_the_cap():
    assert Backoff(first="2h", cap="1h", jitter=0).delay(1) == 3600


def test_the_longest_wait_is_one_that_is_ever_waited():
    assert Backoff(first=5, factor=1, cap="1h", jitter=0).longest() == 5
    assert Backoff(first=5, factor=2, cap="1h", jitter=0.1).longest() == pytest.approx(3960)


@pytest.mark.parametrize("duration", [30, "30s", timedelta(seconds=30)])
def test_one_duration_for_a_backoff_always_waits_that_long(duration):
    steady = Backoff.of(duration)
    assert [steady.delay(attempt) for attempt in (1, 2, 50)] == [30, 30, 30]


def test_every_bad_argument_of_a_backoff_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        Backoff(first="soon", factor=0.5, cap=-1, jitter=math.nan)
    assert [problem.split(" must")[0] for problem in caught.value.problems] == [
        "backoff first",
        "backoff cap",
        "backoff factor",
        "backoff jitter",
    ]


# Names.


@pytest.mark.parametrize("name", ["mail", "a.b", "send-mail_2", "메일", "x" * 100])
def test_a_name_is_one_to_a_hundred_printable_characters(name):
    assert check_name(name, "a lane's name") == name


@pytest.mark.parametrize("name", ["", "-", "x" * 101, "a b", "a\n", "a\0", "\ud800", 5, None])
def test_a_bad_name_is_refused(name):
    with pytest.raises(ConfigError, match="a lane's name must be 1 to 100 printable characters"):
        check_name(name, "a lane's name")


# Settings.


@pytest.fixture
def toml(tmp_path):
    """Give `toml(text)`: write a settings file, return the environment that names it."""

    def toml(text):
        file = tmp_path / "flagsweep.toml"
        file.write_text(text, encoding="utf-8")
        return {"FLAGSWEEP_CONFIG": str(file)}

    return toml


def test_nothing_given_means_the_defaults():
    assert Settings.load({}, {}) == Settings()


def test_an_argument_wins_over_the_environment_and_that_over_the_file(toml):
    environ = {**toml("threads = 1\nbatch = 1\nlanes = {slow = 2}"), "FLAGSWEEP_THREADS": "2", "FLAGSWEEP_BATCH": "2"}
    settings = Settings.load({"threads": 3, "batch": None}, environ)
    assert (settings.threads, settings.batch, settings.lanes) == (3, 2, {"slow": 2})


def test_the_environment_spells_every_kind_of_setting_as_text():
    settings = Settings.load(
        {},
        {
            "FLAGSWEEP_DATABASE": "sqlite:///site.db",
            "FLAGSWEEP_LANES": "mail=4, slow=1",
            "FLAGSWEEP_THREADS": "8",
            "FLAGSWEEP_SHUTDOWN_TIMEOUT": "1m",
            "FLAGSWEEP_WRITER_SHARE": "0.5",
            "FLAGSWEEP_WATCH": "poll",
            "FLAGSWEEP_KEEP_HISTORY": "7d",
        },
    )
    assert settings == Settings(
        database="sqlite:///site.db",
        lanes={"mail": 4, "slow": 1},
        threads=8,
        shutdown_timeout=60,
        writer_share=0.5,
        watch="poll",
        keep_history=dict.fromkeys(EVENTS, 604_800),
    )


def test_the_file_takes_durations_and_tables(toml):
    settings = Settings.load({}, toml('shutdown_timeout = "20s"\n[lanes]\nmail = 4\n'))
    assert (settings.shutdown_timeout, settings.lanes) == (20, {"mail": 4})


def test_a_promise_is_said_by_lane_or_of_all_wherever_it_is_read_from(toml):
    assert Settings.load({"promise": {"mail": "1m", "*": 3600}}, {}).promise == {"mail": 60, "*": 3600}
    assert Settings.load({}, {"FLAGSWEEP_PROMISE": "mail=1m, *=1h"}).promise == {"mail": 60, "*": 3600}
    assert Settings.load({}, toml('[promise]\nmail = "90s"\n')).promise == {"mail": 90}
    assert Settings.load({"promise": "5m"}, {}).promise == {"*": 300}, "a single one is that of every lane"


def test_every_bad_setting_is_named_at_once_wherever_it_comes_from(toml):
    environ = {**toml("tempo = 5\nbatch = 0"), "FLAGSWEEP_THREADS": "many"}
    with pytest.raises(ConfigError) as caught:
        Settings.load({"lanes": {"a b": 4, "mail": 0}, "watch": "sometimes", "payload_limit": True, "queue": "redis://"}, environ)
    told = str(caught.value)
    for part in ("'tempo'", "batch", "threads", "'many'", "'a b'", "'mail'", "'sometimes'", "payload_limit", "'redis://'"):
        assert part in told
    assert len(caught.value.problems) == 8
    assert "FLAGSWEEP_THREADS: threads must be" in told, "where to mend it"
    assert f"{environ['FLAGSWEEP_CONFIG']}: batch must be" in told
    assert not [problem for problem in caught.value.problems if problem.startswith("None")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", 1001),
        ("threads", 2.0),
        ("threads", "2.5"),
        ("threads", ""),
        ("batch", 10_001),
        ("payload_limit", 10),
        ("writer_share", 0),
        ("writer_share", 1.1),
        ("writer_share", math.nan),
        ("shutdown_timeout", -1),
        ("keep_history", "for ever"),
        ("keep_history", {"failure": "7d"}),
        ("keep_history", "failed=soon"),
        ("history_rows", -1),
        ("keep_counts", "a while"),
        ("poll_every", 0),
        ("watch", "never"),
        ("queue", "amqp://host"),
        ("queue", "queue.db"),
        ("queue", "redis://host:6379/0"),
        ("queue", "redis://host:6379/0?password=secret"),
        ("queue_key", "too short"),
        ("queue_key", ["long enough to be a key", 5]),
        ("nudge", "always"),
        ("lanes", ["mail"]),
        ("lanes", 4),
        ("lanes", "mail"),
        ("lanes", "mail=x"),
        ("lanes", {5: 1}),
        ("log", "xml"),
        ("promise", "soon"),
        ("promise", {"mail": "soon"}),
        ("promise", {"mail": 0.5}),
        ("promise", {"a b": "1m"}),
        ("promise", "mail=1m,slow"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_by_name_and_value(name, value):
    with pytest.raises(ConfigError, match=name.rstrip("s")) as caught:
        Settings.load({name: value}, {})
    assert len(caught.value.problems) == 1


def test_a_settings_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"FLAGSWEEP_CONFIG names '.*gone\.toml', which cannot be read as TOML"):
        Settings.load({}, {"FLAGSWEEP_CONFIG": str(tmp_path / "gone.toml")})


@pytest.mark.parametrize("text", ["threads =", "\udcff"])
def test_a_settings_file_that_is_not_toml_is_named(tmp_path, text):
    file = tmp_path / "flagsweep.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        Settings.load({}, {"FLAGSWEEP_CONFIG": str(file)})


def test_from_env_reads_all_settings_from_the_environment(monkeypatch, db_path):
    monkeypatch.setenv("FLAGSWEEP_DATABASE", str(db_path))
    monkeypatch.setenv("FLAGSWEEP_LANES", "mail=2")
    flags = FlagSweep.from_env()
    assert (flags.path, flags.settings.lanes) == (db_path, {"mail": 2})


def test_the_environment_is_read_when_a_flagsweep_is_made_and_not_at_import(monkeypatch, db_path):
    monkeypatch.setenv("FLAGSWEEP_THREADS", "3")
    assert FlagSweep(db_path).settings.threads == 3
    assert FlagSweep(db_path, threads=5).settings.threads == 5


def test_making_a_flagsweep_opens_and_creates_nothing(tmp_path):
    FlagSweep(tmp_path / "folder" / "site.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("database", "told"),
    [
        (None, "no database: pass a URL such as"),
        ("", "no database"),
        (5, "got 5"),
        ("oracle://u:secret@host/db", "must begin with 'sqlite://'"),
        ("sqlite://site.db", "three slashes"),
        ("sqlite:///site.db?mode=ro", "has parameters"),
        ("/", "names no file"),
        ("a\0b", "names no file"),
        ("sqlite:///%00", "names no file"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_with_the_fix(monkeypatch, database, told):
    monkeypatch.delenv("FLAGSWEEP_DATABASE", raising=False)
    with pytest.raises(ConfigError, match=told) as caught:
        assert FlagSweep(database).store
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_a_path_and_its_url_name_the_same_file(db_path, form):
    assert FlagSweep(form.format(db_path)).path == db_path


def test_a_relative_path_is_made_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = FlagSweep("sqlite:///site.db")
    monkeypatch.chdir("/")
    assert flags.path == tmp_path / "site.db"


# The clock.


def test_the_clock_tells_microseconds_utc_and_seconds_that_never_jump():
    clock = Clock()
    earlier, began = clock.now(), clock.monotonic()
    assert isinstance(earlier, int)
    assert earlier <= clock.now() < earlier + 60_000_000
    assert 0 <= clock.monotonic() - began < 60
