"""Origin: whether a database is the one that was swept here before, or is older, or a copy. Arithmetic alone, nothing is asked.

A *stamp* stands in the database and counts up while work is done. A *sighting* stands outside, on the host, and says how far the
stamp had come. A database that is behind its sightings is restored; one whose stamp tells of another place is copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Stamp:
    """Say in the database which one it is, and how far it has come.

    :param token: random; each confirmation makes a new one.
    :param before: the tokens that it has had before.
    :param n: how often it was counted up, since work was done.
    :param host: where it was swept last.
    :param where: what it was called there: a file's path, or a server's name and database.
    :param home: what tells the server's database from every other; empty for a file.
    :param placed: whether somebody sweeps it already; not so right after a confirmation.
    """

    token: str
    before: tuple[str, ...] = ()
    n: int = 0
    host: str = ""
    where: str = ""
    home: tuple[str, ...] = ()
    placed: bool = True

    def text(self) -> str:
        """Return it as it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: object) -> Stamp | None:
        """Return the stamp that a text spells; None for what a hand has damaged."""
        return _parsed(cls, text)


@dataclass(frozen=True)
class Sighting:
    """Say outside the database how far it had come when it was swept here.

    :param made: when its tables were made, in microseconds UTC.
    :param at: when this was noted, likewise.
    :param file: what tells the file in which this stands from a copy of it; 0: it stands where nobody copies it.
    """

    token: str
    before: tuple[str, ...] = ()
    n: int = 0
    host: str = ""
    where: str = ""
    made: int = 0
    at: int = 0
    file: int = 0

    def text(self) -> str:
        """Return it as it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: object) -> Sighting | None:
        """Return the sighting that a text spells; None for what is damaged."""
        return _parsed(cls, text)


def _parsed(cls: Any, text: object) -> Any:
    try:
        said = json.loads(text)  # type: ignore[arg-type]
        values = {each.name: said[each.name] for each in fields(cls) if each.name in said}
        values |= {name: tuple(map(str, values[name])) for name in ("before", "home") if name in values}
        found = cls(**values)
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    whole = all(type(getattr(found, each.name)) is type(each.default) for each in fields(cls) if each.name != "token")
    return found if whole and isinstance(found.token, str) and found.token else None


class Finding(Enum):
    """Say what a database is."""

    FRESH = "fresh"
    SAME = "same"
    MOVED = "moved"
    OLDER = "older"
    COPIED = "copied"
    ELSEWHERE = "elsewhere"

    @property
    def is_alarm(self) -> bool:
        """Whether what was done already could be done again."""
        return self in (Finding.OLDER, Finding.COPIED, Finding.ELSEWHERE)


@dataclass(frozen=True)
class Here:
    """Say where a database is being started, and what is known there.

    :param made: when its tables were made.
    :param beside: the sighting in the folder of the consumers' leases, which on a server is of this host and this name.
    :param is_original: whether that one stands where it was written, and is no copy of its folder.
    :param on_host: those that this host's state folder has of the database.
    :param shared: whether it is on a server.
    :param is_home: whether two answers of a server about what tells its database from others mean the same.
    :param is_there: whether another file at a path is the same database's, by the sighting beside it.
    :param is_swept: whether a living consumer of another process has it in hand just now.
    :param has_flags: whether any flag is up.
    """

    host: str
    where: str
    home: tuple[str, ...] = ()
    made: int = 0
    beside: Sighting | None = None
    is_original: bool = True
    on_host: Sequence[Sighting] = ()
    shared: bool = False
    is_home: Callable[[tuple[str, ...], tuple[str, ...]], bool] = lambda one, other: one == other
    is_there: Callable[[str, str], bool] = lambda path, token: False
    is_swept: Callable[[], bool] = lambda: False
    has_flags: Callable[[], bool] = lambda: True


def judge(stamp: Stamp | None, here: Here) -> tuple[Finding, Sighting | None]:
    """Return what a database is, and the sighting that says so, if one does.

    Where both answers are possible the innocent one wins, unless work would be done twice that some sighting knows as done.
    """
    if stamp is None:
        return _unstamped(here)
    if not stamp.placed:
        return Finding.MOVED, None
    if (ahead := _ahead(stamp, here)) is not None:
        return Finding.OLDER, ahead
    return (_on_server if here.shared else _as_file)(stamp, here)


def _unstamped(here: Here) -> tuple[Finding, Sighting | None]:
    """A database without a stamp is new, or from before there were stamps; what is seen here since knows better."""
    seen = here.beside
    older = seen is not None and seen.made == here.made and here.has_flags()
    return (Finding.OLDER, seen) if older else (Finding.FRESH, None)


def _ahead(stamp: Stamp, here: Here) -> Sighting | None:
    """Return a sighting that had seen more of this database than is in it."""
    seen = [each for each in (here.beside, *here.on_host) if each is not None]
    mine = (each for each in seen if each.token == stamp.token and each.n > stamp.n)
    confirmed = (each for each in seen if stamp.token in each.before and (each is here.beside or each.where == here.where))
    return max([*mine, *confirmed], key=lambda each: each.at, default=None)


def _as_file(stamp: Stamp, here: Here) -> tuple[Finding, Sighting | None]:
    beside = here.beside is not None and here.beside.token == stamp.token
    stays = Finding.SAME if (stamp.host, stamp.where) == (here.host, here.where) else Finding.MOVED
    if beside and here.is_original:  # The folder was moved with its file, mounted elsewhere, or its host has another name.
        return stays, here.beside
    known = [each for each in here.on_host if each.token == stamp.token]
    for seen in known:
        if seen.where == here.where:
            return stays, seen
    for seen in known:
        return (Finding.COPIED if here.is_there(seen.where, stamp.token) else Finding.MOVED), seen
    if stamp.host != here.host:
        return Finding.ELSEWHERE, None
    if stamp.where != here.where and here.is_there(stamp.where, stamp.token):
        return Finding.COPIED, None
    return stays, None


def _on_server(stamp: Stamp, here: Here) -> tuple[Finding, Sighting | None]:
    known = [each for each in (here.beside, *here.on_host) if each is not None and each.token == stamp.token]
    at_home = here.is_home(stamp.home, here.home)
    stays = Finding.SAME if stamp.home == here.home else Finding.MOVED
    for seen in known:
        if seen.where == here.where or seen is here.beside:  # A server that was upgraded, or whose copy took over.
            return stays, seen
    if at_home or here.is_swept():
        return stays, None
    return (Finding.COPIED if known else Finding.ELSEWHERE), next(iter(known), None)
