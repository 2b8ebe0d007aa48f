"""Specs that fire at wall times: ``cron``, in five fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from cronsim import CronSim, CronSimError

from .changes import Changes
from .english import plain
from .fields import normal
from .firing import Fixed, Running, WallTimes
from .spec import LAST, Spec, SpecError, check_text
from .zones import EPOCH, zone_of


@dataclass(frozen=True)
class Cron(Spec):
    """Fire at the wall times that five fields name, by the rules of Debian's cron.

    Where the minute or the hour begins with ``*``, it fires whenever the clock of the zone shows one of the times; otherwise at
    each of them once, even where the clock skips it or shows it twice.
    """

    sort: ClassVar[str] = "cron"

    @classmethod
    def parse(cls, text: object, zone: str) -> Cron:
        """Return the spec of a cron expression.

        :raises SpecError: when it is none, or would never fire.
        """
        given = check_text(text, "0 4 * * 1")
        spec = cls(normal(given), zone)
        if not spec._ever():
            day = [found.start() for found in re.finditer(r"\S+", given)][2]
            raise SpecError(f"cron {given.strip()!r} never fires: no year has such a day of month, month and day of week", day)
        return spec

    def _ever(self) -> bool:
        try:
            return next(CronSim(self.text, EPOCH.replace(year=2000)), None) is not None
        except CronSimError:
            return False

    @property
    def runs_on(self) -> bool:
        """Return whether the minute or the hour begins with ``*``: then no occurrence is made up for, and none left out."""
        minute, hour = self.text.split()[:2]
        return minute.startswith("*") or hour.startswith("*")

    @cached_property
    def _rule(self) -> Fixed | Running:
        rule = Running if self.runs_on else Fixed
        return rule(WallTimes(self.text), zone_of(self.zone))

    def next(self, after: int, anchor: int = 0) -> int | None:
        moment = self._rule.next(max(after, -1)) if after < LAST else None
        return moment if moment is not None and moment < LAST else None

    def latest(self, not_after: int, after: int, anchor: int = 0) -> int | None:
        return self._rule.latest(min(not_after, LAST), max(after, -1))

    def plain(self) -> str:
        return plain(self.text)

    def lost(self, now: int, days: int = 60) -> list[str]:
        return Changes(WallTimes(self.text), zone_of(self.zone), self.runs_on).told(now, days)
