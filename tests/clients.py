"""The databases of the conformance suite: another program's session on each, and threads that are sessions of their own."""

import os
import re
import sqlite3
import threading
from urllib.parse import urlsplit

DATABASES = ("sqlite", "postgresql", "mysql")


class Client:
    """Be another program's session, with nothing but the driver: ``ask`` commits at once, unless it was asked to BEGIN."""

    def __init__(self, url):
        self.scheme = urlsplit(url).scheme
        self.connection = getattr(self, f"_{self.scheme}")(url)

    def _sqlite(self, url):
        self.native = str
        if os.environ.get("FLAGSWEEP_DRIVER") == "apsw":  # Two SQLite libraries in one process drop each other's locks.
            import apsw

            connection = apsw.Connection(urlsplit(url).path[1:])
            connection.set_busy_timeout(20_000)
            return connection
        return sqlite3.connect(urlsplit(url).path[1:], isolation_level=None, timeout=20, check_same_thread=False)

    def _postgresql(self, url):
        import psycopg

        self.native = lambda sql: sql.replace("?", "%s")
        return psycopg.connect(url, autocommit=True)

    def _mysql(self, url):
        import pymysql

        parts = urlsplit(url)
        self.native = lambda sql: re.sub(r"\b(key|cursor)\b", r"`\1`", sql.replace("?", "%s"))
        known = {"user": parts.username, "password": parts.password or "", "database": parts.path[1:], "ssl_disabled": True}
        return pymysql.connect(host=parts.hostname, port=parts.port or 3306, autocommit=True, **known)

    def ask(self, sql, *arguments):
        """Run one statement; return its rows, bytes as text."""
        if type(self.connection).__module__ == "apsw":
            return self.connection.execute(sql, arguments).fetchall()
        cursor = self.connection.cursor()
        try:
            cursor.execute(self.native(sql), arguments) if arguments else cursor.execute(self.native(sql).replace("%s", "%%s"))
            rows = cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()
        return [tuple(value.decode() if isinstance(value, bytes) else value for value in row) for row in rows]

    def cut_others(self):
        """End every other session on this database; return how many there were."""
        if self.scheme == "postgresql":
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            return len(self.ask(f"SELECT pg_terminate_backend(pid) {others}"))
        others = "FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        ids = [row[0] for row in self.ask(f"SELECT id {others}")]
        for id in ids:
            try:
                self.ask(f"KILL {id}")
            except Exception:  # It has ended by itself.
                continue
        return len(ids)

    def close(self):
        self.connection.close()


def at_once(flags, *functions):
    """Call all at one moment, each in a thread, which is a session, of its own; return their results."""
    results, errors, barrier = [None] * len(functions), [], threading.Barrier(len(functions))

    def call(index, function):
        barrier.wait(20)
        try:
            results[index] = function()
        except BaseException as error:
            errors.append(error)
        finally:
            flags.connections.close_thread()

    threads = [threading.Thread(target=call, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


def gather(lists):
    """Return what all lists hold."""
    return [item for each in lists for item in each]
