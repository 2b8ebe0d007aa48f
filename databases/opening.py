"""Databases: from a URL, a path or the site's own Peewee database to a store."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import peewee
from peewee import Database, InterfaceError, MySQLDatabase, OperationalError, PostgresqlDatabase, Proxy, SqliteDatabase
from playhouse.db_url import parse

from ..config import hidden, without_driver
from ..errors import ConfigError, NotReady
from ..sweep.claims import Store
from .alive import descriptor, discard, is_cut, refresh
from .dialect import Dialect
from .mysql.dialect import Mysql
from .postgresql.dialect import Postgresql
from .sqlite.dialect import Sqlite

log = logging.getLogger("flagsweep")

MEMORY = ":memory:"
FOREIGN = frozenset(f"playhouse.{name}" for name in ("cysqlite_ext", "sqlcipher_ext", "sqliteq"))
"""Peewee databases that bring a SQLite library of their own, whose locks on the file ours would drop, or write in a thread."""
BUSY = 5
"""Seconds that a connection of ours waits for SQLite's writer."""


_inherited: list[Any] = []
_made: weakref.WeakSet[Database] = weakref.WeakSet()
_sockets: dict[int, int] = {}
"""The inode of each connection to a server, by its descriptor, which another file may have got since."""
_connecting: set[int] = set()
_changed = threading.Condition()
FORK_PATIENCE = 2.0
"""Seconds for which a fork waits for threads that are just connecting: what they get would be the child's, too."""


@contextmanager
def _noted() -> Iterator[None]:
    """Have no fork take place while this thread connects to a server."""
    with _changed:
        _connecting.add(threading.get_ident())
    try:
        yield
    finally:
        with _changed:
            _connecting.discard(threading.get_ident())
            _changed.notify_all()


def _before_fork() -> None:
    _changed.acquire()
    _changed.wait_for(lambda: not _connecting, FORK_PATIENCE)


def _after_fork_in_parent() -> None:
    _changed.release()


def _after_fork_in_child() -> None:
    """Forget connections that a fork inherited, and never close them: SQLite forbids to use or close them in the child.

    Those to a server are cut off from it, without a word: its session, and with that a lease, would live on with the child.
    """
    _connecting.clear()
    _changed.release()
    db: Any
    for db in list(_made):
        if not db._state.closed:  # Not is_closed(), which hides what is kept for a thread's next handler.
            _inherited.append(db._state.conn)
            db.dispose()
    # No driver is asked for anything: another thread may have been within it at the fork.
    for number, inode in list(_sockets.items()):
        with suppress(OSError):  # It was closed already.
            if os.fstat(number).st_ino == inode:
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nowhere, number, inheritable=False)
                os.close(nowhere)
    _sockets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class _Existing:
    """A SQLite file that is never made by accident: with a wrong path an empty file would be swept for ever."""

    database: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _made.add(self)  # type: ignore[arg-type]

    def _connect(self) -> Any:
        if self.database != MEMORY and not os.path.exists(self.database):
            raise NotReady(
                f"there is no database {self.database}: run 'flagsweep init' (or call flags.init()) once, or mend the path"
            )
        return super()._connect()  # type: ignore[misc]


class SiteDatabase(_Existing, SqliteDatabase):
    """A SQLite file, through Python's own sqlite3."""


@cache
def apsw_database() -> type[SqliteDatabase]:
    """Return the class of a SQLite file through APSW, which brings a SQLite library of its own.

    :raises ConfigError: where APSW is missing.
    """
    try:
        import apsw
        from playhouse.apsw_ext import APSWDatabase
    except ImportError:
        raise ConfigError("driver='apsw' needs it: pip install 'flagsweep[apsw]'") from None

    class ApswSite(_Existing, APSWDatabase):
        """A SQLite file, through APSW."""

        def _connect(self) -> Any:
            connection = super()._connect()
            connection.convert_binding = _as_text
            return connection

    assert apsw
    return ApswSite


def _as_text(cursor: Any, number: Any, value: Any) -> Any:
    """Write what APSW does not take as sqlite3 would: dates and decimals as text."""
    return str(value)


class _Healing:
    """Get over a connection that the server has ended: Peewee would go on using it, and fail with every statement.

    One that was idle is looked at before it is used. A session is not: what belonged to it is gone, and its owner must hear that.
    """

    RESTED = 0.5
    """Seconds without use after which a connection is looked at."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _made.add(self)  # type: ignore[arg-type]

    def _connect(self) -> Any:
        with _noted():
            connection = super()._connect()  # type: ignore[misc]
            number = descriptor(connection)
            _sockets[number] = os.fstat(number).st_ino
        return connection

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Connect; who is within a ``connection_context()`` stays in it, whichever connection that then is."""
        state: Any = self._state  # type: ignore[attr-defined]
        within = state.ctx
        try:
            return super().connect(reuse_if_open)  # type: ignore[misc]
        finally:
            state.ctx, state.used = within, time.monotonic()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        db: Any = self
        state, now = db._state, time.monotonic()
        if not state.closed and db.autoconnect and now - state.used >= self.RESTED:
            refresh(db, now - state.used)
        state.used = now
        return super().cursor(*args, **kwargs)  # type: ignore[misc]

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        try:
            return super().execute_sql(sql, params)  # type: ignore[misc]
        except (OperationalError, InterfaceError):
            self._forget_if_cut()
            raise

    def begin(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().begin(*args, **kwargs)  # type: ignore[misc]
        except (OperationalError, InterfaceError):
            self._forget_if_cut()
            raise

    def _forget_if_cut(self) -> None:
        db: Any = self
        if not db.is_closed() and not db.transaction_depth() and is_cut(db.connection()):
            discard(db)


class PostgresqlSite(_Healing, PostgresqlDatabase):
    """A PostgreSQL database that gets over a lost connection."""


class MysqlSite(_Healing, MySQLDatabase):
    """A MySQL or MariaDB database that gets over a lost connection."""

    def _connect(self) -> Any:
        connection = super()._connect()
        if not self.connect_params.get("unix_socket"):
            _keep_alive(connection)
        return connection


def _keep_alive(connection: Any) -> None:
    """Have the kernel ask a silent peer, as libpq is told to: a firewall then sees a connection that is in use."""
    with suppress(OSError, AttributeError), socket.socket(fileno=os.dup(descriptor(connection))) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
            end.setsockopt(socket.IPPROTO_TCP, option, value)


_FOUND_ROWS = 2
"""The flag of a MySQL client that wants rows counted which a statement found as it would have them."""


class MysqlEngine(MysqlSite):
    """Our own connections: without the gap locks in which claims and raises would deadlock, and without long waits.

    They count the rows that they change, whatever the site's do, and may change many at once.
    """

    def _initialize_connection(self, conn: Any) -> None:
        with conn.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1, sql_safe_updates = 0")

    def init(self, database: str | None, mariadb: bool | None = None, **kwargs: Any) -> None:
        flags = kwargs.get("client_flag", 0) & ~_FOUND_ROWS
        super().init(database, mariadb, **{**kwargs, "charset": "utf8mb4", "use_unicode": True, "client_flag": flags})


class _Kind(NamedTuple):
    """Describe how a server is reached.

    :param site: what every connection gets, so that a request that meets a dead server fails and does not hang.
    :param engine: what ours get besides.
    """

    dialect: type[Dialect]
    made: type[Any]
    ours: type[Any]
    theirs: type[Database]
    extra: str
    site: dict[str, Any]
    engine: dict[str, Any]


_ALIVE = {"connect_timeout": 5, "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 1, "keepalives_count": 3}
_PATIENT = "-c lock_timeout=50ms -c default_transaction_isolation=read\\ committed"

SERVERS = {
    "postgresql": _Kind(
        Postgresql,
        PostgresqlSite,
        PostgresqlSite,
        PostgresqlDatabase,
        "postgres",
        {"prefer_psycopg3": True, **_ALIVE},
        {"options": _PATIENT},
    ),
    "mysql": _Kind(Mysql, MysqlSite, MysqlEngine, MySQLDatabase, "mysql", {"connect_timeout": 5}, {}),
}
ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}


def open_store(database: Any, driver: str = "sqlite3") -> tuple[Store, Path | None]:
    """Return the store of a database and the path of its file, None for one in memory or on a server. Opens nothing.

    :raises ConfigError: where it is no database that flagsweep can use.
    """
    if isinstance(database, Proxy):
        if database.obj is None:
            raise ConfigError("the DatabaseProxy has no database yet: call its initialize(...) before flags are used")
        database = database.obj
    scheme = _scheme(database)
    if scheme is not None:
        return _server_store(scheme, database), None
    made = _file_class(database, driver)
    site = database if isinstance(database, Database) else made(_path(database), **_options())
    if not isinstance(site, SqliteDatabase):
        raise ConfigError(
            f"the database must be SQLite, PostgreSQL, MySQL or MariaDB through Peewee's own classes, got {type(site).__name__}"
        )
    name = _checked_name(site)
    if name == MEMORY:
        return Store(site, site, Sqlite(), "the database in memory"), None
    if isinstance(database, Database) and getattr(site, "_lock_type", None) is None:
        setattr(site, "_lock_type", "IMMEDIATE")  # noqa: B010 (Peewee has no public setter)
        log.info(
            "transactions of %s now begin IMMEDIATE: a deferred one that reads and then writes fails beside a sweep's commits",
            name,
        )
    path = Path(name).absolute()
    engine = made(str(path), **_options())
    for name in ("_functions", "_aggregates", "_collations", "_window_functions", "_attached"):
        setattr(engine, name, getattr(site, name))  # Conditions and triggers of the site's may use them.
    return Store(site, engine, Sqlite(), str(path), path), path


def _file_class(database: Any, driver: str) -> type[SqliteDatabase]:
    """Return the class of our own connections to a file: through the same library as the site's.

    :raises ConfigError: where one process would open a file through two: each drops the other's locks.
    """
    if not isinstance(database, Database):
        return apsw_database() if driver == "apsw" else SiteDatabase
    through_apsw = any(base.__module__ == "playhouse.apsw_ext" for base in type(database).__mro__)
    if driver == "apsw" and not through_apsw:
        raise ConfigError(
            f"driver='apsw' does not go with a {type(database).__name__}: two SQLite libraries in one process drop each other's "
            "locks on the file; give flagsweep a playhouse.apsw_ext.APSWDatabase, or a URL"
        )
    return apsw_database() if through_apsw else SiteDatabase


def _scheme(database: Any) -> str | None:
    """Return which kind of server a URL or Peewee database names, or None."""
    if isinstance(database, Database):
        foreign = type(database).__module__.startswith("playhouse.cockroachdb")
        return next((name for name, kind in SERVERS.items() if isinstance(database, kind.theirs) and not foreign), None)
    scheme = without_driver(str(database)).partition("://")[0].lower() if "://" in str(database) else ""
    scheme = ALIASES.get(scheme, scheme)
    return scheme if scheme in SERVERS else None


def _server_store(scheme: str, database: Any) -> Store:
    kind = SERVERS[scheme]
    if isinstance(database, Database):
        site, name, given = database, database.database, dict(database.connect_params)
        if not name:
            raise ConfigError("the Peewee database has no name yet: call its init(...) before flags are used")
    else:
        given = _parsed(database)
        _refuse_unknown(scheme, database, given)
        name = given.pop("database")
        site = _made_by(kind, kind.made, name, {**kind.site, **given})
    ours = {**kind.site, **given, **kind.engine}
    if "options" in given and "options" in ours:
        ours["options"] = f"{given['options']} {ours['options']}"
    where = f"{scheme}://{_hosts(given)}/{name}"
    # Never connected again by itself: locks and subscriptions are gone with the session they belonged to.
    session = partial(_made_by, kind, kind.ours, name, {**ours, "thread_safe": False, "autoconnect": False})
    return Store(site, _made_by(kind, kind.ours, name, ours), kind.dialect(), where, session=session)


def _hosts(given: dict[str, Any]) -> str:
    """Return the hosts with their ports, as a URL has them."""
    hosts, ports = _host(given).split(","), [part for part in str(given.get("port") or "").split(",") if part]
    return ",".join(f"{host}:{port}" if port else host for host, port in zip_longest(hosts, ports, fillvalue=""))


def _host(given: dict[str, Any]) -> str:
    return given.get("host") or given.get("unix_socket") or "localhost"


def is_late(database: Any) -> bool:
    """Return whether a database is still to come: none, a proxy without one, or Peewee's own without a name."""
    database = database.obj if isinstance(database, Proxy) else database
    return database is None or (isinstance(database, Database) and not database.database)


def name_of(database: Database) -> str:
    """Return what people know a Peewee database by."""
    return f"{type(database).__name__} {database.database!r}"


def name_if_other(database: Any, store: Store) -> str | None:
    """Return what people know a model's database by where it is another than the store's, or None; none yet is no other."""
    database = database.obj if isinstance(database, Proxy) else database
    if database is None or not database.database or database in (store.site, store.engine):
        return None
    if isinstance(database, SqliteDatabase):
        name = str(database.database)
        same = store.file is not None and name != MEMORY and Path(name).resolve() == store.file.resolve()
        return None if same else name
    mine, theirs = _place(store.site), _place(database)
    return None if mine == theirs else f"{type(database).__name__} {theirs[-1]}"


def _place(database: Any) -> tuple[Any, ...]:
    """Return what tells a server's database from another, as far as its parameters say."""
    scheme = _scheme(database)
    given = dict(getattr(database, "connect_params", {}))
    host = _host(given)
    local = host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")
    port = str(given.get("port") or {"postgresql": 5432, "mysql": 3306}.get(scheme or "", 0))
    return scheme, "localhost" if local else host, port, database.database


def _made_by(kind: _Kind, made: type[Any], name: str, parameters: dict[str, Any]) -> Any:
    if _driver(kind) is None:
        raise ConfigError(f"{kind.dialect.name} needs its driver: pip install 'flagsweep[{kind.extra}]'")
    return made(name, **parameters)


def _driver(kind: _Kind) -> Any:
    return {"postgres": getattr(peewee, "psycopg", None), "mysql": getattr(peewee, "mysql", None)}[kind.extra]


def _parsed(url: Any) -> dict[str, Any]:
    """Return the parameters of a connection that a URL names. PostgreSQL's may name several hosts, of which one must do."""
    text, several = _one_host(without_driver(str(url)))
    try:
        given = parse(text, unquote_password=True, unquote_user=True)
    except ValueError:
        raise ConfigError(
            f"{hidden(str(url))!r} cannot be read as a URL: write 'postgresql://user:password@host/database', "
            "with %-codes for special characters of the password"
        ) from None
    if not given.get("database"):
        raise ConfigError(f"{hidden(str(url))!r} names no database: write 'postgresql://user:password@host/database'")
    if "passwd" in given:
        given["password"] = given.pop("passwd")
    return {**given, **several}


def _one_host(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL with one host, and what stands for all of them where there are several."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    if "," not in hosts or not scheme.startswith("postgres"):
        return url, {}
    pairs = [host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "5432") for host in hosts.split(",")]
    names, ports = [host.strip("[]") for host, _, _ in pairs], [port for _, _, port in pairs]
    return f"{scheme}{mark}{user}{at}{names[0]}{slash}{path}", {"host": ",".join(names), "port": ",".join(ports)}


def _refuse_unknown(scheme: str, url: Any, given: dict[str, Any]) -> None:
    """Refuse parameters of a URL that the driver would, without telling a value: libpq knows what it takes."""
    if scheme == "postgresql" and (psycopg := getattr(peewee, "psycopg", None)) is not None:
        names = sorted(set(given) - {"database"})
        try:
            psycopg.conninfo.make_conninfo(**dict.fromkeys(names, "1"))
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"{hidden(str(url))!r} has a parameter that PostgreSQL's library does not know: {error}") from None


def _options() -> dict[str, Any]:
    return {"pragmas": {"synchronous": "FULL"}, "timeout": BUSY, "lock_type": "IMMEDIATE"}


def _checked_name(site: SqliteDatabase) -> str:
    """Return the file name of a site's own database, refusing what would bring in a second SQLite library or another thread."""
    foreign = {base.__module__ for base in type(site).__mro__} & FOREIGN
    if foreign:
        raise ConfigError(f"{type(site).__name__} ({foreign.pop()}) cannot be swept: use SqliteDatabase or PooledSqliteDatabase")
    if hasattr(site, "manual_close") and site.connect_params.get("check_same_thread", True):
        raise ConfigError(f"{type(site).__name__} hands connections from thread to thread: give it check_same_thread=False")
    name = site.database
    if not name:
        raise ConfigError("the Peewee database has no name yet: call its init(...) before flags are used")
    if str(name).startswith("file:"):
        raise ConfigError(f"the Peewee database has the URI {name!r}: give it the plain path of the file")
    return os.fspath(name)


def _path(database: Any) -> str:
    """Return the absolute path that a URL or path names."""
    if database is None or database == "":
        raise ConfigError(
            "no database: pass a URL such as 'sqlite:///site.db', a path or a Peewee Database, "
            "call flags.configure(database=...), or set FLAGSWEEP_DATABASE"
        )
    if not isinstance(database, (str, os.PathLike)):
        raise ConfigError(f"database must be a URL, a path or a Peewee Database, got {database!r}")
    text = os.fspath(database)
    if text == MEMORY:
        return MEMORY
    if "://" in text:
        text = _path_of_url(text)
    if text == MEMORY:
        return MEMORY
    if "\0" in text or not Path(text).name:
        raise ConfigError(f"the database's path {text!r} names no file")
    return str(Path(text).absolute())


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(without_driver(url))
    except ValueError:
        raise ConfigError(f"{hidden(url)!r} cannot be read as a URL: write 'sqlite:///site.db', or a plain path") from None
    if parts.scheme != "sqlite":
        raise ConfigError(f"the database URL must begin with 'sqlite://', 'postgresql://' or 'mysql://', got {hidden(url)!r}")
    if parts.netloc:
        raise ConfigError(
            f"{hidden(url)!r} names the host {parts.netloc.rpartition('@')[2]!r}: a file takes three slashes, "
            "'sqlite:///site.db', and an absolute path four"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"{hidden(url)!r} has parameters, and none is known: give the path alone, as in 'sqlite:///site.db'; "
            "flagsweep writes, and sets its own pragmas and time-outs"
        )
    if unquote(parts.path[1:]).startswith("file:"):
        raise ConfigError(f"{hidden(url)!r} has a URI within: give the plain path, as in 'sqlite:///site.db'")
    return unquote(parts.path[1:]) or MEMORY
