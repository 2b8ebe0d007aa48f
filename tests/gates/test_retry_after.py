"""Retry-After: what it may be written as, and in what it may come."""

import urllib.error
from email.message import Message
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsweep import ConfigError, retry_after
from flagsweep.config import Clock

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("-5", 0),
        ("86400", 3600),
        ("9" * 5000, 3600),
        (b"120", 120),
        (120, 120),
        (0.25, 0.25),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        (b"Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 23),
        ("Sun, 06 Nov 1994 09:50:37 +0100", 60),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0),
        ("Sun, 06 Nov 1904 08:49:36 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
    ],
)
def test_seconds_and_dates_are_read(text, wait):
    assert retry_after(text, NOW) == wait
    assert retry_after({"Retry-After": text}, NOW) == wait


WRONG = """|soon|1e3|inf|nan|0x10|1_0|\uff11\uff12|1,2|5 s|--5|Sun|06 Nov 1994|Sun, 06 Foo 1994 08:49:37 GMT
Sun, 36 Nov 1994 08:49:37 GMT|Sun, 06 Nov 1994 48:49:37 GMT|Sun, 06 Nov 1994 08:49:99 GMT|Sun, 06 Nov 99999 08:49:37 GMT"""
ODD = [b"\xff\xfe", True, None, [], {}, (), object, 1j, float("nan"), float("inf"), {"Retry-After": None}]


@pytest.mark.parametrize("text", [*WRONG.replace("\n", "|").split("|"), *ODD], ids=ascii)
def test_what_makes_no_sense_or_is_missing_asks_for_nothing(text):
    assert retry_after(text, NOW) is None


@given(st.one_of(st.text(), st.binary(), st.text("0123456789 :,-+GMTSunNov", max_size=40), st.floats(), st.integers()))
def test_any_header_gives_a_wait_within_the_cap_or_none(value):
    for given_ in (value, {"retry-after": value}):
        wait = retry_after(given_, NOW, cap="10m")
        assert wait is None or 0 <= wait <= 600


def message(name, value):
    headers = Message()
    headers[name] = value
    return headers


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: {"Date": "x", name: "7"},
        lambda name: {name.encode(): b"7"},
        lambda name: {name: ["7", "9"]},
        lambda name: message(name, "7"),
        lambda name: SimpleNamespace(headers={name: "7"}),
        lambda name: SimpleNamespace(headers=message(name, "7")),
        lambda name: SimpleNamespace(response=SimpleNamespace(headers={name: "7"})),
        lambda name: urllib.error.HTTPError("http://x", 429, "slow down", message(name, "7"), None),
    ],
    ids=["mapping", "bytes", "list", "message", "response", "urllib", "error with response", "HTTPError"],
)
def test_headers_are_found_in_any_case_in_responses_and_errors(wrapped, name):
    assert retry_after(wrapped(name), NOW) == 7


class Falsy(SimpleNamespace):
    """Like a response of requests, which is false for 4xx and 5xx."""

    def __bool__(self):
        return False


def test_a_response_that_is_false_is_read():
    assert retry_after(Falsy(headers={"Retry-After": "7"})) == 7
    assert retry_after(SimpleNamespace(response=Falsy(headers={"Retry-After": "7"}))) == 7


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_the_responses_of_these_libraries_are_read(library):
    module = pytest.importorskip(library)
    if library == "httpx":
        response = module.Response(429, headers={"Retry-After": "7"}, request=module.Request("GET", "http://x"))
        error = module.HTTPStatusError("slow down", request=response.request, response=response)
    else:
        response = module.Response()
        response.status_code, response.headers["Retry-After"] = 429, "7"
        error = module.HTTPError("slow down", response=response)
    assert retry_after(response) == retry_after(error) == 7


@pytest.mark.parametrize("given", [SimpleNamespace(headers=None), SimpleNamespace(headers={}), SimpleNamespace(response=None)])
def test_a_response_without_the_header_asks_for_nothing(given):
    assert retry_after(given) is None
    assert retry_after(OSError("no answer at all")) is None


def test_the_clock_is_asked_for_a_date_only(monkeypatch):
    monkeypatch.setattr(Clock, "now", lambda self: int(NOW * 1_000_000))
    assert retry_after("Sun, 06 Nov 1994 08:50:37 GMT") == 60
    monkeypatch.delattr(Clock, "now")
    assert retry_after("60") == 60
    assert retry_after("Sun, 06 Nov 1994 08:50:37 GMT", NOW) == 60


def test_the_cap_is_a_duration():
    assert retry_after("7200", cap="90m") == 5400
    with pytest.raises(ConfigError, match="cap must be"):
        retry_after("60", cap="soon")
