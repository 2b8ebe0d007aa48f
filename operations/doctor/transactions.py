"""Other sessions of a server: transactions that do not end, connections that run out, copies that lag behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ...databases.server.sessions import Open
from ...models import Consumer
from .finding import Finding, as_span, names
from .patient import Check, Patient

LONG = 60
"""Seconds for which a transaction may be open, and ``IDLE``, for which it may do nothing."""
IDLE = 10
OF_ITS_OWN = 5
"""Connections of a consumer besides one a lane and one a thread: lease, watcher, listener, keeper, and the thread that runs it.
PostgreSQL has shown so many with lanes and threads in several numbers, MariaDB one less: it has no listener."""
FULL = 0.9
"""The share of a server's connections from which on they are nearly used up."""


def transactions(patient: Patient) -> Finding:
    """Look for transactions that stay open: what they raised nobody sees, what they lock nobody has, nothing is cleaned up."""
    found, unseen = patient.dialect.open_transactions(patient.store.connections.engine, IDLE)
    long = [each for each in found if each.seconds >= LONG or (each.idle or 0) >= IDLE]
    if not long:
        text = f"none of others is open for long{f'; {unseen}' if unseen else ''}"
        return Finding("ok", "transactions", text)
    text = f"open for {_told(long[0])}{f'; and {len(long) - 1} more' if len(long) > 1 else ''}{f'; {unseen}' if unseen else ''}"
    fix = f"have it commit, or end it: {long[0].end} What it has not committed is taken back"
    return Finding("warn", "transactions", text, fix)


def _told(one: Open) -> str:
    """Return what is known of a transaction."""
    idle = f", idle for {as_span(one.idle)} of it" if one.idle is not None else ""
    flags = "; it has written flags, which nobody sees before it commits" if one.flags else ""
    waiting = f"; {one.waiting} sessions wait for it" if one.waiting else ""
    statement = f"; last: {one.statement}" if one.statement else ""
    return f"{as_span(one.seconds)} by {one.who}{idle}{flags}{waiting}{statement}"


def connections(patient: Patient) -> Finding:
    """Check that the server has connections for all consumers, whatever they run."""
    most, used = patient.dialect.room(patient.store.connections.engine)
    living = [each for each in patient.consumers if each.id in patient.living]
    wanted = [(each, _wanted(patient, each)) for each in living]
    total = sum(count for _, count in wanted)
    text = f"{used} of {most} are used"
    if used >= FULL * most:
        fix = (
            "close what is idle (a pool that is too large?), or raise max_connections; consumers that are refused one wait for it"
        )
        return Finding("warn", "connections", text, fix)
    if total > most:
        shown = names(f"consumer {each.id} up to {count}" for each, count in wanted)
        text = f"{text}, and {len(living)} consumers may want {total} (one a thread, one a lane, and {OF_ITS_OWN} each): {shown}"
        fix = "raise max_connections on the server, or give the lanes fewer threads, or run fewer consumers"
        return Finding("warn", "connections", text, fix)
    return Finding("ok", "connections", f"{text}; {len(living)} consumers may want {total}" if living else text)


def _wanted(patient: Patient, consumer: Consumer) -> int:
    """Return how many connections a consumer may have: as it has noted its lanes, or else as ours are."""
    threads = [lane["threads"] for lane in lanes_of(consumer).values() if isinstance(lane.get("threads"), int)]
    threads = threads or list(patient.threads().values())
    return sum(threads) + len(threads) + OF_ITS_OWN


def lanes_of(consumer: Consumer) -> dict[str, dict[str, Any]]:
    """Return what a consumer has noted of its lanes; nothing where it has not, or a hand has damaged that."""
    try:
        lanes = json.loads(consumer.lanes or "{}")
    except (ValueError, TypeError, RecursionError):
        return {}
    return {name: lane for name, lane in lanes.items() if isinstance(lane, dict)} if isinstance(lanes, dict) else {}


def copies(patient: Patient) -> list[Finding]:
    """Check that the server may be written, and how far its copies are behind."""
    found: Iterable = patient.dialect.copies(patient.store.connections.engine)
    return [Finding(level, "replication", text, fix) for level, text, fix in found] or [
        Finding("ok", "replication", "this server is written to, and no copy of it is connected")
    ]


SESSIONS: list[Check] = [transactions, connections, copies]
