"""The commands: they print, ask and exit. What they show and do comes from ``FlagSweep``."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import click
from peewee import PeeweeException

from .app import NOBODY, STATES, FlagSweep
from .commands.locate import load
from .commands.terminal import (
    Column,
    clean,
    described,
    log_to_stderr,
    open_standard_streams,
    plural,
    print_json,
    print_table,
    progress_bar,
    span,
    sweep_bar,
)
from .config import SECOND
from .consumer.runner import Signals
from .databases.schema import SCHEMA, script
from .errors import ConfigError, FlagSweepError, LaneStuck, PayloadError, UnknownKind
from .models import AWAY
from .operations.doctor.examine import Finding
from .operations.info import FlagInfo
from .sweep.lane import OUTCOMES

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

NO_APP = (
    "which FlagSweep? Say so with --app module:attribute or FLAGSWEEP_APP ('flags = FlagSweep(...)' in work.py is work:flags);"
    " FLAGSWEEP_DATABASE alone is enough for all commands but run, sweep and raise"
)
AS_ARGUMENTS = """write them as '{"user_id": 17}' or '[17]'"""


def main() -> None:
    """Be the command ``flagsweep``."""
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # A terminal without UTF-8 must not stop anybody from reading a list.
    cli(prog_name="flagsweep")


class Failure(click.ClickException):
    """End the command with one readable line: what was asked for failed."""

    def show(self, file: Any = None) -> None:
        click.echo(f"flagsweep: {clean(self.message)}", err=True)


class Misuse(Failure):
    """End the command with one readable line: it cannot be meant as it was given."""

    exit_code = 2


class Commands(click.Group):
    """Keep the commands in the order of this file, and turn every error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                click.echo("\n".join(map(clean, traceback.format_exc().splitlines())), err=True)
            raise as_failure(error) from None


def as_failure(error: BaseException) -> click.ClickException:
    """Return what to say about an error, and the exit code that goes with it."""
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted")
    if isinstance(error, FlagSweepError):
        return (Misuse if isinstance(error, (ConfigError, PayloadError, UnknownKind)) else Failure)(str(error))
    if isinstance(error, OSError) and error.strerror:
        return Failure(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
    what = "the database says" if isinstance(error, PeeweeException) else "unexpected"
    return Failure(f"{what}: {described(error)}; --debug shows where it came from")


# Which FlagSweep.


class FlagId(click.IntRange):
    """A flag's id. The name is what click's errors call it."""

    name = "flag id"


ID = FlagId(1, 2**63 - 1)


class Given(NamedTuple):
    """What was said before the command."""

    app: str | None
    debug: bool

    def site(self) -> FlagSweep:
        """Return the site's FlagSweep, with its handlers."""
        if not self.app:
            raise Misuse(NO_APP)
        return load(self.app)

    def any_site(self) -> FlagSweep:
        """Return the site's FlagSweep, or one that knows no handlers where only the environment names the database."""
        if not self.app and ("FLAGSWEEP_DATABASE" in os.environ or "FLAGSWEEP_CONFIG" in os.environ):
            return FlagSweep.from_env()
        return self.site()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--app", envvar="FLAGSWEEP_APP", metavar="MODULE:ATTRIBUTE", help="The site's FlagSweep; also FLAGSWEEP_APP.")
@click.option("--debug", is_flag=True, help="Show tracebacks, and log more.")
@click.pass_context
def cli(ctx: click.Context, app: str | None, debug: bool) -> None:
    """Look after work flags: durable rows that say work is owed."""
    ctx.obj = Given(app, debug)


# Doing the work.


@cli.command()
@click.option("--sql", is_flag=True, help="Print the SQL that makes them in an empty database, and leave the database alone.")
@click.pass_obj
def init(given: Given, sql: bool) -> None:
    """Create the tables, or upgrade them. Doing it again does no harm."""
    flags = given.any_site()
    if sql:
        for statement in script(flags.store.dialect):
            click.echo(f"{statement};")
        return
    before = None
    with suppress(*AWAY):  # What is wrong, init says.
        before = flags.store.version()
    made = flags.init()
    done = f"tables upgraded from version {before} to {SCHEMA}" if before else "tables created"
    click.echo(clean(f"{flags.store.where}: {done if made else 'the tables are there already'}"))


@cli.command()
@click.pass_obj
def run(given: Given) -> None:
    """Be the consumer: sweep until SIGTERM or Ctrl-C."""
    flags = given.site()
    log_to_stderr(logging.DEBUG if given.debug else logging.INFO, given.debug)
    try:
        ended = flags.run()
    except LaneStuck:
        logging.shutdown()
        os._exit(1)
    if not ended:
        # Handlers still run and hold their flags: only the end of this process frees those, and an ordinary exit would wait.
        logging.shutdown()
        os._exit(0)


@cli.command()
@click.option("--lane", help="This lane only.")
@click.option("--limit", type=click.IntRange(0), help="Claim at most so many flags in each lane.")
@AS_JSON
@click.pass_obj
def sweep(given: Given, lane: str | None, limit: int | None, as_json: bool) -> None:
    """Do what is due and exit: for cron, or beside a running consumer.

    Attempts that fail are named on stderr. They are not a failure of the sweep: their flags wait for the next attempt.
    """
    flags = given.site()
    log_to_stderr(logging.DEBUG if given.debug else logging.WARNING, given.debug)
    stopped: list[str] = []

    def stop(name: str) -> None:
        stopped.append(name)
        flags.stop()

    bar = nullcontext() if as_json or not sys.stderr.isatty() else sweep_bar(due(flags, lane))
    with bar as progress, Signals(stop, end_at_once):
        counts = flags.sweep(lane, limit, progress=progress)
    if as_json:
        print_json({outcome: counts[outcome] for outcome in OUTCOMES})
    else:
        click.echo(summary(counts))
    if stopped:
        raise Failure(f"stopped by {stopped[0]}: what had not started was given back")
    if lane is None and (unknown := unknown_due(flags)):
        raise Failure(
            f"flags are due of kinds that no handler is known for: {unknown}; "
            f"import the module that registers them in {given.app}"
        )


def unknown_due(flags: FlagSweep) -> str:
    """Return which kinds have flags due and no handler here, with how many, or nothing."""
    counts = [(str(kind), due) for kind, _, _, due, _ in flags.store.counts(flags.clock.now()) if due]
    unknown = sorted((kind, due) for kind, due in counts if kind not in flags.handled)
    return ", ".join(f"{kind} ({due})" for kind, due in unknown)


def end_at_once() -> None:
    """End without waiting for handlers; what they hold is free when the next consumer starts."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # The progress bar had hidden the cursor.
    os._exit(1)


def due(flags: FlagSweep, lane: str | None) -> int:
    """Return how many flags are due in a lane, or in all that have handlers."""
    lanes = flags.status()["lanes"]
    return sum(entry["due"] for name, entry in lanes.items() if name == lane or (lane is None and name != NOBODY))


def summary(counts: Counter[str]) -> str:
    """Return what a sweep did, in one line."""
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"swept {plural(counts.total(), 'flag')}: {parts}" if parts else "nothing was due"


# Reading.


@cli.command()
@AS_JSON
@click.pass_obj
def status(given: Given, as_json: bool) -> None:
    """Show what is up in each lane, and who sweeps."""
    flags = given.any_site()
    report = flags.status()
    if as_json:
        print_json(report)
        return
    columns = [Column("lane"), *(Column(title, right=True) for title in ("waiting", "due", "oldest due", "claimed", "dead"))]
    if report["lanes"]:
        print_table(columns, [lane_row(name, lane) for name, lane in sorted(report["lanes"].items())])
    if not any(lane[state] for lane in report["lanes"].values() for state in STATES):
        click.echo("no flags")
    if NOBODY in report["lanes"]:
        known = "kinds without a handler here: another application's, or their flags wait until one is registered"
        click.echo(
            f"lane {NOBODY}: {known if flags.handlers else 'all kinds, since handlers and lanes are known only with --app'}"
        )
    for consumer in report["consumers"]:
        click.echo(clean(consumer_line(consumer)))
    if all(consumer["mode"] != "run" or consumer["alive"] is False for consumer in report["consumers"]):
        click.echo("no consumer runs")


def lane_row(name: str, lane: dict[str, Any]) -> list[str]:
    """Return one row of the status."""
    oldest = "-" if lane["oldest_due_s"] is None else span(lane["oldest_due_s"])
    return [name, str(lane["waiting"]), str(lane["due"]), oldest, str(lane["claimed"]), str(lane["dead"])]


def consumer_line(consumer: dict[str, Any]) -> str:
    """Return what one consumer does, or that it is dead."""
    since = consumer["started_at"][:19].replace("T", " ")
    who = f"consumer {consumer['id']} (pid {consumer['pid']} on {consumer['host']}, since {since} UTC)"
    if consumer["alive"] is None:
        return f"{who}: this user cannot see whether it lives"
    if not consumer["alive"]:
        return f"{who} is gone; what it had claimed is free at the next run or sweep"
    return f"{who} {'runs' if consumer['mode'] == 'run' else 'sweeps once'}"


@cli.command("list")
@click.option("--kind", help="Flags of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Flags in this state.")
@click.option("--key", help="The flag with this key.")
@click.option("--lane", help=f"Flags of this lane; {NOBODY} stands for kinds without a handler.")
@click.option("--due/--not-due", default=None, help="Flags whose time has come, or has not.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, lowest id first.")
@AS_JSON
@click.pass_obj
def list_flags(given: Given, limit: int, as_json: bool, **conditions: Any) -> None:
    """List flags, without their payloads."""
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
        print_table(columns, [flag_row(flag, flags.clock.now()) for flag in found[:limit]])
    else:
        click.echo("no flags")
    if len(found) > limit:
        click.echo(f"these are the first {limit}; --limit shows more", err=True)


def flag_row(flag: FlagInfo, now: int) -> list[str]:
    """Return one row of the list."""
    return [str(flag.id), flag.kind, flag.key, flag.state, when(flag, now), str(flag.attempts), flag.headline[:200]]


def when(flag: FlagInfo, now: int) -> str:
    """Return the time that matters in a flag's state."""
    moment = {"claimed": flag.claimed_at, "dead": flag.died_at}.get(flag.state, flag.due_at)
    if moment is None:
        return "damaged"
    elapsed = now / SECOND - moment.timestamp()
    if flag.state == "waiting":
        return f"due {span(elapsed)} ago" if elapsed >= 0 else f"due in {span(-elapsed)}"
    return f"for {span(elapsed)}" if flag.state == "claimed" else f"{span(elapsed)} ago"


@cli.command()
@click.argument("id", type=ID)
@AS_JSON
@click.pass_obj
def show(given: Given, id: int, as_json: bool) -> None:
    """Show one flag with its payload and its error."""
    flags = given.any_site()
    found = flags.find(id=id)
    if not found:
        raise Failure(f"there is no flag {id}: it was lowered or discarded, or never raised")
    if as_json:
        print_json(found[0].to_dict())
    else:
        print_flag(found[0], flags.clock.now())


def print_flag(flag: FlagInfo, now: int) -> None:
    """Print all there is about a flag, a line each; text of many lines stands below its name."""
    payload = json.dumps(flag.payload, indent=2, ensure_ascii=False, default=str)
    values = {**flag.to_dict(), "state": f"{flag.state} ({when(flag, now)})"}
    last = {"payload": payload, "error": values.pop("error")}  # What may have many lines.
    del values["payload"]
    for name, value in {**values, **last}.items():
        lines = [clean(line) for line in str(value).splitlines()]
        if value is not None and len(lines) > 1:
            click.echo("\n".join([name, *(f"    {line}" for line in lines)]))
        elif value is not None:
            click.echo(f"{name:<12}{''.join(lines)}")


# Changing.


@cli.command("raise")
@click.argument("kind")
@click.argument("arguments", metavar="[JSON]", default="{}")
@click.option("--delay", help="How long to wait before it is due, such as 90, 5m or 1h30m.")
@click.option("--at", metavar="ISO", help="When it is due, such as 2030-01-31T09:00; local time unless it says otherwise.")
@click.option("--key", help="What makes the flag this flag, instead of its arguments.")
@click.option("--priority", type=int, help="-100 to 100, the higher the sooner.")
@AS_JSON
@click.pass_obj
def raise_flag(given: Given, kind: str, arguments: str, at: str | None, as_json: bool, **options: Any) -> None:
    """Raise a flag of KIND.

    JSON holds the handler's arguments: an object with their names, '{"user_id": 17}', or an array, '[17]'; - reads it from stdin.
    """
    if at is not None and options["delay"] is not None:
        raise click.UsageError("give --delay or --at, not both")
    handler = given.site().handler_of(kind)
    args, kwargs = read_arguments(arguments)
    raised = handler.using(at=parse_time(at), **options).raise_flag(*args, **kwargs)
    if as_json:
        print_json(raised._asdict())
    else:
        click.echo(f"flag {raised.id}: {raised.how}")


def read_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments that JSON text holds, or stdin where it is a dash."""
    try:
        values = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"the arguments are not JSON: {described(error)}; {AS_ARGUMENTS}") from error
    if not isinstance(values, (dict, list)):
        raise Misuse(f"the arguments must be a JSON object or array, got {values!r:.80}; {AS_ARGUMENTS}")
    return ([], values) if isinstance(values, dict) else (values, {})


def parse_time(text: str | None) -> datetime | None:
    """Return the time that ISO 8601 text names, local where it names no zone."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone()
    except (ValueError, OverflowError) as error:
        raise Misuse(f"--at must be a time such as 2030-01-31T09:00 or 2030-01-31T09:00:00+01:00, got {text!r}") from error


IDS = click.argument("ids", nargs=-1, type=ID)
KIND = click.option("--kind", help="All of this kind.")
ALL = click.option("--all", "everything", is_flag=True, help="All there are.")
YES = click.option("--yes", is_flag=True, help="Do not ask before acting on all.")


@cli.command()
@IDS
@KIND
@ALL
@YES
@click.pass_obj
def retry(given: Given, ids: tuple[int, ...], kind: str | None, everything: bool, yes: bool) -> None:
    """Let dead flags wait again from scratch.

    Flags that wait for another attempt after a failure are due at once.
    """
    check_choice(ids, kind, everything)
    flags = given.any_site()
    if not ids:
        ask(f"{dead(flags, kind)} Retry all, and have what backs off be due now?", yes)
    before = flags.find(id=ids, limit=None) if ids else []
    count = to_many("retried", len(ids) or dead_count(flags, kind), partial(flags.retry, id=ids or None, kind=kind))
    click.echo(f"retried {plural(count, 'flag')}")
    name_missed(ids, before, may_retry, {"waiting": "waits, and has not failed", "claimed": "runs just now"})


@cli.command()
@IDS
@KIND
@ALL
@click.option("--reason", default="", help="Kept in the history.")
@YES
@click.pass_obj
def discard(given: Given, ids: tuple[int, ...], kind: str | None, everything: bool, reason: str, yes: bool) -> None:
    """Drop dead flags for good, with a line of history for each."""
    check_choice(ids, kind, everything)
    flags = given.any_site()
    if not ids:
        ask(f"{dead(flags, kind)} Discard all?", yes)
    before = flags.find(id=ids, limit=None) if ids else []
    act = partial(flags.discard, id=ids or None, kind=kind, reason=reason)
    count = to_many("discarded", len(ids) or dead_count(flags, kind), act)
    click.echo(f"discarded {plural(count, 'flag')}")
    if count:
        warn_of_own_rows(flags)
    name_missed(ids, before, may_discard, {"waiting": "waits, it is not dead", "claimed": "runs, it is not dead"})


def check_choice(ids: Sequence[int], kind: str | None, everything: bool) -> None:
    """Refuse to guess which flags are meant."""
    if ids and (kind is not None or everything):
        raise click.UsageError("name flags by id, or give --kind or --all, not both")
    if not (ids or kind is not None or everything):
        raise click.UsageError("which flags? Name them by id, or give --kind KIND or --all")


class Stopped(Exception):
    """End a verb over many flags between two of its transactions."""


def to_many(done: str, total: int, act: Callable[..., int]) -> int:
    """Do something with many flags, with a bar on a terminal; return how many. A signal ends it between two transactions.

    :param done: what they are then, such as ``discarded``.
    """
    signals: list[str] = []
    count = 0
    bar = progress_bar(done, total) if sys.stderr.isatty() else nullcontext(lambda count: None)
    with bar as show, Signals(signals.append, end_at_once):

        def report(so_far: int) -> None:
            nonlocal count
            count = so_far
            show(so_far)
            if signals:
                raise Stopped

        try:
            return act(progress=report)
        except Stopped:
            left = f" of {plural(total, 'flag')} are {done}" if total >= count else f" flags are {done}"
            raise Failure(f"stopped by {signals[0]}: {count:,}{left}; the same command goes on") from None


def dead_count(flags: FlagSweep, kind: str | None) -> int:
    """Return how many flags are dead."""
    counts = flags.store.counts(flags.clock.now())
    return sum(many for its_kind, state, many, _, _ in counts if state == "dead" and kind in (None, its_kind))


def dead(flags: FlagSweep, kind: str | None) -> str:
    """Return how many flags are dead, as a sentence."""
    count = dead_count(flags, kind)
    return f"{plural(count, 'flag')}{'' if kind is None else f' of kind {kind}'} {'is' if count == 1 else 'are'} dead."


def ask(question: str, yes: bool) -> None:
    """Go on only when the answer is yes."""
    try:
        agreed = yes or click.confirm(clean(question), err=True)
    except click.Abort:
        agreed = False
    if not (yes or sys.stdin.isatty()):
        click.echo(err=True)  # An answer from a pipe ends no line.
    if not agreed:
        raise Failure("nothing was changed; --yes answers in advance")


def may_retry(flag: FlagInfo) -> bool:
    """Return whether there is anything to retry."""
    return flag.state == "dead" or (flag.state == "waiting" and flag.attempts > 0)


def may_discard(flag: FlagInfo) -> bool:
    """Return whether nobody else decides about this flag any more."""
    return flag.state == "dead"


def name_missed(
    ids: Sequence[int], before: Sequence[FlagInfo], may: Callable[[FlagInfo], bool], why_not: Mapping[str, str]
) -> None:
    """Fail where a flag that was named could not be acted on, saying why; the others are done."""
    known = {flag.id: flag for flag in before}
    missed = [f"there is no flag {id}" for id in ids if id not in known]
    missed += [f"flag {flag.id} {why_not[flag.state]}" for flag in before if not may(flag)]
    if missed:
        raise Failure("; ".join(missed))


def warn_of_own_rows(flags: FlagSweep) -> None:
    """Say what cannot be done without the site's handlers."""
    if not flags.handlers:
        click.echo(
            "without --app no column of the site's own rows comes down: a flag that stands for such a row comes back", err=True
        )


@cli.command()
@click.argument("kind")
@click.argument("key")
@click.pass_obj
def lower(given: Given, kind: str, key: str) -> None:
    """Take one flag down, whatever its state. A handler that runs just now is not stopped."""
    flags = given.any_site()
    if not flags.lower(kind, key):
        raise Failure(f"no flag of kind {kind!r} with the key {key!r} is up; 'flagsweep list --kind {kind}' shows those that are")
    click.echo("lowered")
    warn_of_own_rows(flags)


@cli.command()
@AS_JSON
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the database and what it stands on.

    The exit code is 1 where something fails; a warning leaves it at 0.
    """
    findings = ctx.obj.any_site().doctor()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(finding_lines(finding))
    ctx.exit(any(finding.level == "fail" for finding in findings))


def finding_lines(finding: Finding) -> str:
    """Return a finding as lines, with its fix below it; on a terminal they are folded to its width."""
    color = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.level]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000_000
    wrap = textwrap.TextWrapper(max(30, width - 24), break_on_hyphens=False)
    first, *more = wrap.wrap(clean(finding.text)) or [""]
    wrap.subsequent_indent = "   "
    more += wrap.wrap(clean(f"-> {finding.fix}")) if finding.fix else []
    return "\n".join(
        [f"{click.style(f'{finding.level:<5}', fg=color)} {finding.what:<17} {first}", *(f"{'':24}{line}" for line in more)]
    )
