"""Make room for a deploy: ``drain``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..config import SECOND, seconds
from ..consumer.signals import Signals
from ..errors import ConfigError
from ..logs import printable
from ..operations.drain import Drain
from ..operations.running import InHand, Running
from .failure import Failure, Misuse
from .locate import Given
from .options import AS_JSON
from .raising import parse_end
from .stopping import end_at_once
from .tables import console, print_json
from .words import plural, span

SHOWN = 10
"""Flags that are named where many still run."""


@click.command()
@click.option("--wait", "wait", default="60", show_default=True, metavar="TIME", help="How long at the most: 60, 90s or 5m.")
@click.option("--until", metavar="TIME", help="When it goes on by itself, as for pause; by default 15 min after the wait.")
@click.option("--keep", is_flag=True, help="Stay drained where something still runs after the wait.")
@click.option("--resume", is_flag=True, help="Have all go on: the last line of a deploy.")
@AS_JSON
@click.pass_obj
def drain(given: Given, wait: str, until: str | None, keep: bool, resume: bool, as_json: bool) -> None:
    """Have nothing start any more, and wait until nothing runs. Flags can be raised meanwhile.

    The exit code is 0 once nothing runs; all then stays drained for the deploy, until 'drain --resume', or at the latest
    until --until. It is 1 where something still runs after the wait: it is named, and all goes on again, as after Ctrl-C.

    \b
    flagsweep drain --wait 60 && systemctl restart flagsweep; flagsweep drain --resume
    flagsweep drain --wait 5m --keep --json
    """
    flags = given.any_site()
    if resume:
        _resume(flags.undrain(), given, as_json)
        return
    most = _seconds(wait)
    stopped: list[str] = []
    begin = time.monotonic()
    with Signals(stopped.append, end_at_once), _undone(flags.drain(parse_end(until) or most + 900)) as held, _shown() as show:

        def look(found: InHand) -> None:
            show(found)
            if stopped:
                raise Failure(f"stopped by {stopped[0]}: all goes on again")

        found = held.wait(most, look)
        took = time.monotonic() - begin
        if found.claimed and not keep:
            _undo(held)
    _report(given, held, found, took, keep, flags.clock.now(), as_json)


def _seconds(wait: str) -> float:
    try:
        return seconds(wait)
    except ConfigError as error:
        raise Misuse(f"--wait must be how long, such as 60, 90s or 5m, got {wait!r}") from error


@contextmanager
def _undone(held: Drain) -> Iterator[Drain]:
    """Have all go on where a signal or an error ends the wait."""
    try:
        yield held
    except BaseException:
        _undo(held)
        raise


def _undo(held: Drain) -> None:
    if held.mine:
        held.resume()


@contextmanager
def _shown() -> Iterator[Callable[[InHand], Any]]:
    """Show on a terminal how much still runs."""
    if not sys.stderr.isatty():
        yield lambda found: None
        return
    with console(stderr=True).status("draining") as status:
        yield lambda found: status.update(_line(found))


def _line(found: InHand) -> str:
    longest = f", the longest for {span(found.running[0].running_s or 0)}" if found.running else ""
    return f"draining: {plural(found.claimed, 'flag')} in hand{longest}"


def _report(given: Given, held: Drain, found: InHand, took: float, keep: bool, now: int, as_json: bool) -> None:
    """Say what came of it. The exit code is 1 where something still runs."""
    drained = not found.claimed
    stays = held.mine and (drained or keep)
    if as_json:
        told = {"drained": drained, "waited_s": round(took, 3), "claimed": found.claimed, "orphaned": found.orphaned}
        running = [each.to_dict() for each in found.running]
        print_json({**told, "running": running, "paused": stays or not held.mine, "goes_on_in_s": _goes_on_in(held, stays, now)})
        raise SystemExit(0 if drained else 1)
    for each in found.running[:SHOWN]:
        click.echo(printable(_runs(each)))
    if found.orphaned:
        click.echo(f"{plural(found.orphaned, 'flag')} of a consumer that is gone: free at the next start")
    after = _after(given, held, stays, now)
    if not drained:
        more = f", {SHOWN} of them above" if len(found.running) > SHOWN else ""
        raise Failure(f"{plural(found.claimed, 'flag')} still in hand after {span(took)}{more}; {after}")
    click.echo(printable(f"drained in {span(took)}: nothing runs; {after}"))


def _runs(each: Running) -> str:
    """Return which flag runs, for how long, and where."""
    does = "waits for a thread" if each.started is False else "runs"
    since = "" if each.running_s is None else f" for {span(each.running_s)}"
    where = f"consumer {each.consumer}, pid {each.pid} on {each.host}"
    return f"flag {each.id}: {each.kind} {each.key[:60]} {does}{since} ({where})"


def _after(given: Given, held: Drain, stays: bool, now: int) -> str:
    if not held.mine:
        return given.as_called("all was paused before, and stays so: 'flagsweep gates' says by whom")
    if not stays:
        return "all goes on again"
    left = _goes_on_in(held, stays, now)
    return given.as_called(f"'flagsweep drain --resume' has it go on, otherwise it does so by itself in {span(left or 0)}")


def _goes_on_in(held: Drain, stays: bool, now: int) -> float | None:
    if held.mine and not stays:
        return 0.0
    return None if held.ends_at is None else round(max(0.0, (held.ends_at - now) / SECOND), 3)


def _resume(done: bool, given: Given, as_json: bool) -> None:
    if as_json:
        print_json({"resumed": done})
    else:
        text = "all goes on" if done else "nothing was drained; 'flagsweep gates' shows what is paused"
        click.echo(given.as_called(text))
