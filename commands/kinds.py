"""See how each kind does: ``kinds``."""

from __future__ import annotations

import math

import click

from ..operations.kinds import KindInfo
from .locate import Given
from .options import AS_JSON
from .tables import Column, print_json, print_table
from .words import short_span, span


@click.command("kinds")
@AS_JSON
@click.pass_obj
def kinds(given: Given, as_json: bool) -> None:
    """Show of each kind what is due, how much is done, how well, and how long it takes.

    Runs a minute are those of the last five minutes. The rest is of the last day: the share of attempts that succeeded, what
    half of the runs and 95 % of them stay under, and the handler's time in all threads.

    \b
    flagsweep kinds
    flagsweep kinds --json
    """
    found = given.any_site().kinds()
    if as_json:
        print_json([info.to_dict() for info in found])
    elif found:
        titles = ("due", "oldest due", "a minute", "success", "half under", "95% under", "time a day")
        columns = [Column("kind", elastic=True), *(Column(title, right=True) for title in titles)]
        print_table(columns, [_row(info) for info in found])
    else:
        click.echo("no kinds")


def _row(info: KindInfo) -> list[str]:
    """Return one row of the table."""
    success = "-" if info.success is None else f"{math.floor(1000 * info.success) / 10:g}%"
    oldest = "-" if info.oldest_due_s is None else span(info.oldest_due_s)
    bounds = ["-" if bound is None else short_span(bound) for bound in (info.p50_s, info.p95_s)]
    busy = "-" if info.p50_s is None else short_span(info.busy_s)
    return [info.kind, f"{info.due}{'' if info.exact else '+'}", oldest, f"{info.per_minute:.3g}", success, *bounds, busy]
