"""Pruning by hand: history, counts, and where somebody says so the dead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..config import EVENTS, SECOND, seconds
from ..errors import ConfigError
from ..sweep.records import Records
from .site import Site


class Pruned(NamedTuple):
    """Tell how many lines of history and counts were deleted, or would be, and how many dead flags were discarded."""

    history: int
    counts: int
    dead: int


def prune(site: Any, older_than: Any, dead: bool, dry_run: bool, progress: Callable[[int], None] | None) -> Pruned:
    """Delete what is older than it is kept, as ``FlagSweep.prune`` says."""
    if dead and older_than is None:
        raise ConfigError("dead flags are discarded by age alone: say older_than=, such as '90d'")
    age = None if older_than is None else seconds(older_than, "older_than")
    keep, most, keep_counts = _kept(site, age)
    now, connections = site.clock.now(), site.connections
    before = now - int(keep_counts * SECOND)
    try:
        with connections.explained("history was not pruned"):
            buried = _bury(site, age, dry_run, progress) if dead else 0
            records = Records(connections, None if progress is None else lambda done: progress(buried + done))
            if dry_run:
                return Pruned(records.outdated(keep, most, now), records.counts_before(before), buried)
            return Pruned(records.prune(keep, most, now), records.forget_counts(before), buried)
    finally:
        connections.close_engine()


def _kept(site: Site, age: float | None) -> tuple[Mapping[str, float], int, float]:
    """Return how long history and counts are kept, and how many lines of it at the most."""
    if age is None:
        return site.settings.keep_history, site.settings.history_rows, site.settings.keep_counts
    return dict.fromkeys(EVENTS, age), 2**62, age


def _bury(site: Any, age: float | None, dry_run: bool, progress: Callable[[int], None] | None) -> int:
    """Discard flags that have been dead for so long."""
    if dry_run:
        return int(site.count_dead(before=age))
    return int(site.discard(before=age, reason="pruned", progress=progress))
