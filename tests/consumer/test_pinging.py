"""The ping: once a minute while all is well, never in the way, and silent about its URL."""

import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flagsweep import ConfigError
from flagsweep.config import SECOND, Settings
from flagsweep.consumer.pinging import Pinger, redacted


class Receiver(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.path)
        status, *where = self.server.answers.get(self.path, (200,))
        self.send_response(status)
        if where:
            self.send_header("Location", where[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): ...


@pytest.fixture
def outside():
    """Give a server on this host that remembers what was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.seen, server.answers = [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_calls_while_all_is_well_and_not_otherwise(outside, until):
    well = [True]
    pinger = Pinger(f"{outside.url}/secret", lambda: well[0], every=0.02)
    pinger.start()
    until(lambda: len(outside.seen) >= 2)
    well[0] = False
    pinger.run_once()
    pinger.stop()
    pinger.join(10)
    assert set(outside.seen) == {"/secret"}


def test_a_redirect_is_followed_to_http_alone(outside, caplog):
    outside.answers = {"/moved": (302, "/there"), "/file": (302, "file:///etc/hostname"), "/ftp": (302, "ftp://127.0.0.1/x")}
    Pinger(f"{outside.url}/moved", lambda: True).run_once()
    assert outside.seen == ["/moved", "/there"] and not caplog.records
    for path in ("/file", "/ftp"):
        Pinger(f"{outside.url}{path}", lambda: True).run_once()
    assert len(caplog.records) == 2


def test_a_failure_is_said_seldom_and_without_the_secret(outside, caplog):
    caplog.set_level(logging.INFO)
    outside.answers = {"/secret": (500,)}
    pinger = Pinger(f"{outside.url}/secret", lambda: True)
    for _ in range(3):
        pinger.run_once()
    (record,) = caplog.records
    assert "failed, it is tried each minute: HTTP Error 500" in record.getMessage()
    outside.answers = {}
    pinger.run_once()
    assert "is answered again" in caplog.records[-1].getMessage()
    assert "secret" not in caplog.text


def test_a_host_that_is_not_there_harms_nothing(caplog):
    Pinger("http://127.0.0.1:1/secret", lambda: True).run_once()
    assert "refused" in caplog.text and "secret" not in caplog.text


def test_an_error_of_the_question_is_a_failure_too(caplog):
    def trouble():
        raise RuntimeError("no database")

    Pinger("http://127.0.0.1:1/x", trouble).run_once()
    assert "no database" in caplog.text


def test_of_several_consumers_one_calls_in_a_minute(flags_anywhere):
    store, now = flags_anywhere.store, flags_anywhere.clock.now()
    apart = 55 * SECOND
    assert [store.may_ping(now, apart), store.may_ping(now, apart), store.may_ping(now + apart, apart)] == [True, False, True]
    assert store.may_ping(now - 10 * apart, apart), "a clock that was set back silences nobody"


@pytest.mark.long
def test_a_consumer_calls_while_all_is_well(outside, tmp_path, spawn, env, db_path, until, make):
    (tmp_path / "shop.py").write_text(f"""
from flagsweep import FlagSweep
flags = FlagSweep({str(db_path)!r}, threads=1)
@flags.handler
def work(): ...
""")
    make()
    command = (sys.executable, "-m", "flagsweep", "--app", "shop:flags", "run")
    child = spawn(*command, env={**env, "FLAGSWEEP_PING": f"{outside.url}/secret"})
    until(lambda: outside.seen == ["/secret"], 30)
    child.terminate()
    assert child.wait(20) == 0
    assert f"{outside.url}/*** is called once a minute" in child.log.read_text()
    assert "secret" not in child.log.read_text()


def test_the_url_is_shown_nowhere():
    settings = Settings.load({"ping": "https://hc-ping.com/0000-secret"}, {})
    assert "secret" not in repr(settings)
    assert redacted("https://user:secret@hc-ping.com:8000/secret?secret") == "https://hc-ping.com:8000/***"


@pytest.mark.parametrize(
    "url", ["hc-ping.com/secret", "ftp://host/secret", "https:///secret", "https://host:x/secret", 5, "https://ho st/secret"]
)
def test_what_cannot_be_called_is_refused_without_being_shown(url):
    with pytest.raises(ConfigError, match="ping must be the URL of a check") as caught:
        Settings.load({"ping": url}, {})
    assert "secret" not in str(caught.value)
