"""The dead: grouped by what they died of, and which of them somebody means.

A group is what died of one cause, by the fingerprint in the rows. Rows that died before there were fingerprints are told apart by
the type of their error, and nothing is written for that; of each kind the latest of them are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..gates.rates import Rate
from ..logs import headline
from ..models import Flag
from .flags import Flags, Progress, lane_of
from .info import FlagInfo, moment

MOST_GROUPS = 1000
"""Groups that are told of at the most: more are no help to anybody."""

LATEST = 1000
"""Dead flags without a fingerprint that are looked at, of each kind."""

SORTS = ("latest", "count")

_CAUSE = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class DeadGroup:
    """Show dead flags of one kind that died of one cause.

    :ivar id: what ``retry`` and ``discard`` take for it: the same as long as kind and cause are.
    :ivar died_as: its fingerprint: type and place of the error, or a word such as ``crashed``.
    :ivar exact: whether ``count`` is all there are; else there are at least so many, and ``first_at`` is that of those.
    :ivar example_id: the id of that which died last; its key and the headline of its error stand beside.
    """

    id: str
    kind: str
    lane: str
    died_as: str
    count: int
    exact: bool
    first_at: datetime | None
    last_at: datetime | None
    example_id: int | None
    example_key: str | None
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()}


class Meant(NamedTuple):
    """Say which dead flags somebody means: those that meet all the conditions, and whose error ``keep`` takes."""

    where: list[Any]
    keep: Callable[[str | None], bool] | None = None


class _Cause(NamedTuple):
    """Be a group before its example is read; ``named`` is False for rows without a fingerprint."""

    kind: str
    died_as: str
    named: bool
    many: int
    exact: bool
    first: Any
    last: Any

    @property
    def id(self) -> str:
        text = f"{self.kind}\0{'' if self.named else chr(0)}{self.died_as}"
        return sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]


class Dead(Flags):
    """Look through the dead, and decide about many of them."""

    def groups(self, kind: str | None, sort: str, limit: int | None) -> list[DeadGroup]:
        """Return the groups, as ``FlagSweep.dead`` says."""
        if sort not in SORTS:
            raise ConfigError(f"sort must be one of {', '.join(SORTS)}, got {sort!r}")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ConfigError(f"limit must be a whole number from 0, got {limit!r}")
        found = sorted(self._causes(kind), key=_latest if sort == "latest" else _count, reverse=True)
        return [self._shown(cause) for cause in found[:limit]]

    def meant(self, group: str) -> Meant:
        """Return which flags are of a group.

        :raises ConfigError: where there is none of that id.
        """
        found = [cause for cause in self._causes(None) if cause.id == str(group).lower()]
        if len(found) != 1:
            many = "there is no group" if not found else f"{len(found)} groups are called"
            hint = "'flagsweep dead' lists them" if not found else "say which by kind= and error="
            raise ConfigError(f"{many} {group!r} of dead flags: {hint}")
        cause = found[0]
        where = [Flag.kind == cause.kind, Flag.died_as == cause.died_as if cause.named else Flag.died_as.is_null()]
        return Meant(where, None if cause.named else lambda error: cause_of(error) == cause.died_as)

    def count(self, **what: Any) -> int:
        """Return how many flags meet all that is given."""
        return sum(self._verbs.count([*self._where(**more), *meant.where], meant.keep) for meant, more in self._meant(what))

    def some(self, limit: int, **what: Any) -> list[FlagInfo]:
        """Return some of the dead flags that are meant."""
        found: list[Flag] = []
        for meant, more in self._meant(what):
            found += self._verbs.find([*self._where(**more), *meant.where], limit - len(found), meant.keep)
        return [FlagInfo.of(flag, lane_of(self._handlers, flag.kind)) for flag in found]

    def retry_dead(self, rate: object, progress: Progress, **what: Any) -> int:
        """Let dead flags wait again from scratch, one after the other where a rate says so; return how many."""
        paced, now, done = None if rate is None else Rate.parse(rate), self._clock.now(), 0
        for meant, more in self._meant(what):
            pace = (paced.count, paced.period, done) if paced else None
            where = [*self._where(**more), *meant.where]
            done += self._verbs.retry_dead(where, now, meant.keep, pace, _after(done, progress))
        return done

    def discard_dead(self, reason: str, progress: Progress, **what: Any) -> int:
        """Drop dead flags; return how many."""
        now, own, done = self._clock.now(), [k for k, h in self._handlers.items() if h.rows is not None], 0
        for meant, more in self._meant(what):
            where = [*self._where(**more), *meant.where]
            told = _after(done, progress)
            done += self._verbs.discard(where, reason or "by hand", now, own, self._lower_rows, told, meant.keep)
        return done

    def _meant(self, what: dict[str, Any]) -> Iterator[tuple[Meant, dict[str, Any]]]:
        """Yield which of the dead are meant, a group after the other, with what else they must meet."""
        more = {**{name: value for name, value in what.items() if name != "group"}, "state": "dead"}
        group = what.get("group")
        if group is None:
            yield Meant([]), more
        else:
            for meant in [self.meant(each) for each in ([group] if isinstance(group, str) else group)]:
                yield meant, more

    def _causes(self, kind: str | None) -> Iterator[_Cause]:
        for its_kind, died_as, many, first, last, exact in self._verbs.graves(kind, MOST_GROUPS):
            if died_as is None:
                yield from self._nameless(its_kind, many, exact)
            else:
                yield _Cause(its_kind, died_as, True, many, exact, first, last)

    def _nameless(self, kind: str, many: int, exact: bool) -> Iterator[_Cause]:
        """Tell flags without a fingerprint apart by the type of their error."""
        found: dict[str, list[Any]] = {}
        for _, _, died_at, error in self._verbs.latest_dead((kind, None), LATEST):
            found.setdefault(cause_of(error), []).append(died_at)
        for cause, ats in found.items():
            yield _Cause(kind, cause, False, len(ats), exact and many <= LATEST, ats[-1], ats[0])

    def _shown(self, cause: _Cause) -> DeadGroup:
        id, key, error = self._example(cause)
        lane = lane_of(self._handlers, cause.kind)
        times = moment(cause.first), moment(cause.last)
        shown = headline(error or "")[:300]
        return DeadGroup(cause.id, cause.kind, lane, cause.died_as, cause.many, cause.exact, *times, id, key, shown)

    def _example(self, cause: _Cause) -> tuple[int | None, str | None, str | None]:
        """Return that which died last; it may be gone by now."""
        rows = self._verbs.latest_dead((cause.kind, cause.died_as if cause.named else None), 1 if cause.named else LATEST)
        fitting = ((id, key, error) for id, key, _, error in rows if cause.named or cause_of(error) == cause.died_as)
        return next(fitting, (None, None, None))


def cause_of(error: str | None) -> str:
    """Return what stands for a fingerprint where there is none: the type that an error's headline begins with."""
    found = _CAUSE.match(headline(error or ""))
    return found[0][:100] if found else "unknown"


def _after(done: int, progress: Progress) -> Progress:
    """Return what is told of more that is done, after so many."""
    return None if progress is None else lambda more: progress(done + more)


def _latest(cause: _Cause) -> tuple[int, str, str]:
    return (cause.last if isinstance(cause.last, int) else 0, cause.kind, cause.died_as)


def _count(cause: _Cause) -> tuple[int, int]:
    return (cause.many, _latest(cause)[0])
