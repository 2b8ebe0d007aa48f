"""What the rows of gates and the options of kinds amount to just now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from zoneinfo import ZoneInfo

from ..config import Settings, microseconds
from ..gates import breaker
from ..gates.breaker import Breaker
from ..gates.closings import outage, quiet_hours
from ..gates.shut import ALL, FOREVER, Closing, Shut
from ..handlers import Handler
from ..models import Gate
from .gate_info import Allowance, GateInfo, Outage
from .info import moment


class Views:
    """See each gate as it is at one time.

    :param rows: those of the table of gates.
    :param handlers: by kind, aliases included.
    :param due: how many flags of each kind are due.
    :param in_hand: how many flags are claimed, of each kind whose number is limited.
    :param now: microseconds UTC.
    """

    def __init__(
        self,
        rows: Iterable[Gate],
        handlers: Mapping[str, Handler],
        settings: Settings,
        due: Mapping[str, int],
        in_hand: Mapping[str, int],
        now: int,
    ):
        self._rows = list(rows)
        self._shut = Shut(self._rows)
        self._handlers = handlers
        self._zone = ZoneInfo(settings.timezone)
        self._due = due
        self._in_hand = in_hand
        self._now = now

    def infos(self) -> list[GateInfo]:
        """Return what is closed or limited: all first, then lanes, then kinds, each by name."""
        return [*self._of_all(), *self._of_lanes(), *self._of_kinds(), *self._of_buckets()]

    def _of_all(self) -> Iterator[GateInfo]:
        row = self._shut.row(ALL, "")
        if row is not None and (closings := self._shut.pauses((), "", self._now)):
            yield self._paused(row, closings, sum(self._due.values()))

    def _of_lanes(self) -> Iterator[GateInfo]:
        for row in self._rows:
            closings = self._shut.pauses((), row.name, self._now) if row.sort == "lane" else []
            if closings or (row.sort == "lane" and row.threads is not None):
                kinds = [kind for kind, each in self._handlers.items() if each.lane == row.name]
                yield self._paused(row, closings, sum(self._due.get(kind, 0) for kind in kinds) if self._handlers else None)

    def _paused(self, row: Gate, closings: list[Closing], waiting: int | None) -> GateInfo:
        info = GateInfo(row.sort, row.name, waiting=waiting, threads=row.threads)
        return _closed(info, row, closings) if closings else info

    def _of_kinds(self) -> Iterator[GateInfo]:
        names = {row.name for row in self._rows if row.sort == "kind" and not row.bucket}
        for name in sorted(names | {each.kind for each in self._handlers.values()}):
            info = self._of_kind(name)
            if info.rate or info.budget or info.limit or info.quiet or info.breaker or self._is_shut_itself(name):
                yield info

    def _is_shut_itself(self, name: str) -> bool:
        """Return whether a kind is paused by its own name, or was asked to wait: where its lane is paused, that says it."""
        own = len(self._shut.pauses((name,), "", self._now)) > len(self._shut.pauses((), "", self._now))
        return own or self._shut.asked_to_wait(name, self._now) is not None

    def _of_kind(self, name: str) -> GateInfo:
        row, handler = self._shut.row("kind", name) or Gate(sort="kind", name=name, bucket=""), self._handlers.get(name)
        handler = None if handler is None or handler.kind != name else handler  # Limits are of its kind, and no alias's.
        kinds = {name, *(kind for kind, each in self._handlers.items() if each.kind == name)}
        info = GateInfo(
            "kind",
            name,
            waiting=sum(self._due.get(kind, 0) for kind in kinds),
            rate=self._rate(row, handler),
            budget=self._budget(row, handler),
            limit=self._limit(handler),
            quiet=None if handler is None or handler.options.quiet is None else str(handler.options.quiet),
            breaker=self._outage(row),
        )
        closings = [each for each in self._closings(info, row, handler) if each is not None]
        return _closed(info, row, closings) if closings else info

    def _closings(self, info: GateInfo, row: Gate, handler: Handler | None) -> Iterator[Closing | None]:
        """Yield why nothing of a kind starts just now."""
        state, now = Breaker.parse(row.breaker), self._now
        yield from self._shut.pauses((info.name,), "" if handler is None else handler.lane, now)
        yield self._shut.asked_to_wait(info.name, now)
        yield None if handler is None else quiet_hours(handler.options.quiet, now, self._zone)
        yield outage(state, now, told=True)
        for name, each in (("rate", info.rate), ("budget", info.budget)):
            if each is not None and each.left == 0 and each.next_at is not None:
                yield Closing(microseconds(each.next_at), f"its {name} of {each.said} is used up")

    def _rate(self, row: Gate, handler: Handler | None) -> Allowance | None:
        if handler is None or (rate := handler.options.rate) is None:
            return None
        if handler.options.per is not None:
            return Allowance(str(rate), None)
        return Allowance(str(rate), rate.take(row.taken, self._now, rate.burst)[0], moment(rate.opens_at(row.taken, self._now)))

    def _budget(self, row: Gate, handler: Handler | None) -> Allowance | None:
        if handler is None or (budget := handler.options.budget) is None:
            return None
        if handler.options.per is not None:
            return Allowance(str(budget), None)
        state = (row.day, row.used or 0, self._now, self._zone)
        return Allowance(str(budget), budget.take(*state, budget.count)[0], moment(budget.opens_at(*state)))

    def _limit(self, handler: Handler | None) -> Allowance | None:
        if handler is None or (limit := handler.options.limit) is None:
            return None
        claimed = sum(self._in_hand.get(kind, 0) for kind, each in self._handlers.items() if each is handler)
        return Allowance(str(limit), None if handler.options.per is not None else max(0, limit - claimed))

    def _outage(self, row: Gate) -> Outage | None:
        state = Breaker.parse(row.breaker)
        if state.outage is None:
            return None
        return Outage(moment(state.outage.since), state.outage.why, moment(breaker.closed_until(state, self._now)))

    def _of_buckets(self) -> Iterator[GateInfo]:
        for row in self._rows:
            if row.bucket and (closings := list(self._closings_of_bucket(row))):
                yield _closed(GateInfo(row.sort, row.name, row.bucket, waiting=None), row, closings)

    def _closings_of_bucket(self, row: Gate) -> Iterator[Closing]:
        if row.closed_until is not None and row.closed_until > self._now:
            yield Closing(row.closed_until, row.closed_why or "its handler asked to wait")


def _closed(info: GateInfo, row: Gate, closings: list[Closing]) -> GateInfo:
    """Return what is shown of a gate that is closed, until the last of its reasons is over."""
    until, why = max(each.until for each in closings), "; ".join(each.why for each in closings)
    since = None if info.breaker is None else info.breaker.since
    if row.paused_at is not None:
        since = moment(row.paused_at)
    return replace(info, closed=True, why=why, by=row.paused_by, since=since, until=None if until >= FOREVER else moment(until))
