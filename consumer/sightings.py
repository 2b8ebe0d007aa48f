"""Sightings: what is noted outside of a database about how far it has come. One stands beside its file or among the notes of its
consumers; one in the state folder of the host's user, which no backup of the site brings back.

Nothing here may fail a start: what cannot be read or written is not known.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..databases.identity import identity
from ..databases.state_folder import folder_of, opened
from .origin import Sighting, Stamp

log = logging.getLogger("flagsweep")

NAME = "stamp"
MOST_BYTES = 65_536


class Sightings:
    """Read and write the sightings of one database.

    :param folder: where its consumers keep their leases and notes.
    :param database: its file, if it is one.
    :param state_dir: as the setting.
    """

    def __init__(self, folder: Path, database: Path | None, state_dir: str = ""):
        self._folder = folder
        self._database = database
        base = Path(state_dir or os.environ.get("XDG_STATE_HOME") or "~/.local/state")
        self._base = base / ("" if state_dir else "flagsweep") / "stamps"

    def beside(self) -> tuple[Sighting | None, bool]:
        """Return the sighting beside the database, and whether it stands where it was written: a copy is another file."""
        path = self._folder / NAME
        seen = _read(path)
        found = identity(path)
        return seen, seen is not None and found is not None and seen.file == found[1]

    def on_host(self, stamp: Stamp) -> list[Sighting]:
        """Return what this host's user has seen of a database, under the names that it has had, too."""
        with suppress(OSError, RuntimeError):
            names = sorted(self._base.expanduser().glob(f"{_root(stamp)}-*"))
            return [seen for name in names if (seen := _read(name)) is not None]
        return []

    def is_there(self, path: str, token: str) -> bool:
        """Return whether another file at a path is the same database's, by the sighting beside it. It is not opened."""
        try:
            found = os.stat(path)
        except PermissionError:  # Somebody else's, who has not given it away.
            return True
        except (OSError, ValueError):
            return False
        if (found.st_dev, found.st_ino) == identity(self._database):
            return False
        seen = _read(folder_of(Path(path)) / NAME)
        return seen is None or seen.token == token or token in seen.before

    def note(self, seen: Sighting, stamp: Stamp, at_home: bool) -> None:
        """Keep a sighting instead of the one before.

        :param at_home: in the host's state folder, too.
        """
        _write(self._folder / NAME, seen)
        if at_home:
            with suppress(OSError, RuntimeError):
                base = self._base.expanduser()
                base.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(base / f"{_root(stamp)}-{_short(stamp.token)}", seen)


def _root(stamp: Stamp) -> str:
    """Return what all confirmed copies of one database have in common."""
    return _short([*stamp.before, stamp.token][0])


def _short(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _read(path: Path) -> Sighting | None:
    """Return a sighting; None where there is none that can be read. No link is followed, and no pipe waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            return Sighting.parse(os.read(descriptor, MOST_BYTES))
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _write(path: Path, seen: Sighting) -> None:
    """Write a sighting whole, or not at all: it must not say more than was true, nor be half there after a power cut."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with _draft(draft) as descriptor:
            os.write(descriptor, replace(seen, file=os.fstat(descriptor).st_ino).text().encode())
            os.fsync(descriptor)
        os.replace(draft, path)
    except OSError as error:
        log.debug("%s cannot be written: %s", path, error)
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def _draft(path: Path) -> Iterator[int]:
    descriptor = opened(path, os.O_EXCL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
