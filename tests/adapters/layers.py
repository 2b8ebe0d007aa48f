"""Data layers of a site, each with a transaction that a test opens and ends by hand, and a table of the site's."""

import sqlite3
import uuid
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import peewee
from playhouse.db_url import connect as peewee_connect

TABLE = "CREATE TABLE shop_order (id INTEGER PRIMARY KEY, name VARCHAR(100))"
WRITE = "INSERT INTO shop_order (id, name) VALUES (1, 'paid')"


def parts_of(url):
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": unquote(parts.password or ""),
        "database": parts.path[1:],
    }


class Layer:
    """Be a site with one connection of its own."""

    sees_statements = False

    def __init__(self, url):
        self.url = url
        self.open()

    def write(self):
        """Write a row of the site's, in the transaction that is open or with one of its own."""
        self.execute(WRITE)

    @property
    def connection(self):
        """What is handed to flagsweep."""
        return self.raw


class Driver(Layer):
    """A connection of a driver."""

    def execute(self, sql):
        cursor = self.raw.cursor()
        cursor.execute(sql)
        cursor.close()

    def commit(self):
        self.raw.commit()

    def rollback(self):
        self.raw.rollback()

    def close(self):
        self.raw.close()


class Sqlite(Driver):
    def open(self):
        self.raw = sqlite3.connect(urlsplit(self.url).path[1:], timeout=20)

    def begin(self):
        self.execute("BEGIN")


class SqliteDicts(Sqlite):
    """As many sites have it: rows as dicts, text as bytes."""

    def open(self):
        super().open()
        self.raw.row_factory = lambda cursor, row: {each[0]: value for each, value in zip(cursor.description, row, strict=True)}


class Psycopg(Driver):
    def open(self):
        import psycopg
        from psycopg.rows import dict_row

        self.raw = psycopg.connect(self.url, row_factory=dict_row)

    def begin(self):
        """It begins by itself."""


class Psycopg2(Psycopg):
    def open(self):
        import psycopg2.extras

        self.raw = psycopg2.connect(self.url, cursor_factory=psycopg2.extras.RealDictCursor)


class Pymysql(Driver):
    charset = "utf8mb4"

    def open(self):
        import pymysql.cursors

        known = {**parts_of(self.url), "port": parts_of(self.url)["port"] or 3306, "ssl_disabled": True}
        self.raw = pymysql.connect(**known, charset=self.charset, cursorclass=pymysql.cursors.DictCursor)

    def begin(self):
        """It begins by itself."""


class Mysqlclient(Pymysql):
    def open(self):
        import MySQLdb.cursors

        known = {**parts_of(self.url), "port": parts_of(self.url)["port"] or 3306}
        self.raw = MySQLdb.connect(**known, charset=self.charset, cursorclass=MySQLdb.cursors.DictCursor)


class Peewee(Layer):
    """Another Peewee object than ``flags.database``."""

    def open(self):
        path = urlsplit(self.url).path[1:]
        self.raw = peewee.SqliteDatabase(path) if self.url.startswith("sqlite") else peewee_connect(self.url)
        self.raw.connect()

    def execute(self, sql):
        self.raw.execute_sql(sql)

    def begin(self):
        self.transaction = self.raw.transaction()
        self.transaction.__enter__()

    def commit(self):
        self.transaction.__exit__(None, None, None)

    def rollback(self):
        try:
            raise LookupError
        except LookupError as error:
            self.transaction.__exit__(LookupError, error, None)

    def close(self):
        self.raw.close()


def sqlalchemy_url(url, driver=None):
    return {
        "sqlite": f"sqlite+{driver or 'pysqlite'}",
        "postgresql": f"postgresql+{driver or 'psycopg'}",
        "mysql": f"mysql+{driver or 'pymysql'}",
    }[urlsplit(url).scheme] + url[url.index("://") :]


class AlchemyConnection(Layer):
    def open(self):
        import sqlalchemy

        self.engine = sqlalchemy.create_engine(sqlalchemy_url(self.url))
        self.raw = self.engine.connect()

    def execute(self, sql):
        self.raw.exec_driver_sql(sql)

    def begin(self):
        self.raw.begin()

    def commit(self):
        self.raw.commit()

    def rollback(self):
        self.raw.rollback()

    def close(self):
        self.raw.close()
        self.engine.dispose()


class AlchemySession(AlchemyConnection):
    def open(self):
        import sqlalchemy.orm

        self.engine = sqlalchemy.create_engine(sqlalchemy_url(self.url))
        self.raw = self.session()

    def session(self):
        from sqlalchemy.orm import Session

        return Session(self.engine)

    def execute(self, sql):
        from sqlalchemy import text

        self.raw.execute(text(sql))

    def begin(self):
        """It begins by itself."""


class AlchemyScoped(AlchemySession):
    def session(self):
        from sqlalchemy.orm import scoped_session, sessionmaker

        return scoped_session(sessionmaker(self.engine))


class AlchemyFunction(AlchemySession):
    @property
    def connection(self):
        return lambda: self.raw


class Django(Layer):
    sees_statements = True

    def open(self):
        set_django_up()
        from django.db import connections

        self.alias = f"shop_{uuid.uuid4().hex}"
        settings = {"default": {}, self.alias: django_settings(self.url)}
        connections.databases[self.alias] = connections.configure_settings(settings)[self.alias]

    @property
    def raw(self):
        """That of this thread."""
        from django.db import connections

        return connections[self.alias]

    @property
    def connection(self):
        return self.alias

    def execute(self, sql):
        with self.raw.cursor() as cursor:
            cursor.execute(sql)

    def begin(self):
        from django.db import transaction

        self.block = transaction.atomic(using=self.alias)
        self.block.__enter__()

    def commit(self):
        self.block.__exit__(None, None, None)

    def rollback(self):
        self.raw.set_rollback(True)
        self.block.__exit__(None, None, None)

    def close(self):
        from django.db import connections

        self.raw.close()
        del connections[self.alias], connections.databases[self.alias]


class DjangoWrapper(Django):
    @property
    def connection(self):
        return self.raw


def set_django_up():
    from django.conf import settings

    if settings.configured:
        return
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        import pymysql

        pymysql.version_info = (2, 2, 7, "final", 0)  # Django asks mysqlclient's version.
        pymysql.install_as_MySQLdb()
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, USE_TZ=True, SECRET_KEY="tests"
    )
    import django

    django.setup()


def django_settings(url):
    scheme, parts = urlsplit(url).scheme, parts_of(url)
    if scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts["database"]}
    given = {"NAME": parts["database"], "HOST": parts["host"], "USER": parts["user"], "PASSWORD": parts["password"]}
    return {"ENGINE": f"django.db.backends.{scheme}", "PORT": str(parts["port"] or ""), **given}


EVERYWHERE = (Peewee, AlchemyConnection, AlchemySession, Django)
OTHER_NAMES = (AlchemyScoped, AlchemyFunction, DjangoWrapper)
"""The same connections, said in another way: which database is behind one makes no difference."""
LAYERS = {
    "sqlite": (Sqlite, SqliteDicts, *EVERYWHERE, *OTHER_NAMES),
    "postgresql": (Psycopg, Psycopg2, *EVERYWHERE),
    "mysql": (Pymysql, Mysqlclient, *EVERYWHERE),
}


@contextmanager
def opened(layer, url):
    made = layer(url)
    try:
        yield made
    finally:
        made.close()
