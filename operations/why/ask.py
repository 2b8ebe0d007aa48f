"""Asking: what a name means, and which reasons there are for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from ...config import SECOND
from ...databases.schema import SCHEMA, version
from ...errors import ConfigError, DatabaseAway, NotReady
from ...logs import printable
from ...models import Count, Fact, Flag, History
from ..site import Site
from . import reasons, whole
from .answer import Reason, Said, Why
from .case import Case
from .closed import all_paused, moved, paused, restored
from .database import disk_full, full_disk_of
from .ended import Gone, last_line
from .held import locked_by, writer
from .nobody import PATIENCE, consumer_cannot_write, consumer_silent, no_consumer, not_swept, older_code
from .timed import flag_of, is_over
from .waiting import last_of
from .words import is_time

MOST_KINDS = 50
"""Kinds whose oldest due flag is looked at where the whole site is asked for, the longest due first."""

MOST_ALSO = 5
"""Other reasons that are told of."""

OF_ALL = (
    "no-consumer",
    "consumer-silent",
    "consumer-cannot-write",
    "between-sweeps",
    "restored",
    "all-paused",
    "moved",
    "disk-full",
)
"""Reasons that are the whole site's, whichever flag they were found with."""

FAILED = ("backing-off", "dead", "dead-of-kind")
"""Reasons for which a handler is to blame."""

PAUSES = ("restored", "moved", "all-paused", "lane-paused", "kind-paused")


def why(site: Site, what: Any = None, key: Any = None, lane: str | None = None, schedule: str | None = None) -> Why:
    """Return why something does not run, as ``FlagSweep.why`` says."""
    _check(what, key, lane, schedule)
    found: int | None = SCHEMA
    try:
        with site.connections.lent("it cannot be told why") as db, site.connections.dialect.lenient(db):
            found = version(db)
            if found != SCHEMA:
                return _of_database(f"{site.connections.where} has no tables of flagsweep", found)
            return _Asked(Case(site, db)).about(what, key, lane, schedule)
    except NotReady as error:
        missing = site.connections.file is not None and not site.connections.file.exists()
        return _of_database(str(error), None if missing else SCHEMA)
    except DatabaseAway as error:
        if (said := full_disk_of(site.connections.file, failed=True)) is not None:
            return _reason("disk-full").why("the site", said)
        return _of_database(f"{error}{locked_by(site.connections.file)}", SCHEMA)
    finally:
        site.connections.close_engine()


def _check(what: Any, key: Any, lane: str | None, schedule: str | None) -> None:
    if isinstance(what, bool) or not isinstance(what, (int, str, type(None))):
        raise ConfigError(f"why() takes a flag's id, or the name of a kind, a lane or a schedule, got {what!r}")
    if sum(each is not None for each in (what, lane, schedule)) > 1:
        raise ConfigError("name one thing: an id or a name, lane= or schedule=")
    if key is not None and not isinstance(what, str):
        raise ConfigError(f"a key goes with the name of its kind, got key={key!r} with {what!r}")


def _of_database(error: str, found: int | None) -> Why:
    """Return why nobody can be asked."""
    said = ((reason, reason.find(error, found)) for reason in reasons.DATABASE)
    return next(reason.why("the site", each) for reason, each in said if each is not None)


class _Asked:
    """Answer one question."""

    def __init__(self, case: Case):
        self._case = case

    def about(self, what: Any, key: Any, lane: str | None, schedule: str | None) -> Why:
        """Return the answer about what is named."""
        if lane is not None:
            return self._lane(lane)
        if schedule is not None:
            return self._schedule(schedule)
        if what is None:
            return self._site()
        if isinstance(what, int):
            return self._flag_of_id(what)
        return self._named(what) if key is None else self._flag_of_key(what, key)

    # A flag.

    def _flag_of_id(self, id: int) -> Why:
        flag = next(iter(self._case.flags(Flag.id == id)), None) if 0 < id < 2**63 else None
        if flag is not None:
            return self._flag(flag)
        line = last_line(self._case, id, None, []) if 0 < id < 2**63 else None
        return self._gone(Gone(id, None if line is None else line.kind, None if line is None else line.key, line), f"flag {id}")

    def _flag_of_key(self, kind: str, key: Any) -> Why:
        keys = _keys(self._case, kind, key)
        flag = next(iter(self._case.flags(Flag.kind == kind, Flag.key.in_(keys))), None)
        if flag is not None:
            return self._flag(flag)
        line = last_line(self._case, None, kind, keys)
        return self._gone(Gone(None, kind, keys[0], line), f"{kind} {keys[0]}")

    def _flag(self, flag: Flag) -> Why:
        what = f"flag {flag.id} ({flag.kind} {flag.key})"
        if flag.state == "dead":
            return self._with_code(_first([reasons.DEAD], what, self._case, flag), flag.kind)
        if flag.state == "claimed":
            return _first(reasons.HELD, what, self._case, flag)
        found = _all(reasons.WAITING, what, self._case, flag)
        return self._with_code(replace(found, last=found.last or printable(last_of(self._case, flag))), flag.kind)

    def _with_code(self, found: Why, kind: str) -> Why:
        """Return an answer with who runs older code of a kind: before all else where that has failed, and else besides."""
        if (said := older_code(self._case, kind)) is None:
            return found
        older = reasons.OLDER_CODE.why(found.what, said)
        if found.code in FAILED:
            return replace(older, also=(replace(found, also=()), *found.also)[:MOST_ALSO])
        return replace(found, also=(*found.also[: MOST_ALSO - 1], older))

    def _gone(self, gone: Gone, what: str) -> Why:
        return _first(reasons.GONE, what, self._case, gone)

    # What a name means.

    def _named(self, name: str) -> Why:
        if self._is_kind(name):
            return self._kind(name)
        if name in self._case.lanes:
            return self._lane(name)
        if any(row.name == name for row in self._case.schedules):
            return self._schedule(name)
        return self._unknown(name)

    def _is_kind(self, name: str) -> bool:
        """Return whether anything here has, or had, this kind."""
        case = self._case
        if name in case.handlers or case.served(name) or case.shut.row("kind", name) is not None:
            return True
        tables = (Flag, Count, History)
        return any(list(t.select(t.kind).where(t.kind == name).limit(1).tuples().execute(case.db)) for t in tables)

    def _unknown(self, name: str) -> Why:
        case = self._case
        kinds = {each.kind for each in case.agenda} | set(case.handlers) | {str(row.kind) for row in case.schedules}
        noted = {row.name.removeprefix("kind:") for row in Fact.select().where(Fact.name.startswith("kind:")).execute(case.db)}
        known = sorted({*kinds, *noted, *case.lanes, *(str(row.name) for row in case.schedules)})
        said = whole.unknown_name(case, name, get_close_matches(name, known, 3, 0.5))
        assert said is not None
        return reasons.UNKNOWN_NAME.why(name, said)

    # A kind, a lane, a schedule.

    def _kind(self, kind: str) -> Why:
        what = f"kind {kind}"
        return self._behind_pauses(what, [kind], self._together(what, [kind]) or self._nothing_waits(what, [kind]))

    def _behind_pauses(self, what: str, kinds: Sequence[str], found: Why, lane: str | None = None) -> Why:
        """Return an answer with what is paused before all else: who asks for a whole kind or lane is told of that first."""
        case = self._case
        flag = Flag(kind=kinds[0] if kinds else "", due_at=case.now)
        said = paused(case, flag, "lane", lane) if lane is not None else None
        asked = [("lane-paused", said)] if said else [(code, _reason(code).find(case, flag)) for code in PAUSES]
        answer = next((_reason(code).why(what, each) for code, each in asked if each is not None), None)
        if answer is None or answer.code == found.code:
            return found
        also = [each for each in (replace(found, also=()), *found.also) if each.code != answer.code]
        return replace(answer, also=tuple(also[:MOST_ALSO]))

    def _lane(self, lane: str) -> Why:
        case = self._case
        if lane not in case.lanes:
            return self._unknown(lane)
        kinds, what = case.kinds_in(lane), f"lane {lane}"
        found = self._together(what, kinds)
        if found is None:
            said = not_swept(case, lane)
            found = self._nothing_waits(what, kinds) if said is None else _reason("lane-not-swept").why(what, said)
        return self._behind_pauses(what, kinds, found, lane)

    def _together(self, what: str, kinds: Sequence[str]) -> Why | None:
        """Return why the flag of these kinds that comes first has not begun; of what runs, that it does; None: none is up."""
        case, kinds = self._case, list(kinds)
        waiting = [each for each in case.agenda if each.kind in kinds and is_time(each.at)]
        first = case.first(min(waiting, key=lambda each: each.at)) if waiting else None
        if first is not None and first.due_at <= case.now:
            return self._as(what, self._flag(first), "The first of it")
        if (runs := whole.claimed_of(case, kinds)) is not None:
            return self._as(what, self._flag(runs), "What has been in hand for longest")
        return None if first is None else self._as(what, self._flag(first), "The first of it")

    def _as(self, what: str, found: Why, which: str) -> Why:
        """Return what was found of one flag as the answer about what it stands for."""
        return replace(found, what=what, text=f"{which} is {found.what}. {found.text}")

    def _nothing_waits(self, what: str, kinds: Sequence[str]) -> Why:
        """Return what is told where no flag is up; and what would be in the way of one that was raised now."""
        case = self._case
        for kind in kinds:
            if (said := reasons.KIND_DEAD.find(case, kind)) is not None:
                dead = replace(reasons.KIND_DEAD.why(what, said), also=self._for_a_new_one(what, kinds))
                return self._with_code(dead, kind)
        also = self._for_a_new_one(what, kinds)
        said = whole.nothing_up(case, list(kinds))
        assert said is not None
        idle = reasons.NOTHING_UP.why(what, said)
        return replace(also[0], also=(idle, *also[1:])) if also else idle

    def _for_a_new_one(self, what: str, kinds: Sequence[str]) -> tuple[Why, ...]:
        """Return what would be in the way of a flag that was raised now."""
        if not kinds:
            return ()
        flag = Flag(kind=kinds[0], key="", payload="{}", due_at=self._case.now, attempts=0, priority=0)
        asked = [reason for reason in reasons.WAITING if not reason.alone]
        return tuple(reason.why(what, said) for reason, said in _holding(asked, self._case, flag) if reason.urgency > 1)

    def _schedule(self, name: str) -> Why:
        case, what = self._case, f"schedule {name}"
        row = next((row for row in case.schedules if row.name == name), None)
        if row is None:
            return self._unknown(name)
        found = _first(reasons.SCHEDULE, what, case, row)
        flag = flag_of(case, row)
        also = [] if flag is None else [self._flag(flag)]
        if found.code in ("schedule-overdue", "schedule-not-due"):
            also += [
                _reason(code).why(what, said) for code, said in self._nobody() if found.code == "schedule-overdue" or not found.ok
            ]
        elif found.ok and (said := no_consumer(case)) is not None:
            also.append(_reason("no-consumer").why(what, said))
        return replace(found, also=tuple(also[:MOST_ALSO]))

    def _nobody(self) -> Iterator[tuple[str, Said]]:
        nobody = (("no-consumer", no_consumer), ("consumer-silent", consumer_silent))
        for code, find in (*nobody, ("consumer-cannot-write", consumer_cannot_write)):
            if (said := find(self._case)) is not None:
                yield code, said

    # The site.

    def _site(self) -> Why:
        case, what = self._case, "the site"
        unused = reasons.UNUSED.find(case)
        found = [] if unused is None else [(reasons.UNUSED, reasons.UNUSED.why(what, unused))]
        asked = (*self._of_writer(), *self._nobody(), *self._of_all())
        found += [(_reason(code), _reason(code).why(what, said)) for code, said in asked]
        found += self._of_lanes()
        found += self._of_kinds()
        found += self._of_failures()
        found += self._of_schedules()
        found += self._of_pauses({each.code for _, each in found})
        ordered = [each for _, each in sorted(found, key=lambda pair: -pair[0].urgency)]
        if not ordered:
            said = whole.all_well(case)
            assert said is not None
            ordered = [reasons.ALL_WELL.why(what, said)]
        ordered += self._of_code({each.text for each in ordered})
        return replace(ordered[0], what=what, also=tuple(ordered[1 : MOST_ALSO + 1]))

    def _of_failures(self) -> list[tuple[Reason, Why]]:
        """Return what has died and what fails; where a consumer runs older code of that, that first."""
        case, found = self._case, []
        for reason in (reasons.DEAD_CONSUMER, reasons.FAILING, reasons.DEAD_LATELY):
            found += [(reason, reason.why("the site", said), said) for said in reason.find(case) or ()]
        kinds = {str(said.values["name"]) for reason, _, said in found if reason is not reasons.DEAD_CONSUMER}
        older = {answer.text: answer for answer in self._older(sorted(kinds))}
        return [(reasons.OLDER_CODE, each) for each in older.values()] + [(reason, answer) for reason, answer, _ in found]

    def _of_code(self, told: set[str]) -> list[Why]:
        """Return who runs older code of anything, and was not told of yet."""
        return list({each.text: each for each in self._older(sorted(self._case.handlers)) if each.text not in told}.values())

    def _older(self, kinds: Sequence[str]) -> Iterator[Why]:
        for kind in kinds:
            if (said := older_code(self._case, kind)) is not None:
                yield reasons.OLDER_CODE.why("the site", said)

    def _of_lanes(self) -> list[tuple[Reason, Why]]:
        reason = _reason("lane-not-swept")
        told = ((lane, not_swept(self._case, lane)) for lane in sorted(self._case.people.lanes()))
        return [(reason, reason.why(f"lane {lane}", said)) for lane, said in told if said is not None]

    def _of_kinds(self) -> list[tuple[Reason, Why]]:
        """Return what is in the way of the oldest due flag of each kind; what is in the way of several is told once."""
        of_all = (*OF_ALL, *(("open-transaction",) if self._case.dialect.one_writer else ()))
        case, seen, found = self._case, {(code, "") for code in of_all if code != "between-sweeps"}, []
        late = case.now - PATIENCE * SECOND
        for due in case.due()[:MOST_KINDS]:
            flag = case.first(due)
            for reason, said in _holding(reasons.WAITING, case, flag) if flag is not None else ():
                of = "" if reason.code in of_all else str(said.values.get("name") or due.kind)
                if reason.urgency and (reason.code, of) not in seen and (due.at <= late or reason.urgency > 2):
                    answer = reason.why(f"kind {due.kind}", said)
                    found.append((reason, _with_kind(answer, due.kind) if of else answer))
                seen.add((reason.code, of))
        return found

    def _of_writer(self) -> Iterator[tuple[str, Said]]:
        """Yield who holds SQLite's only writer: it comes before those who cannot write meanwhile."""
        if self._case.dialect.one_writer and (said := writer(self._case)) is not None:
            yield "open-transaction", said

    def _of_all(self) -> list[tuple[str, Said]]:
        """Return what is in everybody's way, whether anything is due or not."""
        now = Flag(kind="", due_at=self._case.now)
        found = [("restored", restored), ("moved", moved), ("all-paused", all_paused)]
        asked = [(code, find(self._case, now)) for code, find in found]
        asked.append(("disk-full", disk_full(self._case)))
        return [(code, said) for code, said in asked if said is not None]

    def _of_schedules(self) -> list[tuple[Reason, Why]]:
        found = []
        for row in self._case.schedules:
            for reason, said in _holding(reasons.SCHEDULE, self._case, row, most=1):
                if reason.urgency and reason.code != "schedule-behind-a-pause" and not is_over(row):
                    answer = reason.why(f"schedule {row.name}", said)
                    found.append((reason, replace(answer, text=f"Schedule {printable(str(row.name))}: {answer.text}")))
        return found

    def _of_pauses(self, told: set[str]) -> list[tuple[Reason, Why]]:
        """Return what is paused and was not told of yet."""
        if "moved" in told:
            return []
        codes = {"everything": "all-paused", "lane": "lane-paused", "kind": "kind-paused"}
        told = told | {"all-paused"} if "restored" in told else told
        said = [each for each in whole.pauses(self._case) if codes[each.values["what"].split()[0]] not in told]
        return [(reasons.PAUSED, reasons.PAUSED.why("the site", each)) for each in said]


def _with_kind(answer: Why, kind: str) -> Why:
    text = answer.text if kind in answer.text else f"{printable(kind)}: {answer.text}"
    return replace(answer, text=text)


def _reason(code: str) -> Reason:
    return next(reason for group in reasons.TABLE.values() for reason in group if reason.code == code)


def _holding(asked: Iterable[Reason], case: Case, subject: Any, most: int = MOST_ALSO + 1) -> Iterator[tuple[Reason, Said]]:
    """Yield the reasons that hold, in their order."""
    found = 0
    for reason in asked:
        if found >= most:
            return
        if (found and reason.alone) or (said := reason.find(case, subject)) is None:
            continue
        found += 1
        yield reason, said


def _first(asked: Iterable[Reason], what: str, case: Case, subject: Any) -> Why:
    """Return the first reason that holds."""
    reason, said = next(_holding(asked, case, subject, 1))
    return reason.why(what, said)


def _all(asked: Iterable[Reason], what: str, case: Case, subject: Any) -> Why:
    """Return the first reason that holds, with the others."""
    first, *others = [reason.why(what, said) for reason, said in _holding(asked, case, subject)]
    return replace(first, also=tuple(others))


def _keys(case: Case, kind: str, key: Any) -> list[str]:
    """Return the keys that may be meant: as it is given; and as a raise writes it, where it is given as arguments."""
    given = key if isinstance(key, str) else json.dumps(key, default=str)
    keys = [given]
    try:
        arguments = json.loads(given)
    except (ValueError, RecursionError):
        return keys
    if isinstance(arguments, Mapping):
        keys.insert(0, json.dumps(arguments, separators=(",", ":"), sort_keys=True))
        handler = case.handler(kind)
        if handler is not None:
            try:
                keys.insert(0, handler.item_of(arguments, case.settings.payload_limit).key)
            except Exception:  # It may be no call of that handler.
                return keys
    return list(dict.fromkeys(keys))
