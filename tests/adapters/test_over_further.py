"""Raising over the site's own connection: what is a matter of one layer or one database alone."""

import asyncio
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from layers import (
    TABLE,
    AlchemyConnection,
    AlchemySession,
    Django,
    Mysqlclient,
    Peewee,
    Psycopg,
    Psycopg2,
    Pymysql,
    Sqlite,
    opened,
    set_django_up,
    sqlalchemy_url,
)
from rig import FakeClock, let_go

from flagsweep import ConfigError, FlagSweep

KEYS = ('{"n":1}', '{"n":2}', '{"n":3}')


def site(url, tmp_path, **settings):
    flags = FlagSweep(url, clock=FakeClock(), threads=1, state_dir=str(tmp_path), **settings)
    flags.init()
    with flags.database:
        flags.database.execute_sql(TABLE)
    flags.database.close()
    flags.handler("send")(lambda n=0: None)
    return flags


@pytest.fixture
def flags(url, tmp_path):
    flags = site(url, tmp_path)
    yield flags
    flags.database.close()
    let_go(tmp_path)


@pytest.fixture
def send(flags):
    return flags.handler_of("send")


def keys(flags):
    return tuple(sorted(flag.key for flag in flags.find("send")))


DRIVERS = {"sqlite": Sqlite, "postgresql": Psycopg, "mysql": Pymysql}


def scheme(url):
    return url.partition("://")[0]


# Autocommit, aborted transactions, character sets.


@pytest.mark.parametrize("layer", [None, Django, AlchemyConnection, AlchemySession, Peewee])
def test_in_autocommit_a_raise_commits_by_itself(flags, send, url, layer):
    with opened(layer or DRIVERS[scheme(url)], url) as layer:
        if isinstance(layer, Sqlite):
            layer.raw.isolation_level = None
        elif isinstance(layer, AlchemySession):
            layer.raw.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        elif isinstance(layer, AlchemyConnection):
            layer.raw = layer.raw.execution_options(isolation_level="AUTOCOMMIT")
        elif isinstance(layer, Psycopg):
            layer.raw.autocommit = True
        elif isinstance(layer, Pymysql):
            layer.raw.autocommit(True)
        over = send.using(connection=layer.connection)
        assert over.raise_flag(n=1).how == "new"
        assert over.raise_flag(n=1).how == "coalesced"
        over.raise_many([(2,), (3,)])
        assert keys(flags) == KEYS


def test_python_3_12s_own_autocommit_is_left_as_it_is(db_path, tmp_path):
    if sys.version_info < (3, 12):
        pytest.skip("sqlite3 has it since Python 3.12")
    flags = site(f"sqlite:///{db_path}", tmp_path)
    send = flags.handler_of("send")
    for autocommit in (True, False):
        raw = sqlite3.connect(db_path, autocommit=autocommit)
        send.using(connection=raw).raise_flag(n=1 + autocommit)
        assert raw.in_transaction is not autocommit
        raw.rollback()
        raw.close()
    assert keys(flags) == KEYS[1:2]


@pytest.mark.parametrize("layer", [Psycopg, Psycopg2, AlchemySession, Django])
def test_an_aborted_transaction_says_so_in_the_layers_own_words(postgres_url, tmp_path, layer):
    flags = site(postgres_url, tmp_path)
    with opened(layer, postgres_url) as layer:
        over = flags.handler_of("send").using(connection=layer.connection)
        layer.begin()
        over.raise_flag(n=1)
        with pytest.raises(Exception, match="nosuch"):
            layer.execute("SELECT * FROM nosuch")
        with pytest.raises(Exception, match=r"abort|current transaction|rolled back") as caught:
            over.raise_flag(n=2)
        assert any("flagsweep" in note for note in caught.value.__notes__)
        layer.rollback()
        layer.begin()
        over.raise_flag(n=3)
        layer.commit()
    assert keys(flags) == KEYS[2:]


@pytest.mark.parametrize("layer", [Pymysql, Mysqlclient])
@pytest.mark.parametrize("charset", ["latin1", "euckr", "sjis", "gbk", "utf8mb3", "utf8mb4"])
def test_a_connection_of_any_character_set_writes_the_same_flag(mysql_url, tmp_path, layer, charset):
    if layer is Mysqlclient:
        pytest.importorskip("MySQLdb")
    flags = site(mysql_url, tmp_path)
    handler = flags.handler("환영-ä\\'")(lambda text: None)
    of_it = type(layer.__name__, (layer,), {"charset": charset})
    with opened(of_it, mysql_url) as layer:
        over = handler.using(connection=layer.connection)
        raised = handler.using(connection=layer.connection, key="열쇠 ß \\'").raise_flag(text="안녕 ☃")
        over.raise_many([{"text": "안녕"}])
        layer.commit()
    assert handler.using(key="열쇠 ß \\'").raise_flag(text="안녕 ☃") == (raised.id, "coalesced")
    assert handler.raise_flag(text="안녕").how == "coalesced"


# What a site says of its connection, once and for all.


def test_what_the_flagsweep_was_told_all_raises_go_over(url, tmp_path):
    with opened(AlchemySession, url) as layer:
        flags = site(url, tmp_path, connection=lambda: layer.raw)
        send = flags.handler_of("send")
        send.raise_flag(n=1)
        send.raise_many([(2,)])
        layer.rollback()
        assert keys(flags) == ()
        send.using(connection=flags.database).raise_flag(n=3)
        assert keys(flags) == KEYS[2:]
        send.raise_flag(n=1)
        layer.commit()
        assert keys(flags) == (KEYS[0], KEYS[2])
    flags.database.close()
    let_go(tmp_path)


def test_it_may_be_told_later_and_once(db_path, tmp_path):
    flags = FlagSweep(f"sqlite:///{db_path}")
    flags.configure(connection=print)
    flags.configure(connection=print)
    with pytest.raises(ConfigError, match="something else"):
        flags.configure(connection=len)
    flags = site(f"sqlite:///{db_path}", tmp_path)
    with opened(Sqlite, f"sqlite:///{db_path}") as layer:
        flags.configure(connection=layer.raw)
        flags.handler_of("send").raise_flag(n=1)
    assert keys(flags) == ()


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (17, "got 17"),
        (lambda: "no connection", "DATABASES"),
        (lambda: None, "got None"),
        ("nosuch", "alias of Django's DATABASES"),
        (object(), "connection must be"),
        (lambda: lambda: None, "connection must be"),
    ],
)
def test_what_is_no_connection_is_refused(db_path, tmp_path, connection, said):
    set_django_up()
    flags = site(f"sqlite:///{db_path}", tmp_path)
    with pytest.raises(ConfigError, match=said):
        flags.handler_of("send").using(connection=connection).raise_flag(n=1)
    assert keys(flags) == ()


def test_what_makes_connections_is_none(db_path, tmp_path):
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.orm import sessionmaker

    flags = site(f"sqlite:///{db_path}", tmp_path)
    engine, later = create_engine(f"sqlite:///{db_path}"), create_async_engine(f"sqlite+aiosqlite:///{db_path}")
    send = flags.handler_of("send")
    for maker in (engine, sessionmaker(engine)):
        with pytest.raises(ConfigError, match="no transaction of its own"):
            send.using(connection=maker).raise_flag(n=1)
    with pytest.raises(ConfigError, match="araise_flag"):
        send.using(connection=AsyncSession(later)).raise_flag(n=1)


def test_a_database_in_memory_is_met_over_its_own_connection_alone(tmp_path):
    flags = FlagSweep(":memory:")
    flags.init()
    done = []
    send = flags.handler("send")(lambda n: done.append(n))
    send.using(connection=flags.database.connection()).raise_flag(n=1)
    flags.database.connection().commit()
    with pytest.raises(ConfigError, match="memory"):
        send.using(connection=sqlite3.connect(":memory:")).raise_flag(n=2)
    assert flags.sweep() == {"lowered": 1} and done == [1]


def test_a_file_that_took_the_place_of_the_one_before_is_the_database_now(db_path, tmp_path):
    flags = site(f"sqlite:///{db_path}", tmp_path)
    send = flags.handler_of("send")
    for n in (1, 2):
        raw = sqlite3.connect(db_path)
        send.using(connection=raw).raise_flag(n=n)
        raw.commit()
        raw.close()
        let_go(tmp_path)
        for left in tmp_path.glob("site.db*"):
            left.unlink() if left.is_file() else None
        flags.init()
    assert keys(flags) == ()


# Seen where the layer counts, and no more than one.


@pytest.mark.parametrize("layer", [Django, AlchemyConnection, AlchemySession])
def test_a_raise_is_one_statement_that_the_layer_counts(flags, send, url, layer):
    seen = []
    with opened(layer, url) as layer:
        layer.begin()
        over = send.using(connection=layer.connection)
        over.raise_flag(n=1)
        if isinstance(layer, Django):
            layer.raw.execute_wrappers.append(lambda execute, sql, *more: (seen.append(sql), execute(sql, *more))[1])
        else:
            from sqlalchemy import event

            event.listen(layer.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        over.raise_flag(n=2)
        over.raise_many([(3,)])
        layer.commit()
    assert all("flagsweep_flag" in sql or "pg_notify" in sql for sql in seen)
    assert len([sql for sql in seen if "INSERT" in sql]) == 2
    assert len(seen) == {"sqlite": 2, "postgresql": 3, "mysql": 3}[scheme(url)]


def rings_of(flags, monkeypatch):
    """Return what the doorbell rings from now on, as if somebody were there."""
    bell, rung = flags._opening.opened().doorbell, []
    monkeypatch.setattr(bell, "_is_anybody_there", lambda: True)
    monkeypatch.setattr(bell, "_ring", rung.append)
    return rung


@pytest.mark.parametrize("layer", [Django, AlchemySession])
def test_raises_in_a_loop_ring_once_and_after_the_commit_alone(db_path, tmp_path, layer, monkeypatch):
    url = f"sqlite:///{db_path}"
    flags = site(url, tmp_path)
    rung = rings_of(flags, monkeypatch)
    with opened(layer, url) as layer:
        over = flags.handler_of("send").using(connection=layer.connection)
        layer.begin()
        for n in range(20):
            over.raise_flag(n=n)
        layer.rollback()
        assert rung == []
        layer.begin()
        for n in range(20):
            over.raise_flag(n=n)
        assert rung == []
        if isinstance(layer, AlchemySession):
            with layer.raw.begin_nested():
                over.raise_flag(n=20)
            assert rung == []
        layer.commit()
        assert len(rung) == 1


# Asynchronous sessions and connections.

ASYNC = [("sqlite", "aiosqlite"), ("postgresql", "asyncpg"), ("postgresql", "psycopg")]


@pytest.mark.parametrize(("kind", "driver"), ASYNC)
@pytest.mark.parametrize("session", [True, False])
def test_an_asynchronous_transaction_takes_the_flag_along(request, tmp_path, db_path, kind, driver, session):
    url = f"sqlite:///{db_path}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    flags = site(url, tmp_path)
    send = flags.handler_of("send")

    async def raise_all():
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine(sqlalchemy_url(url, driver))
        try:
            async with AsyncSession(engine) if session else engine.connect() as over:
                using = send.using(connection=over)
                assert (await using.araise_flag(n=1)).how == "new"
                assert (await using.araise_flag(n=1)).how == "coalesced"
                await over.rollback()
                await send.using(connection=lambda: over, priority=3).araise_flag(n=2)
                assert await using.araise_many([(2,), (3,)]) == {"coalesced": 1, "new": 1}
                await over.commit()
        finally:
            await engine.dispose()

    asyncio.run(raise_all())
    assert keys(flags) == KEYS[1:]
    flags.database.close()
    let_go(tmp_path)


def test_without_an_asynchronous_connection_an_awaited_raise_is_any_other(flags, send, url):
    async def raise_all():
        with flags.database.atomic():
            await send.araise_flag(n=1)
            await send.araise_many([(2,)])

    asyncio.run(raise_all())
    assert keys(flags) == KEYS[:2]
    with opened(DRIVERS[scheme(url)], url) as layer:
        asyncio.run(send.using(connection=layer.connection).araise_flag(n=3))
        layer.commit()
    assert keys(flags) == KEYS


def test_over_django_an_awaited_raise_goes_where_django_has_its_connection(flags, send, url):
    from asgiref.sync import ThreadSensitiveContext, sync_to_async

    with opened(Django, url) as layer:

        async def raise_all():
            async with ThreadSensitiveContext():
                await send.using(connection=layer.alias).araise_flag(n=1)
                await sync_to_async(lambda: layer.raw.close())()

        asyncio.run(raise_all())
    assert keys(flags) == KEYS[:1]


# A kill between the write and the commit.

CHILD = """
import sys
sys.path[:0] = [{tests!r}, {adapters!r}]
import layers
from flagsweep import FlagSweep
flags = FlagSweep({url!r}, state_dir={state!r})
send = flags.handler("send")(lambda n: None)
layer = layers.{layer}({url!r})
layer.begin()
layer.write()
send.using(connection=layer.connection).raise_flag(n=1)
if {commits}:
    layer.commit()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.long
@pytest.mark.parametrize("layer", ["Driver", "AlchemySession", "Django"])
def test_a_kill_between_the_write_and_the_commit_takes_both_and_after_it_none(flags, url, tmp_path, spawn, until, layer):
    import subprocess

    layer = DRIVERS[scheme(url)].__name__ if layer == "Driver" else layer
    here = Path(__file__).parent
    for commits, count in ((False, 0), (True, 1)):
        text = CHILD.format(
            tests=str(here.parent), adapters=str(here), url=url, state=str(tmp_path), layer=layer, commits=commits
        )
        child = spawn(sys.executable, "-c", text, stdin=subprocess.PIPE)
        until(lambda child=child: "written" in child.log.read_text() or child.poll() is not None, limit=30)
        assert child.poll() is None, child.log.read_text()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        with flags.database.connection_context():
            until(lambda count=count: len(keys(flags)) == count)
            assert flags.database.execute_sql("SELECT count(*) FROM shop_order").fetchone()[0] == count


PSYCOPG2 = """
import sys
import peewee
psycopg, sys.modules["psycopg"] = sys.modules["psycopg"], None
sys.path[:0] = [{tests!r}, {adapters!r}]
import layers
layers.set_django_up()
import django.db.backends.postgresql.base as base
sys.modules["psycopg"] = psycopg
from flagsweep import FlagSweep
flags = FlagSweep({url!r}, state_dir={state!r})
send = flags.handler("send")(lambda n: None)
layer = layers.Django({url!r})
assert base.Database.__name__ == "psycopg2", base.Database
for n, ends in ((1, layer.rollback), (2, layer.commit)):
    layer.begin()
    send.using(connection=layer.alias).raise_flag(n=n)
    send.using(connection=layer.alias).raise_many([(n + 1,)])
    ends()
"""


def test_djangos_own_psycopg2_serves_as_well_as_psycopg(postgres_url, tmp_path, spawn):
    flags, here = site(postgres_url, tmp_path), Path(__file__).parent
    text = PSYCOPG2.format(tests=str(here.parent), adapters=str(here), url=postgres_url, state=str(tmp_path))
    child = spawn(sys.executable, "-c", text)
    assert child.wait(60) == 0, child.log.read_text()
    assert keys(flags) == KEYS[1:]


# A connection that comes to look at other tables of the same names.


def test_a_raise_goes_to_our_table_whatever_schema_the_connection_looks_at_by_now(postgres_url, tmp_path, client_of):
    flags, client = site(postgres_url, tmp_path), client_of(postgres_url)
    client.ask("CREATE SCHEMA tenant")
    client.ask("CREATE TABLE tenant.flagsweep_flag (LIKE public.flagsweep_flag INCLUDING ALL)")
    client.ask('CREATE SCHEMA "emp ty%"')
    with opened(AlchemySession, postgres_url) as layer:
        over = flags.handler_of("send").using(connection=layer.connection)
        over.raise_flag(n=1)
        layer.execute("SET LOCAL search_path TO tenant")
        over.raise_flag(n=2)
        layer.commit()
        layer.execute('SET LOCAL search_path TO "emp ty%"')
        over.raise_many([(3,)])
        layer.commit()
    assert keys(flags) == KEYS
    with opened(Psycopg, postgres_url) as layer:  # Not known yet, and in doubt.
        layer.execute("SET search_path TO tenant")
        with pytest.raises(ConfigError, match="schema tenant"):
            flags.handler_of("send").using(connection=layer.connection).raise_flag(n=1)


def test_a_raise_goes_to_our_database_whichever_the_connection_uses_by_now(mysql_url, tmp_path, client_of):
    flags, client = site(mysql_url, tmp_path), client_of(mysql_url)
    other = f"{mysql_url.rpartition('/')[2]}_other"
    client.ask(f"CREATE DATABASE {other}")
    try:
        client.ask(f"CREATE TABLE {other}.flagsweep_flag LIKE flagsweep_flag")
        with opened(Pymysql, mysql_url) as layer:
            over = flags.handler_of("send").using(connection=layer.connection)
            over.raise_flag(n=1)
            layer.raw.select_db(other)
            assert over.raise_flag(n=1).how == "coalesced"
            over.raise_many([(2,), (3,)])
            layer.commit()
            assert keys(flags) == KEYS
        with opened(Pymysql, mysql_url) as layer:
            layer.raw.select_db(other)
            with pytest.raises(ConfigError, match=other):
                flags.handler_of("send").using(connection=layer.connection).raise_flag(n=1)
    finally:
        client.ask(f"DROP DATABASE {other}")


@pytest.fixture
def client_of():
    from clients import Client

    opened_ones = []

    def client_of(url):
        opened_ones.append(Client(url))
        return opened_ones[-1]

    yield client_of
    for each in opened_ones:
        each.close()


NO_GREENLET = """
import sys
sys.modules["greenlet"] = None
sys.path[:0] = [{tests!r}, {adapters!r}]
import layers
from flagsweep import FlagSweep
flags = FlagSweep({url!r})
layer = layers.AlchemySession({url!r})
flags.handler("send")(lambda n: None).using(connection=layer.connection).raise_flag(n=1)
layer.commit()
"""


@pytest.mark.long
def test_sqlalchemys_asynchronous_half_is_not_entered_where_nobody_uses_it(db_path, tmp_path, spawn):
    url, here = f"sqlite:///{db_path}", Path(__file__).parent
    flags = site(url, tmp_path)
    child = spawn(sys.executable, "-c", NO_GREENLET.format(tests=str(here.parent), adapters=str(here), url=url))
    assert child.wait(60) == 0, child.log.read_text()
    assert keys(flags) == KEYS[:1]


def test_a_savepoint_that_is_rolled_back_keeps_the_ring_of_what_was_raised_before(db_path, tmp_path, monkeypatch):
    url = f"sqlite:///{db_path}"
    flags = site(url, tmp_path)
    rung = rings_of(flags, monkeypatch)
    with opened(AlchemySession, url) as layer:
        flags.handler_of("send").using(connection=layer.connection).raise_flag(n=1)
        layer.raw.begin_nested().rollback()
        layer.commit()
    assert len(rung) == 1


def test_a_connection_that_was_closed_with_its_transaction_keeps_no_result_waiting(flags, send, url):
    layer = DRIVERS[url.partition(":")[0]](url)
    layer.begin()
    raised = send.using(connection=layer.raw).raise_flag(n=1)
    assert flags.result(raised).state == "waiting"
    layer.close()
    assert flags.result(raised).state == "gone"


NO_DJANGO = """
from flagsweep import ConfigError, FlagSweep
flags = FlagSweep({url!r}, connection="default")
try:
    flags.handler("send")(lambda n: None).raise_flag(n=1)
except ConfigError as error:
    print(error)
"""


@pytest.mark.long
def test_an_alias_where_nobody_has_set_django_up_is_refused_in_words(db_path, tmp_path, spawn):
    url = f"sqlite:///{db_path}"
    flags = site(url, tmp_path)
    child = spawn(sys.executable, "-c", NO_DJANGO.format(url=url))
    assert child.wait(60) == 0, child.log.read_text()
    assert "nobody has set Django up here" in child.log.read_text() and keys(flags) == ()
