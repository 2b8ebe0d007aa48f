"""Names that a shell may complete: kinds, lanes and schedules of the site, looked up quietly, or not at all."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from .locate import Given

if TYPE_CHECKING:
    from ..app import FlagSweep

PATIENCE = 2.0
"""Seconds after which whoever pressed the key gets no names rather than wait for the site, or for its database."""

PLAIN = re.compile(r"[\w.@+/%-]+")
"""What a shell takes as it stands: a name with anything else in it would be run, or cut, where it is put on the line."""


def complete_names(command: click.Command) -> click.Command:
    """Have what a command takes by name be completed with the site's names."""
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        complete_names(each)
    for param in command.params:
        if (sorts := _sorts(command, param.name)) and isinstance(param.type, StringParamType):
            param.type = _Name(sorts)
    return command


def _sorts(command: click.Command, param: str | None) -> tuple[str, ...]:
    """Return of which sorts the names are that a parameter takes."""
    if command.name == "why" and param == "what":
        return tuple(SORTS)
    if param == "name" and command.name != "add":
        return ("lane",) if command.name == "lane" else ("schedule",)
    return (param,) if param in SORTS else ()


class _Name(StringParamType):
    """Text that may be a name of the site's."""

    def __init__(self, sorts: tuple[str, ...]):
        self._sorts = sorts

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = {name for name in _asked(ctx, self._sorts) if name.startswith(incomplete) and PLAIN.fullmatch(name)}
        return [CompletionItem(name) for name in sorted(found)]


def _asked(ctx: click.Context, sorts: Iterable[str]) -> list[str]:
    """Return the names of these sorts, or none: whatever goes wrong, a key was pressed, and nothing was asked for."""
    names: list[str] = []
    with _quietly():
        try:
            site = _site(ctx.find_root().params.get("app") or os.environ.get("FLAGSWEEP_APP"))
            for sort in sorts if site else ():
                names += map(str, SORTS[sort](site))
        except BaseException:  # A site that calls sys.exit() while it is imported is none of the shell's business.
            pass
    return names


@contextmanager
def _quietly() -> Iterator[None]:
    """Let nothing be read from the terminal or written to it, and end the process where it takes too long."""
    late = threading.Timer(PATIENCE, os._exit, (0,))
    late.daemon = True
    kept = [os.dup(number) for number in (0, 1, 2)]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        late.start()
        yield
    finally:
        late.cancel()
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
        for each in (*kept, nothing):
            os.close(each)


def _site(app: str | None) -> FlagSweep | None:
    """Return the site's FlagSweep. Of what stands beside, only a file that speaks of flagsweep is imported for a key."""
    if app or "FLAGSWEEP_DATABASE" in os.environ or "FLAGSWEEP_CONFIG" in os.environ:
        return Given(app, False).any_site()
    from ..locate import BESIDE, load

    here = [path for path in map(Path, BESIDE) if path.is_file()]
    if [path.name for path in here] == ["manage.py"]:
        return Given(None, False).any_site()
    ours = [path for path in here if path.name != "manage.py" and b"flagsweep" in path.read_bytes().lower()]
    return load(ours[0].stem) if ours else None


def _kinds(site: FlagSweep) -> list[str]:
    """Return the kinds that have a handler, and those of which flags wait: by an index, without reading the flags."""
    found = list(site.handled)
    try:
        with site.connections.lent("kinds could not be read") as db:
            found += site.connections.dialect.waiting_kinds(db)
    except Exception:
        if not found:
            raise
    return found


def _schedules(site: FlagSweep) -> list[str]:
    from ..operations.schedule_info import rows_of

    return [row.name for row in rows_of(site.connections)]


SORTS: dict[str, Callable[[Any], Iterable[str]]] = {
    "kind": _kinds,
    "lane": lambda site: site.lane_names(),
    "schedule": _schedules,
}
"""How the names of each sort are found."""
