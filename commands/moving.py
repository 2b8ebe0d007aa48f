"""Carry flags elsewhere: ``export``, ``import`` and ``move``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from ..app import FlagSweep
from ..config import hidden
from ..logs import printable
from ..operations.flags import STATES
from .changing import ask
from .failure import Failure
from .locate import Given
from .options import AS_JSON, YES
from .stopping import stoppable
from .tables import print_json
from .words import plural

NOUNS = {"flag": "flag", "schedule": "schedule", "gate": "gate", "history": "line", "count": "count", "fact": "note"}
"""What a row of each table is called; ``line`` is one of history."""


def counted(counts: dict[str, int]) -> str:
    """Return how many rows there are of each table, as people say it."""
    told = [
        plural(counts[name], noun) + (" of history" if name == "history" else "")
        for name, noun in NOUNS.items()
        if counts.get(name)
    ]
    return ", ".join(told) or "nothing"


@click.command("export")
@click.option("--kind", help="Only what is of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Only flags in this state, and nothing else.")
@click.option("--history/--no-history", default=True, show_default=True, help="With the lines of history.")
@click.option("--out", default="-", show_default=True, help="The file to write; - is the standard output.")
@click.pass_obj
def export(given: Given, kind: str | None, state: str | None, history: bool, out: str) -> None:
    """Write flags, schedules, gates and history as lines of JSON.

    All lines are of one moment. Nothing waits for it: no lock is held, and what reads the output may be as slow as it likes.

    \b
    flagsweep export --out site.jsonl
    flagsweep export | gzip > site.jsonl.gz
    """
    flags = given.any_site()
    total = _total(flags)
    with stoppable("reading", total, "nothing was exported") as show:
        if out != "-":
            told = flags.export(out, kind, state, history, progress=show)
        else:
            with tempfile.TemporaryFile() as spool:  # A slow reader of our output must not hold the snapshot.
                told = flags.export(spool, kind, state, history, progress=show)
                spool.seek(0)
                if sys.stdout is not None:  # It may be closed.
                    shutil.copyfileobj(spool, sys.stdout.buffer, 1 << 20)
                    sys.stdout.flush()
    click.echo(f"exported {counted(told.counts)}; sha256 {told.sha256}", err=True)


def _total(flags: FlagSweep) -> int:
    """Return about how many rows there are, for a bar."""
    return sum(count for _, _, count, _, _ in flags.verbs.counts(flags.clock.now())) if sys.stderr.isatty() else 0


@click.command("import")
@click.argument("file")
@click.option("--replace", is_flag=True, help="What is up here by the same kind and key gets the contents of the export.")
@click.option("--skip", is_flag=True, help="What is up here with other contents stays, and that is no failure.")
@click.option("--dry-run", is_flag=True, help="Verify the export and tell what would be done.")
@AS_JSON
@click.pass_obj
def import_file(given: Given, file: str, replace: bool, skip: bool, dry_run: bool, as_json: bool) -> None:
    """Read what export wrote from FILE, or from the standard input (-).

    All lines are verified before the first is imported. What is there to the letter is left alone, so that the same import goes
    on where it was cut off. The exit code is 1 where something is there with other contents, and neither --replace nor --skip
    says what becomes of it.

    \b
    flagsweep import site.jsonl
    """
    if replace and skip:
        raise click.UsageError("--replace and --skip exclude each other")
    flags = given.any_site()
    with _opened(file) as lines, stoppable("importing", 0, "some was imported") as show:
        told = flags.import_(lines, replace=replace, dry_run=dry_run, progress=show)
    if as_json:
        print_json(told.to_dict())
    else:
        for line in _imported(told):
            click.echo(printable(line))
    if told.kept.total() and not skip:
        raise Failure(
            "what is there with other contents was left as it is: --replace takes the export's, --skip is content with it"
        )


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """Open a file that can go back to its beginning: the standard input is read to its end first."""
    with open(file, "rb") if file != "-" else tempfile.TemporaryFile() as lines:
        if file == "-":
            shutil.copyfileobj(sys.stdin.buffer, lines, 1 << 20)
            lines.seek(0)
        yield lines


def _imported(told: Any) -> Iterator[str]:
    verb = "would import" if told.dry_run else "imported"
    yield f"{verb} {counted(told.new)}"
    if told.same.total():
        yield f"there already, to the letter: {counted(told.same)}"
    for counts, what in ((told.replaced, "replaced"), (told.kept, "there with other contents, and left as they are")):
        if counts.total():
            more = f" and {counts.total() - len(told.named)} more" if counts.total() > len(told.named) else ""
            yield f"{what}: {counted(counts)} ({', '.join(told.named)}{more})"
    if told.renumbered:
        yield f"{plural(told.renumbered, 'flag')} got a new id: another one has theirs here; their history names the new one"
    if told.parked:
        yield f"{plural(told.parked, 'row')} cannot be held here as they are: such flags are dead, and say why"


@click.command("move")
@click.option("--to", required=True, help="The URL of the other database, whose tables are made; -: standard input has it.")
@YES
@AS_JSON
@click.pass_obj
def move(given: Given, to: str, yes: bool, as_json: bool) -> None:
    """Move flags, schedules, gates and history to another database.

    Both must be without a running consumer. This one is paused, and stays as it is; the other one is compared with it to the
    last row before it is opened. Whatever ends this, the same command goes on where it was; after it was done, it raises there
    what was raised here since.

    \b
    flagsweep move --to postgresql://site@db.internal/site
    """
    flags = given.any_site()
    url = sys.stdin.readline().strip() if to == "-" else to  # A command line is for all eyes.
    ask(f"Pause {flags.connections.where}, and move all that it has to {hidden(url)}?", yes)
    with stoppable("moving", 1, "what was moved is kept") as show:
        moved = flags.move(url, lambda what, done, total: show(done, what, total))
    if as_json:
        print_json(moved.to_dict())
        return
    for line in _moved(moved, hidden(url), bool(flags.handlers)):
        click.echo(printable(line))


def _moved(moved: Any, url: str, knows: bool) -> Iterator[str]:
    if moved.again:
        yield f"all was moved to {moved.target} at {moved.at:%Y-%m-%d %H:%M:%S} UTC"
        yield f"raised there just now, since they were raised here since: {plural(moved.late, 'flag')}"
    else:
        yield f"moved to {moved.target}: {counted(moved.counts)}"
        yield f"both databases agree, row for row; flags sha256 {moved.checksums.get('flag') or 'changed in the last moment'}"
        yield f"copied {moved.copied:,} rows in {moved.seconds:.1f} s: {moved.rate:,.0f} a second"
        if moved.mended:
            yield f"{plural(moved.mended, 'row')} changed here meanwhile, and were copied again"
        if moved.parked:
            yield f"{plural(moved.parked, 'row')} cannot be held there as they are: such flags are dead there, and say why"
        yield f"{moved.source} is paused, and has all that it had"
    if moved.own_rows:
        yield f"flags of {', '.join(moved.own_rows)} stand for rows of the site's tables, which stay where they are"
    elif not knows:
        yield "flags that stand for rows of the site's own tables need those tables there, too: they stay where they are"
    yield f"next: set FLAGSWEEP_DATABASE to {url} wherever the site raises flags, start it anew, then start the consumer;"
    yield "then the same command once more: it raises there what was raised here in between"
