"""The claimer: which flags of a lane are due, and how many of them are taken now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..adapters.rows import OwnRows
from ..config import SECOND
from ..databases.pacer import Pacer
from ..handlers import Handler
from .claims import Claimed, Store, new_token
from .demand import HUNGRY, SATED, WHEN_FREE
from .discovery import Discovery
from .gatekeeper import Gatekeeper
from .member import Member
from .parts import Parts
from .threads import Pool

PROMPT = SECOND // 20
"""Microseconds of a rate's tokens that are claimed ahead, where threads are not free."""

ROUNDS = 8
"""Claims of one sort in one turn, where each finds rows that somebody holds: behind more of these the free ones wait a moment."""

Due = tuple[int, str]
"""Priority and kind of flags that are due."""


class Claimer:
    """Claim flags of one lane, the most urgent first, and no more than its threads will soon have begun.

    :param handlers: by kind, aliases included.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        store: Store,
        pool: Pool,
        pacer: Pacer,
        member: Member,
        parts: Parts,
        discovery: Discovery,
        gates: Gatekeeper,
    ):
        self.left: int | None = None
        """How many flags may still be claimed; None: however many."""
        self._handlers = handlers
        self._kinds = list(handlers)
        self._gates = gates
        self._store = store
        self._connections = store.connections
        self._pool = pool
        self._pacer = pacer
        self._member = member
        self._parts = parts
        self._discovery = discovery
        self._hints: set[Due] = set()
        self._in_doubt: list[int] = []

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of the lane."""
        return self._kinds

    def hint(self, due: Iterable[Due]) -> None:
        """Say that flags of these sorts are due: whoever claims next need not look first."""
        self._hints.update(due)

    def hinted(self) -> list[Due]:
        """Return what is said to be due, the most urgent first, and forget it."""
        hints, self._hints = self._hints, set()
        return most_urgent_first(hints)

    def due(self, now: int) -> list[Due]:
        """Return what is due, the most urgent first; kinds of one priority take turns at being first."""
        self._hints = set()  # This look sees what they told of.
        self._kinds = self._kinds[1:] + self._kinds[:1]
        self._gates.known.refresh(now)
        open_kinds = self._gates.known.open(self._kinds, now)
        agenda = self._store.agenda(open_kinds) if open_kinds else []
        return most_urgent_first((priority, kind) for kind, priority, earliest in agenda if earliest <= now)

    def claim(self, due: Sequence[Due], now: int, most: int | None = None) -> list[Claimed]:
        """Take what there is room for, within a ``write``.

        :param most: no more flags than this.
        """
        claimed: list[Claimed] = []
        limits = [limit for limit in (self._pacer.batch, self.left, most) if limit is not None]
        due = [each for each in due if self._gates.known.closing(each[1], now) is None]
        for index, (priority, kind) in enumerate(due):
            peers = sum(1 for p, _ in due[index:] if p == priority)
            room = min(self._pool.room(kind), *limits) - len(claimed)
            share = -(-room // peers)
            if share > 0:
                taken = self._take(kind, priority, share, now)
                claimed += taken
                more = HUNGRY if len(taken) == share else SATED
                if not taken and self._gates.known.closing(kind, now) is None and self._gates.takes(kind):
                    more = WHEN_FREE  # It waits for a thread that is free at once.
            else:
                more = WHEN_FREE
            self._pool.want(kind, more)
        return claimed

    def _take(self, kind: str, priority: int, limit: int, now: int) -> list[Claimed]:
        """Claim flags of one sort; of a turn that is taken part by part, a sort that cannot be claimed is left out."""
        self._in_doubt.append(token := new_token())
        with self._parts.part(f"flags of {kind} cannot be claimed") as part:
            taken = self._claim(kind, priority, limit, now, token)
            if self._discovery.has_rows:
                self._lower_early(taken)
        return [] if part.failed else taken

    def _claim(self, kind: str, priority: int, limit: int, now: int, token: int) -> list[Claimed]:
        """Claim flags of one sort, no more of them than their gate lets through."""
        gates, id, way = self._gates, self._member.id, self._gates.way(kind)
        if gates.takes(kind) and not self._connections.dialect.in_transaction(self._connections.engine):
            return []  # Its breaker has closed since: another transaction will do it.
        if not (limit := self._promptly(kind, limit)):
            return []  # No thread is free; to ask its gate for nothing would have it wait as if that had none.
        if not gates.is_gated(kind):
            if self._handlers[kind].kind in gates.buckets:
                return gates.claim_by_turns(kind, priority, limit, id, now, token)
            return self._free(lambda count: self._store.claim(kind, priority, count, id, now, token, way), limit, now)
        grant = gates.enter(kind, limit, self._pool.places_of(kind).size, id, now)
        if grant is None:
            return []

        def claim(count: int) -> list[Claimed]:
            if grant.probe is None:
                return self._store.claim(kind, priority, count, id, now, token, way)
            return self._store.claim_these(kind, gates.choose(grant, kind, priority, now), id, now, token, way)

        taken = self._free(claim, grant.count, now)
        gates.leave(grant, taken, now)
        return taken

    def _free(self, claim: Callable[[int], list[Claimed]], count: int, now: int) -> list[Claimed]:
        """Claim so many flags whose rows nobody holds: those behind what is held take its place.

        :param claim: claims no more than it is given.
        """
        free: list[Claimed] = []
        for _ in range(ROUNDS):
            taken = claim(count - len(free))
            kept = self._without_held(taken, now)
            free += kept
            if len(kept) == len(taken):
                break
        return free

    def _promptly(self, kind: str, limit: int) -> int:
        """Return how many flags of a kind may be claimed that has a rate: what would not start at once would start too late."""
        rate = self._handlers[kind].options.rate
        if rate is None:
            return limit
        return min(limit, max(self._pool.free_places(kind), rate.count * PROMPT // rate.period))

    def _without_held(self, claimed: list[Claimed], now: int) -> list[Claimed]:
        """Give back flags whose column comes down before and whose row somebody holds: they are due again in a second, and take
        nothing of a limit."""
        if not claimed or self._connections.dialect.one_writer or self._discovery.early(claimed[0].kind) is None:
            return claimed
        held = self._discovery.held([(flag, _row_of(flag)) for flag in claimed])
        if held:
            self._store.put_off([flag for flag in claimed if flag.id in held], now + SECOND, now)
        return [flag for flag in claimed if flag.id not in held]

    def _lower_early(self, claimed: list[Claimed]) -> None:
        """Lower the columns of flags whose handlers want that before; where it fails, only of those that it fails for."""
        early = [(flag, rows) for flag in claimed if (rows := self._discovery.early(flag.kind)) is not None]
        if early and self._trouble_of(early) is not None:
            for each in early:
                each[0].trouble = self._trouble_of([each])

    def _trouble_of(self, early: list[tuple[Claimed, OwnRows]]) -> Exception | None:
        """Lower the columns of these flags; where that fails, of none of them, and return why."""
        try:
            with self._connections.undoable():
                for flag, rows in early:
                    rows.lower(self._connections.engine, self._connections.dialect, _row_of(flag))
        except Exception as error:
            self._parts.raise_if_away(error)
            return error
        return None

    # What became of claims whose answer was lost.

    @property
    def in_doubt(self) -> bool:
        """Whether a claim may have taken place of which nobody knows."""
        return bool(self._in_doubt)

    def release_in_doubt(self) -> bool:
        """Give back what such claims took, within a ``write``; return whether there were any.

        A commit whose answer was lost may have taken place.
        """
        self._store.release_claims(self._in_doubt, self._member.id)
        return self.in_doubt

    def committed(self, claimed: int) -> None:
        """Take note that all claims so far are known, and committed."""
        self._in_doubt.clear()
        if self.left is not None:
            self.left -= claimed


def most_urgent_first(due: Iterable[Due]) -> list[Due]:
    """Return what is due by priority; one that was damaged by hand counts as none."""
    return sorted(due, key=lambda item: -item[0] if isinstance(item[0], (int, float)) else 0)


def _row_of(flag: Claimed) -> str:
    """Return which row of the site's a flag is for; of a damaged one nothing that is a row's."""
    return str(flag.payload.get("row")) if isinstance(flag.payload, dict) else ""
