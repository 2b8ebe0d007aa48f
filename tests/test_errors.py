"""What an error of the database means: whose it is, the flag's, the kind's or the database's, in any language."""

import sqlite3
import subprocess
from contextlib import contextmanager
from urllib.parse import urlsplit

import peewee
import pytest
from clients import Client
from peewee import BooleanField, CharField, Model
from rig import lane_of

from flagsweep import DatabaseAway, Discard, FlagSweep, NotReady, Snooze
from flagsweep.databases.connections import explain
from flagsweep.databases.errors import RolledBack
from flagsweep.databases.mysql import Mysql
from flagsweep.databases.postgresql import Postgresql
from flagsweep.databases.sqlite import Sqlite


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


def refuse(client, event, table, condition, text="the books are closed"):
    """Have a trigger refuse what meets a condition on the row as it was."""
    if client.scheme == "sqlite":
        client.ask(f"CREATE TRIGGER no BEFORE {event} ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{text}'); END")
    elif client.scheme == "postgresql":
        function = f"BEGIN IF {condition} THEN RAISE EXCEPTION '{text}'; END IF; RETURN coalesce(new, old); END"
        client.ask(f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ {function} $$")
        client.ask(f"CREATE TRIGGER no BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION no()")
    else:
        body = f"IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{text}'; END IF"
        client.ask(f"CREATE TRIGGER no BEFORE {event} ON {table} FOR EACH ROW BEGIN {body}; END")


# Whose an error is.


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("how", ["after", "before", "discard"])
def test_a_row_that_cannot_be_lowered_fails_alone(flags, client, atomic, how):

    class Visitor(Model):
        email = CharField()
        owed = BooleanField(default=True)

        class Meta:
            database = flags.database
            table_name = "visitor"

    with flags.database.connection_context():
        Visitor.create_table()
        bad = Visitor.create(email="bad")
        for number in range(3):
            Visitor.create(email=f"good{number}")
    refuse(client, "UPDATE", "visitor", "old.email = 'bad'")
    ran = []

    @flags.handler("plain")
    def plain(n):
        ran.append(n)

    plain.raise_many([{"n": n} for n in range(5)])

    @flags.when(Visitor.owed, atomic=atomic, max_attempts=1, lower="before" if how == "before" else "after")
    def work(visitor):
        if how == "discard" and visitor.email == "bad":
            raise Discard("no")

    assert +flags.sweep() == {"lowered": 8, "dead": 1}
    (flag,) = flags.find()
    assert (flag.key, "the books are closed" in flag.error, sorted(ran)) == (str(bad.id), True, list(range(5)))
    assert [row[0] for row in client.ask("SELECT email FROM visitor WHERE owed")] == ["bad"]


@pytest.mark.parametrize("options", [{}, {"limit": 2}, {"rate": "100/s"}, {"per": "n", "budget": "9/d"}], ids=str)
def test_a_kind_goes_on_beside_one_that_cannot_be_claimed(flags, client, options):
    refuse(client, "UPDATE", "flagsweep_flag", "old.kind = 'bad'")
    flags.handler("bad", priority=1)(lambda n: None).raise_many([(n,) for n in range(5)])
    flags.handler("work", **options)(lambda n: None).raise_many([(n,) for n in range(5)])
    assert +flags.sweep() == {"lowered": 5}
    assert {(flag.kind, flag.state) for flag in flags.find()} == {("bad", "waiting")}


@pytest.mark.parametrize("event", ["DELETE", "UPDATE"])
def test_a_flag_that_cannot_be_settled_fails_alone_and_no_other_runs_again(flags, client, event):
    """A trigger of somebody's on our table refuses one flag: what its handler does cannot be known to the others."""
    ran = []

    @flags.handler("work", max_attempts=2, backoff=60, breaker=None)
    def work(n):
        ran.append(n)
        if event == "UPDATE":
            raise ValueError("no")

    work.raise_many([{"n": n} for n in range(20)])
    (bad,) = [flag.id for flag in flags.find() if flag.payload == {"n": 7}]
    settles = "" if event == "DELETE" else " AND old.attempts = 0 AND new.attempts = 1"
    refuse(client, event, "flagsweep_flag", f"old.id = {bad}{settles}")
    with lane_of(flags, "default") as lane:
        counts = lane.sweep(limit=20)
    if event == "DELETE":
        assert +counts == {"lowered": 19, "again": 1}
        assert sorted(ran) == list(range(20))
        (flag,) = flags.find()
        assert (flag.id, flag.attempts, "the books are closed" in flag.error) == (bad, 1, True)
    else:
        assert +counts == {"again": 19, "lost": 1}
        assert {flag.attempts for flag in flags.find() if flag.id != bad} == {1}


def test_a_swallowed_error_makes_a_commit_fail_and_not_pass_for_one(flags):
    """PostgreSQL answers such a COMMIT with ROLLBACK, and no error."""
    if flags.connections.dialect.one_writer:
        with pytest.raises(peewee.OperationalError), flags.connections.write() as db:
            db.execute_sql("ROLLBACK")
        return
    flags.handler("work")(lambda: None).raise_flag()
    with pytest.raises(RolledBack), flags.connections.write() as db:
        db.execute_sql("UPDATE flagsweep_flag SET priority = 7")
        if flags.connections.dialect.name == "PostgreSQL":
            with pytest.raises(peewee.ProgrammingError):
                db.execute_sql("SELECT * FROM missing")
        else:
            db.execute_sql("ROLLBACK")
    assert flags.find()[0].priority == 0
    with flags.connections.write():
        pass


def test_a_kind_that_cannot_be_claimed_holds_up_no_other(flags, monkeypatch):
    """A claim alone commits by itself: what such a turn has claimed before it failed is due again in the next."""
    ran, take = [], flags.connections.dialect.claim
    for kind in ("bad", "good"):
        flags.handler(kind)(lambda: ran.append(1)).raise_flag()

    def claim(db, kind, *more):
        if kind == "bad":
            raise ValueError("no")
        return take(db, kind, *more)

    monkeypatch.setattr(flags.connections.dialect, "claim", claim)
    assert +flags.sweep() == {"lowered": 1} and ran == [1]


def test_what_a_turn_that_was_rolled_back_would_have_claimed_counts_once(flags, monkeypatch):
    """The limit of a sweep is for what it claims, not for what it tries to."""
    flags.handler("work")(lambda n: None).raise_many([{"n": n} for n in range(10)])
    take, failed = flags.connections.dialect.claim, []

    def claim_and_fail(*arguments):
        taken = take(*arguments)
        if not failed:
            failed.append(taken)
            raise ValueError("no")
        return taken

    monkeypatch.setattr(flags.connections.dialect, "claim", claim_and_fail)
    assert flags.sweep(limit=6)["lowered"] == 6
    assert len(flags.find()) == 4


def test_progress_that_changes_nothing_is_no_lost_claim(flags):
    """MySQL counts the rows that were changed."""

    @flags.handler("atomic", atomic=True)
    def atomic(flag):
        flag.progress(1)
        flag.progress(1)

    @flags.handler("work")
    def work(flag):
        flag.progress([1, {"a": 2}])
        flag.progress([1, {"a": 2}])

    atomic.raise_flag()
    work.raise_flag()
    assert flags.sweep(raise_errors=True) == {"lowered": 2}


def test_many_large_payloads_are_raised_in_statements_that_a_server_takes(flags, client):
    if client.scheme == "mysql":
        limit = client.ask("SELECT @@max_allowed_packet")[0][0]
        assert limit < 40_000_000, "the test wants more bytes than one statement may have"
    flags.handler("work", unique=False)(lambda text, n: None)
    many = 100 if client.scheme != "mysql" else limit // 17_000 + 20
    text = '"' * 15_000  # A quote is two characters of JSON, and four of a statement.
    assert flags.handlers["work"].raise_many([{"text": text, "n": n} for n in range(many)]) == {"new": many}
    assert flags.status()["lanes"]["default"]["waiting"] == many
    assert flags.handlers["work"].raise_flag(text="", n=-1).how == "new"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_many_that_are_raised_at_once_run_in_the_order_given(flags):
    ran = []
    flags.handler("work")(lambda n: ran.append(n))
    flags.handlers["work"].raise_many([{"n": n} for n in range(3000)])
    flags.handlers["work"].raise_many([{"n": n} for n in range(4000, 3000, -1)])
    flags.set_threads("default", 1)
    flags.sweep()
    assert ran == [*range(3000), *range(4000, 3000, -1)]


# Languages.


@pytest.mark.long
def test_a_server_that_speaks_another_language_is_understood(request, tmp_path):
    """MariaDB writes its errors in the language of the session."""
    url = f"{request.getfixturevalue('mysql_url')}?init_command=SET lc_messages='de_DE'"
    speaks_german(url, tmp_path)


@pytest.fixture
def german(missing):
    """Have this machine know German; a server that runs already does not see it."""
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", "de_DE.UTF-8"], capture_output=True, text=True)
    if "de_DE.utf8" not in subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout:
        missing(f"the locale de_DE.UTF-8 cannot be made: {made.stderr.strip()}")


def test_a_postgresql_that_speaks_another_language_is_understood(german, private_postgres, tmp_path):
    private_postgres.ask("ALTER DATABASE site SET lc_messages = 'de_DE.UTF-8'")
    speaks_german(private_postgres.url, tmp_path)


def speaks_german(url, tmp_path):
    flags = FlagSweep(url, threads=2, state_dir=str(tmp_path / "state"))
    flags.handler("work")(lambda n: None)
    try:
        with pytest.raises(NotReady, match="run 'flagsweep init'"):
            flags.handlers["work"].raise_flag(1)
        flags.init()
        flags.handlers["work"].raise_many([{"n": n} for n in range(3)])
        with pytest.raises(peewee.ProgrammingError) as no_table:
            flags.connections.engine.execute_sql("SELECT * FROM nowhere")
        assert any(word in str(no_table.value) for word in ("existiert nicht", "nicht gefunden", "Tabelle"))
        assert not flags.connections.dialect.is_away(no_table.value)
        busy = waiting_error(flags, url)
        assert flags.connections.dialect.is_busy(busy) and flags.connections.dialect.is_away(busy)
        assert not any(word in str(busy) for word in ("timeout", "deadlock"))
        assert flags.sweep() == {"lowered": 3}
    finally:
        flags.connections.close_thread()


def waiting_error(flags, url):
    """Return the error of a statement of ours that has waited for too long for a row that somebody holds."""
    client = Client(url)
    try:
        client.ask("BEGIN")
        client.ask("UPDATE flagsweep_flag SET priority = 0")
        client.ask("SELECT * FROM flagsweep_flag FOR UPDATE")
        short = "SET lock_timeout = 50" if client.scheme == "postgresql" else "SET innodb_lock_wait_timeout = 1"
        flags.connections.engine.execute_sql(short)
        with pytest.raises(peewee.OperationalError) as caught:
            flags.connections.engine.execute_sql("UPDATE flagsweep_flag SET priority = 1")
        return caught.value
    finally:
        client.ask("ROLLBACK")
        client.close()
        flags.connections.close_engine()


def coded(kind, text, **attributes):
    error = kind(text)
    for name, value in attributes.items():
        setattr(error, name, value)
    return peewee.OperationalError(peewee.OperationalError(error, text), text)  # Peewee may wrap an error twice.


SAMPLES = [
    (Sqlite(), lambda code, text: coded(sqlite3.OperationalError, text, sqlite_errorcode=code), 5, True, True),
    (Sqlite(), lambda code, text: coded(sqlite3.OperationalError, text, sqlite_errorcode=code), 5 | (2 << 8), True, True),
    (Sqlite(), lambda code, text: coded(sqlite3.OperationalError, text, sqlite_errorcode=code), 10 | (3 << 8), True, False),
    (Sqlite(), lambda code, text: coded(sqlite3.OperationalError, text, sqlite_errorcode=code), 13, True, False),
    (Sqlite(), lambda code, text: coded(sqlite3.OperationalError, text, sqlite_errorcode=code), 1, False, False),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "40P01", True, True),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "55P03", True, True),
    (Postgresql(), lambda code, text: coded(Exception, text, pgcode=code), "57P01", True, False),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "08006", True, False),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "53100", True, False),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "42P01", False, False),
    (Postgresql(), lambda code, text: coded(Exception, text, sqlstate=code), "22P02", False, False),
    (Mysql(), lambda code, text: peewee.OperationalError(Exception(code, text)), 1213, True, True),
    (Mysql(), lambda code, text: peewee.OperationalError(Exception(code, text)), 1205, True, True),
    (Mysql(), lambda code, text: peewee.OperationalError(Exception(code, text)), 2013, True, False),
    (Mysql(), lambda code, text: peewee.OperationalError(Exception(code, text)), 1146, False, False),
    (Mysql(), lambda code, text: peewee.OperationalError(Exception(code, text)), 1366, False, False),
]


@pytest.mark.parametrize("text", ["", "database is locked", "deadlock detected", "Sperre", "connection", "(2013"])
@pytest.mark.parametrize(("dialect", "error", "code", "away", "busy"), SAMPLES)
def test_the_number_of_an_error_says_what_it_is_whatever_its_text(dialect, error, code, away, busy, text):
    found = error(code, text)
    assert (dialect.is_away(found), dialect.is_busy(found)) == (away, busy)
    assert type(explain(found, "no", "here", dialect)) is DatabaseAway


def test_an_error_without_a_number_is_no_databases():
    for dialect in (Sqlite(), Postgresql(), Mysql()):
        for error in (peewee.OperationalError("Connection already opened."), ValueError("database is locked")):
            assert not dialect.is_away(error) and not dialect.is_busy(error)


# Character sets.


@pytest.mark.parametrize("charset", ["latin1", "utf8", "utf8mb4"])
@pytest.mark.parametrize("how", ["fail", "snooze", "discard", "progress"])
def test_text_that_the_sites_character_set_lacks_is_kept_and_no_other_flag_runs_again(mysql_url, tmp_path, charset, how):
    """With safe updates, too, as some servers have them."""
    parts = urlsplit(mysql_url)
    known = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "charset": charset}
    site = peewee.MySQLDatabase(parts.path[1:], init_command="SET sql_safe_updates = 1", **known)
    flags = FlagSweep(site, threads=2, state_dir=str(tmp_path / "state"))
    flags.init()
    ran, text = [], "아침 🧹 ü"

    @flags.handler("work", max_attempts=1)
    def work(n, flag):
        ran.append(n)
        if n == 3 and how == "progress":
            flag.progress({"at": text})
        elif n == 3:
            raise {"fail": ValueError, "snooze": lambda why: Snooze(60), "discard": Discard}[how](text)

    try:
        work.raise_many([{"n": n} for n in range(10)])
        work.using(key=text).raise_flag(100)
        assert flags.sweep().total() == 11
        assert sorted(ran) == [*range(10), 100]
        found = flags.find()
        assert [flag.state for flag in found] == {"fail": ["dead"], "snooze": ["waiting"]}.get(how, [])
        with client_of(mysql_url) as client:
            if how == "fail":
                assert text in client.ask("SELECT error FROM flagsweep_flag")[0][0]
                assert (flags.retry(), flags.sweep().total(), flags.discard(reason=text)) == (1, 1, 1)
            if how in ("fail", "discard"):
                assert client.ask("SELECT reason FROM flagsweep_history WHERE event = 'discarded'") == [(text,)]
    finally:
        flags.connections.close_thread()


@contextmanager
def client_of(url):
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
