"""Look after schedules: ``schedule list``, ``add``, ``edit``, ``pause``, ``resume``, ``run``, ``remove`` and ``reset``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from ..logs import printable
from ..operations.schedule_info import ScheduleInfo, seconds_due
from ..schedules import SpecError
from ..schedules.declared import POLICIES
from .changing import ask
from .failure import Misspelt
from .group import Group
from .locate import Given
from .options import AS_JSON
from .raising import parse_end, read_arguments
from .tables import line_width, print_json
from .words import span

INDENT = " " * 12


class InOrder(Group):
    """Keep the commands in the order of this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=InOrder)
def schedule() -> None:
    """Look after schedules, which raise flags at their times.

    \b
    flagsweep schedule list
    flagsweep schedule add weekly send_report --cron "0 4 * * 1"
    """


NAME = click.argument("name")


def _plan(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say when a schedule fires, and how."""
    for option in reversed(
        (
            click.option("--cron", metavar="SPEC", help="Five fields, such as '0 4 * * 1': minute, hour, day, month, weekday."),
            click.option("--every", metavar="TIME", help="A period, such as 30s, 10m, 1h30m or 1d."),
            click.option("--at", metavar="TIME", help="Once, such as '2026-12-24 18:00', by the clock of its zone."),
            click.option("--tz", metavar="ZONE", help="The zone, such as Asia/Seoul; by default the setting timezone."),
            click.option("--arguments", metavar="JSON", help="""The handler's, such as '{"n": 1}' or '[1]'; - reads stdin."""),
            click.option("--missed", type=click.Choice(POLICIES), help="What becomes of times that nobody was there for."),
            click.option("--grace", metavar="TIME", help="How late 'skip' still runs; 60s."),
            click.option("--cap", type=int, help="How many times 'all' catches up; 100."),
        )
    ):
        command = option(command)
    return command


@schedule.command("list")
@AS_JSON
@click.pass_obj
def list_schedules(given: Given, as_json: bool) -> None:
    """List schedules: their next times, how the last run ended, what a hand has changed.

    \b
    flagsweep schedule list
    """
    flags = given.any_site()
    found = flags.schedules.list()
    if as_json:
        print_json([info.to_dict() for info in found])
    elif found:
        for info in found:
            _print(info, flags.clock.now())
    else:
        click.echo("no schedules")


@schedule.command()
@NAME
@click.argument("kind")
@_plan
@AS_JSON
@click.pass_obj
def add(given: Given, name: str, kind: str, as_json: bool, **plan: Any) -> None:
    """Have flags of KIND raised again and again, or once.

    \b
    flagsweep schedule add weekly send_report --cron "0 4 * * 1" --tz Asia/Seoul
    flagsweep schedule add often clean_up --every 10m --arguments '{"n": 1}'
    """
    _change(given, as_json, lambda flags, given: flags.schedules.add(name, kind, **given), plan)


@schedule.command()
@NAME
@_plan
@AS_JSON
@click.pass_obj
def edit(given: Given, name: str, as_json: bool, **plan: Any) -> None:
    """Change a schedule: what is not named stays as it is. It wins over what the code says.

    \b
    flagsweep schedule edit weekly --every 10m
    """
    if not any(value is not None for value in plan.values()):
        raise click.UsageError("what is to be changed? Name it, such as --every 10m")
    _change(given, as_json, lambda flags, given: flags.schedules.edit(name, **given), plan)


@schedule.command()
@NAME
@click.option("--until", metavar="TIME", help="When it goes on by itself: 2h from now, or 2030-01-31T09:00 by the local clock.")
@click.option("--reason", default="", help="Shown beside it.")
@AS_JSON
@click.pass_obj
def pause(given: Given, name: str, until: str | None, reason: str, as_json: bool) -> None:
    """Have a schedule not fire until it is resumed. What runs goes on.

    \b
    flagsweep schedule pause weekly --until 2h --reason "holidays"
    """
    flags = given.any_site()
    _show(flags.schedules.pause(name, reason, parse_end(until)), flags.clock.now(), as_json)


@schedule.command()
@NAME
@AS_JSON
@click.pass_obj
def resume(given: Given, name: str, as_json: bool) -> None:
    """Have a paused schedule fire again. What it has missed is done as its --missed says.

    \b
    flagsweep schedule resume weekly
    """
    flags = given.any_site()
    _show(flags.schedules.resume(name), flags.clock.now(), as_json)


@schedule.command()
@NAME
@AS_JSON
@click.pass_obj
def run(given: Given, name: str, as_json: bool) -> None:
    """Raise a schedule's flag just now. Its times stay as they are.

    \b
    flagsweep schedule run weekly
    """
    raised = given.any_site().schedules.run_now(name)
    if as_json:
        print_json(raised._asdict())
    else:
        click.echo(f"flag {raised.id}: {raised.how}")


@schedule.command()
@NAME
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(given: Given, name: str, yes: bool) -> None:
    """Strike a schedule off that no code declares. Its flag, if it is up, stays.

    \b
    flagsweep schedule remove weekly
    """
    flags = given.any_site()
    if any(info.name == name for info in flags.schedules.list()):
        ask(f"Remove the schedule {name}?", yes)
    flags.schedules.remove(name)
    click.echo("removed")


@schedule.command()
@NAME
@AS_JSON
@click.pass_obj
def reset(given: Given, name: str, as_json: bool) -> None:
    """Undo what was changed by hand: the schedule is again as the code says.

    \b
    flagsweep schedule reset weekly
    """
    flags = given.any_site()
    _show(flags.schedules.reset(name), flags.clock.now(), as_json)


# What was given.


def _change(given: Given, as_json: bool, change: Callable[..., ScheduleInfo], plan: Mapping[str, Any]) -> None:
    flags = given.any_site()
    with _pointing_at_mistakes(plan):
        info = change(flags, _said(plan))
    _show(info, flags.clock.now(), as_json)


def _said(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was named of a plan, its arguments read."""
    said = {option: value for option, value in plan.items() if value is not None}
    if "arguments" in said:
        args, named = read_arguments(said["arguments"])
        said["arguments"] = tuple(args) if args else named
    return said


@contextmanager
def _pointing_at_mistakes(plan: Mapping[str, Any]) -> Iterator[None]:
    """Show where the mistake is in a spec that was given."""
    try:
        yield
    except SpecError as error:
        text = next((plan[sort] for sort in ("cron", "every", "at") if plan[sort] is not None), "")
        if error.position is None or not text.strip():
            raise
        raise Misspelt(str(error), text, error.position) from error


# What is shown.


def _show(info: ScheduleInfo, now: int, as_json: bool) -> None:
    if as_json:
        print_json(info.to_dict())
    else:
        _print(info, now)


def _print(info: ScheduleInfo, now: int) -> None:
    """Print a schedule: a line that says what it is, and below it a line each for what there is to say."""
    width = line_width()
    wrap = textwrap.TextWrapper(max(40, width), subsequent_indent=INDENT, break_on_hyphens=False)
    name = printable(info.name)
    head = wrap.fill(printable(f"{info.name}: {_what(info)}"))
    click.echo(head.replace(name, click.style(name, bold=True), 1))
    for label, text in _lines(info, now):
        line = wrap.fill(printable(f"    {label:<8}{text}"))
        click.echo(click.style(line, fg="yellow") if label in ("problem", "paused", "note") else line)


def _what(info: ScheduleInfo) -> str:
    """Return when a schedule fires, and what it raises then."""
    plain = info.plain or f"{info.sort} {info.spec!r}"
    zone = "" if info.zone in plain else f", {info.zone}"
    arguments = f" {_short_json(info.payload)}" if info.payload else ""
    call = f"; {info.kind}{arguments}" if arguments or info.kind != info.name else ""
    return f"{plain}{zone}{call}{'; added by hand' if info.origin == 'hand' else ''}"


def _lines(info: ScheduleInfo, now: int) -> Iterator[tuple[str, str]]:
    if info.problem:
        yield "problem", f"it cannot fire: {info.problem}"
    if info.paused_since:
        yield "paused", _paused(info)
    if info.due:
        yield "due", _due(info, now)
    elif info.handled is False:
        yield "note", f"no handler here has the kind {info.kind}"
    if info.next:
        yield "next", ", ".join(_day_and_time(time, info.sort != "every") for time in info.next)
    yield "last", _last(info)
    if info.changed:
        yield "changed", _changed(info)
    for note in info.notes:
        yield "note", note


def _paused(info: ScheduleInfo) -> str:
    until = f" until {_minute(info.paused_until)}" if info.paused_until else ""
    return f"since {_minute(info.paused_since)} by {info.paused_by or '?'}{until}{f': {info.reason}' if info.reason else ''}"


def _due(info: ScheduleInfo, now: int) -> str:
    why = f": no handler here has the kind {info.kind}" if info.handled is False else ""
    return f"since {_day_and_time(info.due)}, for {span(seconds_due(info, now))}{why}"


def _last(info: ScheduleInfo) -> str:
    """Return for which time it was fired last, and how that ended."""
    skipped = f"; {info.skipped} skipped" if info.skipped else ""
    if info.last is None and info.outcome is None:
        return f"never{skipped}"
    ended = f"{info.outcome} {_minute(info.ended_at)}" if info.outcome else ""
    if info.fired_at and (info.ended_at is None or info.ended_at < info.fired_at):
        ended = f"not ended yet{f'; the run before {ended}' if ended else ''}"
    return f"{_day_and_time(info.last) if info.last else 'by hand'}, {ended}{skipped}"


def _changed(info: ScheduleInfo) -> str:
    said = {name: value for name, value in info.changed.items() if name not in ("sort", "spec")}
    spec = [f"{info.changed['sort']} {_short_json(info.changed.get('spec'))}"] if "sort" in info.changed else []
    told = ", ".join([*spec, *(f"{name.removesuffix('_s')} {_short_json(value)}" for name, value in sorted(said.items()))])
    return f"by {info.changed_by or '?'} {_minute(info.changed_at)}; the code says {told}"


def _short_json(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _day_and_time(time: datetime | None, weekday: bool = False) -> str:
    if time is None:
        return "?"
    return f"{time:{'%a ' if weekday else ''}%Y-%m-%d %H:%M{':%S' if time.second else ''}}"


def _minute(time: datetime | None) -> str:
    return "?" if time is None else f"{time:%Y-%m-%d %H:%M}"
