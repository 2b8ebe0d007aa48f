"""The breaker of a kind: it closes the kind's gate where flag after flag fails alike, and lets probes through until one succeeds.

All is folded over a small immutable state, kept as text in a row; who notes holds that row's lock. Damaged text is a fresh state.

What stands instead of the plain "N different flags in a row with one fingerprint, opened by any success, and then excused":

- *In a row* means without a success between. A failing provider shows several faces (A, B, A, B), so each fingerprint of the
  streak counts its own different flags, whatever failed in between.
- While the gate is closed only probes are heard. What was running when it closed tells of the time before: late failures do
  not double the wait, and a late success does not open a gate whose provider has just gone.
- A fingerprint is excused where it looks like the flags' own: ten times a success followed on it, or one of the first probes
  succeeded. It is not where more probes failed: that was an outage, which may come back. (From the third within an hour of
  each other on it is poison that has few neighbours.) Were any success an excuse, the last one before an outage would take
  the breaker away for ten minutes, and with it six of eight attempts of the default backoff.
- What is excused closes the gate all the same where flags that had never failed do now, and nothing has succeeded for ten
  seconds. So a crowd of poison dies by its own backoff, and a provider that goes again is seen, unless nothing new is raised.
- A probe pays its wait when it sets out: the next may go after the doubled wait, ended or not. So the probe of a dead process
  holds nothing up, and few are charged even where handlers take long to fail.
- A fresh flag that fails does not make the wait longer, and at most ``MOST_FRESH`` are out at a time. Probes are taken from
  the end, the beginning and the middle of what waits by turns, so that a crowd of poison hides no healthy flag for long.
- A restart probes at once, but not within 30 s of the last probe: consumers that crash one after the other burn no flags.
- A time that the clock cannot have brought about is not believed: then a probe may go now.

Flags fewer than the threshold never close a gate: the same flag failing five times is one flag, and looks like poison.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

from ..config import SECOND
from .rates import SKEW

_Entry = TypeVar("_Entry", bound=tuple[Any, ...])

FIRST = 30 * SECOND
"""Microseconds for which the gate closes first; each probe that sets out doubles that, up to ``LONGEST``."""

LONGEST = 15 * 60 * SECOND

FRESH_EVERY = 10 * SECOND
"""Microseconds from one fresh flag, which was never tried, to the next that may probe."""

MOST_FRESH = 8
"""Fresh flags that may be out as probes at a time, so that long handlers are not all charged for one outage."""

LOST_AFTER = 86_400 * SECOND
"""Microseconds after which a fresh flag that has not ended is not waited for."""

MOST_PROBES = 32
"""Probes that are remembered."""

EXCUSED_FOR = 10 * 60 * SECOND
"""Microseconds for which a fingerprint is excused."""

SILENCE = 10 * SECOND
"""Microseconds without any success after which flags that fail for the first time are heard although that is excused."""

SHORT = 2
"""Probes that may fail before one succeeds, and it still looks as if the flags and not the provider had been ill."""

MOST_OUTAGES = 3
"""Outages of one fingerprint, each within ``REMEMBERED`` of the last, of which the last excuses it however long it was."""

MIXED = 10
"""Times that a success followed on failures of one fingerprint, each within ``REMEMBERED`` of the last, which excuse it. It is
more than the threads of a lane: what had begun before an outage succeeds late, and each may do so between two failures."""

REMEMBERED = 3600 * SECOND
"""Microseconds for which a fingerprint is remembered after a success."""

MOST_FINGERPRINTS = 8
"""Fingerprints of a streak, and excused ones, that are remembered; the latest stay."""

_NUMBERS = ("since", "until", "wait", "asked", "fresh_at", "sent", "failed")

OUTAGE_BEGAN = "opened"
"""The event of a breaker that opened: the gate closes."""

OUTAGE_ENDED = "closed"
"""The event of a breaker that closed: the gate opens."""


class Ended(NamedTuple):
    """How a flag ended.

    :param fingerprint: of its failure; None: it succeeded.
    :param attempts: those that it had failed before this one.
    """

    flag: int
    fingerprint: str | None
    attempts: int = 0


class Known(NamedTuple):
    """What is remembered of a fingerprint. Times are microseconds UTC.

    :param until: when it is excused no longer.
    :param outages: how many it made, each soon after the other.
    :param mixed: how often a success followed on failures of it.
    :param at: when this was noted.
    """

    fingerprint: str
    until: int
    outages: int
    mixed: int
    at: int


class Alike(NamedTuple):
    """What failed with one fingerprint since the last success.

    :param flags: the different flags of it that count.
    """

    fingerprint: str
    flags: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probe:
    """Say what a claim may take of a closed kind: one flag, the one with the fewest attempts.

    :param fresh: it must have none.
    :param place: which of several, by the order in which they were raised: 1 the last, 0 the first, 0.5 the one in the middle.
        By ids it is the first from ``least + place * (most - least)`` on.
    """

    fresh: bool
    place: float = 1.0


@dataclass(frozen=True)
class Out:
    """A flag that set out as a probe, and when."""

    flag: int
    at: int
    fresh: bool


@dataclass(frozen=True)
class Outage:
    """What is known while the gate is closed. Times are microseconds UTC.

    :param why: the fingerprint that closed it.
    :param until: when the next probe may go.
    :param wait: microseconds that a probe which failed now would have the next one wait.
    :param asked: when the last probe set out, or it closed.
    :param fresh_at: when the last fresh flag set out, or it closed.
    :param sent: how many probes there were.
    :param failed: how many of them have failed.
    :param probes: those that have not ended.
    """

    why: str
    since: int
    until: int
    wait: int = FIRST
    asked: int = 0
    fresh_at: int = 0
    sent: int = 0
    failed: int = 0
    probes: tuple[Out, ...] = ()

    @classmethod
    def began(cls, why: str, now: int) -> Outage:
        return cls(why, now, now + FIRST, FIRST, now, now)

    @classmethod
    def read(cls, data: Any) -> Outage:
        """Return the outage that was written.

        :raises ValueError, TypeError, KeyError: where it is damaged.
        """
        times = {name: _whole(data[name]) for name in _NUMBERS}
        if not FIRST <= times["wait"] <= LONGEST:
            raise ValueError("its wait is none that a breaker has")
        probes = (Out(_whole(out["flag"]), _whole(out["at"]), out["fresh"] is True) for out in data["probes"])
        return cls(why=_text(data["why"]), probes=tuple(probes), **times)

    def next_at(self, now: int) -> int:
        """Return when a probe may go, and ``now`` where one may."""
        return self.until if now < self.until <= now + self.wait else now

    def fresh_from(self, now: int) -> int:
        """Return when a fresh flag may go, and ``now`` where one may."""
        out = [probe.at for probe in self.probes if probe.fresh and now - LOST_AFTER < probe.at <= now]
        if len(out) >= MOST_FRESH:
            return min(out) + LOST_AFTER
        return self.fresh_at + FRESH_EVERY if now - FRESH_EVERY < self.fresh_at <= now else now

    def out(self, flag: int) -> Out | None:
        return next((probe for probe in self.probes if probe.flag == flag), None)

    def _without(self, flag: int) -> tuple[Out, ...]:
        return tuple(probe for probe in self.probes if probe.flag != flag)

    def with_probe(self, flag: int, fresh: bool, now: int) -> Outage:
        probes = (*self._without(flag), Out(flag, now, fresh))[-MOST_PROBES:]
        if fresh:
            return replace(self, fresh_at=now, sent=self.sent + 1, probes=probes)
        wait = min(2 * self.wait, LONGEST)
        return replace(self, until=now + wait, wait=wait, asked=now, sent=self.sent + 1, probes=probes)

    def with_failure(self, probe: Out, now: int) -> Outage:
        until = self.until if probe.fresh else now + self.wait
        return replace(self, until=until, failed=self.failed + 1, probes=self._without(probe.flag))

    def with_no_answer(self, probe: Out, now: int) -> Outage:
        if probe.fresh:
            return replace(self, probes=self._without(probe.flag))
        return replace(self, until=now, wait=max(self.wait // 2, FIRST), probes=self._without(probe.flag))

    def restarted(self, now: int) -> Outage:
        soonest = self.asked + FIRST if now - FIRST < self.asked <= now else now
        return replace(self, until=min(self.next_at(now), soonest), probes=())


@dataclass(frozen=True)
class Breaker:
    """What the breaker of a kind remembers; without arguments that of a kind of which nothing has failed.

    :param streak: what failed since the last success, by fingerprint.
    :param known: fingerprints on which a success followed.
    :param answered: about when the last success was, while something is excused.
    """

    streak: tuple[Alike, ...] = ()
    known: tuple[Known, ...] = ()
    answered: int = 0
    outage: Outage | None = None

    @classmethod
    def parse(cls, text: str | None) -> Breaker:
        """Return the state that a text spells, and a fresh one where there is none or it is damaged."""
        try:
            return cls._read(json.loads(text)) if text else _FRESH
        except (ValueError, TypeError, KeyError, RecursionError):
            return _FRESH

    @classmethod
    def _read(cls, data: Any) -> Breaker:
        return cls(
            streak=tuple(Alike(_text(name), tuple(map(_whole, flags))) for name, flags in data["streak"]),
            known=tuple(Known(_text(name), *map(_whole, rest)) for name, *rest in data["known"]),
            answered=_whole(data["answered"]),
            outage=None if data["outage"] is None else Outage.read(data["outage"]),
        )

    def text(self) -> str | None:
        """Return the state as JSON, at most some KiB of it; None where there is nothing to remember."""
        return None if self == _FRESH else json.dumps(asdict(self), separators=(",", ":"))


_FRESH = Breaker()


def note(
    state: Breaker, outcomes: Iterable[tuple[int, str | None] | tuple[int, str | None, int]], now: int, threshold: int
) -> tuple[Breaker, str | None]:
    """Return the state after flags of the kind have ended, and ``OUTAGE_BEGAN`` or ``OUTAGE_ENDED`` where one did.

    It is the same object where nothing has changed: then nothing need be written.

    :param outcomes: what ``Ended`` says of each flag, in the order in which they ended. What a handler asked
        for (``Snooze``, ``Discard``, ``Retry`` with a wait of its own) is no outcome here: see ``unanswered``. But whoever
        came further (``flag.progress``) before it asked for later has succeeded.
    :param now: microseconds UTC.
    :param threshold: different flags that close the gate.
    """
    before = state.outage
    for outcome in outcomes:
        ended = Ended(*outcome)
        state = _succeeded(state, ended.flag, now) if ended.fingerprint is None else _failed(state, ended, now, threshold)
    if (before is None) == (state.outage is None):
        return state, None
    return state, OUTAGE_BEGAN if before is None else OUTAGE_ENDED


def abreast(state: Breaker, now: int) -> int:
    """Return the time of the latest note where that is a little ahead: of another consumer, whose turn began later or whose clock
    is fast. A breaker would take such a note for a wrong clock's, and forget it."""
    noted = [state.answered, *(each.at for each in state.known)]
    if (out := state.outage) is not None:
        noted += [out.since, out.asked, out.fresh_at, out.until - out.wait, *(probe.at for probe in out.probes)]
    latest = max(noted)
    return latest if now < latest <= now + SKEW else now


def closed_until(state: Breaker, now: int) -> int | None:
    """Return when a probe may go, in microseconds UTC, which is ``now`` where one may; None: the gate is open."""
    return None if state.outage is None else state.outage.next_at(now)


def fresh_from(state: Breaker, now: int) -> int | None:
    """Return when a flag that was never tried may go besides, which is ``now`` where one may; None: the gate is open."""
    return None if state.outage is None else min(state.outage.fresh_from(now), state.outage.next_at(now))


def may_probe(state: Breaker, now: int) -> Probe | None:
    """Return what a claim may take of a closed kind just now; None: nothing.

    Ask ``closed_until`` first: an open gate has no probes.
    """
    if state.outage is None:
        return None
    if state.outage.next_at(now) <= now:
        return Probe(fresh=False, place=_place(state.outage.sent))
    return Probe(fresh=True, place=_place(state.outage.sent)) if state.outage.fresh_from(now) <= now else None


def _place(sent: int) -> float:
    """Return the place of the next probe: by turns the last, and the first, the middle, the quarters, the eighths and so on.

    So what was just raised waits for two turns at the most, and a healthy flag is found soon wherever a crowd of poison stands.
    The second half is the sequence of van der Corput in base 2.
    """
    if sent % 2 == 0:
        return 1.0
    turn = sent // 2
    return int(f"{turn:b}"[::-1], 2) / 2 ** turn.bit_length()


def probing(state: Breaker, flag_id: int, fresh: bool, now: int) -> Breaker:
    """Return the state after a flag was claimed as the probe that ``may_probe`` allowed.

    :param fresh: as that said, whatever attempts the flag has.
    """
    return state if state.outage is None else replace(state, outage=state.outage.with_probe(flag_id, fresh, now))


def unanswered(state: Breaker, flag_id: int, now: int) -> Breaker:
    """Return the state after a probe ended that tells nothing of the provider, uncharged: another may go at once.

    It was given back, snoozed or discarded. After a ``Retry`` with a wait of its own do not call this: that was charged, so the
    next one waits.
    """
    probe = None if state.outage is None else state.outage.out(flag_id)
    if state.outage is None or probe is None:
        return state
    return replace(state, outage=state.outage.with_no_answer(probe, now))


def restarted(state: Breaker, now: int) -> Breaker:
    """Return the state after a consumer has started: a probe may go at once, 30 s after the last one at the earliest."""
    return state if state.outage is None else replace(state, outage=state.outage.restarted(now))


def since(state: Breaker) -> int | None:
    """Return when the gate closed, in microseconds UTC; None: it is open."""
    return None if state.outage is None else state.outage.since


def why(state: Breaker) -> str | None:
    """Return the fingerprint that closed the gate; None: it is open."""
    return None if state.outage is None else state.outage.why


def _succeeded(state: Breaker, flag: int, now: int) -> Breaker:
    if state == _FRESH or (state.outage is not None and state.outage.out(flag) is None):
        return state
    known = _still_known(state, now)
    known = _latest(known, _over(state.outage, known, now) if state.outage else _mixed(state.streak, known, now))
    answered = _answered(state, now) if any(now < each.until for each in known) else 0
    after = Breaker(known=known, answered=answered)
    return state if after == state else after


def _answered(state: Breaker, now: int) -> int:
    """Return the time of a success, to the second: the row of a busy kind is not to be written with every one."""
    return state.answered if state.outage is None and 0 <= now - state.answered < SECOND else now


def _over(outage: Outage, known: tuple[Known, ...], now: int) -> list[Known]:
    """Return what an outage that has ended tells of its fingerprint."""
    before = _known(known, outage.why, now)
    outages = before.outages + 1
    excused = outage.failed <= SHORT or outages >= MOST_OUTAGES
    return [before._replace(outages=outages, until=now + EXCUSED_FOR if excused else now)]


def _mixed(streak: tuple[Alike, ...], known: tuple[Known, ...], now: int) -> list[Known]:
    """Return what a success tells of the fingerprints that failed before it."""
    noted = []
    for alike in streak:
        before = _known(known, alike.fingerprint, now)
        mixed = before.mixed + 1
        noted.append(before._replace(mixed=mixed, until=now + EXCUSED_FOR if mixed >= MIXED else before.until))
    return noted


def _known(known: tuple[Known, ...], name: str, now: int) -> Known:
    return next((each for each in known if each.fingerprint == name), Known(name, now, 0, 0, now))._replace(at=now)


def _failed(state: Breaker, ended: Ended, now: int, threshold: int) -> Breaker:
    if state.outage is not None:
        probe = state.outage.out(ended.flag)
        return state if probe is None else replace(state, outage=state.outage.with_failure(probe, now))
    known, name = _still_known(state, now), str(ended.fingerprint)[:200]
    excused = any(each.fingerprint == name and now < each.until for each in known)
    alike = _with(next((each for each in state.streak if each.fingerprint == name), Alike(name)), ended, excused, threshold)
    silent = not 0 <= now - state.answered < SILENCE
    if len(alike.flags) >= threshold and (silent or not excused):
        return Breaker(known=known, answered=state.answered, outage=Outage.began(name, now))
    after = Breaker(_latest(state.streak, [alike]), known, state.answered)
    return state if after == state else after


def _with(alike: Alike, ended: Ended, excused: bool, threshold: int) -> Alike:
    """Return what failed alike with one more flag. Of an excused fingerprint one that had failed before is not news."""
    if excused and ended.attempts > 0 and ended.flag not in alike.flags:
        return alike
    flags = (*(flag for flag in alike.flags if flag != ended.flag), ended.flag)
    return alike._replace(flags=flags[-threshold:])


def _latest(entries: tuple[_Entry, ...], added: Iterable[_Entry]) -> tuple[_Entry, ...]:
    """Return entries with others added, in place of those of the same name: as many as are remembered."""
    by_name = {entry[0]: entry for entry in entries}
    for entry in added:
        by_name.pop(entry[0], None)
        by_name[entry[0]] = entry
    return tuple(by_name.values())[-MOST_FINGERPRINTS:]


def _still_known(state: Breaker, now: int) -> tuple[Known, ...]:
    """Return what is remembered now; what was noted in the future was a wrong clock's."""
    return tuple(each for each in state.known if each.at <= now < each.at + REMEMBERED and each.until <= now + EXCUSED_FOR)


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError("not a whole number of 64 bits")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value
