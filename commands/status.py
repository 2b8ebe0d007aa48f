"""See how things are: ``status`` and ``doctor``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from ..consumer.terms import EMBEDDED, RUN, STAYING
from ..logs import printable
from ..operations.doctor.finding import Finding
from ..operations.flags import NOBODY, STATES
from .locate import Given
from .options import AS_JSON
from .tables import Column, line_width, print_json, print_table
from .words import span


@click.command()
@AS_JSON
@click.pass_obj
def status(given: Given, as_json: bool) -> None:
    """Show what is up in each lane, and who sweeps.

    \b
    flagsweep status
    flagsweep status --json
    """
    flags = given.any_site()
    report = flags.status()
    if as_json:
        print_json(report)
        return
    if (held := flags.restored) is not None:
        click.echo(printable(given.as_called(f"PAUSED: {held.why}; 'flagsweep confirm' says what waits, and has it go on")))
    columns = [Column("lane"), *(Column(title, right=True) for title in ("waiting", "due", "oldest due", "claimed", "dead"))]
    if report["lanes"]:
        print_table(columns, [_lane_row(name, lane) for name, lane in sorted(report["lanes"].items())])
    if not report.get("exact", True):
        click.echo("not all flags were counted in the time that there was: there are at least so many")
    if not any(lane[state] for lane in report["lanes"].values() for state in STATES):
        click.echo("no flags")
    if NOBODY in report["lanes"]:
        known = "kinds without a handler here: another application's, or their flags wait until one is registered"
        click.echo(
            f"lane {NOBODY}: {known if flags.handlers else 'all kinds, since handlers and lanes are known only with --app'}"
        )
    for each in report["overdue_schedules"]:
        why = f"no handler here has the kind {each['kind']}" if flags.handlers else "nobody fires it"
        click.echo(printable(f"schedule {each['name']} has been due for {span(each['due_s'])}: {why}"))
    for consumer in report["consumers"]:
        click.echo(printable(consumer_line(consumer)))
    if all(consumer["mode"] not in STAYING or consumer["alive"] is False for consumer in report["consumers"]):
        click.echo("no consumer runs")


def _lane_row(name: str, lane: dict[str, Any]) -> list[str]:
    """Return one row of the status."""
    oldest = "-" if lane["oldest_due_s"] is None else span(lane["oldest_due_s"])
    return [name, str(lane["waiting"]), str(lane["due"]), oldest, str(lane["claimed"]), str(lane["dead"])]


DOES = {RUN.mode: "runs", EMBEDDED.mode: "sweeps, in a process of the site's"}
"""What those do that stay, by their mode."""


def consumer_line(consumer: dict[str, Any]) -> str:
    """Return what one consumer does, or that it is dead."""
    since = consumer["started_at"][:19].replace("T", " ")
    who = f"consumer {consumer['id']} (pid {consumer['pid']} on {consumer['host']}, since {since} UTC)"
    if consumer["alive"] is None:
        return f"{who}: this user cannot see whether it lives"
    if not consumer["alive"]:
        return f"{who} is gone; what it had claimed is free at the next run or sweep"
    return f"{who} {DOES.get(consumer['mode'], 'sweeps once')}"


@click.command()
@AS_JSON
@click.option("--exit-code", "graded", is_flag=True, help="End with 0 (all is well), 1 (warnings) or 2 (something fails).")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, graded: bool) -> None:
    """Check the database and what it stands on.

    The exit code is 1 where something fails; a warning leaves it at 0. With --exit-code a monitor tells them apart.

    \b
    flagsweep doctor
    flagsweep doctor --json
    """
    found = ctx.obj.any_site().doctor()
    findings = [replace(finding, text=ctx.obj.as_called(finding.text), fix=ctx.obj.as_called(finding.fix)) for finding in found]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(_finding_lines(finding))
        click.echo(_sum_of(findings))
    worst = max((LEVELS.index(finding.level) for finding in findings), default=0)
    ctx.exit(worst if graded else worst == LEVELS.index("fail"))


LEVELS = ("ok", "warn", "fail")
"""What findings are, by the exit code that a monitor is told."""


def _sum_of(findings: Sequence[Finding]) -> str:
    """Return what there is to mend, below a list that is longer than many a screen."""
    told = [f"{level} {', '.join(names)}" for level in ("fail", "warn") if (names := _names_at(findings, level))]
    return f"{len(findings)} findings: {'; '.join(told) or 'all is well'}"


def _names_at(findings: Sequence[Finding], level: str) -> list[str]:
    return list(dict.fromkeys(finding.what for finding in findings if finding.level == level))


def _finding_lines(finding: Finding) -> str:
    """Return a finding as lines, with its fix below it; on a terminal they are folded to its width."""
    color = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.level]
    width = line_width()
    wrap = textwrap.TextWrapper(max(30, width - 24), break_on_hyphens=False)
    first, *more = wrap.wrap(printable(finding.text)) or [""]
    wrap.subsequent_indent = "   "
    more += wrap.wrap(printable(f"-> {finding.fix}")) if finding.fix else []
    return "\n".join(
        [f"{click.style(f'{finding.level:<5}', fg=color)} {finding.what:<17} {first}", *(f"{'':24}{line}" for line in more)]
    )
