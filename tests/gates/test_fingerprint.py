"""Fingerprints: the type and the site's innermost line, whatever the error is made of."""

import json
import sys
import timeit
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsweep import ConfigError
from flagsweep.config import seconds
from flagsweep.gates.fingerprint import LIMIT, fingerprint


def caught(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def line_of(function, offset=1):
    return function.__code__.co_firstlineno + offset


def fail(message="told to nobody"):
    raise ValueError(message)


def call_json():
    json.loads("{")


def call_flagsweep():
    seconds("soon")


def chained():
    try:
        fail()
    except ValueError as error:
        raise KeyError("it") from error


def test_it_is_the_type_and_the_line_and_not_the_message():
    assert (
        fingerprint(caught(fail, "a")) == fingerprint(caught(fail, "b")) == f"ValueError test_fingerprint.py:fail:{line_of(fail)}"
    )


def test_a_library_called_by_the_site_is_told_by_the_sites_line():
    assert fingerprint(caught(call_json)) == f"json.decoder.JSONDecodeError test_fingerprint.py:call_json:{line_of(call_json)}"


def test_flagsweep_itself_is_told_by_the_sites_line():
    error = caught(call_flagsweep)
    assert isinstance(error, ConfigError)
    assert fingerprint(error) == f"flagsweep.errors.ConfigError test_fingerprint.py:call_flagsweep:{line_of(call_flagsweep)}"


def test_of_a_chain_it_is_the_last_error():
    assert fingerprint(caught(chained)) == f"KeyError test_fingerprint.py:chained:{line_of(chained, 4)}"


def made(source, file, name):
    """Return a function of a module that is in this file, as if imported from there."""
    module = types.ModuleType(name)
    exec(compile(source, file, "exec"), module.__dict__)
    return module.call


INNER = "def call():\n    raise OSError('x')\n"
OUTER = "def call(inner):\n    inner()\n"


@pytest.mark.parametrize(
    ("file", "name", "told"),
    [
        ("/srv/shop/.venv/lib/python3.11/site-packages/stripe/client.py", "stripe.client", False),
        ("/usr/lib/python3/dist-packages/apt/cache.py", "apt.cache", False),
        (json.__file__, "json", False),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap", False),
        ("<string>", "__main__", False),
        ("/opt/flagsweep/sweep/perform.py", "flagsweep.sweep.perform", False),
        ("/srv/shop/mail.py", "shop.mail", True),
        ("mail.py", "flagsweep_site", True),
        ("/srv/site-packages.d/mail.py", None, True),
    ],
)
def test_the_sites_code_is_what_is_not_installed_nor_pythons_nor_ours(file, name, told):
    outer, inner = made(OUTER, "/srv/shop/tasks.py", "shop.tasks"), made(INNER, file, name or "x")
    inner.__globals__["__name__"] = name
    expected = f"{file.rpartition('/')[2]}:call:2" if told else "tasks.py:call:2"
    error = caught(outer, inner)
    error.__traceback__ = error.__traceback__.tb_next  # Without the line of this test.
    assert fingerprint(error) == f"OSError {expected}"


def test_without_a_line_of_the_site_it_is_the_innermost_of_a_library():
    error = caught(json.loads, "{")
    error.__traceback__ = error.__traceback__.tb_next
    assert fingerprint(error).startswith("json.decoder.JSONDecodeError decoder.py:raw_decode:")


def test_without_a_traceback_it_is_the_type_alone():
    assert fingerprint(ValueError("x")) == "ValueError"
    assert fingerprint(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_syntax_error_is_told_by_who_compiled_it():
    error = caught(lambda: compile("def", "<x>", "exec"))
    assert fingerprint(error).startswith("SyntaxError test_fingerprint.py:<lambda>:")


def test_of_a_group_it_is_the_first_that_is_none():
    def group():
        raise ExceptionGroup("all", [ExceptionGroup("some", [caught(fail), KeyError("x")])])

    def never_raised():
        raise ExceptionGroup("all", [KeyError("x")])

    assert fingerprint(caught(group)) == fingerprint(caught(fail))
    assert fingerprint(caught(never_raised)).startswith("KeyError test_fingerprint.py:never_raised:")


class Meta(type):
    @property
    def __module__(cls):
        raise RuntimeError("no module")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (type("Odd", (Exception,), {"__module__": None}), "Odd"),
        (type("Odd", (Exception,), {"__module__": 5}), "Odd"),
        (type("Odd", (Exception,), {"__module__": "shop\n\ud800"}), "shop\\n\\ud800.Odd"),
        (Meta("Odd", (Exception,), {}), "Odd"),
        (type("Odd", (Exception,), {"__str__": None, "__module__": "shop"}), "shop.Odd"),
        (type("O" * 500, (Exception,), {"__module__": "shop"}), "O" * 200),
    ],
    ids=["None", "a number", "no text for a terminal", "an error", "no message", "long"],
)
def test_an_odd_type_is_told_as_well_as_it_can_be(kind, told):
    assert fingerprint(kind()) == told


NAME = st.text(min_size=1, max_size=300).filter(lambda text: "\0" not in text)


@pytest.mark.long
@given(NAME, NAME, NAME)
def test_it_is_short_and_on_one_line_whatever_things_are_called(file, module, name):
    kind = type(name, (Exception,), {"__module__": module})
    function = made("def call(kind):\n    raise kind\n", file, module)
    text = fingerprint(caught(function, kind))
    assert len(text) <= LIMIT
    assert text.isprintable()


def test_it_is_cheap_even_behind_a_deep_recursion():
    def dive(depth):
        return dive(depth - 1) if depth else fail()

    shallow, deep = caught(dive, 5), caught(dive, sys.getrecursionlimit() // 2)
    assert min(timeit.repeat(lambda: fingerprint(shallow), number=100, repeat=5)) < 0.02
    assert min(timeit.repeat(lambda: fingerprint(deep), number=1, repeat=5)) < 0.02
