"""Whether a file is still the one that it was: anybody may move it away, or put another in its place."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import DatabaseAway, NotReady
from .dialect import Dialect


class OpenFiles:
    """Look after the files that the consumers of this process have open: the database's, and its log.

    :param where: what people know the database by.
    :param file: none for a database that is no file.
    """

    def __init__(self, where: str, file: Path | None, dialect: Dialect):
        self._where = where
        self._file = file
        self._dialect = dialect
        self._of: Mapping[int, Files] = {}
        """By consumer. Replaced as a whole, never changed."""
        self._log_was_lost = False

    def check(self) -> None:
        """Refuse to write into files that were moved away or deleted since a consumer was entered: nobody would see it."""
        if reason := self.lost():
            raise DatabaseAway(reason)

    def lost(self) -> str | None:
        """Return why what a consumer of this process has open is no longer the site's database, or None."""
        path = next((path for files in self._of.values() if (path := files.changed())), None)
        if path is None:
            return None
        if path in self._logs():
            return (
                f"{path} was deleted or replaced while it was in use: what is written into the old one nobody sees; "
                "end every process that has the database open, then start them again"
            )
        return (
            f"{self._where} was replaced or deleted: what was open is no longer the site's database; "
            "start again what is to use the one that is there"
        )

    def is_log_lost(self) -> bool:
        """Return whether the database is there, but not the log that a consumer of this process has, or had, open."""
        return self._log_was_lost or any(files.changed() in self._logs() for files in self._of.values())

    def has_this_thread_opened(self) -> bool:
        """Return whether the calling thread has entered a consumer, and keeps what it opened for it."""
        return any(files.thread == threading.get_ident() for files in self._of.values())

    def before_entering(self) -> Files:
        """Return what a consumer that is about to be entered has open: the file; its log only once something is written.

        :raises NotReady: where this process still has a log open that was deleted.
        """
        if problem := self._dialect.lost_before(self._logs()):
            raise NotReady(problem)
        return Files([] if self._file is None else [self._file])

    def entered(self, consumer: int, files: Files) -> None:
        """Look after these files, and the log, for as long as a consumer is entered."""
        self._of = {**self._of, consumer: files.and_these(self._logs())}

    def left(self, consumer: int) -> None:
        """Forget what a consumer had open: it has left, and the files may be made anew."""
        self._log_was_lost = self.is_log_lost()
        self._of = {id: files for id, files in self._of.items() if id != consumer}

    def forget(self) -> None:
        """Know of no consumer: this is a forked child, and they are the parent's."""
        self._of = {}

    def _logs(self) -> tuple[Path, ...]:
        return () if self._file is None else tuple(self._dialect.logs(self._file.resolve()))


class Files:
    """Tell files from others that take their places. What is not there is not looked after.

    :param paths: in the order in which they are looked at.
    """

    def __init__(self, paths: Iterable[Path]):
        self.thread = threading.get_ident()
        self._found = {path: found for path in paths if (found := identity(path)) is not None}

    def and_these(self, paths: Iterable[Path]) -> Files:
        """Take note of more files; return this."""
        self._found.update(Files(paths)._found)
        return self

    def changed(self) -> Path | None:
        """Return the first that was deleted or replaced, or None."""
        return next((path for path, found in self._found.items() if identity(path) != found), None)


def identity(file: Path | str | int | None) -> tuple[int, int] | None:
    """Return what tells a file from another that takes its place; None where there is none.

    :param file: its path, or the descriptor of one that is open.
    """
    try:
        found = os.stat(file) if file is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def is_at(descriptor: int, path: Path | str) -> bool:
    """Return whether the open file still is the one at its path."""
    mine = identity(descriptor)
    return mine is not None and mine == identity(path)
