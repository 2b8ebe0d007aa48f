"""Connections that a server, or a firewall, has ended while they were idle: nobody notices but who would have used them."""

import logging
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from peewee import MySQLDatabase, PostgresqlDatabase
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase
from servers import MYSQL, _mysql_connection
from work import Work, running

from flagsweep import DatabaseAway, FlagSweep
from flagsweep.consumer.wakeups import choose_bell
from flagsweep.databases import alive
from flagsweep.databases.errors import DATABASE_ERRORS
from flagsweep.databases.server.healing import Healing

KINDS = {
    "postgres_url": {"plain": PostgresqlDatabase, "pool": PooledPostgresqlDatabase},
    "mysql_url": {"plain": MySQLDatabase, "pool": PooledMySQLDatabase},
}


def parameters(url):
    parts = urlsplit(url)
    return {"host": parts.hostname, "port": parts.port, "user": parts.username}


class Server:
    """The server of one database: who is connected, and an end to it."""

    def __init__(self, name, url):
        self.kinds = KINDS[name]
        self.url = url
        self.database = urlsplit(url).path[1:]
        self.is_postgres = name == "postgres_url"

    def ask(self, statement):
        if self.is_postgres:
            import psycopg

            with psycopg.connect(self.url.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []
        connection = _mysql_connection(MYSQL)
        cursor = connection.cursor()
        cursor.execute(statement)
        rows = cursor.fetchall()
        connection.close()
        return rows

    def connected(self):
        table = "SELECT id FROM information_schema.processlist WHERE db"
        if self.is_postgres:
            table = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname"
        return {id for (id,) in self.ask(f"{table} = '{self.database}'")}

    def cut(self, until):
        """End every connection, as a server does that has waited for long enough."""
        for id in self.connected():
            self.end(id)
        until(lambda: not self.connected())

    def end(self, id):
        with suppress(Exception):  # It may be gone.
            self.ask(f"SELECT pg_terminate_backend({id})" if self.is_postgres else f"KILL {id}")

    def site(self, kind):
        """Return the site's database: its URL, or a Peewee object of its own."""
        return self.url if kind == "url" else self.kinds[kind](self.database, **parameters(self.url))

    def impatient(self):
        """Return the URL by which connections are ended that were idle for a second or two."""
        if self.is_postgres:
            self.ask(f"ALTER DATABASE {self.database} SET idle_session_timeout = '1s'")
            return self.url
        return f"{self.url}?init_command=SET%20SESSION%20wait_timeout=2"

    def patient(self):
        if self.is_postgres:
            self.ask(f"ALTER DATABASE {self.database} RESET idle_session_timeout")


@pytest.fixture(params=KINDS)
def server(request):
    server = Server(request.param, request.getfixturevalue(request.param))
    yield server
    server.patient()


@pytest.fixture
def at_once(monkeypatch):
    """Have a connection looked at however short it was idle."""
    monkeypatch.setattr(Healing, "RESTED", 0.0)


@pytest.fixture(params=["url", "plain", "pool"])
def flags(request, server, tmp_path, at_once):
    flags = FlagSweep(server.site(request.param), state_dir=tmp_path)
    flags.init()
    flags.handler("work")(lambda n=0: None)
    yield flags
    flags.connections.close_thread()
    if hasattr(flags.database, "close_all"):
        flags.database.close_all()


def raise_(flags, n):
    return flags.handlers["work"].raise_flag(n=n)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_raise_over_a_connection_that_the_server_has_ended_is_a_raise(flags, server, until, is_open):
    if is_open:
        flags.database.connect()
    raise_(flags, 1)
    server.cut(until)
    raise_(flags, 2)
    assert flags.database.is_closed() is not is_open
    assert len(flags.find()) == 2


def test_within_a_transaction_a_raise_goes_over_no_other_connection(flags, server, until):
    with pytest.raises((DatabaseAway, *DATABASE_ERRORS)), flags.database.connection_context(), flags.database.atomic():
        raise_(flags, 1)
        server.cut(until)
        raise_(flags, 2)
    flags.connections.close_thread()
    assert flags.find() == []


def test_who_is_within_a_connection_context_stays_in_it(flags, server, until):
    with flags.database.connection_context():
        raise_(flags, 1)
        server.cut(until)
        raise_(flags, 2)
    assert flags.database.is_closed()


def test_a_sweep_after_a_while_goes_on(flags, server, until, caplog):
    raise_(flags, 1)
    assert flags.sweep() == {"lowered": 1}
    raise_(flags, 2)
    flags.find()
    server.cut(until)
    assert flags.sweep() == {"lowered": 1}
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_a_night_without_work_ends_idle_connections_without_a_word(server, tmp_path, until, caplog):
    caplog.set_level(logging.INFO, "flagsweep")
    work = Work(server.impatient(), tmp_path / "journal", state_dir=tmp_path).prepare()
    # Lease, keeper and watcher use theirs; where nobody is told of commits, one sweep looks for own rows each second, too.
    used = 3 if work.flags.connections.dialect.notifies else 4
    with running(work.flags, until):
        work.raise_("work", 1)
        until(lambda: work.journal.flags("end") == ["work:1"])
        before = server.connected()
        until(lambda: len(before & server.connected()) <= used, limit=20, every=0.1)
        began = time.monotonic()
        work.raise_("work", 2)
        until(lambda: len(work.journal.flags("end")) == 2)
        waited = time.monotonic() - began
        before = server.connected()
        until(lambda: len(before & server.connected()) <= used, limit=20, every=0.1)
        caplog.clear()
    work.flags.connections.close_thread()
    work.close()
    assert waited < 3
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []
    assert "stopped" in caplog.text


class Firewall:
    """Stand between a client and a server, and forget a connection without telling either end."""

    def __init__(self, host, port):
        self._target = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends = []
        self._forgotten = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._ends += [client, server]
                number = len(self._ends)
                for pair in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=(*pair, number), daemon=True))
                    self._threads[-1].start()

    def _pass_on(self, source, target, number):
        with suppress(OSError):
            while data := source.recv(65536):
                if number > self._forgotten:
                    target.sendall(data)
            if number > self._forgotten:
                target.shutdown(socket.SHUT_WR)

    def forget(self):
        self._forgotten = len(self._ends)

    def close(self):
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def firewall(server):
    parts = urlsplit(server.url)
    firewall = Firewall(parts.hostname, parts.port or {"postgresql": 5432, "mysql": 3306}[parts.scheme])
    yield firewall
    firewall.close()


def test_a_connection_that_a_firewall_has_forgotten_is_not_waited_for(server, firewall, tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(alive, "LONG", 0.0)
    monkeypatch.setattr(alive, "PATIENCE", 0.2)
    parts = urlsplit(server.url)
    url = server.url.replace(f"127.0.0.1:{parts.port}", f"127.0.0.1:{firewall.port}")
    assert url != server.url
    flags = FlagSweep(url, state_dir=tmp_path)
    flags.init()
    flags.handler("work")(lambda n=0: None)
    with flags.database.connection_context():
        raise_(flags, 1)
        firewall.forget()
        raise_(flags, 2)
    assert len(flags.find()) == 2
    flags.connections.close_thread()


@pytest.fixture
def bell(postgres_url, server, firewall, tmp_path):
    """Give a bell whose session goes through the firewall, and the flags that it is told of."""
    flags = FlagSweep(postgres_url.replace(":5432", f":{firewall.port}"), state_dir=tmp_path)
    flags.init()
    flags.handler("work")(lambda n=0: None)
    bell = choose_bell("auto", flags.store, 1.0)
    bell.wait(0.0, None)
    yield bell, flags
    bell.close()
    bell.free()
    flags.connections.close_thread()


@pytest.mark.parametrize("server", ["postgres_url"], indirect=True)
@pytest.mark.parametrize("by", ["server", "firewall"])
def test_a_listener_that_lost_its_session_hears_on_and_has_everybody_look(bell, server, firewall, until, by, monkeypatch):
    bell, flags = bell
    if by == "server":
        server.cut(until)
    else:
        monkeypatch.setattr(alive, "LONG", 0.0)
        monkeypatch.setattr(alive, "PATIENCE", 0.2)
        firewall.forget()
        flags.connections.close_thread()
    assert until(lambda: bell.wait(0.1, None)), "what was told meanwhile nobody heard"
    monkeypatch.undo()
    raise_(flags, 1)
    until(lambda: bell.wait(0.1, None))
    assert bell.heard() == {(0, "work")}
