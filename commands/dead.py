"""Look at the dead by what they died of, and decide about many of them: ``dead``, ``dead retry`` and ``dead discard``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import click

from ..app import FlagSweep
from ..config import SECOND, seconds, utc
from ..gates.rates import Rate
from ..logs import printable
from ..operations.dead import SORTS, DeadGroup
from .changing import ask, warn_of_own_rows
from .group import Group
from .locate import Given
from .options import AS_JSON
from .raising import parse_end
from .stopping import to_many
from .tables import Column, print_json, print_table
from .words import plural, span

EXAMPLES = 5
"""Flags that a dry run names."""


@click.group(cls=Group, invoke_without_command=True)
@click.option("--kind", help="Dead flags of this kind.")
@click.option("--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="What comes first.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many groups.")
@AS_JSON
@click.pass_context
def dead(ctx: click.Context, kind: str | None, sort: str, limit: int, as_json: bool) -> None:
    """Show dead flags by what they died of; retry or discard many of them.

    A group is one kind and one cause. Its id, in the first column, is what 'dead retry' and 'dead discard' take.

    \b
    flagsweep dead
    flagsweep dead retry --kind send_mail --rate 10/m
    """
    if ctx.invoked_subcommand is not None:
        return
    flags = ctx.obj.any_site()
    found = flags.dead(kind, sort=sort, limit=limit + 1)
    if as_json:
        print_json([group.to_dict() for group in found[:limit]])
    elif found:
        columns = [Column("group"), Column("kind", elastic=True), Column("dead", right=True), Column("first"), Column("last")]
        columns += [Column("died as", elastic=True), Column("example", right=True), Column("error", elastic=True)]
        print_table(columns, [_row(group, flags.clock.now()) for group in found[:limit]])
    else:
        click.echo("no flag is dead")
    if len(found) > limit:
        click.echo(f"these are {limit} groups; --limit shows more", err=True)


def _row(group: DeadGroup, now: int) -> list[str]:
    """Return one row of the table."""
    times = [_ago(at, now) for at in (group.first_at, group.last_at)]
    example = "-" if group.example_id is None else str(group.example_id)
    return [group.id, group.kind, f"{group.count}{'' if group.exact else '+'}", *times, group.died_as, example, group.error]


def _ago(at: datetime | None, now: int) -> str:
    return "-" if at is None else f"{span((utc(now) - at).total_seconds())} ago"


def _filter(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what says which of the dead are meant."""
    for option in reversed(
        (
            click.argument("group", nargs=-1),
            click.option("--kind", help="Dead flags of this kind."),
            click.option("--error", metavar="TEXT", help="Those with this text in their error."),
            click.option("--before", metavar="TIME", help="Those that died before: 2h ago, or 2030-01-31T09:00."),
            click.option("--after", metavar="TIME", help="Those that died since then."),
            click.option("--older-than", metavar="TIME", help="Those that have been dead for so long, such as 2d."),
            click.option("--all", "everything", is_flag=True, help="All there are."),
            click.option("--dry-run", is_flag=True, help="Say how many and name examples; change nothing."),
            click.option("--yes", is_flag=True, help="Do not ask before acting."),
        )
    ):
        command = option(command)
    return command


@dead.command("retry")
@_filter
@click.option("--rate", metavar="RATE", help="At most so many, such as 10/m; their due times say so, nobody need stay.")
@click.pass_obj
def retry(given: Given, rate: str | None, dry_run: bool, yes: bool, **which: Any) -> None:
    """Let the dead flags of a GROUP, or those that options name, wait again from scratch.

    \b
    flagsweep dead retry --kind send_mail --error timeout --rate 10/m
    flagsweep dead retry --all --dry-run
    """
    what = _meant(which)
    paced = None if rate is None else Rate.parse(rate, "--rate")
    flags = given.any_site()
    many = _say(flags, what, "retry")
    if paced is not None and many:
        click.echo(f"at {paced} the last of them is due {_until(flags, paced, many)}", err=True)
    if dry_run or not many:
        return _name_some(flags, what, many)
    ask(f"Retry {'it' if many == 1 else 'them'}?", yes)
    count = to_many("retried", many, partial(flags.retry, **what, rate=paced, backing_off=False))
    click.echo(f"retried {plural(count, 'flag')}")


@dead.command("discard")
@_filter
@click.option("--reason", default="", help="Kept in the history.")
@click.pass_obj
def discard(given: Given, reason: str, dry_run: bool, yes: bool, **which: Any) -> None:
    """Drop the dead flags of a GROUP, or those that options name, with a line of history for each.

    \b
    flagsweep dead discard --kind send_mail --older-than 30d --yes
    """
    what = _meant(which)
    flags = given.any_site()
    many = _say(flags, what, "discard")
    if dry_run or not many:
        return _name_some(flags, what, many)
    ask(f"Discard {'it' if many == 1 else 'them'} for good?", yes)
    count = to_many("discarded", many, partial(flags.discard, **what, reason=reason))
    click.echo(f"discarded {plural(count, 'flag')}")
    if count:
        warn_of_own_rows(flags)


def _meant(which: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of which flags are meant, as the desk takes it; refuse to guess."""
    older, everything = which.pop("older_than"), which.pop("everything")
    if older is not None and which["before"] is not None:
        raise click.UsageError("--older-than and --before say the same: give one")
    what = {name: value for name, value in which.items() if value not in (None, ())}
    for name in ("before", "after"):
        if name in what:
            what[name] = parse_end(what[name], f"--{name}", "ago")
    if older is not None:
        what["before"] = seconds(older, "--older-than")
    if not what and not everything:
        raise click.UsageError("which? Name a GROUP of 'flagsweep dead', or give --kind, --error, --before, --after or --all")
    return what


def _say(flags: FlagSweep, what: dict[str, Any], verb: str) -> int:
    """Say how many flags are meant, before anything is done, and return that."""
    many = flags.count_dead(**what)
    click.echo(f"{plural(many, 'dead flag')} to {verb}", err=True)
    return many


def _name_some(flags: FlagSweep, what: dict[str, Any], many: int) -> None:
    """End a dry run, or what has nothing to do."""
    for flag in flags.some_dead(EXAMPLES, **what):
        click.echo(printable(f"{flag.id}  {flag.kind}  {flag.key}  {flag.headline[:200]}"))
    click.echo("nothing was changed" if many else "no dead flag is like that")


def _until(flags: FlagSweep, rate: Rate, many: int) -> str:
    """Return when the last of so many is due."""
    wait = (many - 1) * rate.period // rate.count
    at = utc(flags.clock.now()) + timedelta(microseconds=wait)
    return f"in {span(wait / SECOND)}, at {at:%Y-%m-%d %H:%M:%S} UTC"
