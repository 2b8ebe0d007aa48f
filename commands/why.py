"""Ask why something does not run: ``why``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .failure import Misuse
from .locate import Given
from .options import AS_JSON
from .tables import line_width, print_json

if TYPE_CHECKING:
    from ..operations.why.answer import Why


@click.command()
@click.argument("what", required=False)
@click.argument("key", required=False)
@click.option("--lane", help="The lane of this name, where a kind has it, too.")
@click.option("--schedule", help="The schedule of this name, where a kind or a lane has it, too.")
@AS_JSON
@click.pass_obj
def why(given: Given, what: str | None, key: str | None, lane: str | None, schedule: str | None, as_json: bool) -> None:
    """Say why something does not run, since when, when it will, and what would change that.

    WHAT is a flag's id, or a kind, a lane or a schedule; KEY with a kind is that of one flag, such as '{"n": 1}'. Without WHAT it
    is the site as a whole. The exit code is 0 whatever the answer: 'flagsweep check' is for monitoring.

    \b
    flagsweep why
    flagsweep why send_mail
    flagsweep why 17
    """
    if sum(each is not None for each in (what, lane, schedule)) > 1:
        raise click.UsageError("what? Name one: WHAT, --lane NAME or --schedule NAME")
    if key is not None and what is None:
        raise Misuse("a key goes with its kind: flagsweep why KIND KEY")
    about: Any = int(what) if what is not None and key is None and _is_id(what) else what
    found = _as_called(given, given.any_site().why(about, key, lane=lane, schedule=schedule))
    if as_json:
        print_json(found.to_dict())
        return
    for line in _lines(found):
        click.echo(line)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _as_called(given: Given, found: Why) -> Why:
    """Return an answer with the commands that it names as they are called here."""
    command = given.as_called(f"'{found.command}'")[1:-1] if found.command else ""
    also = tuple(_as_called(given, each) for each in found.also)
    return replace(found, text=given.as_called(found.text), change=given.as_called(found.change), command=command, also=also)


def _lines(found: Why) -> Iterator[str]:
    """Yield an answer as lines: what it is about, why, what happened last, and what helps; then what else is in the way."""
    yield from _folded(f"{found.what}: {found.code}", "")
    yield from _folded(found.text, "  ")
    if found.last and found.last.rpartition(": ")[2] not in found.text:
        yield from _folded(f"last: {found.last}", "  ")
    if found.change:
        yield from _folded(f"what helps: {found.change}", "  ")
    if found.command:
        yield f"  -> {found.command}"
    for each in found.also:
        yield from _folded(f"besides ({each.code}): {each.text}", "  ")
        if each.command and each.command != found.command:
            yield f"  -> {each.command}"


def _folded(text: str, indent: str) -> list[str]:
    """Return a text as lines that fit on a terminal; elsewhere as one."""
    width = max(30, line_width() - 1)
    more = f"{indent}  " if indent else "  "
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=more, break_on_hyphens=False)
