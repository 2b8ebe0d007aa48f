"""Pace: lanes that do less than becomes due, with the threads that would do, and kinds whose handlers got slower."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ...config import SECOND, TASKS
from ...consumer.terms import STAYING
from ...databases.counts import DURATIONS
from ...sweep.records import between
from ...sweep.tally import MINUTE
from .finding import Finding, as_span, names
from .patient import Check, Patient
from .transactions import lanes_of

WINDOW = 600
"""Seconds of which arrivals are compared with what was done, and ``SHORTEST``, of how many at least something can be said."""
SHORTEST = 120
ENOUGH = 20
"""Flags that become due in that time, without which none do, and ``FEW``, runs without which nothing is said."""
FEW = 5
MOST = 10_000
"""Flags of each kind and priority that are counted in each half of the time."""
TOO_FAST = 1.1
"""How many times what is done becomes due, where that is told."""
ROOM = 1.25
"""So many times the threads that are busy on average: with just as many the wait has no end."""
LATELY = 3 * 3600
"""Seconds of runs that are compared with those of ``BEFORE``."""
BEFORE = 7 * 86_400
RUNS = (30, 100)
"""How many runs there must be of these and of those."""
SLOWER = 2.0
NOTICED = 0.02
"""Seconds that a run must take on average before anybody cares."""


@dataclass
class Pace:
    """Tell how a lane does: flags that become due, and runs that end, a second.

    :ivar mean: seconds of a run.
    :ivar due: flags that are due.
    :ivar age: seconds for which the oldest is.
    """

    arrivals: float = 0.0
    done: float = 0.0
    mean: float = 0.0
    due: int = 0
    age: float = 0.0


def lanes(patient: Patient) -> list[Finding]:
    """Look for lanes in which more becomes due than is done.

    Of a kind and priority the longest due goes first. So where flags wait that were due before a time, all that became due since
    still wait, and can be counted. Of two halves of that time the lesser counts: a thousand flags at once are no pace.
    """
    since = _swept_since(patient)
    if since is None or not patient.site.handlers:
        return []
    window = min(WINDOW, int((patient.now - since) / SECOND))
    if window < SHORTEST:
        return [Finding("ok", "pace", f"not known yet: consumers sweep for {as_span(window)}, ask again in some minutes")]
    paces = _paces(patient, window)
    found = [_of_lane(patient, lane, pace, window) for lane, pace in sorted(paces.items()) if pace.age >= SHORTEST]
    return found or [Finding("ok", "pace", f"no lane with an open gate is more than {as_span(SHORTEST)} behind")]


def _swept_since(patient: Patient) -> int | None:
    """Return since when a consumer stays that lives; None: there is none."""
    staying = [each for each in patient.consumers if each.mode in STAYING and each.id in patient.living]
    return min((each.started_at for each in staying if isinstance(each.started_at, int)), default=None)


def _paces(patient: Patient, window: int) -> dict[str, Pace]:
    """Return the pace of each lane."""
    paces: dict[str, Pace] = defaultdict(Pace)
    begin = -(-(patient.now - window * SECOND) // (MINUTE * SECOND)) * MINUTE * SECOND  # Counts are of whole minutes.
    counted, counting = between(patient.store.connections.engine, begin, patient.now), (patient.now - begin) / SECOND
    runs, spent = Counter[str](), Counter[str]()
    behind = _behind(patient, window)
    for kind, counts in counted.items():
        if kind in patient.site.handled and patient.gate_before(kind) is None:
            lane = patient.site.handler_of(kind).lane
            runs[lane] += _runs(counts)
            spent[lane] += counts["spent"]
            paces[lane].arrivals += 0 if kind in behind else _runs(counts) / counting
    for kind, (arrivals, age) in behind.items():
        pace = paces[patient.site.handler_of(kind).lane]
        pace.arrivals += arrivals
        pace.age = max(pace.age, age)
        pace.due += sum(due for name, _, _, due, _ in patient.counts if name == kind)
    for lane, pace in paces.items():
        pace.done, pace.mean = runs[lane] / counting, spent[lane] / SECOND / runs[lane] if runs[lane] else 0.0
    return paces


def _behind(patient: Patient, window: int) -> dict[str, tuple[float, float]]:
    """Return how many flags a second become due of each kind that is behind, and for how many seconds the oldest is due."""
    store, found = patient.store, dict[str, tuple[float, float]]()
    kinds = [
        kind for kind, _, _, due, _ in patient.counts if due and kind in patient.site.handled and not patient.gate_before(kind)
    ]
    engine, dialect = store.connections.engine, store.connections.dialect
    for kind, priority, earliest in dialect.agenda(engine, json.dumps(kinds)) if kinds else ():
        age = (patient.now - earliest) / SECOND if isinstance(earliest, int) else 0.0
        if age >= SHORTEST:
            half = int(min(window, age) / 2) * SECOND
            ends = (patient.now - 2 * half, patient.now - half, patient.now)
            halves = [dialect.arrived(engine, kind, priority, a, b, MOST) for a, b in pairwise(ends)]
            arrivals, longest = found.get(kind, (0.0, 0.0))
            found[kind] = (arrivals + min(halves) * SECOND / half, max(longest, age))
    return found


def _of_lane(patient: Patient, lane: str, pace: Pace, window: int) -> Finding:
    """Return what is found of a lane that is behind."""
    text = f"lane {lane}: {pace.due:,} flags are due, the oldest for {as_span(pace.age)}"
    if pace.done * window < FEW:
        more = f"{pace.done * window:.0f} runs within {as_span(window)}"
        return Finding("ok", "pace", f"{text}; too little goes on there to say more ({more})")
    rates = f"{_a_minute(pace.arrivals)} become due, {_a_minute(pace.done)} are done, {as_span(pace.mean)} each"
    if pace.arrivals * window < ENOUGH or pace.arrivals <= TOO_FAST * pace.done:
        left = pace.done - pace.arrivals
        when = f"it is done with them in about {as_span(pace.due / left)}" if left > 0.05 * pace.done else "it holds its own"
        return Finding("ok", "pace", f"{text}; {rates}: {when}")
    return Finding("warn", "pace", f"{text}; {rates}: it falls behind", _fix(patient, lane, pace))


def _a_minute(rate: float) -> str:
    return f"{60 * rate:,.0f} a minute"


def _fix(patient: Patient, lane: str, pace: Pace) -> str:
    """Return what would have the lane keep up: by Little's law as many are busy as come in the time of one."""
    tasks = all(handler.is_async for handler in patient.site.handlers.values() if handler.lane == lane)
    what, has = ("tasks", _tasks(patient, lane)) if tasks else ("threads", _threads(patient, lane))
    needed = math.ceil(ROOM * pace.arrivals * pace.mean)
    limited = sorted(
        f"{h.kind} ({why})" for h in patient.site.handlers.values() if h.lane == lane and (why := _limits(h.options))
    )
    also = f"; limits hold, too: {names(limited)}" if limited else ""
    if needed <= has:
        fix = f"more {what} than its {has} would not help, {needed} would do: look for what else holds it"
        return f"{fix} (one processor for all of Python's threads: a second consumer; or a database that is slow){also}"
    if tasks:
        return f"about {needed} tasks would do, it has {has}: tasks={{'{lane}': {needed}}} in the settings{also}"
    now = f"'flagsweep lane {lane} --threads {needed}' at once, or lanes={{'{lane}': {needed}}} in the settings"
    return f"about {needed} threads would do, it has {has}: {now}{also}"


def _threads(patient: Patient, lane: str) -> int:
    """Return how many threads a lane has in all consumers that sweep it."""
    noted = [lanes_of(each).get(lane, {}) for each in patient.consumers if each.id in patient.living]
    having = [each["threads"] for each in noted if isinstance(each.get("threads"), int) and each.get("seat", True)]
    return sum(having) or patient.site.settings.lanes.get(lane, patient.site.settings.threads)


def _tasks(patient: Patient, lane: str) -> int:
    tasks = patient.site.settings.tasks
    return tasks if isinstance(tasks, int) else tasks.get(lane, TASKS)


def _limits(options: object) -> str:
    said = ((name, getattr(options, name)) for name in ("rate", "budget", "limit"))
    return ", ".join(f"{name} {value}" for name, value in said if value is not None)


def slower(patient: Patient) -> Finding:
    """Look for kinds whose runs take longer than they did: by their mean and by the slots that they fall in.

    One run that hangs moves the mean alone, and one bound of a slot that is just crossed, which are four apart, the slots alone.
    """
    engine, then = patient.store.connections.engine, patient.now - LATELY * SECOND
    now, before = between(engine, then, patient.now), between(engine, patient.now - BEFORE * SECOND, then)
    told = list(_slower(now, before))
    if told:
        fix = "see what it waits for (a query without index? a slow service?); with slow_after= the log says where a run stands"
        return Finding("warn", "slower kinds", "; ".join(told[:10]), fix)
    known = [kind for kind in now if _runs(now[kind]) >= RUNS[0] and _runs(before.get(kind, {})) >= RUNS[1]]
    text = f"none of {len(known)} that ran often enough, within {as_span(LATELY)} and before" if known else "too few runs to tell"
    return Finding("ok", "slower kinds", text)


def _slower(now: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for kind, these in sorted(now.items()):
        those = before.get(kind, {})
        if _runs(these) < RUNS[0] or _runs(those) < RUNS[1]:
            continue
        mean, was = _mean(these), _mean(those)
        if mean >= NOTICED and mean >= SLOWER * was and _slot(these) - _slot(those) >= math.log(SLOWER, 4):
            text = f"a run of {kind} takes {as_span(mean)} on average of {_runs(these):,} within {as_span(LATELY)}"
            yield f"{text}, and took {as_span(was)} of {_runs(those):,} in the days before"


def _runs(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in DURATIONS)


def _mean(counts: Mapping[str, int]) -> float:
    return counts["spent"] / SECOND / _runs(counts)


def _slot(counts: Mapping[str, int]) -> float:
    """Return the mean number of the slots that runs fell in."""
    return sum(number * counts.get(name, 0) for number, name in enumerate(DURATIONS)) / _runs(counts)


PACE: list[Check] = [lanes, slower]
