"""From a call to a flag: signatures, keys, payloads, and the options of one raise."""

import functools
import hashlib
import inspect
import json
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import BooleanField, Model

import flagsweep
from flagsweep import Backoff, ConfigError, FlagSweep, Handler, PayloadError, SignatureError, UnknownKind
from flagsweep.config import SECOND
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
AS_DATETIME = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def flags(db_path, clock):
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    yield flags
    flags.database.close()


@pytest.fixture
def one(flags):
    """Return a handler of one argument, which may be anything."""
    return flags.handler("one")(lambda value: None)


def only(flags):
    """Return the one flag that is up."""
    (flag,) = flags.find()
    return flag


def stored(flags):
    """Return key and payload of all that is up, to the letter, in the order of their keys."""
    return flags.database.execute_sql("SELECT key, payload FROM flagsweep_flag ORDER BY key, payload").fetchall()


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


@pytest.mark.parametrize("function", [coroutine, async_generator, generator, functools.partial(coroutine)])
def test_a_handler_that_nobody_would_wait_for_is_refused_at_decoration(flags, function):
    with pytest.raises(ConfigError, match=r"must be a plain function.*asyncio.run"):
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


def test_a_backoff_may_be_one_duration(flags):
    work = flags.handler("work", backoff="30s")(star_free)
    assert work.options.backoff.delay(5) == 30
    assert isinstance(work.options.backoff, Backoff)


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


# Signatures.


@pytest.fixture
def send(flags):
    @flags.handler
    def send(user_id, copy=False):
        pass

    return send


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "missing a required argument: 'user_id'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"user_id": 1}, "multiple values for argument 'user_id'"),
        ((), {"user": 1}, "'user_id'"),
        ((1,), {"to": 1}, "unexpected keyword argument 'to'"),
        ((1,), {"flag": 1}, "unexpected keyword argument 'flag'"),
    ],
)
def test_arguments_that_do_not_fit_fail_at_the_raise(flags, send, args, kwargs, told):
    with pytest.raises(SignatureError, match=r"send\(user_id, copy=False\): ") as caught:
        send.raise_flag(*args, **kwargs)
    assert told in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert flags.find() == []


def test_flag_is_no_argument_of_a_raise(flags):
    work = flags.handler("work")(lambda flag, n: None)
    assert work.raise_flag(5).how == "new"
    assert only(flags).payload == {"n": 5}
    with pytest.raises(SignatureError):
        work.raise_flag(n=5, flag=1)


@pytest.mark.parametrize("item", [{"user": 1}, {}, (1, 2, 3), {5: 1}])
def test_an_item_that_does_not_fit_fails_the_whole_of_raise_many_by_its_number(flags, send, item):
    with pytest.raises(SignatureError, match=r"item 1 of raise_many: send\(user_id, copy=False\): "):
        send.raise_many([{"user_id": 1}, item])
    assert flags.find() == []


@pytest.mark.parametrize("item", [5, "x", [1], None, {1}])
def test_an_item_is_a_dict_or_a_tuple(flags, send, item):
    with pytest.raises(SignatureError, match="item 0 of raise_many must be a dict of keyword arguments or a tuple"):
        send.raise_many([item])


def test_raise_many_takes_any_iterable_and_counts_what_became_of_each(flags, send):
    send.raise_flag(1)
    assert send.raise_many({"user_id": n} for n in range(3)) == {"new": 2, "coalesced": 1}
    assert send.raise_many([]) == {}


def test_raise_many_keeps_no_item_when_one_is_bad(flags, one):
    with pytest.raises(PayloadError, match="item 2500 of raise_many: one: argument 'value'"):
        one.raise_many([{"value": n if n != 2500 else object()} for n in range(3000)])
    assert flags.find() == []


# Keys.


def test_arguments_by_position_and_by_name_are_one_flag(flags, send):
    assert send.raise_flag(1).how == "new"
    assert send.raise_flag(user_id=1).how == "coalesced"
    assert send.raise_many([(1,), {"user_id": 1}]) == {"coalesced": 2}
    assert (only(flags).key, only(flags).generation) == ('{"user_id":1}', 4)


def test_an_argument_equal_to_its_default_is_not_part_of_the_key(flags, send):
    send.raise_flag(1)
    assert send.raise_flag(1, copy=False).how == "coalesced"
    assert send.raise_flag(1, True).how == "new"
    assert [flag.key for flag in flags.find()] == ['{"user_id":1}', '{"copy":true,"user_id":1}']


def test_a_default_that_is_given_is_kept_in_the_payload(flags, send):
    """So that changing a default later changes no work that was asked for before."""
    send.raise_flag(1, copy=False)
    assert only(flags).payload == {"copy": False, "user_id": 1}


def test_the_order_of_arguments_and_of_nested_names_makes_no_other_flag(flags):
    work = flags.handler("work")(lambda a, b: None)
    work.raise_flag(a={"x": 1, "y": 2}, b=1)
    assert work.raise_flag(b=1, a={"y": 2, "x": 1}).how == "coalesced"
    assert only(flags).key == '{"a":{"x":1,"y":2},"b":1}'


@pytest.mark.parametrize(("one_value", "other"), [(1, "1"), (1, True), (1, 1.0), (None, "null"), ([], {}), ("é", "e\u0301")])
def test_different_arguments_are_different_flags(flags, one, one_value, other):
    one.raise_flag(one_value)
    assert one.raise_flag(other).how == "new"


def test_a_long_key_is_the_sha256_of_the_arguments(flags, one):
    one.raise_flag("x" * 300)
    assert only(flags).key == hashlib.sha256(b'{"value":"' + b"x" * 300 + b'"}').hexdigest()
    assert one.raise_flag(value="x" * 300).how == "coalesced"


@pytest.mark.parametrize(("length", "hashed"), [(200, False), (201, True)])
def test_two_hundred_characters_are_the_longest_key_of_arguments(flags, one, length, hashed):
    one.raise_flag("x" * (length - len('{"value":""}')))
    assert len(only(flags).key) == (64 if hashed else length)


def test_a_handler_without_arguments_has_one_flag_for_everybody(flags):
    work = flags.handler("work")(lambda: None)
    assert [work.raise_flag().how for _ in range(3)] == ["new", "coalesced", "coalesced"]
    assert only(flags).key == "{}"


def test_unique_false_makes_every_raise_a_flag_of_its_own(flags):
    work = flags.handler("work", unique=False)(lambda n: None)
    work.raise_flag(1)
    work.raise_flag(1)
    assert work.raise_many([{"n": 1}, (1,)]) == {"new": 2}
    assert len({flag.key for flag in flags.find()}) == 4


def test_the_same_arguments_for_two_kinds_are_two_flags(flags):
    for kind in ("a", "b", "A"):
        assert flags.handler(kind)(lambda n: None).raise_flag(1).how == "new"


def test_the_latest_payload_wins_in_raise_many_as_in_raises_one_after_the_other(flags):
    work = flags.handler("work")(lambda n=1: None)  # True == 1: one key, two payloads
    for values in ([1, True, 1.0], [1.0, True, 1], [True, 1.0, 1]):
        work.raise_many([{"n": value} for value in values])
        assert repr(only(flags).payload["n"]) == repr(values[-1])


# Payloads.

ODD_TEXT = [
    "",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\u2028\u2029",
    '"\\/\b\f\n\r\t',
    "'; --",
    "\U0001f600",
    "김민준",
    "\x7f\x80",
    "\\u0041",
]
ODD = [
    0,
    -0.0,
    1e308,
    5e-324,
    0.1,
    10**400,
    -(2**63),
    2**64,
    True,
    None,
    [],
    {},
    [[]],
    {"": {}},
    {"\ud800": "\0"},
    {"a.b[0]$": 1},
]


@pytest.mark.parametrize("value", [*ODD_TEXT, *ODD], ids=ascii)
def test_an_odd_value_reaches_its_handler_as_it_was(flags, value):
    seen = []
    one = flags.handler("one")(lambda value: seen.append(value))
    one.raise_flag(value)
    assert +flags.sweep() == {"lowered": 1}
    one.raise_many([{"value": value}, (value,)])
    assert +flags.sweep() == {"lowered": 1}
    assert [repr(each) for each in seen] == [repr(value)] * 2


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30) | st.sampled_from(ODD_TEXT)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
QUICK = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def forget(flags):
    flags.database.execute_sql("DELETE FROM flagsweep_flag")


@given(values=st.lists(st.tuples(JSON, JSON), max_size=4))
@QUICK
def test_raise_flag_and_raise_many_write_the_same_to_the_letter(flags, values):
    work = flags.handler("work")(lambda a, b=None: None) if not flags.handlers else flags.handlers["work"]
    with flags.database.connection_context():
        for a, b in values:
            work.raise_flag(a, b=b)
        one_by_one = stored(flags)
        forget(flags)
        work.raise_many([{"a": a, "b": b} for a, b in values])
        by_name = stored(flags)
        forget(flags)
        work.raise_many(values)
        assert one_by_one == by_name == stored(flags)
        forget(flags)


@given(value=JSON)
@QUICK
def test_a_payload_read_back_equals_what_was_raised(flags, value):
    one = flags.handler("one")(lambda value: None) if not flags.handlers else flags.handlers["one"]
    with flags.database.connection_context():
        one.raise_many([{"value": value}])
        assert repr(only(flags).payload) == repr(json.loads(json.dumps({"value": value}, sort_keys=True)))
        with flags.store.write():
            (claimed,) = flags.store.claim("one", 0, 10, 1, NOW)
        assert claimed.payload == {"value": value}
        forget(flags)
    flags.store.close_engine()


@given(values=st.lists(SCALAR, max_size=5))
@QUICK
def test_the_short_way_of_raise_many_writes_what_the_long_way_does(flags, values):
    """A handler without defaults takes the short way, a tuple the long one."""
    one = flags.handler("one")(lambda value: None) if not flags.handlers else flags.handlers["one"]
    with flags.database.connection_context():
        one.raise_many([{"value": value} for value in values])
        short = stored(flags)
        forget(flags)
        one.raise_many([(value,) for value in values])
        assert short == stored(flags)
        forget(flags)


class Account:
    id = 5


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime(2026, 1, 1), "pass .isoformat() and parse it"),
        (date(2026, 1, 1), "pass .isoformat() and parse it"),
        (Account(), "pass its .id and load it"),
        (Account, "pass its .id and load it"),
        (Decimal("1.5"), "pass str(...) of it"),
        (uuid.UUID(int=5), "pass str(...) of it"),
        (b"bytes", "pass str(...) of it"),
        ({1, 2}, "pass str(...) of it"),
        (object(), "pass str(...) of it"),
        (1j, "pass str(...) of it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_refused_with_a_hint(flags, one, value, told):
    with pytest.raises(PayloadError, match=r"one: argument 'value' is .*, which is not JSON: ") as caught:
        one.raise_flag(value)
    assert told in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert flags.find() == []


class Person(Model):
    owed = BooleanField(default=True)


def test_a_models_instance_is_refused_with_the_hint_to_pass_its_id(one):
    with pytest.raises(PayloadError, match=r"pass its \.id"):
        one.raise_flag(Person())


def test_the_place_of_a_bad_value_is_told(one):
    with pytest.raises(PayloadError, match=r"argument 'value'\['people'\]\[1\]\['born'\] is datetime"):
        one.raise_flag({"people": [{}, {"born": datetime(2026, 1, 1)}]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": {"b": v}}], ids=["bare", "list", "dict"])
def test_nan_and_infinity_are_refused(one, value, wrap):
    with pytest.raises(PayloadError, match="which JSON does not have: pass None or a string"):
        one.raise_flag(wrap(value))


@pytest.mark.parametrize("name", [1, 1.5, None, True, (1, 2), b"a"])
def test_only_strings_are_names_in_json(one, name):
    """Python's json would turn 1 into "1", and the handler would look for 1 in vain."""
    with pytest.raises(PayloadError, match="JSON has only strings as keys, so pass str"):
        one.raise_flag({name: 1})


def nested(depth, opening="[", closing="]"):
    return json.loads(opening * depth + ("1" if opening != "[" else "") + closing * depth)


@pytest.mark.parametrize("deep", [lambda depth: nested(depth), lambda depth: nested(depth, '{"a":', "}")], ids=["lists", "dicts"])
def test_sixty_four_levels_are_the_deepest_payload(flags, one, deep):
    one.raise_flag(deep(63))
    with pytest.raises(PayloadError, match="is nested deeper than 64: keep the data in a table"):
        one.raise_flag(deep(65))
    with pytest.raises(PayloadError, match="is nested deeper than 64"):
        one.raise_many([(deep(65),)])
    assert +flags.sweep() == {"lowered": 1}


def recursive_list():
    value = []
    value.append(value)
    return value


def recursive_dict():
    value = {}
    value["a"] = [value]
    return value


@pytest.mark.parametrize("value", [recursive_list(), recursive_dict(), nested(900)], ids=["list", "dict", "very deep"])
def test_what_contains_itself_is_refused_as_too_deep(one, value):
    with pytest.raises(PayloadError, match="is nested deeper than 64"):
        one.raise_flag(value)


def test_a_small_structure_that_spells_a_huge_text_is_refused_at_once(one):
    value = []
    for _ in range(60):
        value = [value, value]
    with pytest.raises(PayloadError, match="more values than its limit has bytes"):
        one.raise_flag(value)


@pytest.mark.parametrize(("length", "fits"), [(32_768, True), (32_769, False), (10_000_000, False)])
def test_32_kib_are_the_largest_payload(flags, one, length, fits):
    text = "x" * (length - len('{"value":""}'))
    if fits:
        one.raise_flag(text)
        assert only(flags).payload == {"value": text}
        return
    for refused in (lambda: one.raise_flag(text), lambda: one.raise_many([{"value": text}])):
        with pytest.raises(
            PayloadError, match=rf"one: the payload has {length:,} bytes, the limit is 32,768: keep the data in a table"
        ):
            refused()


def test_the_limit_counts_bytes_as_they_are_stored(one):
    with pytest.raises(PayloadError, match="bytes"):
        one.raise_flag("é" * 6000)  # six bytes each: \u00e9


@pytest.mark.parametrize("value", [10**5000, [10**5000], {"a": -(10**5000)}], ids=["bare", "list", "dict"])
def test_a_number_that_python_itself_does_not_spell_is_refused(flags, one, value):
    with pytest.raises(PayloadError, match="one: "):
        one.raise_flag(value)
    with pytest.raises(PayloadError, match="item 1 of raise_many: one: "):
        one.raise_many([{"value": 1}, {"value": value}])
    assert flags.find() == []


class Odd:
    def __repr__(self):
        raise RuntimeError("no")


def test_a_value_that_cannot_be_shown_is_refused_all_the_same(one):
    with pytest.raises(PayloadError, match="is <Odd>, which is not JSON"):
        one.raise_flag(Odd())


# Options of one raise.


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
    assert [problem.split()[0] for problem in caught.value.problems] == ["delay", "at", "give", "key", "priority"]


def test_the_returned_value_names_the_flag_and_what_became_of_it(flags, one):
    raised = one.raise_flag(1)
    assert (raised.id, raised.how) == (only(flags).id, "new")


def test_a_handler_shows_itself_by_kind_and_lane(flags):
    assert repr(flags.handler("work", lane="mail")(star_free)) == "<handler 'work' in lane 'mail'>"
    assert isinstance(flags.handlers["work"], Handler)


# What cannot be a handler, and errors that come in groups.


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ExceptionGroup("batch failed", [ValueError("x"), KeyError("y")]),
            "ExceptionGroup: batch failed (2 sub-exceptions): ValueError: x",
        ),
        (
            ExceptionGroup("outer", [ExceptionGroup("inner", [OSError("deep")])]),
            "ExceptionGroup: outer (1 sub-exception): ExceptionGroup: inner (1 sub-exception)",
        ),
        (BaseExceptionGroup("all", [KeyboardInterrupt()]), "BaseExceptionGroup: all (1 sub-exception): KeyboardInterrupt"),
        (ValueError("a | b\n  | c"), "ValueError: a | b"),
    ],
)
@pytest.mark.parametrize("raised", [False, True])
def test_the_headline_of_a_group_is_its_own_text_and_its_first_part(error, expected, raised):
    from flagsweep.sweep.perform import describe, headline

    if raised:
        try:
            raise error
        except BaseException as caught:
            error = caught
    assert headline(describe(error)) == expected
