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
from .duties import MOST_THREADS, Duties


def make_lanes(
    duties: Duties,
    member: Member,
    stopping: Callable[[], bool],
    only: str | None = None,
    flat_out: bool = False,
    breakers: bool = True,
    force: bool = False,
) -> dict[str, Lane]:
    """Return the lanes that settings and handlers name.

    :param stopping: whether the consumer is stopping.
    :param only: this lane alone.
    :param breakers: whether a kind whose flags fail alike waits for its provider.
    :param force: sweep what is paused, too.
    :param flat_out: leave the site no share of the writer, and look for own rows every time: for ``sweep()``.
    """
    connections, settings = duties.store.connections, duties.settings
    performer = Performer(duties.store, duties.handlers, duties.clock, stopping)
    pacer = Pacer(settings.writer_share if connections.dialect.one_writer and not flat_out else 1.0, settings.batch)
    free = free_connections(connections.site)
    most = sys.maxsize if free is None else max(1, free)
    served = {name: handlers for name, handlers in duties.lanes().items() if only in (None, name)}
    sizes = {name: min(most, size) for name, size in duties.threads().items() if name in served}
    taking_turns = sum(sizes.values()) > most
    crew = Crew(MOST_THREADS if taking_turns else min(most, MOST_THREADS))
    gates: dict[str, Any] = {"zone": settings.timezone, "breakers": breakers, "force": force, "on_outage": duties.on_outage}
    shared = Shared(duties.store, duties.clock, pacer, member, duties.on_dead, flat_out, crew=crew, **gates)
    if taking_turns:
        performer.take_turns(most)
    pools = {name: Pool(name, 0 if connections.in_memory else size, performer, member) for name, size in sizes.items()}
    return {name: Lane(name, handlers, pools[name], shared) for name, handlers in served.items()}
