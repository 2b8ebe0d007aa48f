"""Handlers: still functions, what can be none, their options, their former kinds, and the options of one raise."""

import functools
import inspect
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path

import pytest
from peewee import BooleanField, Model
from rig import only

import flagsweep
from flagsweep import Backoff, ConfigError, FlagSweep, Handler, UnknownKind
from flagsweep.config import SECOND
from flagsweep.handlers import Options
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
AS_DATETIME = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def one(flags):
    """Return a handler of one argument, which may be anything."""
    return flags.handler("one")(lambda value: None)


# A handler is still a function.


def test_a_handler_stays_an_ordinary_callable(flags):
    @flags.handler
    def add(a, b=2):
        """Add."""
        return a + b

    assert (add(1), add(1, b=5), add.__name__, add.__doc__) == (3, 6, "add", "Add.")
    assert str(inspect.signature(add)) == "(a, b=2)"
    assert flags.find() == []


def test_a_call_by_hand_raises_what_the_function_raises(flags):
    @flags.handler
    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        fail()


def test_the_kind_is_the_functions_name_unless_it_is_given(flags):
    def send():
        pass

    assert flags.handler(send).kind == "send"
    assert flags.handler("mail")(send).kind == "mail"
    assert flags.handler(kind="post", lane="slow")(send).lane == "slow"
    assert sorted(flags.handlers) == ["mail", "post", "send"]


def test_a_handler_can_be_made_a_handler_of_another_kind_again(flags):
    first = flags.handler("first")(lambda n: n)
    second = flags.handler("second")(first)
    assert (second.function, second(5)) == (first.function, 5)


@pytest.mark.long
def test_an_editor_knows_the_arguments_of_a_raise(tmp_path, missing):
    """What a type checker says is what an editor shows."""
    if subprocess.run([sys.executable, "-m", "mypy", "--version"], capture_output=True).returncode:
        missing("mypy is not installed")
    (tmp_path / "flagsweep").symlink_to(Path(flagsweep.__file__).parent)
    lines = {
        "send.raise_flag(1, copy=True)": None,
        'send.raise_flag("x")': "arg-type",
        "send.raise_flag(user=1)": "call-arg",
        "send.using(delay=1).raise_flag()": "call-arg",
        "send(1).upper()": None,
        'bare.raise_flag(n="x")': "arg-type",
        'flags.handler("kind", "mail", 3)': None,
        'flags.handler(lan="mail")': "call-overload",
    }
    head = """
from flagsweep import FlagSweep
flags = FlagSweep("site.db")
@flags.handler(lane="mail")
def send(user_id: int, copy: bool = False) -> str: return ""
@flags.handler
def bare(n: int) -> None: ...
"""
    (tmp_path / "site_work.py").write_text(head + "\n".join(lines) + "\n")
    command = ["-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "--cache-dir", tmp_path / "cache"]
    told = subprocess.run([sys.executable, *command, "site_work.py"], cwd=tmp_path, capture_output=True, text=True).stdout
    first = head.count("\n") + 1
    for number, (line, error) in enumerate(lines.items(), first):
        said = [text for text in told.splitlines() if text.startswith(f"site_work.py:{number}: error")]
        assert (error is None and not said) or f"[{error}]" in said[0], (line, told)


# What cannot be a handler.


def star(*args):
    pass


def double_star(**kwargs):
    pass


def positional(a, /):
    pass


async def coroutine():
    pass


async def async_generator():
    yield


def generator():
    yield


@pytest.mark.parametrize("function", [star, double_star, positional])
def test_a_handler_whose_arguments_have_no_names_is_refused_at_decoration(flags, function):
    with pytest.raises(ConfigError, match="give every parameter a name"):
        flags.handler(function)


@pytest.mark.parametrize("function", [async_generator, generator, functools.partial(async_generator)])
def test_a_handler_that_nobody_would_wait_for_is_refused_at_decoration(flags, function):
    with pytest.raises(ConfigError, match="yields, and nobody would ask it to go on"):
        flags.handler("work")(function)


def test_a_handler_that_hands_back_a_coroutine_has_not_done_its_work(flags):
    """A decorator hides that the function is a coroutine: taken for done, its work would be lost without a word."""
    work = flags.handler("work")(lambda: coroutine())
    work.raise_flag()
    assert +flags.sweep() == {"again": 1}
    assert "coroutine" in only(flags).error


@pytest.mark.parametrize("what", [5, object()])
def test_what_cannot_be_called_is_refused(flags, what):
    with pytest.raises(ConfigError, match="must be a function"):
        flags.handler("work")(what)


def test_a_function_without_a_name_needs_a_kind(flags):
    nameless = functools.partial(lambda a, b: None, b=1)
    with pytest.raises(ConfigError, match="the kind '' must be 1 to 100 printable characters"):
        flags.handler(nameless)
    assert flags.handler("work")(nameless).raise_flag(a=1).how == "new"


def test_two_handlers_of_one_kind_are_refused_and_the_first_is_named(flags):
    flags.handler("work")(star_free)
    with pytest.raises(ConfigError, match=r"the kind 'work' has a handler already \(.*star_free\)"):
        flags.handler("work")(lambda: None)
    assert flags.handlers["work"].function is star_free


def star_free():
    pass


def test_a_refused_handler_leaves_nothing_behind(flags):
    with pytest.raises(ConfigError):
        flags.handler("work", aliases=("a b",))(star_free)
    with pytest.raises(ConfigError):
        flags.handler("work")(star)
    assert dict(flags.handlers) == {}
    flags.handler("work")(star_free)


def test_every_bad_option_of_a_handler_is_named_at_once(flags):
    with pytest.raises(ConfigError) as caught:
        flags.handler(
            "a b",
            lane="",
            max_attempts=0,
            backoff="soon",
            priority=101,
            retry_on=(5,),
            discard_on="ValueError",
            aliases=("",),
            slow_after=-1,
        )(star_free)
    told = str(caught.value)
    for part in (
        "'a b'",
        "lane",
        "max_attempts",
        "backoff",
        "priority must be a whole number from -100 to 100, got 101",
        "retry_on",
        "discard_on",
        "''",
        "slow_after",
    ):
        assert part in told


def test_what_python_shows_of_a_handlers_options_is_what_they_are(flags):
    shown = list(inspect.signature(flags.handler).parameters.values())
    assert [each.name for each in shown] == ["kind", *Options.names()]
    assert repr(Options.checked("work", {each.name: each.default for each in shown[1:]})) == repr(Options("work"))


def test_options_may_be_given_by_position(flags):
    options = flags.handler("work", "mail", 3, "5m", 7)(star_free).options
    assert (options.kind, options.lane, options.max_attempts, options.priority) == ("work", "mail", 3, 7)
    with pytest.raises(TypeError, match=r"handler\(\) got an unexpected keyword argument 'lan'"):
        flags.handler(lan="mail")


def test_a_backoff_may_be_one_duration(flags):
    work = flags.handler("work", backoff="30s")(star_free)
    assert work.options.backoff.delay(5) == 30
    assert isinstance(work.options.backoff, Backoff)


def test_a_method_is_refused_where_it_is_declared_with_the_way_out(tmp_path):
    flags = FlagSweep(tmp_path / "site.db")
    with pytest.raises(ConfigError, match=r"method of a class.*@staticmethod"):

        class Mailer:
            @flags.handler
            def send(self, user_id): ...

    with pytest.raises(ConfigError, match="method of a class"):

        class Maker:
            @flags.handler
            @classmethod
            def make(cls, user_id): ...

    class Plain:
        @flags.handler
        @staticmethod
        def fine(user_id):
            return user_id

    assert Plain.fine(7) == 7 and "fine" in flags.handlers

    def outer():
        @flags.handler
        def inner(self_made): ...

        return inner

    assert outer().kind == "inner"

    class Bound:
        def act(self, user_id):
            return user_id

    assert flags.handler("bound")(Bound().act)(7) == 7


def test_a_lambda_is_asked_for_its_kind(tmp_path):
    flags = FlagSweep(tmp_path / "site.db")
    with pytest.raises(ConfigError, match=r"lambda has no name.*kind="):
        flags.handler(lambda: None)
    assert flags.handler("named")(lambda: None).kind == "named"


# Aliases.


def test_flags_of_a_former_kind_are_done_by_the_handler_that_names_it(flags, db_path):
    old = flags.handler("old")(lambda n: None)
    old.raise_flag(1)
    done = []
    renamed = FlagSweep(db_path, clock=flags.clock)
    renamed.handler("new", aliases="old")(lambda n: done.append(n))
    assert +renamed.sweep() == {"lowered": 1}
    assert done == [1]


def test_an_alias_is_not_listed_and_leads_to_its_handler(flags):
    work = flags.handler("work", aliases=("old", "older"))(star_free)
    assert dict(flags.handlers) == {"work": work}
    assert flags.handler_of("older") is work


@pytest.mark.parametrize(("kind", "aliases"), [("old", ()), ("third", ("old",)), ("third", ("work",))])
def test_an_alias_is_taken_like_a_kind(flags, kind, aliases):
    flags.handler("work", aliases=("old",))(star_free)
    with pytest.raises(ConfigError, match="has a handler already"):
        flags.handler(kind, aliases=aliases)(star_free)


def test_an_unknown_kind_is_told_with_those_there_are(flags):
    flags.handler("mail")(star_free)
    with pytest.raises(UnknownKind, match="'post'; there are mail"):
        flags.handler_of("post")


# Options of one raise.


class Person(Model):
    owed = BooleanField(default=True)


def test_a_delay_makes_the_flag_due_later(flags, one, clock):
    one.using(delay="5m").raise_flag(1)
    assert only(flags).due_at == AS_DATETIME + timedelta(minutes=5)
    assert +flags.sweep() == {}
    clock.advance("5m")
    assert +flags.sweep() == {"lowered": 1}


def test_a_time_with_a_zone_is_the_same_instant_in_every_zone(flags, one):
    at = datetime(2026, 1, 1, 9, 30, tzinfo=timezone(timedelta(hours=9)))
    one.using(at=at).raise_flag(1)
    assert only(flags).due_at == at


def test_options_hold_for_one_raise_and_for_raise_many(flags, one):
    one.using(delay=5, priority=7).raise_many([(1,), (2,)])
    one.raise_flag(3)
    assert [flag.priority for flag in flags.find()] == [7, 7, 0]


def test_a_key_of_ones_own_makes_different_arguments_one_flag(flags, one):
    first = one.using(key="daily").raise_flag(1)
    assert one.using(key="daily").raise_flag(2) == (first.id, "coalesced")
    assert (only(flags).key, only(flags).payload) == ("daily", {"value": 2})


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "a\nb", "\ud800", 5, b"k"])
def test_a_bad_key_is_refused(one, key):
    with pytest.raises(ConfigError, match=r"key must be 1 to 200 printable characters, got .*: use an id, or a hash"):
        one.using(key=key)


@pytest.mark.parametrize("key", ["x" * 200, "김민준 1", " "])
def test_two_hundred_printable_characters_of_any_language_are_a_key(flags, one, key):
    one.using(key=key).raise_flag(1)
    assert only(flags).key == key


def test_a_key_is_not_for_raise_many(one):
    with pytest.raises(ConfigError, match="key='k' names one flag: raise it with raise_flag"):
        one.using(key="k").raise_many([(1,)])


def test_a_key_is_not_for_an_own_row_whose_flag_its_primary_key_names(flags):
    """Discarding such a flag lowers the row that its key names."""
    greet = flags.when(Person.owed, kind="work")(lambda person: None)
    with pytest.raises(ConfigError, match="key"):
        greet.using(key="k").raise_flag(1)


@pytest.mark.parametrize("delay", [-1, "-5m", "soon", float("nan"), "11y", 10**12, timedelta(days=3651), True])
def test_a_past_or_absurd_delay_is_refused(flags, one, delay):
    with pytest.raises(ConfigError, match="delay must"):
        one.using(delay=delay)
    assert flags.find() == []


class Nowhere(tzinfo):
    """A time zone that does not say how far off it is: its times are as naive as those without."""

    def utcoffset(self, when):
        return None


@pytest.mark.parametrize(
    "at",
    [datetime(2026, 6, 1), datetime(2026, 6, 1, tzinfo=Nowhere()), date(2026, 6, 1), "2026-06-01", 1_767_225_600, True],
)
def test_a_naive_time_is_refused(one, at):
    with pytest.raises(ConfigError, match=r"at must be a datetime with a time zone, got .*: use datetime.now"):
        one.using(at=at)


@pytest.mark.parametrize("at", [AS_DATETIME - timedelta(seconds=2), datetime.min.replace(tzinfo=UTC)], ids=str)
def test_a_past_time_is_refused(one, at):
    with pytest.raises(ConfigError, match=r"at lies in the past: got .*; leave it out for 'now'"):
        one.using(at=at)


@pytest.mark.parametrize("offset", [-14, 0, 14])
def test_an_absurd_time_is_refused(one, offset):
    for at in (AS_DATETIME + timedelta(days=3651), datetime.max):
        with pytest.raises(ConfigError, match=r"at .*must lie between 0 seconds and ten years"):
            one.using(at=at.replace(tzinfo=timezone(timedelta(hours=offset))))


def test_a_time_that_has_just_passed_is_now(flags, one):
    """What was computed a moment ago as "now" is not an error."""
    one.using(at=AS_DATETIME - timedelta(milliseconds=500)).raise_flag(1)
    assert +flags.sweep() == {"lowered": 1}


@pytest.mark.parametrize("priority", [-101, 101, 1.5, "high", True, None])
def test_a_priority_is_a_whole_number_from_minus_100_to_100(one, priority):
    if priority is None:
        one.using(priority=None)
        return
    with pytest.raises(ConfigError, match="priority must be a whole number from -100 to 100, got"):
        one.using(priority=priority)


def test_every_bad_option_of_a_raise_is_named_at_once(one):
    with pytest.raises(ConfigError) as caught:
        one.using(delay="soon", at=datetime(2026, 1, 1), key="", priority=500)
    assert [problem.split()[0] for problem in caught.value.problems] == ["delay", "at", "key", "priority", "give"]


def test_the_returned_value_names_the_flag_and_what_became_of_it(flags, one):
    raised = one.raise_flag(1)
    assert (raised.id, raised.how) == (only(flags).id, "new")


def test_a_handler_shows_itself_by_kind_and_lane(flags):
    assert repr(flags.handler("work", lane="mail")(star_free)) == "<handler 'work' in lane 'mail'>"
    assert isinstance(flags.handlers["work"], Handler)
