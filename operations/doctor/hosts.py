"""Hosts: their clocks against the database's, and who sweeps beside whom."""

from __future__ import annotations

from ...config import SECOND
from ...consumer.terms import EMBEDDED, RUN
from ...models import Consumer
from .finding import Finding, as_span, names
from .patient import Check, Patient
from .transactions import lanes_of

OFF = 2.0
"""Seconds that clocks may differ."""
TOLD = 60
"""Seconds between two times that a consumer notes: so old its last one may be."""
LATE = 30
"""Seconds that it may be late with that, where the machine has much to do."""
SET = "have the clock set by the network there (timedatectl set-ntp true)"


def clocks(patient: Patient) -> Finding:
    """Compare this host's clock with the database's, and those of living consumers by the times that they noted last.

    What they noted may be a minute old: that another host is slow is only seen from 90 s on, that it is fast at once.
    """
    now = patient.site.clock.now
    before = now()
    theirs = patient.dialect.time(patient.store.connections.engine)
    after = now()
    offset, unsure = ((before + after) / 2 - theirs) / SECOND, (after - before) / 2 / SECOND
    if abs(offset) - unsure >= OFF:
        text = f"this host's clock is {_off(offset)} the database's"
        return Finding("warn", "clocks", text, f"{SET}: flags raised here are due by it, and locks are judged by the other")
    told = [line for each in patient.consumers if each.id in patient.living if (line := _of_consumer(each, theirs))]
    if told:
        return Finding("warn", "clocks", "; ".join(told[:10]), f"{SET}; a consumer that hangs is started again by its service")
    others = sorted({each.host for each in patient.consumers if each.id in patient.living})
    known = f"; so are those of consumers, as far as their notes of each minute tell: {names(others)}" if others else ""
    return Finding("ok", "clocks", f"this host's is within {max(abs(offset), 0.1):.1f} s of the database's{known}")


def _off(seconds: float) -> str:
    return f"{as_span(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'}"


def _of_consumer(consumer: Consumer, now: int) -> str | None:
    """Return what is wrong with the time that a consumer noted last."""
    if not isinstance(consumer.ticked_at, int):
        return None
    age = (now - consumer.ticked_at) / SECOND
    who = f"consumer {consumer.id} on {consumer.host}"
    if age < -OFF:
        return f"{who} has noted a time {as_span(-age)} from now: the clock there is at least so much ahead"
    if age > TOLD + LATE:
        return (
            f"{who} has noted no time for {as_span(age)}: the clock there is at least {as_span(age - TOLD)} behind, or it hangs"
        )
    return None


def company(patient: Patient) -> Finding:
    """Look who sweeps beside whom: an embedded consumer beside a ``run`` is seldom meant."""
    runs, embedded = _living(patient, RUN.mode), _living(patient, EMBEDDED.mode)
    both = [(run, site) for run in runs for site in embedded if _share_kinds(run, site)]
    if both:
        run, site = both[0]
        text = (
            f"consumer {run.id} runs (pid {run.pid} on {run.host}), and consumer {site.id} sweeps the same kinds within the site"
        )
        fix = "let one of them do it: mode='external' for the site, or stop 'flagsweep run'; beside each other one stands by"
        return Finding("warn", "company", f"{text} (pid {site.pid} on {site.host})", fix)
    if patient.site.settings.mode == "embedded" and runs and not embedded:
        run = runs[0]
        text = f"mode is 'embedded', and consumer {run.id} runs (pid {run.pid} on {run.host}): the site's own stands by for it"
        return Finding("warn", "company", text, "stop 'flagsweep run', or set mode='external' for the site")
    sweepers = patient.site.settings.sweepers
    staying = len(runs) + len(embedded)
    if staying and patient.dialect.shared and sweepers > staying:
        text = f"sweepers = {sweepers}, and consumers that are there: {staying}"
        return Finding("warn", "company", text, "start more 'flagsweep run', on other hosts too, or leave the setting out")
    return Finding("ok", "company", f"consumers that stay: {staying}, none in the way of another")


def _living(patient: Patient, mode: str) -> list[Consumer]:
    return [each for each in patient.consumers if each.mode == mode and each.id in patient.living]


def _share_kinds(one: Consumer, other: Consumer) -> bool:
    """Return whether two consumers sweep the same kinds, as far as they have noted them."""
    mine, theirs = (
        {kind for lane in lanes_of(each).values() for kind in lane.get("kinds", ()) if isinstance(kind, str)}
        for each in (one, other)
    )
    return bool(mine & theirs) or not (mine and theirs)


HOSTS: list[Check] = [clocks]
"""What is asked of a server alone."""
