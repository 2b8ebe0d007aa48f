"""Look after gates: ``pause``, ``resume``, ``gates`` and ``lane``."""

from __future__ import annotations

import logging
import textwrap
from datetime import datetime
from typing import Any

import click

from ..config import SECOND, microseconds
from ..logs import printable
from ..operations.gate_info import MOST_WAITING, Allowance, GateInfo
from .failure import Misuse
from .locate import Given
from .options import AS_JSON
from .raising import parse_end
from .stderr_log import log_to_stderr
from .tables import line_width, print_json
from .words import plural, span

KIND = click.argument("kind", required=False)
LANE = click.option("--lane", help="All kinds of this lane.")
SCHEDULE = click.option("--schedule", help="This schedule: it does not fire.")
ALL = click.option("--all", "everything", is_flag=True, help="All kinds of all lanes.")


@click.command()
@KIND
@LANE
@SCHEDULE
@ALL
@click.option("--reason", default="", help="Shown to whoever asks why.")
@click.option("--until", metavar="TIME", help="When it goes on by itself: 2h, or 2030-01-31T09:00.")
@click.pass_obj
def pause(given: Given, reason: str, until: str | None, **what: Any) -> None:
    """Have no flag of KIND start, or of a lane, or at all.

    What runs goes on, and flags can be raised. A running consumer sees it within a second.

    \b
    flagsweep pause send_mail --reason "provider moves" --until 2h
    flagsweep pause --lane mail
    """
    name, meant = _meant(what)
    log_to_stderr(logging.DEBUG if given.debug else logging.WARNING, given.debug)
    given.any_site().pause(**meant, reason=reason, until=parse_end(until))
    click.echo(printable(given.as_called(f"paused {name}; 'flagsweep resume {_option(what)}' has it go on")))


@click.command()
@KIND
@LANE
@SCHEDULE
@ALL
@click.pass_obj
def resume(given: Given, **what: Any) -> None:
    """Let go on what was paused by that name. --all ends only the pause of all.

    \b
    flagsweep resume send_mail
    flagsweep resume --all
    """
    name, meant = _meant(what)
    done = given.any_site().resume(**meant)
    text = f"resumed {name}" if done else f"{name}: not paused; 'flagsweep gates' shows what is"
    click.echo(printable(given.as_called(text)))


def _meant(what: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of what is meant, and the arguments that say so; refuse to guess."""
    everything = what["everything"]
    given = {name: what[name] for name in ("kind", "lane", "schedule") if what[name] is not None}
    if len(given) + everything != 1:
        raise click.UsageError("what? Name one: KIND, --lane NAME, --schedule NAME or --all")
    return ("all", {}) if everything else next((f"{sort} {name}", {sort: name}) for sort, name in given.items())


def _option(what: dict[str, Any]) -> str:
    if what["everything"]:
        return "--all"
    return what["kind"] or " ".join(f"--{name} {what[name]}" for name in ("lane", "schedule") if what[name] is not None)


@click.command()
@AS_JSON
@click.pass_obj
def gates(given: Given, as_json: bool) -> None:
    """Show what is closed or limited just now, and why.

    \b
    flagsweep gates
    """
    flags = given.any_site()
    found = flags.gates()
    if as_json:
        print_json([gate.to_dict() for gate in found])
        return
    for gate in found:
        click.echo("\n".join(_folded(line) for line in _lines(gate, flags.clock.now())))
    if not found:
        click.echo("nothing is closed, and no kind is limited")
    if not flags.handlers:
        click.echo("limits and quiet hours of kinds are known only with --app", err=True)


def _folded(line: str) -> str:
    """Return a line as it fits on a terminal; elsewhere whole."""
    width = line_width()
    return textwrap.fill(printable(line), max(30, width - 1), subsequent_indent="    ", break_on_hyphens=False)


def _lines(gate: GateInfo, now: int) -> list[str]:
    """Return a gate as lines: what it is and whether it is closed, then what there is besides."""
    bucket = f", bucket {gate.bucket}" if gate.bucket else ""
    state = f"is closed: {gate.why}" if gate.closed else "is open"
    lines = [f"{f'{gate.sort} {gate.name}'.strip()}{bucket} {state}"]
    if gate.closed:
        since = "" if gate.since is None else f"since {_shown(gate.since)}, "
        until = "until somebody resumes it" if gate.until is None else f"until {_shown(gate.until)} ({_in(gate.until, now)})"
        lines.append(f"    {since}{until}{_behind(gate)}")
    limits = [_left(name, each, now) for name in ("rate", "budget", "limit") if (each := getattr(gate, name)) is not None]
    limits += [f"quiet {gate.quiet}"] if gate.quiet else []
    limits += [f"threads {gate.threads}"] if gate.threads is not None else []
    lines += [f"    {'; '.join(limits)}"] if limits else []
    if gate.breaker is not None and gate.breaker.next_probe is not None:
        lines.append(f"    the next flag may try {_in(gate.breaker.next_probe, now)}")
    return lines


def _behind(gate: GateInfo) -> str:
    if gate.waiting is None:
        return ""
    more = " or more" if gate.waiting >= MOST_WAITING else ""
    return f"; {gate.waiting:,}{more} due behind it"


def _left(name: str, each: Allowance, now: int) -> str:
    if each.left is None:
        return f"{name} {each.said} for each bucket"
    return f"{name} {each.said}, {each.left:,} left{'' if each.next_at is None else f', more {_in(each.next_at, now)}'}"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _in(moment: datetime, now: int) -> str:
    left = (microseconds(moment) - now) / SECOND
    return f"in {span(left)}" if left >= 1 else "at once"


@click.command()
@click.argument("name")
@click.option("--threads", required=True, help="How many, or 'default': as the settings say.")
@click.pass_obj
def lane(given: Given, name: str, threads: str) -> None:
    """Give a lane more threads, or fewer, while its consumer runs.

    More begin at once, fewer as they end what they do. It stays so until --threads default.

    \b
    flagsweep lane mail --threads 8
    flagsweep lane mail --threads default
    """
    if threads != "default" and not threads.isdecimal():
        raise Misuse(f"--threads must be a whole number from 1 to 1000, or 'default', got {threads!r}")
    given.any_site().set_threads(name, None if threads == "default" else int(threads))
    said = "as many threads as the settings say" if threads == "default" else plural(int(threads), "thread")
    click.echo(printable(f"lane {name} has {said}"))
