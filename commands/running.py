"""Do the work: ``run`` and ``sweep``."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from contextlib import nullcontext

import click

from ..app import FlagSweep
from ..consumer.signals import Signals
from ..errors import LaneStuck
from ..sweep.lane import OUTCOMES
from .bars import sweep_bar
from .failure import Failure
from .locate import Given
from .options import AS_JSON
from .stderr_log import log_to_stderr
from .stopping import end_at_once
from .tables import print_json
from .words import plural

LOG = click.option("--log", "form", type=click.Choice(["text", "json"]), help="How to write the log; else the setting log says.")


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Answer /healthz and /metrics there; else the setting listen says where.")
@LOG
@click.pass_obj
def run(given: Given, listen: str | None, form: str | None) -> None:
    """Be the consumer: sweep until SIGTERM or Ctrl-C.

    \b
    flagsweep run
    flagsweep --app work:flags run
    """
    flags = given.site()
    # A site's own Huey tells of its tasks as its own consumer would have it.
    log_to_stderr(
        logging.DEBUG if given.debug else logging.INFO,
        given.debug,
        logging.WARNING if flags.also is None else logging.INFO,
        form or flags.settings.log,
    )
    try:
        ended = flags.run(listen)
    except LaneStuck:
        logging.shutdown()
        os._exit(1)
    if not ended:
        # Handlers still run and hold their flags: only the end of this process frees those, and an ordinary exit would wait.
        logging.shutdown()
        os._exit(0)


@click.command()
@click.option("--lane", help="This lane only.")
@click.option("--force", is_flag=True, help="Sweep what is paused, too.")
@click.option("--limit", type=click.IntRange(0), help="Claim at most so many flags in each lane.")
@LOG
@AS_JSON
@click.pass_obj
def sweep(given: Given, lane: str | None, force: bool, limit: int | None, form: str | None, as_json: bool) -> None:
    """Do what is due and exit: for cron, or beside a running consumer.

    Attempts that fail are named on stderr. They are not a failure of the sweep: their flags wait for the next attempt.

    \b
    flagsweep sweep
    flagsweep sweep --lane mail --limit 100
    """
    flags = given.site()
    level = logging.DEBUG if given.debug else logging.WARNING
    log_to_stderr(level, given.debug, form=form or flags.settings.log)
    stopped: list[str] = []

    def stop(name: str) -> None:
        stopped.append(name)
        flags.stop()

    bar = nullcontext() if as_json or not sys.stderr.isatty() else sweep_bar(_due(flags, lane))
    with bar as progress, Signals(stop, end_at_once):
        counts = flags.sweep(lane, limit, progress=progress, force=force)
    if as_json:
        print_json({outcome: counts[outcome] for outcome in OUTCOMES})
    elif counts or flags.restored is None:
        click.echo(_summary(counts))
    if stopped:
        raise Failure(f"stopped by {stopped[0]}: what had not started was given back")
    if not force and flags.restored is not None:
        raise Failure(given.as_called("nothing was swept: all is paused, 'flagsweep confirm' has it go on"))
    if lane is None and (unknown := _unknown_due(flags)):
        raise Failure(
            f"flags are due of kinds that no handler is known for: {unknown}; "
            f"import the module that registers them in {given.app or 'the one that was found'}"
        )


def _due(flags: FlagSweep, lane: str | None) -> int:
    """Return how many flags are due in a lane, or in all that have handlers."""
    from ..operations.flags import NOBODY

    lanes = flags.status()["lanes"]
    return sum(entry["due"] for name, entry in lanes.items() if name == lane or (lane is None and name != NOBODY))


def _summary(counts: Counter[str]) -> str:
    """Return what a sweep did, in one line."""
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"swept {plural(counts.total(), 'flag')}: {parts}" if parts else "nothing was due"


def _unknown_due(flags: FlagSweep) -> str:
    """Return which kinds have flags due and no handler here, with how many, or nothing."""
    counts = [(str(kind), due) for kind, _, _, due, _ in flags.verbs.counts(flags.clock.now()) if due]
    unknown = sorted((kind, due) for kind, due in counts if kind not in flags.handled)
    return ", ".join(f"{kind} ({due})" for kind, due in unknown)
