"""The server for monitoring: whatever a client does, it is answered or turned away, and holds nobody up."""

import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, closing

import pytest

from flagsweep import ConfigError, NotReady
from flagsweep.config import address
from flagsweep.consumer.listening import HEAD, MOST, Listener
from flagsweep.consumer.outlook import Answer


class Said:
    """Answer with what was asked for; and only once it may, where it is asked for ``/slow``."""

    def __init__(self):
        self.may = threading.Event()

    def answer(self, path):
        if path == "/trouble":
            raise RuntimeError("not today")
        if path == "/slow":
            self.may.wait(20)
        return Answer(503 if path == "/bad" else 200, "text/plain; charset=utf-8", f"asked for {path}\n".encode())


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def listen(said):
    """Give `listen(host)`: listen there, on a port that is free."""
    with ExitStack() as stack:

        def listen(host="127.0.0.1", port=0):
            listener = Listener((host, port), said)
            listener.start()
            stack.callback(listener.join, 10)
            stack.callback(listener.stop)
            return listener

        yield listen
        said.may.set()


def ask(listener, request, host="127.0.0.1"):
    """Send bytes, and return all that is answered."""
    with closing(socket.create_connection((host, listener.port), timeout=10)) as client:
        client.sendall(request)
        answer = b""
        while more := client.recv(65536):
            answer += more
    return answer


def get(path, *fields, verb="GET"):
    return "\r\n".join([f"{verb} {path} HTTP/1.1", *(fields or ("Host: localhost:9108",)), "", ""]).encode()


def test_a_request_is_answered_with_its_status_and_the_connection_ends(listen):
    listener = listen()
    head, _, body = ask(listener, get("/healthz?x=1")).partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"asked for /healthz\n")
    assert b"Content-Length: 19" in head and b"Connection: close" in head and b"nosniff" in head
    assert ask(listener, get("/bad")).startswith(b"HTTP/1.1 503 ")
    with urllib.request.urlopen(f"{listener.where}/metrics", timeout=10) as answer:
        assert answer.read() == b"asked for /metrics\n"


def test_head_is_answered_without_a_body(listen):
    head, _, body = ask(listen(), get("/healthz", verb="HEAD")).partition(b"\r\n\r\n")
    assert b"Content-Length: 19" in head and body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/healthz", verb="POST"), b"405 "),
        (get("/healthz", verb="get"), b"405 "),
        (b"GET /healthz\r\n\r\n", b"400 "),
        (b"GET http://localhost/healthz HTTP/1.1\r\n\r\n", b"400 "),
        (b"\x16\x03\x01\x02\x00\x01\xfc\r\n\r\n", b"400 "),
        (b"\r\n\r\n", b"400 "),
        (get("/healthz", "Host: evil.example"), b"421 "),
        (get("/healthz", "Host: 127.0.0.1.evil.example:9108"), b"421 "),
        (get("/healthz", "Host: localhost", "Host: evil.example"), b"421 "),
        (get("/healthz", "Host: 127.0.0.1:9108"), b"200 "),
        (get("/healthz", "Host: [::1]:9108"), b"200 "),
        (get("/healthz", "hOST:  LocalHost"), b"200 "),
        (get("/healthz", "Accept: */*"), b"200 "),
        (get("/" + "x" * HEAD), b"431 "),
    ],
)
def test_what_is_no_plain_request_for_this_host_is_refused(listen, request_, status):
    assert ask(listen(), request_).removeprefix(b"HTTP/1.1 ").startswith(status)


def test_other_hosts_may_call_it_by_its_name_where_it_listens_for_them(listen):
    assert ask(listen("0.0.0.0"), get("/healthz", "Host: web1.internal:9108")).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_says_nothing_or_goes_away_holds_nobody_up(listen):
    listener = listen()
    with ExitStack() as stack:
        for _ in range(MOST - 2):  # Who has just had an answer may have its place for a moment longer.
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", listener.port)))).send(b"GET /heal")
        assert ask(listener, get("/healthz")).startswith(b"HTTP/1.1 200 ")
    assert ask(listener, get("/healthz")).startswith(b"HTTP/1.1 200 ")


def test_more_than_so_many_at_a_time_are_turned_away_until_one_has_its_answer(listen, said, until):
    listener = listen()
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", listener.port)))).sendall(get("/slow"))

        def is_full():
            try:
                return ask(listener, get("/healthz")) == b""
            except OSError:
                return True

        until(is_full)
        said.may.set()
        until(lambda: not is_full())


def test_an_outlook_that_fails_ends_the_request_alone(listen):
    listener = listen()
    assert ask(listener, get("/trouble")) == b""
    assert ask(listener, get("/healthz")).startswith(b"HTTP/1.1 200 ")


def test_a_port_that_is_taken_is_said_with_the_way_out(listen):
    port = listen().port
    with pytest.raises(NotReady, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*in use; give --listen"):
        listen(port=port)
    with pytest.raises(NotReady, match=r"cannot listen on no\.such\.host\.invalid:1: "):
        listen("no.such.host.invalid", 1)


def test_one_that_never_began_leaves_nothing_open(said):
    listener = Listener(("127.0.0.1", 0), said)
    listener.stop(), listener.stop()


def test_to_stop_it_twice_does_no_harm(listen):
    listener = listen()
    listener.stop()
    listener.join(10)
    listener.stop()
    with pytest.raises(OSError, match="refused"):
        ask(listener, get("/healthz"))


def test_it_listens_on_ipv6(listen):
    try:
        listener = listen("::1")
    except NotReady:
        pytest.skip("this machine has no IPv6")
    assert listener.where.startswith("http://[::1]:")
    assert ask(listener, get("/healthz"), "::1").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9108", ("127.0.0.1", 9108)),
        ("9108", ("127.0.0.1", 9108)),
        (9108, ("127.0.0.1", 9108)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:0", ("::", 0)),
        ("web1.internal:9108", ("web1.internal", 9108)),
        (("::1", 80), ("::1", 80)),
    ],
)
def test_an_address_is_host_and_port_or_a_port_of_this_host_alone(text, expected):
    assert address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":9108", "web1", "web1:", "::1:80", "web1:70000", "a b:80", "http://web1:80", "web1:-1", None]
)
def test_what_is_no_address_is_refused_with_what_one_looks_like(text):
    with pytest.raises(ConfigError, match=r"listen must be an address such as '127\.0\.0\.1:9108'"):
        address(text)
