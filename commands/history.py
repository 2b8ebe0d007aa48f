"""See what happened: ``history``."""

from __future__ import annotations

from typing import Any

import click

from ..config import EVENTS
from ..operations.history import HistoryLine
from .locate import Given
from .options import AS_JSON, ID
from .raising import parse_end
from .tables import Column, print_json, print_table
from .words import short_span


@click.command()
@click.option("--kind", help="Of flags of this kind.")
@click.option("--key", help="Of the flag with this key.")
@click.option("--flag", type=ID, metavar="ID", help="Of the flag with this id, also where it is gone.")
@click.option("--event", type=click.Choice(EVENTS), help="Only this.")
@click.option("--since", metavar="TIME", help="From then on: 2h ago, or 2030-01-31T09:00 by the local clock.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many lines, the newest.")
@AS_JSON
@click.pass_obj
def history(given: Given, limit: int, as_json: bool, since: str | None, until: str | None, **wanted: Any) -> None:
    """Show what happened to flags, newest first.

    How long that is kept say the settings keep_history and history_rows; successes only where their kind has history=True.

    \b
    flagsweep history --kind send_mail --since 2h
    flagsweep history --event dead --limit 10
    """
    begin, end = parse_end(since, "--since", "ago"), parse_end(until, "--until", "ago")
    found = given.any_site().history(**wanted, since=begin, until=end, limit=limit + 1)
    if as_json:
        print_json([line.to_dict() for line in found[:limit]])
    elif found:
        columns = [Column("at (UTC)"), Column("flag", right=True), Column("kind", elastic=True), Column("key", elastic=True)]
        columns += [Column("event"), Column("try", right=True), Column("took", right=True), Column("reason", elastic=True)]
        print_table(columns, [_row(line) for line in found[:limit]])
    else:
        click.echo("nothing is noted")
    if len(found) > limit:
        click.echo(f"these are the newest {limit}; --limit shows more", err=True)
    elif found.looked_until is not None:
        click.echo(f"what is older than {found.looked_until:%Y-%m-%d %H:%M:%S} UTC was not looked at: give --until", err=True)


def _row(line: HistoryLine) -> list[str]:
    """Return one row of the table."""
    at = "damaged" if line.at is None else f"{line.at:%Y-%m-%d %H:%M:%S}"
    took = "-" if line.took_s is None else short_span(line.took_s)
    tries = "-" if line.attempt is None else str(line.attempt)
    reason = str(line.reason).splitlines()
    return [at, str(line.flag), str(line.kind), str(line.key), str(line.event), tries, took, reason[0][:200] if reason else ""]
