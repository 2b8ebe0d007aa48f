"""Look at flags: ``list`` and ``show``."""

from __future__ import annotations

import json
from typing import Any

import click

from ..config import SECOND
from ..logs import printable
from ..operations.flags import NOBODY, STATES
from ..operations.info import FlagInfo
from .failure import Failure, Misuse
from .locate import Given
from .options import AS_JSON, ID
from .tables import Column, print_json, print_table
from .words import span


@click.command("list")
@click.option("--kind", help="Flags of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Flags in this state.")
@click.option("--key", help="The flag with this key.")
@click.option("--lane", help=f"Flags of this lane; {NOBODY} stands for kinds without a handler.")
@click.option("--due/--not-due", default=None, help="Flags whose time has come, or has not.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, lowest id first.")
@AS_JSON
@click.pass_obj
def list_flags(given: Given, limit: int, as_json: bool, **conditions: Any) -> None:
    """List flags, without their payloads.

    \b
    flagsweep list --state dead
    flagsweep list --kind send_mail --due --limit 20
    """
    flags = given.any_site()
    lane = conditions["lane"]
    if lane not in (None, NOBODY, *flags.lane_names()):
        raise Misuse(f"there is no lane {lane!r}; there are {', '.join([*flags.lane_names(), NOBODY])}")
    found = flags.find(**conditions, limit=limit + 1)
    if as_json:
        print_json([{name: value for name, value in flag.to_dict().items() if name != "payload"} for flag in found[:limit]])
    elif found:
        columns = [Column("id", right=True), Column("kind"), Column("key", elastic=True), Column("state"), Column("when")]
        columns += [Column("tries", right=True), Column("error", elastic=True)]
        print_table(columns, [_flag_row(flag, flags.clock.now()) for flag in found[:limit]])
    else:
        click.echo("no flags")
    if len(found) > limit:
        click.echo(f"these are the first {limit}; --limit shows more", err=True)


def _flag_row(flag: FlagInfo, now: int) -> list[str]:
    """Return one row of the list."""
    return [str(flag.id), flag.kind, flag.key, flag.state, _when(flag, now), str(flag.attempts), flag.headline[:200]]


@click.command()
@click.argument("id", type=ID)
@AS_JSON
@click.pass_obj
def show(given: Given, id: int, as_json: bool) -> None:
    """Show one flag with its payload and its error.

    \b
    flagsweep show 17
    """
    flags = given.any_site()
    found = flags.find(id=id)
    if not found:
        raise Failure(f"there is no flag {id}: it was lowered or discarded, or never raised")
    if as_json:
        print_json(found[0].to_dict())
    else:
        _print_flag(found[0], flags.clock.now())


def _print_flag(flag: FlagInfo, now: int) -> None:
    """Print all there is about a flag, a line each; text of many lines stands below its name."""
    payload = json.dumps(flag.payload, indent=2, ensure_ascii=False, default=str)
    values = {**flag.to_dict(), "state": f"{flag.state} ({_when(flag, now)})"}
    last = {"payload": payload, "error": values.pop("error")}  # What may have many lines.
    del values["payload"]
    for name, value in {**values, **last}.items():
        lines = [printable(line) for line in str(value).splitlines()]
        if value is not None and len(lines) > 1:
            click.echo("\n".join([name, *(f"    {line}" for line in lines)]))
        elif value is not None:
            click.echo(f"{name:<12}{''.join(lines)}")


def _when(flag: FlagInfo, now: int) -> str:
    """Return the time that matters in a flag's state."""
    moment = {"claimed": flag.claimed_at, "dead": flag.died_at}.get(flag.state, flag.due_at)
    if moment is None:
        return "damaged"
    elapsed = now / SECOND - moment.timestamp()
    if flag.state == "waiting":
        return f"due {span(elapsed)} ago" if elapsed >= 0 else f"due in {span(-elapsed)}"
    return f"for {span(elapsed)}" if flag.state == "claimed" else f"{span(elapsed)} ago"
