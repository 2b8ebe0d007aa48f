"""Settings that fight each other, or what goes on: each is fine by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ...config import EVERY_LANE, SECOND, did_you_mean
from ...consumer.terms import STAYING
from ...databases.counts import DURATIONS
from ...handlers import Handler
from .finding import Finding, as_span, names
from .patient import Check, Patient
from .transactions import lanes_of

LONG = 1.0
"""Seconds for which a handler may hold SQLite's writer on average."""

Told = Iterator[tuple[str, str]]
"""What fights, and the fix."""


def fights(patient: Patient) -> list[Finding]:
    """Look for settings and options that take away from each other."""
    found = [Finding("warn", "settings", text, fix) for look in LOOKS for text, fix in look(patient)]
    return found or [Finding("ok", "settings", "none takes away from another")]


def _own(patient: Patient) -> list[Handler]:
    """Return the handlers by kind, without those that stand in for a task of another queue."""
    return [handler for kind, handler in sorted(patient.site.handlers.items()) if handler.kind == kind]


def _longest(patient: Patient) -> tuple[float, str]:
    """Return the seconds of the longest run of the last day, and of which kind it was."""
    runs = [(counts["longest"] / SECOND, kind) for kind, counts in patient.today.items() if kind in patient.site.handled]
    return max(runs, default=(0.0, ""))


def _stop_time(patient: Patient) -> Told:
    seconds, kind = _longest(patient)
    given = patient.site.settings.shutdown_timeout
    if seconds > given:
        text = f"a run of {kind} took {as_span(seconds)} within the last day, and shutdown_timeout gives it {as_span(given)}"
        fix = f"shutdown_timeout='{round(seconds * 1.5)}s', and more for its service (TimeoutStopSec, stop_grace_period)"
        yield f"{text}: a stop cuts it off, and it begins again", f"{fix}; or have it ask flag.should_stop()"


def _stuck(patient: Patient) -> Told:
    seconds, kind = _longest(patient)
    given = patient.site.settings.stuck_after
    if given is not None and seconds >= given:
        text = f"stuck_after is {as_span(given)}, and a run of {kind} took {as_span(seconds)} within the last day"
        yield f"{text}: where all threads do so, the consumer ends itself", f"stuck_after='{round(seconds * 3)}s'"


def _lanes_without_kinds(patient: Patient) -> Told:
    """Tell of lanes that nothing is in: a misspelt one takes its threads from the one that was meant."""
    if not patient.site.handlers:
        return
    settings, known = patient.site.settings, {handler.lane for handler in patient.site.handlers.values()}
    elsewhere = {name for each in patient.consumers if each.id in patient.living for name, lane in _with_kinds(lanes_of(each))}
    tasks: Mapping[str, int] = settings.tasks if isinstance(settings.tasks, Mapping) else {}
    for setting, given in (("lanes", settings.lanes), ("tasks", tasks), ("promise", settings.promise)):
        if lost := sorted(set(given) - known - elsewhere - {EVERY_LANE}):
            fix = did_you_mean(lost[0], sorted(known), "handlers are in")
            yield f"{setting} names {names(lost)}, and no handler is in such a lane", f"mend the name, or leave it out: {fix}"


def _with_kinds(lanes: Mapping[str, Mapping]) -> list[tuple[str, Mapping]]:
    return [(name, lane) for name, lane in lanes.items() if lane.get("kinds")]


def _tasks_of_threads(patient: Patient) -> Told:
    tasks = patient.site.settings.tasks
    loops = {handler.lane for handler in patient.site.handlers.values() if handler.is_async}
    known = {handler.lane for handler in patient.site.handlers.values()}
    if isinstance(tasks, Mapping) and (lost := sorted((set(tasks) & known) - loops)):
        fix = "say it with lanes={...}, or make the handler async"
        yield f"tasks names {names(lost)}, where no handler is async: those run in threads", fix


def _promises(patient: Patient) -> Told:
    """Tell of promises that a rate or the minute's sweep breaks by itself. Quiet hours break none."""
    settings = patient.site.settings
    for handler in _own(patient):
        promised = settings.promise.get(handler.lane, settings.promise.get(EVERY_LANE))
        rate = handler.options.rate
        if promised is not None and rate is not None and (apart := rate.period / rate.count / SECOND) > promised:
            text = f"lane {handler.lane} promises {as_span(promised)}, and the rate {rate} of {handler.kind} has one wait for"
            yield f"{text} {as_span(apart)}", "promise less, or give it a higher rate, or a lane of its own"
    if settings.watch == "off" and settings.promise and min(settings.promise.values()) < 60:
        text = f"promise is {as_span(min(settings.promise.values()))}, and with watch='off' flags are looked for once a minute"
        yield text, "leave watch out, or promise '2m'"


def _results(patient: Patient) -> Told:
    settings, keeping = patient.site.settings, [handler.kind for handler in _own(patient) if handler.options.result]
    if keeping and settings.history_rows == 0:
        yield f"results of {names(keeping)} are kept in history, and history_rows is 0", "give history_rows some thousands"
    elif keeping and settings.keep_history.get("succeeded") == 0:
        text = f"results of {names(keeping)} are kept in history, and keep_history of 'succeeded' is 0"
        yield f"{text}: they are gone within minutes", "keep_history={'succeeded': '1d'}"


def _expiry(patient: Patient) -> Told:
    for handler in _own(patient):
        options = handler.options
        if options.expires is None:
            continue
        quiet = max(((end - start) % (24 * 60) * 60 for start, end in options.quiet.windows), default=0) if options.quiet else 0
        if quiet > options.expires:
            text = f"{handler.kind} expires after {as_span(options.expires)}, and its quiet hours last {as_span(quiet)}"
            yield (
                f"{text}: what falls due in them may never be done",
                "a longer expires, or less quiet, unless that is meant",
            )
        if options.max_attempts > 1 and options.expires < options.backoff.first:
            text = f"{handler.kind} expires after {as_span(options.expires)}, and its first retry comes after"
            yield f"{text} {as_span(options.backoff.first)}: there is none", "a shorter backoff, or a longer expires"


def _atomic(patient: Patient) -> Told:
    for handler in _own(patient) if patient.dialect.one_writer else ():
        counts = patient.today.get(handler.kind, {})
        runs = sum(counts.get(name, 0) for name in DURATIONS)
        if handler.options.atomic and runs and (mean := counts["spent"] / SECOND / runs) > LONG:
            text = f"{handler.kind} is atomic, and takes {as_span(mean)} on average: as long it holds SQLite's only writer"
            yield text, "do the slow part outside of the transaction, without atomic=True, or use PostgreSQL"


def _of_no_use(patient: Patient) -> Told:
    """Tell of settings that another makes idle."""
    settings = patient.site.settings
    if settings.sweepers > 1 and not patient.dialect.shared:
        yield (
            f"sweepers = {settings.sweepers}, and on a SQLite file one consumer sweeps",
            "give lanes more threads instead",
        )
    if settings.nudge == "on" and settings.queue == "memory":
        yield "nudge is 'on', and there is no shared queue to nudge through", "give queue='redis://...', or leave nudge out"
    if settings.nudge == "off" and settings.queue != "memory" and patient.dialect.shared and not patient.dialect.notifies:
        yield (
            "nudge is 'off', and the database cannot tell consumers: flags are seen once a second",
            "leave nudge out",
        )
    if settings.mode == "inline":
        for one in [each for each in patient.consumers if each.id in patient.living and each.mode in STAYING][:1]:
            text = f"mode is 'inline', and consumer {one.id} runs (pid {one.pid} on {one.host}): each does some"
            yield text, "mode='external' where a consumer runs; inline is for development"


LOOKS: tuple[Callable[[Patient], Told], ...] = (
    *(_stop_time, _stuck, _lanes_without_kinds, _tasks_of_threads, _promises),
    *(_results, _expiry, _atomic, _of_no_use),
)
SETTINGS: list[Check] = [fights]
