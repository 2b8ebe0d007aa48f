"""Move all that flagsweep knows into another database: what is copied is compared, and only then this one is left."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from ...config import SECOND, utc
from ...databases import schema
from ...databases.connections import Connections
from ...databases.errors import DATABASE_ERRORS
from ...databases.opening import open_connections
from ...databases.raising import Terms
from ...errors import ConfigError, DatabaseAway, FlagSweepError
from ...models import AWAY
from ...payloads import Item
from ..pauses import by_whom
from ..site import Site
from .copying import FEW, LONG, Copying
from .side import NOTE, PAUSE, Side
from .tables import LEFT_BEHIND, shapes

PASSES = 4
"""How often both databases are compared before nobody may write here while they are."""
SLOWEST = 3600 * SECOND
"""How far a clock of the site's may be behind."""
BEHIND = 600 * SECOND
"""How far a clock may be behind by which something is raised here after this database was left."""
NEVER = 2**62
"""An id that no flag has."""
WAIT = 10
"""How often it is tried to be alone with the tables, where somebody has a transaction open."""
OPEN = dict.fromkeys(PAUSE)


@dataclass(frozen=True)
class Moved:
    """Tell what a move has done."""

    source: str
    target: str
    at: datetime
    """When this database was left."""
    counts: dict[str, int]
    """How many rows of each table the other database has."""
    checksums: dict[str, str]
    """Of each table that was read whole at the end; both databases gave the same. Of a large one that has changed in the last
    moment the changes were written there, and counts and sums were compared."""
    copied: int
    """Rows that were copied just now: fewer than there are where an earlier call had begun."""
    mended: int
    """Rows that had changed here while they were copied, and were copied again."""
    parked: int
    """Rows that a hand had damaged so that the other database cannot hold them as they are."""
    late: int
    """Flags that were raised here after all had been moved, and were raised there now."""
    seconds: float
    own_rows: list[str]
    """Kinds whose flags stand for rows of the site's own tables, which stay where they are."""
    again: bool = False
    """Whether all had been moved before."""
    left_behind: dict[str, str] = field(default_factory=lambda: dict(LEFT_BEHIND))

    @property
    def rate(self) -> float:
        """How many rows were copied and compared in a second."""
        return self.copied / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "at": self.at.isoformat(), "seconds": round(self.seconds, 3), "rate": round(self.rate)}


class Move:
    """Move once.

    The source stays as it is but for its pause; what is told of it stands in a fact in either database, and is written in the
    transaction of what it tells of. So whatever ends this, the same call goes on.

    :param progress: called with what is done, how many rows of it, and how many there are in all.
    """

    def __init__(
        self, here: Side, there: Side, progress: Callable[[str, int, int], Any] | None = None, own_rows: Sequence[str] = ()
    ):
        self._here = here
        self._there = there
        self._progress = progress
        self._own_rows = list(own_rows)
        self._clock = here.clock
        self._done = self._total = self._copied = 0
        self._copying = Copying(here, there, self._told)
        self._checksums: dict[str, str] = {}
        self._there_says: dict[str, Any] = {}

    def move(self) -> Moved:
        """Do it.

        :raises LeaseHeld: where a consumer lives in either database, or another move goes on.
        :raises FlagSweepError: where the target holds what is not of this move.
        """
        began = time.monotonic()
        try:
            refuse_same(self._here.connections, self._there.connections)
            schema.require(self._here.connections)
            schema.init_file(self._there.connections, self._clock.now())
            moved, late = self._is_done(), 0
            if moved:
                late = self._raise_what_is_late()
            else:
                with self._here.to_itself(), self._there.to_itself():
                    self._begin()
                    self._copy()
                    self._finish(self._compare())
            return self._report(began, moved, late)
        finally:
            for side in (self._there, self._here):
                side.close()

    # The beginning.

    def _is_done(self) -> bool:
        """Return whether all was moved before, and this database is still left."""
        ours, theirs = self._mine(), self._there.noted()
        return bool(ours and theirs and ours["id"] == theirs.get("id") and theirs.get("state") == "open")

    def _mine(self) -> dict[str, Any] | None:
        """Return what is noted here of a move, unless a hand has resumed this database, which gives the move up."""
        ours = self._here.noted()
        if ours is None or self._here.pause()["reason"] != ours.get("reason"):
            return None
        return ours

    def _begin(self) -> None:
        """Note on either side that a move has begun, and pause both."""
        ours, theirs = self._mine(), self._there.noted()
        if ours is not None and ours["to"] != self._there.where:
            went = "was" if ours.get("state") == "moved" else "is being"
            raise FlagSweepError(
                f"{self._here.where} {went} moved to {ours['to']}: go on with that, or give it up with 'flagsweep resume --all'"
            )
        if ours is None or theirs is None or theirs.get("id") != ours["id"]:
            begun = theirs is not None and theirs.get("made") == self._here.made_at() and theirs.get("state") != "open"
            if not begun:
                self._refuse_what_is_of_others(theirs)
            ours = ours or self._begin_here()
            after = theirs["after"] if theirs and begun else dict.fromkeys(LONG, 0)
            theirs = {
                "id": ours["id"],
                "from": self._here.where,
                "made": self._here.made_at(),
                "state": "copying",
                "after": after,
            }
        self._there_says = theirs
        with self._there.connections.write():
            self._there.note(theirs)
            self._there.set_pause(self._paused(f"is being moved here from {self._here.where}"))

    def _begin_here(self) -> dict[str, Any]:
        reason = f"is being moved to {self._there.where}; 'flagsweep move' goes on with it, 'flagsweep resume --all' gives it up"
        ours: dict[str, Any] = {"id": secrets.token_hex(8), "to": self._there.where, "state": "moving", "reason": reason}
        ours |= {"before": self._here.pause()}
        with self._here.connections.write():
            self._here.note(ours)
            self._here.set_pause(self._paused(reason))
        return ours

    def _paused(self, reason: str) -> dict[str, Any]:
        return {"paused_at": self._clock.now(), "paused_by": by_whom(None), "paused_until": None, "reason": reason}

    def _refuse_what_is_of_others(self, theirs: dict[str, Any] | None) -> None:
        """Refuse a target that has flags of its own."""
        there = self._there
        held = {name: there.dialect.count_of(there.db, shapes()[name].table) for name in ("flag", "schedule", "history")}
        if not any(held.values()):
            return
        what = ", ".join(f"{count:,} {NAMES[name][count != 1]}" for name, count in held.items() if count)
        whose = f", of a move from {theirs['from']}" if theirs and theirs.get("from") else ""
        raise FlagSweepError(
            f"{there.where} holds {what}{whose}: a move needs a database without any; 'flagsweep export' and 'flagsweep import' "
            "bring flags into one that has some"
        )

    # The way.

    def _copy(self) -> None:
        here = self._here
        after = self._there_says["after"]
        self._total = 2 * sum(here.dialect.count_of(here.db, shapes()[name].table) for name in LONG)
        for name in LONG:

            def done(last: int, name: str = name) -> None:
                after[name] = last
                self._there.note(self._there_says)

            self._copying.copy(name, after[name], done)

    def _compare(self) -> int:
        """Compare until nothing differs; return when the last comparison began, by the slowest clock."""
        for _ in range(PASSES):
            began = self._clock.now() - SLOWEST
            found = {name: self._copying.compare(name) for name in LONG}
            found |= {name: self._copying.compare_short(name) for name in shapes() if name not in LONG}
            self._checksums = {name: checksum for name, (_, checksum) in found.items()}
            if not sum(differed for differed, _ in found.values()):
                break
        return began

    # The end.

    def _finish(self, since: int) -> None:
        """While nobody else can write here, look once more, then leave this database and open the other."""
        ours = self._here.noted() or {}
        for side in (self._here, self._there):
            side.refuse_the_living()
        for left in reversed(range(WAIT)):
            try:
                with self._here.dialect.still(self._here.db, TABLES):
                    self._leave(ours, since)
                break
            except AWAY as error:
                if not left or not self._here.dialect.is_busy(error):
                    raise DatabaseAway(
                        f"{self._here.where}: somebody has a transaction open that writes flags, or the database is away "
                        f"({' '.join(str(error).split())}): do the same again, it goes on where it was"
                    ) from error
                time.sleep(0.5)
        with self._there.connections.write():
            self._there.set_pause(ours["before"])
            self._there.note({**self._there_says, "state": "open"})

    def _leave(self, ours: dict[str, Any], since: int) -> None:
        here, there = self._here, self._there
        changed = self._copying.last_look(since)
        found = {name: self._copying.compare_short(name) for name in shapes() if name not in LONG}
        self._checksums |= {name: checksum for name, (_, checksum) in found.items()}
        if changed is not None:
            self._checksums = {name: sum for name, sum in self._checksums.items() if name not in LONG} | changed
        for table in WITH_IDS:
            there.dialect.begin_ids_after(there.db, table, here.dialect.highest_id(here.db, table))
        self._there_says["state"] = "whole"
        with there.connections.write():
            there.note(self._there_says)
        now = self._clock.now()
        reason = (
            f"was moved to {there.where} at {utc(now):%Y-%m-%d %H:%M:%S} UTC; 'flagsweep resume --all' would do its flags twice"
        )
        here.note({**ours, "state": "moved", "reason": reason, "at": now, **self._raised_by_now(now)})
        here.set_pause(self._paused(reason))

    # Afterwards.

    def _raised_by_now(self, now: int) -> dict[str, Any]:
        """Return by what a raise is known that comes here later, even from a host whose clock is behind.

        Of what was raised of late it is the generation; where that is too much to be noted, clocks must do.
        """
        here, shape = self._here, shapes()["flag"]
        since = now - BEHIND
        rows = [dict(zip(shape.columns, row, strict=True)) for row in here.dialect.recent(here.db, shape, NEVER, since, FEW)]
        last = here.dialect.highest_id(here.db, shape.table)
        if len(rows) == FEW:
            return {"last": last, "since": now, "known": {}}
        known = {str(row["id"]): row["generation"] for row in rows if type(row["generation"]) is int}
        return {"last": last, "since": since, "known": known}

    def _raise_what_is_late(self) -> int:
        """Raise there what somebody has raised here since this database was left."""
        here, there, shape = self._here, self._there, shapes()["flag"]
        with here.dialect.still(here.db, TABLES):
            ours = self._mine() or {}
            rows = here.dialect.recent(here.db, shape, ours["last"], ours["since"], 2**31 - 1)
            late = [row for row in (dict(zip(shape.columns, row, strict=True)) for row in rows) if _is_late(row, ours)]
            for row in late:
                terms = Terms(row["priority"], row["due_at"], row["raised_at"], row["expires_at"])
                there.dialect.raise_(there.db, row["kind"], Item(row["key"], row["payload"], row["bucket"]), terms)
            if late:
                here.note({**ours, **self._raised_by_now(self._clock.now())})
        return len(late)

    def _report(self, began: float, again: bool, late: int) -> Moved:
        at = utc((self._here.noted() or {})["at"])
        done = self._copying
        seconds = time.monotonic() - began
        told = (self._copied, done.mended, done.parked, late, seconds, self._own_rows, again)
        return Moved(self._here.where, self._there.where, at, done.counts, self._checksums, *told)

    def _told(self, what: str, rows: int) -> None:
        self._done += rows
        self._copied += rows if what.startswith("copying") else 0
        if self._progress is not None:
            self._progress(what, self._done, self._total)


def move(site: Site, to: Any, progress: Callable[[str, int, int], Any] | None = None) -> Moved:
    """Move all that a site's FlagSweep has to another database."""
    settings = site.settings
    there = open_connections(to, settings.driver, settings.notify)
    here = site.connections
    ours, theirs = (Side(each, site.clock, settings.state_dir, note) for each, note in ((here, NOTE), (there, "move:from")))
    own = sorted(kind for kind, handler in site.handlers.items() if handler.rows is not None)
    try:
        return Move(ours, theirs, progress, own).move()
    except DATABASE_ERRORS as error:
        failed = f"the move from {here.where} to {there.where} has stopped; the same one goes on where it was"
        raise DatabaseAway(f"{failed}: {' '.join(str(here.dialect.unmasked(error)).split())}") from error


NAMES = {"flag": ("flag", "flags"), "schedule": ("schedule", "schedules"), "history": ("line of history", "lines of history")}
TABLES = (*(shape.table for shape in shapes().values()), "flagsweep_consumer", "flagsweep_pulse")
"""The tables that nobody may write, or that are asked, at the end."""
WITH_IDS = tuple(f"flagsweep_{name}" for name in ("flag", "history", "consumer"))
"""The tables whose ids go on there."""


def _is_late(row: dict[str, Any], ours: dict[str, Any]) -> bool:
    if row["id"] > ours["last"]:
        return True
    if type(row["raised_at"]) is not int or type(row["generation"]) is not int:  # Damaged, and no raise has mended it.
        return False
    return bool(row["raised_at"] >= ours["since"] and ours["known"].get(str(row["id"])) != row["generation"])


def refuse_same(here: Connections, there: Connections) -> None:
    """Refuse to move a database into itself.

    :raises ConfigError: where both are one.
    """
    if here.dialect.name == there.dialect.name:
        if here.file is not None and there.file is not None:
            same = here.file.resolve() == there.file.resolve()
        else:
            places = [side.dialect.place_of(side.engine.execute_sql) for side in (here, there)]
            same = places[0] == places[1]
        if same:
            raise ConfigError(f"{here.where} is the database that the flags are in: name another one with --to")
