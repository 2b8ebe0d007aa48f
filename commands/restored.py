"""``confirm``: a database goes on that was restored or copied, and was paused for it."""

from __future__ import annotations

import logging
from functools import partial

import click

from ..app import FlagSweep
from ..logs import printable
from ..operations.restored import Restored
from .changing import ask
from .locate import Given
from .options import YES
from .stderr_log import log_to_stderr
from .stopping import to_many
from .words import plural, span

SHOWN = 8
"""Kinds and schedules that are named."""


@click.command()
@click.option("--drop", is_flag=True, help="First take down all flags that wait, with a line of history for each.")
@YES
@click.pass_obj
def confirm(given: Given, drop: bool, yes: bool) -> None:
    """Have a database go on that was restored or copied, and is paused for it.

    It says what would be done, and asks. Called before the first start of a copy, it spares that the pause.

    \b
    flagsweep confirm
    flagsweep confirm --drop --yes
    """
    log_to_stderr(logging.DEBUG if given.debug else logging.WARNING, given.debug)
    flags = given.any_site()
    found = flags.restored
    for line in _lines(found):
        click.echo(printable(line))
    waiting = sum(waits for _, state, waits, _, _ in flags.verbs.counts(flags.clock.now()) if state == "waiting") if drop else 0
    if found is not None or drop:
        ask(f"Drop {plural(waiting, 'flag')}, and have it go on?" if drop else "Have it go on?", yes)
    _confirm(flags, drop, waiting)
    still = next((gate for gate in flags.gates() if gate.sort == "all" and gate.closed), None)
    after = "it goes on" if still is None else f"it stays closed, as before: {still.why}"
    click.echo(printable(given.as_called(f"{flags.connections.where} is taken for the right one from now on; {after}")))


def _confirm(flags: FlagSweep, drop: bool, waiting: int) -> None:
    if not drop:
        flags.confirm()
        return
    dropped = to_many("dropped", waiting, partial(flags.confirm, True))
    click.echo(f"dropped {plural(dropped, 'flag')}")


def _lines(found: Restored | None) -> list[str]:
    """Return what is known of the database, and what would be done if it went on."""
    if found is None:
        return ["nothing is held back: no consumer has found this database to be a backup or a copy"]
    total, more = sum(found.due.values()), " or more" if found.more else ""
    kinds = _named([f"{count} {kind}" for kind, count in sorted(found.due.items(), key=lambda item: -item[1])])
    oldest = "" if found.oldest_due_s is None else f"; the oldest has been due for {span(found.oldest_due_s)}"
    due = f"{plural(total, 'flag')}{more} would start at once: {kinds}{oldest}" if total else "no flag is due"
    fires = f"schedules that would fire at once: {_named(found.schedules)}" if found.schedules else "no schedule is due"
    return [found.why, due, fires]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
