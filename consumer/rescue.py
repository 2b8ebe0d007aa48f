"""Rescue: what dead consumers had claimed is free again, and only what they were running is charged."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ..handlers import Options
from ..logs import AS_EVENT, tell_event
from ..models import Consumer, Flag
from ..sweep.blackbox import BlackBox
from ..sweep.claims import Claimed, Step
from ..sweep.notices import Failure, OnFailed
from .blame import charge, suspect
from .crash_log import CrashLog, leftovers
from .membership import Enlisted

log = logging.getLogger("flagsweep")


class Rescuer:
    """Free what dead consumers had claimed.

    :param options_of: the options of a kind's handler, if there is one.
    :param on_failed: called with each flag that failed for the first time, or died.
    :param on_rescued: called with the id of each consumer that was struck off.
    """

    def __init__(
        self,
        member: Enlisted,
        options_of: Callable[[str], Options | None],
        on_failed: OnFailed,
        on_rescued: Callable[[int], None] = lambda id: None,
    ):
        self._member = member
        self._store = member.store
        self._options_of = options_of
        self._on_failed = on_failed
        self._on_rescued = on_rescued

    def free_the_dead(self) -> int:
        """Free what dead consumers had claimed, charging only what was running; return how many flags."""
        if self._member.folder is None:
            return 0
        leases, others = self._member.leases, self._others()
        while self._member.terms.patient and any(leases.may_be_dying(peer) for peer in others):
            time.sleep(0.1)
            others = self._others()
        return sum(self._rescue(peer) for peer in others if leases.is_dead(peer))

    def _others(self) -> list[Consumer]:
        return [peer for id, peer in self._store.peers().items() if id != self._member.id]

    def _rescue(self, peer: Consumer) -> int:
        consumer, now = peer.id, self._member.clock.now()
        steps = self._charged(peer, now)
        rescued = self._store.rescue(consumer, [(f.id, f.claim_token or 0, step) for f, step in steps], now, peer.comebacks)
        if rescued is None:
            return 0
        freed, dead = rescued
        self._on_rescued(consumer)
        for file in leftovers(self._member.notes, consumer):
            file.unlink(missing_ok=True)
        if freed:
            charged = ", ".join(f"{f.kind} (flag {f.id})" for f, _ in steps) or "none"
            died = "consumer %d died: %d flags are free again; charged, since they were running: %s"
            log.warning(died, consumer, freed, charged, extra=AS_EVENT)
            tell_event("rescued", logging.WARNING, consumer=consumer, flags=freed, charged=[f.id for f, _ in steps])
        for flag, step in steps:
            first, final = not (flag.attempts or flag.crashes), flag.id in dead
            if step.error and (first or final):
                self._on_failed(_failure(flag, step, first, final), None)
        return freed

    def _charged(self, peer: Consumer, now: int) -> list[tuple[Flag, Step]]:
        """Return the flags that are to blame for the death of a consumer, and how each goes on."""
        consumer, folder = peer.id, self._member.notes
        thread, report = CrashLog.read(folder, consumer)
        try:
            clean, running = BlackBox.read(folder, consumer)
        except FileNotFoundError:
            if self._store.connections.dialect.one_writer:
                return []
            return suspect(self._store.claimed_by(consumer), self._options_of, now)
        tokens = {r.flag: r.token for r in running}
        flags = [] if clean else [f for f in self._store.claimed_by(consumer, tokens) if f.claim_token == tokens[f.id]]
        return charge(flags, {r.flag for r in running if r.thread == thread}, report, self._options_of, now)


def claimed_from(flag: Flag) -> Claimed:
    """Return a row as the sweep would have claimed it."""
    payload = None
    with suppress(ValueError):
        payload = json.loads(flag.payload)
    more = (flag.attempts, flag.suspect, None, flag.generation - flag.covered)
    return Claimed(flag.kind, flag.claim_token or 0, (flag.due_at, flag.id, flag.key, payload, more))


def _failure(flag: Flag, step: Step, first: bool, final: bool) -> Failure:
    """Return what is told of a flag that was charged with the death of its process."""
    what = (step.error or "", step.died_as or "", first, final, claimed_from(flag).payload)
    return Failure(flag.kind, flag.key, flag.id, flag.attempts + 1, *what)
