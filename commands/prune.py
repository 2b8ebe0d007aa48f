"""Delete what is old: ``prune``."""

from __future__ import annotations

import click

from ..app import FlagSweep
from ..operations.prune import Pruned
from .changing import ask
from .locate import Given
from .stopping import to_many
from .words import plural


@click.command()
@click.option("--older-than", metavar="TIME", help="Whatever is older, such as 30d; by default as the settings say.")
@click.option("--dead", is_flag=True, help="Discard flags that have been dead for so long, too, with a line of history for each.")
@click.option("--dry-run", is_flag=True, help="Say how much; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before acting.")
@click.pass_obj
def prune(given: Given, older_than: str | None, dead: bool, dry_run: bool, yes: bool) -> None:
    """Delete history and counts that are older than they are kept.

    Consumers do so by and by, as the settings keep_history, history_rows and keep_counts say.

    \b
    flagsweep prune --dry-run
    flagsweep prune --older-than 30d --dead --yes
    """
    if dead and older_than is None:
        raise click.UsageError("--dead discards by age alone: say --older-than, such as 90d")
    flags = given.any_site()
    found = flags.prune(older_than, dead=dead, dry_run=True)
    click.echo(f"{'would be ' if dry_run else 'to be '}deleted: {_told(found, dead)}", err=not dry_run)
    if dry_run:
        click.echo("nothing was changed")
    elif not any(found):
        click.echo("nothing is that old")
    else:
        ask("Delete it for good?", yes)
        click.echo(f"deleted {_told(_prune(flags, older_than, dead, found), dead)}")


def _prune(flags: FlagSweep, older_than: str | None, dead: bool, found: Pruned) -> Pruned:
    """Delete it, with a bar on a terminal; return what was deleted."""
    done = Pruned(0, 0, 0)

    def act(progress) -> int:
        nonlocal done
        done = flags.prune(older_than, dead=dead, progress=progress)
        return sum(done)

    to_many("deleted", found.history + found.dead, act)
    return done


def _told(found: Pruned, dead: bool) -> str:
    """Return how much that is."""
    parts = [plural(found.history, "line") + " of history", plural(found.counts, "count")]
    return ", ".join(parts + ([plural(found.dead, "dead flag")] if dead else []))
