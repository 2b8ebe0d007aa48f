"""From a call to a flag: what fits the signature, the key that tells it from others, and the payload to the letter."""

import hashlib
import json
import uuid
from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import BooleanField, Model
from rig import only

from flagsweep import PayloadError, SignatureError
from flagsweep.config import SECOND
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def one(flags):
    """Return a handler of one argument, which may be anything."""
    return flags.handler("one")(lambda value: None)


def stored(flags):
    """Return key and payload of all that is up, to the letter, in the order of their keys."""
    return flags.database.execute_sql("SELECT key, payload FROM flagsweep_flag ORDER BY key, payload").fetchall()


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


@pytest.mark.long
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


@pytest.mark.long
@given(value=JSON)
@QUICK
def test_a_payload_read_back_equals_what_was_raised(flags, value):
    one = flags.handler("one")(lambda value: None) if not flags.handlers else flags.handlers["one"]
    with flags.database.connection_context():
        one.raise_many([{"value": value}])
        assert repr(only(flags).payload) == repr(json.loads(json.dumps({"value": value}, sort_keys=True)))
        with flags.connections.write():
            (claimed,) = flags.store.claim("one", 0, 10, 1, NOW)
        assert claimed.payload == {"value": value}
        forget(flags)
    flags.connections.close_engine()


@pytest.mark.long
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
