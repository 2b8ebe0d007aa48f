"""A lane: its sweep claims, performs and settles until nothing is due."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from ..adapters.rows import OwnRows
from ..config import Clock
from ..databases.dialect import DATABASE_ERRORS
from ..databases.pacer import Pacer
from ..handlers import Handler
from ..models import AWAY
from .claims import Claimed, Store, new_token
from .perform import DONE, Discarded, Failed, Lowered, Settled, Snoozed, describe, headline, plan
from .threads import HUNGRY, SATED, WHEN_FREE, Pool

log = logging.getLogger("flagsweep")

OUTCOMES = ("lowered", "again", "snoozed", "discarded", "dead", "released", "lost")
"""What a sweep counts. ``again``: failed or raised anew while it ran; ``lost``: no longer ours when its handler was done."""


class _Part:
    """Tell whether a part of a turn failed."""

    failed = False


class Lane:
    """Sweep the flags of one lane.

    :param handlers: the lane's handlers by kind, aliases included.
    :param consumer: the id under which flags are claimed.
    :param may_claim: whether the consumer's lease, and its seat in this lane, are its own just now.
    :param thorough: look for own rows every time, as ``sweep()`` does; a consumer gives that at most a tenth of the time.
    """

    HELD = 0.05
    """Seconds until a flag that somebody else's transaction holds is tried again."""
    TRIES = 10

    def __init__(
        self,
        name: str,
        handlers: Mapping[str, Handler],
        store: Store,
        clock: Clock,
        pool: Pool,
        pacer: Pacer,
        consumer: int,
        on_dead: Callable[[Claimed, str], None],
        thorough: bool = True,
        may_claim: Callable[[], bool] = lambda: True,
    ):
        self.name = name
        self.handlers = handlers
        self.pool = pool
        self.stopping = False
        self.busy = False
        self.asked = False
        self.wake_at: float | None = None
        self.retry_at = 0.0
        self.seat = 0
        self.kept_out = False
        """Whether the last look ended since the consumer's lease, or its seat in this lane, was not its own."""
        self.first_error: BaseException | None = None
        self._store = store
        self._clock = clock
        self._pacer = pacer
        self.consumer = consumer
        self._may_claim = may_claim
        self._on_dead = on_dead
        self._thorough = thorough
        self._turns = threading.Lock()
        self._kinds = list(handlers)
        self._own = [h for h in dict.fromkeys(handlers.values()) if h.rows is not None]
        self._blind: dict[str, float] = {}
        self._held: list[tuple[Claimed, Any, float]] = []
        self._held_until = 0.0
        self._in_doubt: list[int] = []
        self._strays: set[int] = set()
        self._left: int | None = None
        self._apart = False
        self._attached = store.attached()
        self._hints: set[tuple[int, str]] = set()

    def sweep(
        self,
        limit: int | None = None,
        progress: Callable[[Counter], None] | None = None,
        total: Counter[str] | None = None,
    ) -> Counter[str]:
        """Claim, perform and settle until nothing is due; return counts by outcome.

        Whatever fails leaves the outcomes that are not settled yet with the pool: the next sweep settles them first.

        :param limit: the most flags to claim.
        :param progress: called with the counts so far after every settling.
        :param total: what to add the counts to: they are not lost with a sweep that fails.
        """
        total = Counter() if total is None else total
        self._left = limit
        self.busy = True
        try:
            while True:
                worked = self._turn_through(total)
                if worked and progress:
                    progress(total)
                if self.pool.outstanding:
                    self.pool.wait()
                elif self._held:
                    time.sleep(self.HELD)
                elif not worked and self.pool.hungry == SATED:
                    return total
        finally:
            self.busy = False
            if any(total.values()):
                log.info("swept %s: %s", self.name, ", ".join(f"{n} {what}" for what, n in total.items() if n))

    def hint(self, priority: int, kind: str) -> None:
        """Say that flags of this sort are due: whoever sweeps next claims them without looking first."""
        self._hints.add((priority, kind))

    def has_due(self) -> bool:
        """Return whether a flag of this lane is due, without claiming."""
        return self._may_claim() and bool(self._due(self._clock.now()))

    @property
    def group(self) -> str:
        """What tells this lane from another application's of the same name, which need not wait for it: the kinds it serves."""
        return group_of(self.name, self.handlers)

    def has_own_rows(self) -> bool:
        """Return whether this lane's work may also stand in the site's own tables."""
        return bool(self._own)

    def kinds(self) -> Sequence[str]:
        """Return the kinds of this lane."""
        return self._kinds

    def stop(self) -> None:
        """Claim nothing more, and give back what has not started."""
        self.stopping = self.pool.stopping = True
        self.pool.nudge()

    def go_on_as(self, consumer: int) -> None:
        """Claim under a new id from now on: what was claimed under the old one has been given back, and is not ours any more.

        But a claim may have been under way when others took this consumer for dead: what that got is given back here.
        """
        with self._turns:
            self.consumer = consumer
            dropped = self.pool.abandon()
        if dropped:
            try:
                with self._store.write():
                    self._release(dropped, self._clock.now())
            except AWAY as error:
                log.debug("lane %s could not give back what it had claimed under its old id: %s", self.name, error)

    def release_strays(self) -> None:
        """Give back claims that nobody knows of, at the second look: a connection may break and its claim take place later."""
        with self._turns:
            known = self.pool.tokens() | {claimed.token for claimed, *_ in self._held}
            seen = self._strays
            self._strays = self._store.tokens(self.consumer, self._kinds) - known
            if again := seen & self._strays:
                log.warning("lane %s gives back %d claims that were lost on their way", self.name, len(again))
                with self._store.write():
                    self._store.release_claims(again, self.consumer)

    def settle_rest(self) -> None:
        """Settle what a sweep that failed has left, once more and for good; what cannot be settled is rescued and runs again."""
        try:
            while self._turn(Counter()):
                pass
        except AWAY as error:
            log.warning("outcomes of lane %s could not be settled, their flags run again: %s", self.name, error)

    def _turn_through(self, total: Counter[str]) -> bool:
        """Take a turn, and take it again where another transaction was in its way, or part by part where one part fails."""
        try:
            for left in reversed(range(self.TRIES)):
                try:
                    return self._turn(total)
                except Exception as error:
                    if not left or not self._goes_apart(error):
                        raise
            raise AssertionError("a loop over no tries")
        finally:
            self._apart = False

    def _goes_apart(self, error: Exception) -> bool:
        """Return whether a turn that failed may be taken again; one flag's or kind's fault must not hold up the others."""
        dialect = self._store.dialect
        if dialect.is_busy(error) and not dialect.one_writer:
            time.sleep(self.HELD)
            return True
        if self._apart or dialect.is_away(error):
            return False
        self._apart = True
        return True

    def _turn(self, total: Counter[str]) -> bool:
        """Settle what is done and claim the next, in one transaction; return whether there was anything to do."""
        with self._turns:
            self.pool.hungry = SATED
            fresh, now = self.pool.collect(), self._clock.now()
            outcomes = fresh + self._no_longer_held()
            recalled = self.pool.recall() if self.stopping else []
            try:
                found = self._discover() if self._wants_more() else []
                looks = not fresh and self._wants_more()  # What is still held must not keep a lane from looking.
                hinted = self._hinted() if looks else []
                due = hinted or (self._due(now) if looks else [])
                if not (outcomes or recalled or found or due or self._in_doubt):
                    return False
                counts, claimed, discovered, news = self._write(outcomes, recalled, found, due, now)
            except BaseException:
                self.pool.put_back(outcomes)
                self.pool.give(recalled)
                raise
            self.pool.give(claimed)
            total.update(counts)
        for tell in news:
            tell()
        # Not what was found or due: somebody else's open transaction may hold it, and to ask again at once would spin.
        return bool(outcomes or recalled or claimed or discovered or hinted)

    def _no_longer_held(self) -> list[tuple[Claimed, Any, float]]:
        """Return outcomes that could not be settled since somebody else's transaction held their flags: now they may."""
        if not self._held or time.monotonic() < self._held_until:
            return []
        outcomes, self._held = self._held, []
        return outcomes

    def _write(
        self, outcomes: list, recalled: list[Claimed], found: list, due: list, now: int
    ) -> tuple[Counter, list[Claimed], int, list]:
        self._pacer.turn()
        claimed: list[Claimed] = []
        held: list[tuple[Claimed, Any, float]] = []
        with self._store.write(only_claims=not (outcomes or recalled or found or self._own or self._in_doubt)):
            began = time.monotonic()  # Not before: to wait for another's long transaction is not to hold the writer.
            self._store.release_claims(self._in_doubt, self.consumer)
            outcomes, held = self._free_to_settle(outcomes)
            counts, news = (self._settle_each if self._apart else self._settle)(outcomes, now)
            counts["released"] += self._release(recalled, now)
            discovered = sum(self._turn_into_flags(handler, rows, now) for handler, rows in found)
            if self._wants_more() and (outcomes or found):
                due = self._due(now)
            self._claim(due, now, claimed)
        if self._left is not None:
            self._left -= len(claimed)
        # Only now: a commit whose answer was lost may have taken place. Then flags are claimed that nobody would ever run.
        self._in_doubt.clear()
        if held:
            self._held += held
            self._held_until = time.monotonic() + self.HELD
        self._pacer.ended(began, len(outcomes) + len(claimed) + discovered)
        return counts, claimed, discovered, news

    def _free_to_settle(self, outcomes: list[tuple[Claimed, Any, float]]) -> tuple[list, list]:
        """Part outcomes into those that can be settled now, and those whose flags somebody else's open transaction holds."""
        held = self._store.held([claimed.id for claimed, *_ in outcomes]) if outcomes else set()
        if self._own and not self._store.dialect.one_writer:
            held |= self._rows_held(
                [(claimed, claimed.row.key) for claimed, outcome, _ in outcomes if _lowers_row(claimed, outcome)]
            )
        if not held:
            return outcomes, []
        return [o for o in outcomes if o[0].id not in held], [o for o in outcomes if o[0].id in held]

    def _rows_held(self, flags: list[tuple[Claimed, str]]) -> set[int]:
        """Lock own rows that are to be lowered; return the flags of those that somebody else's open transaction holds."""
        by_kind: dict[str, dict[str, int]] = defaultdict(dict)
        for claimed, key in flags:
            by_kind[claimed.kind][key] = claimed.id
        held: set[int] = set()
        for kind, ids in by_kind.items():
            rows = self.handlers[kind].rows
            with suppress(*DATABASE_ERRORS), self._store.undoable():  # What is wrong with a table, lowering its row says.
                found = rows.held(self._store.engine, self._store.dialect, list(ids))  # type: ignore[union-attr]
                held.update(ids[key] for key in found if key in ids)
        return held

    # Claiming.

    def _wants_more(self) -> bool:
        wants = not self.stopping and self._left != 0
        self.kept_out = wants and not self._may_claim()
        return wants and not self.kept_out

    def _hinted(self) -> list[tuple[int, str]]:
        """Return (priority, kind) of what is said to be due, the most urgent first."""
        hints, self._hints = self._hints, set()
        return sorted(hints, reverse=True)

    def _due(self, now: int) -> list[tuple[int, str]]:
        """Return (priority, kind) of what is due, the most urgent first; kinds of one priority take turns at being first."""
        self._hints = set()  # This look sees what they told of.
        self._kinds = self._kinds[1:] + self._kinds[:1]
        due = [(priority, kind) for kind, priority, earliest in self._store.agenda(self._kinds) if earliest <= now]
        return sorted(due, key=lambda item: -item[0] if isinstance(item[0], (int, float)) else 0)

    def _claim(self, due: list[tuple[int, str]], now: int, claimed: list[Claimed]) -> None:
        for index, (priority, kind) in enumerate(due):
            peers = sum(1 for p, _ in due[index:] if p == priority)
            room = min(self.pool.room(kind) - len(claimed), self._pacer.batch - len(claimed), *self._limit(len(claimed)))
            share = -(-room // peers)
            if share > 0:
                taken = self._take(kind, priority, share, now)
                claimed += taken
                more = HUNGRY if len(taken) == share else SATED
            else:
                more = WHEN_FREE
            self.pool.hungry = max(self.pool.hungry, more)

    def _take(self, kind: str, priority: int, limit: int, now: int) -> list[Claimed]:
        """Claim flags of one sort; of a turn that is taken part by part, a sort that cannot be claimed is left out."""
        self._in_doubt.append(token := new_token())
        with self._part(f"flags of {kind} cannot be claimed") as part:
            taken = self._without_held(self._store.claim(kind, priority, limit, self.consumer, now, token), now)
            self._lower_early(taken)
        return [] if part.failed else taken

    def _without_held(self, claimed: list[Claimed], now: int) -> list[Claimed]:
        """Give back flags whose column comes down before and whose row somebody holds: they are asked for again in a second."""
        if not claimed or self._store.dialect.one_writer:
            return claimed
        rows = self.handlers[claimed[0].kind].rows
        if rows is None or not rows.early:
            return claimed
        held = self._rows_held([(flag, _row_of(flag)) for flag in claimed])
        self._release([flag for flag in claimed if flag.id in held], now)
        return [flag for flag in claimed if flag.id not in held]

    def _limit(self, claimed: int) -> list[int]:
        return [] if self._left is None else [self._left - claimed]

    def _lower_early(self, claimed: list[Claimed]) -> None:
        """Lower the columns of flags whose handlers want that before; where it fails, only of those that it fails for."""
        early = [(flag, rows) for flag in claimed if (rows := self.handlers[flag.kind].rows) is not None and rows.early]
        if early and self._trouble_of(early) is not None:
            for each in early:
                each[0].trouble = self._trouble_of([each])

    def _trouble_of(self, early: list[tuple[Claimed, OwnRows]]) -> Exception | None:
        """Lower the columns of these flags; where that fails, of none of them, and return why."""
        try:
            with self._store.undoable():
                for flag, rows in early:
                    rows.lower(self._store.engine, self._store.dialect, _row_of(flag))
        except Exception as error:
            self._raise_if_away(error)
            return error
        return None

    # Own rows.

    def _discover(self) -> list[tuple[Handler, list[tuple[str, str]]]]:
        """Return the rows of the site that became work. A kind whose table is missing waits alone, with one line in the log."""
        found = []
        self.wake_at = None
        if (attached := self._store.attached()) != self._attached:  # Over a new connection, and at once.
            self._attached = attached
            self._blind.clear()
            self._store.close_engine()
        for handler in self._own:
            ready = self._blind.get(handler.kind, 0.0)
            began = self._clock.monotonic()
            if began < ready and (not self._thorough or self.pool.outstanding):
                self.wake_at = min(ready, self.wake_at or ready)
                continue
            rows = self._find(handler, began)
            if rows:
                found.append((handler, rows))
        return found

    def _turn_into_flags(self, handler: Handler, rows: list[tuple[str, str]], now: int) -> int:
        """Raise flags for rows that were found, within the open transaction; return how many."""
        discovered = 0
        with self._part(f"{handler.kind} gets no flags") as part:
            if handler.rows is not None and handler.rows.early:
                # Asked again where nobody else writes: a column that is down does not tell that its row was done.
                rows = self._find(handler, self._clock.monotonic(), lock=self._store.dialect.shared)
            discovered = self._insert(handler, rows, now)
        if part.failed:
            self._blind[handler.kind] = self._clock.monotonic() + 60
        return discovered

    def _insert(self, handler: Handler, rows: list[tuple[str, str]], now: int) -> int:
        """Raise flags for these rows, without those that somebody's open transaction has raised just now; return how many."""
        priority = handler.options.priority
        if self._store.dialect.one_writer or not rows:
            return self._store.discover(handler.kind, rows, priority, now)
        try:
            with self._store.undoable(), self._store.dialect.impatient(self._store.engine):
                return self._store.discover(handler.kind, rows, priority, now)
        except DATABASE_ERRORS as error:
            if not self._store.dialect.is_busy(error) or not self._store.dialect.in_transaction(self._store.engine):
                raise
        half = len(rows) // 2
        return self._insert(handler, rows[:half], now) + self._insert(handler, rows[half:], now) if half else 0

    def _find(self, handler: Handler, began: float, lock: bool = False) -> list[tuple[str, str]]:
        try:
            kind, aliases, where = handler.kind, handler.options.aliases, (self._store.engine, self._store.dialect)
            with self._store.undoable() if lock else nullcontext():
                rows = handler.rows.find(*where, kind, self._pacer.batch, aliases, lock)  # type: ignore[union-attr]
        except Exception as error:
            self._raise_if_away(error)
            if handler.kind not in self._blind or not self._thorough:
                why = headline(describe(error))
                log.warning("%s finds no rows: %s; it is asked again in a minute, other kinds go on", handler.kind, why)
            self._blind[handler.kind] = self._clock.monotonic() + 60
            return []
        took = self._clock.monotonic() - began
        self._blind[handler.kind] = 0.0 if rows else self._clock.monotonic() + 9 * took
        return rows

    # Settling.

    def _settle(self, outcomes: list[tuple[Claimed, Any, float]], now: int) -> tuple[Counter[str], list[Callable[[], None]]]:
        """Settle outcomes within the open transaction; return counts, and what is to be told once it has committed."""
        counts: Counter[str] = Counter()
        lowered: dict[int, list[int]] = defaultdict(list)
        spent: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        rest, news = [], []
        for claimed, outcome, took in outcomes:
            tally = spent[claimed.kind]
            tally[0] += 1
            tally[1] += took
            if outcome is DONE:
                lowered[claimed.token].append(claimed.id)
            else:
                rest.append((claimed, outcome))
        for token, ids in lowered.items():
            gone, bumped = self._store.lower(ids, token)
            counts.update(lowered=gone, again=bumped, lost=len(ids) - gone - bumped)
        for claimed, outcome in rest:
            how, tell = self._settle_other(claimed, outcome, now)
            counts[how] += 1
            news.append(tell)
        for kind, (count, took) in spent.items():
            self.pool.learn(kind, int(count), took)
        return counts, news

    def _settle_each(self, outcomes: list[tuple[Claimed, Any, float]], now: int) -> tuple[Counter[str], list[Callable[[], None]]]:
        """Settle one by one, since together they could not be: the flag to blame has failed, all others count."""
        counts: Counter[str] = Counter()
        news: list[Callable[[], None]] = []
        for claimed, outcome, took in outcomes:
            try:
                with self._store.undoable():
                    count, told = self._settle([(claimed, outcome, took)], now)
            except Exception as error:
                self._raise_if_away(error)
                count, told = self._settle_failed(claimed, error, took, now)
            counts.update(count)
            news += told
        return counts, news

    def _settle_failed(self, claimed: Claimed, error: Exception, took: float, now: int) -> tuple[Counter, list]:
        """Settle a flag whose outcome the database does not take, as a failure; where not even that goes, leave it claimed."""
        for text in (describe(error), f"its outcome could not be kept: {type(error).__name__}"):
            try:
                with self._store.undoable():
                    return self._settle([(claimed, Failed(text, error), took)], now)
            except Exception as again:
                self._raise_if_away(again)
                error = again
        log.error("%s (flag %d) cannot be settled, it stays claimed: %s", claimed.kind, claimed.id, headline(describe(error)))
        return Counter(lost=1), []

    @contextmanager
    def _part(self, failed: str) -> Iterator[_Part]:
        """Within a turn that is taken part by part: undo this part alone where it fails, with a line in the log."""
        part = _Part()
        if not self._apart:
            yield part
            return
        try:
            with self._store.undoable():
                yield part
        except Exception as error:
            self._raise_if_away(error)
            part.failed = True
            log.error("%s: %s; other kinds go on", failed, headline(describe(error)))

    def _settle_other(self, claimed: Claimed, outcome: Any, now: int) -> tuple[str, Callable[[], None]]:
        if isinstance(outcome, Settled):
            return outcome.how, _nothing
        handler = self.handlers[claimed.kind]
        discards = isinstance(outcome, Discarded) and (handler.rows is None or handler.rows.column is not None)
        if discards or isinstance(outcome, Lowered):
            try:
                with self._store.undoable():
                    settle = self._discard if discards else self._lower_with_row
                    return settle(claimed, outcome, handler, now)
            except Exception as error:  # A trigger, a constraint: this row cannot be lowered, and holds up no other.
                if not self._store.dialect.in_transaction(self._store.engine):
                    raise
                self._raise_if_away(error)
                outcome = Failed(describe(error), error)
        step = plan(handler, claimed, outcome, now)
        state = self._store.settle_one(claimed.id, claimed.token, step, now)
        how = {None: "lost", "dead": "dead"}.get(state, "snoozed" if isinstance(outcome, Snoozed) else "again")
        return how, lambda: self._tell(claimed, outcome, how, step.due - now)

    def _raise_if_away(self, error: Exception) -> None:
        """Raise again what has to do with the database as a whole, not with one row or table of the site's."""
        if self._store.dialect.is_away(error):
            raise error

    def _lower_with_row(self, claimed: Claimed, outcome: Lowered, handler: Handler, _: int) -> tuple[str, Callable[[], None]]:
        gone, bumped = self._store.lower([claimed.id], claimed.token)
        if gone and handler.rows is not None and outcome.row is not None and not handler.rows.early:
            handler.rows.lower_done(self._store.engine, self._store.dialect, outcome.row)
        return "lowered" if gone else "again" if bumped else "lost", _nothing

    def _discard(self, claimed: Claimed, outcome: Discarded, handler: Handler, now: int) -> tuple[str, Callable[[], None]]:
        gone, bumped = self._store.lower([claimed.id], claimed.token)
        if gone:
            if handler.rows is not None and not handler.rows.early:
                db, dialect = self._store.engine, self._store.dialect
                if claimed.row is not None:
                    handler.rows.lower_done(db, dialect, claimed.row)
                else:
                    handler.rows.lower(db, dialect, claimed.key)
            self._store.record(self._store.engine, [(claimed.id, claimed.kind, claimed.key, "discarded", outcome.reason)], now)
        how = "discarded" if gone else "again" if bumped else "lost"
        return how, lambda: log.info("%s (flag %d) %s: %s", claimed.kind, claimed.id, how, headline(outcome.reason))

    def _release(self, flags: list[Claimed], now: int) -> int:
        by_token: dict[int, list[int]] = defaultdict(list)
        for flag in flags:
            by_token[flag.token].append(flag.id)
        return sum(self._store.release(ids, token, now) for token, ids in by_token.items())

    def _tell(self, claimed: Claimed, outcome: Any, how: str, wait: int) -> None:
        """Log one line for what did not succeed, and tell the site of a death."""
        if isinstance(outcome, Snoozed):
            return
        error = outcome.error if isinstance(outcome, Failed) else outcome.reason
        if self._thorough and isinstance(outcome, Failed) and self.first_error is None:
            self.first_error = outcome.exception
        after = f"again in {wait / 1e6:.0f} s" if how == "again" else how
        log.warning(
            "%s (flag %d) attempt %d failed, %s: %s",
            claimed.kind,
            claimed.id,
            claimed.attempts + 1,
            after,
            headline(error),
        )
        if how == "dead":
            self._on_dead(claimed, error)


def group_of(lane: str, kinds: Iterable[str]) -> str:
    """Return the name of a lane and of what it serves; two consumers that have the same one take turns, or sweep side by side."""
    return f"{lane} {hashlib.sha256(chr(0).join(sorted(kinds)).encode()).hexdigest()[:12]}"


def _nothing() -> None:
    pass


def _row_of(flag: Claimed) -> str:
    """Return which row of the site's a flag is for; of a damaged one nothing that is a row's."""
    return str(flag.payload.get("row")) if isinstance(flag.payload, dict) else ""


def _lowers_row(claimed: Claimed, outcome: Any) -> bool:
    """Return whether settling an outcome lowers a row of the site's."""
    return claimed.row is not None and (
        isinstance(outcome, Discarded) or (isinstance(outcome, Lowered) and outcome.row is not None)
    )
