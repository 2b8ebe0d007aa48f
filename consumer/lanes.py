"""The lanes of a consumer, each with its threads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..databases.pacer import Pacer
from ..databases.spare import free_connections
from ..sweep.crew import Crew
from ..sweep.lane import Lane, Shared
from ..sweep.member import Member
from ..sweep.perform import Performer
from ..sweep.threads import Pool
from ..sweep.totals import Totals
from .duties import MOST_THREADS, Duties


def make_lanes(
    duties: Duties,
    member: Member,
    stopping: Callable[[], bool],
    only: str | None = None,
    flat_out: bool = False,
    breakers: bool = True,
    force: bool = False,
    inline: bool = False,
    gentle: bool = False,
    totals: Totals | None = None,
) -> dict[str, Lane]:
    """Return the lanes that settings and handlers name.

    :param stopping: whether the consumer is stopping.
    :param only: this lane alone.
    :param breakers: whether a kind whose flags fail alike waits for its provider.
    :param force: sweep what is paused, too.
    :param inline: have no threads, and perform in the one that sweeps.
    :param gentle: do little at once, and pause, on a server, too: this process answers requests.
    :param totals: where all that is done is counted in this process, too.
    :param flat_out: leave the site no share of the writer, and look for own rows every time: for ``sweep()``.
    """
    connections, settings = duties.store.connections, duties.settings
    performer = Performer(duties.store, duties.handlers, duties.clock, stopping, duties.around)
    pacer = _pacer(duties, flat_out, gentle)
    free = free_connections(connections.site)
    most = sys.maxsize if free is None else max(1, free)
    served = {name: handlers for name, handlers in duties.lanes().items() if only in (None, name)}
    sizes = {name: min(most, size) for name, size in duties.threads().items() if name in served}
    tasks = {name: count for name, count in duties.tasks().items() if name in served}
    loops = len(tasks)  # Each has a connection of the site's for all of its tasks.
    taking_turns = sum(sizes.values()) + loops > most
    most_threads = MOST_THREADS - sum(tasks.values())
    crew = Crew(most_threads if taking_turns else min(most - loops, most_threads))
    gates: dict[str, Any] = {"zone": settings.timezone, "breakers": breakers, "force": force, "on_outage": duties.on_outage}
    given: dict[str, Any] = {"crew": crew, "tasks": tasks, "totals": totals, **gates}
    shared = Shared(duties.store, duties.clock, pacer, member, duties.on_failed, flat_out, **given)
    if taking_turns:
        performer.take_turns(max(1, most - loops))
    if inline or connections.in_memory:
        sizes = dict.fromkeys(sizes, 0)
    pools = {name: Pool(name, size, performer, member) for name, size in sizes.items()}
    return {name: Lane(name, handlers, pools[name], shared) for name, handlers in served.items()}


def _pacer(duties: Duties, flat_out: bool, gentle: bool) -> Pacer:
    paced = gentle or (duties.store.connections.dialect.one_writer and not flat_out)
    target = Pacer.GENTLE if gentle else Pacer.TARGET
    return Pacer(duties.settings.writer_share if paced else 1.0, duties.settings.batch, target)
