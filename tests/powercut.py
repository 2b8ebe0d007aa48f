"""A disk that forgets what was not synced when the power goes: a SQLite VFS that records what reaches the disk, and a cut that
keeps what was synced and a random part of the rest.

Python's sqlite3 cannot be given a VFS, so the connections come from APSW, dressed as sqlite3's: the code under test is the same.
"""

import sqlite3
import threading
from collections import defaultdict
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path

import apsw

_numbers = count(1)


class Disk:
    """Record every write, sync, truncation and deletion of the files of SQLite databases, in order, and marks of a test between.

    :param synchronous: what every connection gets, whatever it asks for: a control.
    """

    def __init__(self, synchronous=None):
        self.log = []
        self.synchronous = synchronous
        self.name = f"powercut-{next(_numbers)}"
        self._files = {}
        self._lock = threading.Lock()
        self._vfs = _Vfs(self)

    def connect(self, path, timeout=5.0):
        """Return a connection as ``sqlite3.connect`` would, on this disk."""
        return Connection(self, str(path), timeout)

    def serve(self, *databases):
        """Have Peewee databases open their connections here."""
        for db in databases:
            db._connect = lambda db=db: self._connect_for(db)

    def _connect_for(self, db):
        connection = self.connect(db.database, db._timeout)
        db._add_conn_hooks(connection)
        return connection

    def mark(self, *what):
        """Note what is acknowledged by now."""
        self.note("mark", what)

    def note(self, *entry):
        with self._lock:
            self.log.append(entry)

    def opened(self, path):
        """Return the number of the file at a path; a file that was made by other means is taken for safe on disk."""
        with self._lock:
            if path not in self._files:
                there = Path(path)
                number = self._files[path] = next(_numbers)
                content = there.read_bytes() if there.exists() else None
                self.log.append(("found", path, number, content) if content is not None else ("made", path, number))
            return self._files[path]

    def deleted(self, path, sync):
        with self._lock:
            self._files.pop(path, None)
            self.log.append(("deleted", path, sync))


class _Vfs(apsw.VFS):
    def __init__(self, disk):
        self.disk = disk
        super().__init__(disk.name, base="")

    def xOpen(self, name, flags):
        return _File(self.disk, name, flags)

    def xDelete(self, path, sync):
        super().xDelete(path, False)
        self.disk.deleted(path, sync)


class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._number = disk.opened(path) if path else None
        super().__init__("", name, flags)

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        if self._number:
            self._disk.note("write", self._number, offset, bytes(data))

    def xTruncate(self, size):
        super().xTruncate(size)
        if self._number:
            self._disk.note("truncate", self._number, size)

    def xSync(self, flags):
        if self._number:
            self._disk.note("sync", self._number)


class State:
    """What is on the disk at a moment of a log: what is safe, and what is on its way."""

    def __init__(self):
        self.safe = {}
        self.pending = defaultdict(list)
        self.names = {}
        self.pending_names = []

    def apply(self, entry):
        """Go on by one entry of the log."""
        what, *rest = entry
        if what == "found":
            path, number, content = rest
            self.names[path], self.safe[number] = number, bytearray(content)
        elif what == "made":
            self.pending_names.append(tuple(rest))
            self.safe[rest[1]] = bytearray()
        elif what == "deleted":
            self.pending_names.append((rest[0], None))
            if rest[1]:
                self._sync_names()
        elif what == "sync":
            (number,) = rest
            for change in self.pending.pop(number, ()):
                _change(self.safe[number], *change)
            if any(made == number for _, made in self.pending_names):
                self._sync_names()  # SQLite syncs the folder with the first sync of a log.
        elif what == "write":
            number, offset, data = rest
            self.pending[number].append((offset, data))
        elif what == "truncate":
            number, size = rest
            self.pending[number].append((size, None))

    def _sync_names(self):
        for path, number in self.pending_names:
            _rename(self.names, path, number)
        self.pending_names.clear()

    def cut(self, chance):
        """Return the files that a power cut leaves: all that is safe, and a random part of the rest, some of it torn."""
        names = dict(self.names)
        for path, number in self.pending_names[: chance.randint(0, len(self.pending_names))]:
            _rename(names, path, number)
        keep, sector = chance.choice((0.5, 0.5, 0.5, 0.1, 0.9, 0.0)), chance.choice((None, 512, 4096))
        left = {}
        for path, number in names.items():
            content = bytearray(self.safe[number])
            for offset, data in self.pending.get(number, ()):
                for change in _torn(offset, data, sector):
                    if chance.random() < keep:
                        _change(content, *change)
            left[path] = content
        return left


def _rename(names, path, number):
    names.pop(path, None) if number is None else names.__setitem__(path, number)


def _change(content, offset, data):
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _torn(offset, data, sector):
    """Return a write as the pieces of it that reach the disk one by one."""
    if data is None or sector is None:
        return [(offset, data)]
    edges = [offset, *range(offset - offset % sector + sector, offset + len(data), sector), offset + len(data)]
    return [(a, data[a - offset : b - offset]) for a, b in pairwise(edges)]


# APSW, dressed as sqlite3.


class Connection:
    """An APSW connection with the part of sqlite3's interface that Peewee and flagsweep use."""

    def __init__(self, disk, path, timeout):
        self._disk = disk
        self.text_factory = str
        with _translated():
            self._raw = apsw.Connection(path, vfs=disk.name)
            self._raw.set_busy_timeout(int(timeout * 1000))
            self._raw.wal_autocheckpoint(40)  # So that checkpoints are cut, too.

    @property
    def in_transaction(self):
        with _translated():
            return self._raw.in_transaction

    def cursor(self):
        return Cursor(self._raw, self._disk)

    def execute(self, sql, parameters=()):
        return self.cursor().execute(sql, parameters)

    def create_function(self, name, arguments, function, deterministic=False):
        self._raw.create_scalar_function(name, function, arguments, deterministic=deterministic)

    def commit(self):
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self):
        if self.in_transaction:
            self.execute("ROLLBACK")

    def close(self):
        with _translated():
            self._raw.close()


class Cursor:
    def __init__(self, connection, disk):
        self._connection = connection
        self._raw = connection.cursor()
        self._shape = shape = []
        self._raw.exec_trace = lambda cursor, *_: _note_shape(shape, cursor)  # Without self: no cycle may keep a cursor open.
        self._disk = disk
        self.rowcount = -1
        self.lastrowid = None

    def execute(self, sql, parameters=()):
        words = sql.upper().split()
        if self._disk.synchronous and words[:2] == ["PRAGMA", "SYNCHRONOUS"] and "=" in sql:
            sql = f"PRAGMA synchronous = {self._disk.synchronous}"
        with _translated():
            self._raw.execute(sql, parameters if isinstance(parameters, dict) else tuple(parameters))
            if words and words[0] in ("INSERT", "UPDATE", "DELETE", "REPLACE"):
                self.rowcount, self.lastrowid = self._connection.changes(), self._connection.last_insert_rowid()
        return self

    @property
    def description(self):
        return self._shape[0] if self._shape else None

    def fetchone(self):
        with _translated():
            return self._raw.fetchone()

    def fetchall(self):
        with _translated():
            return self._raw.fetchall()

    def __iter__(self):
        return iter(self.fetchall())

    def close(self):
        self._raw.close()


def _note_shape(shape, cursor):
    """Keep a result's description: APSW has forgotten it once the last row is read."""
    shape[:] = [cursor.get_description() or None]
    return True


@contextmanager
def _translated():
    """Raise sqlite3's errors for APSW's."""
    try:
        yield
    except apsw.ConstraintError as error:
        raise _with_code(sqlite3.IntegrityError, error) from error
    except apsw.Error as error:
        raise _with_code(sqlite3.OperationalError, error) from error


def _with_code(kind, error):
    made = kind(str(error).split(": ", 1)[-1])
    made.sqlite_errorcode = error.extendedresult
    return made
