"""Write docs/cli.md: every command as click knows it. ``make docs`` runs it, and a test compares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from flagsweep.cli import cli
from flagsweep.commands.group import SECTIONS

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# Commands

All of them, written by `make docs` from the commands themselves. `flagsweep -h` lists them, and `flagsweep COMMAND -h`
says the same as here.

* **Which site**: `--app module:attribute` before the command, or `FLAGSWEEP_APP`; left out, that of a work.py, app.py,
  main.py or manage.py in this folder. In Flask and Django they are called `flask flagsweep ...` and
  `manage.py flagsweep ...`, and need neither.
* **Exit codes**: 0 fine, 1 failed, 2 wrong usage; `check` has those of Nagios.
* **For programs**: `--json` where something is read; `--yes` answers in advance where something is destroyed.
* **Colours** only on a terminal, and never the only sign. `NO_COLOR` takes them away, `FORCE_COLOR` or `CLICOLOR_FORCE`
  brings them into a pipe, `CLICOLOR=0` is obeyed. Bars show on stderr, on a terminal alone. What a site has stored is
  shown with its control characters spelled out.
* **`--debug`** before the command shows where an error came from.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for section, names in SECTIONS.items():
        links = ", ".join(f"[{name}](#flagsweep-{name})" for name in names)
        parts.append(f"**{section}**: {links}.\n")
    for names in SECTIONS.values():
        for name in names:
            parts += _command(cli.commands[name], f"flagsweep {name}", 2)
    return "\n".join(parts)


def _command(command: click.Command, path: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {path}\n"
    yield _told(command.help or "")
    rows = [row for param in command.params if (row := _row(param))]
    if rows:
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"
    for name, each in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _command(each, f"{path} {name}", level + 1)


def _told(text: str) -> str:
    """Return a help text: its paragraphs as one line each, its examples as they stand."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.lstrip(" ").startswith("\b"):
            lines = [line.strip() for line in paragraph.splitlines()[1:]]
            found.append("\n".join(["```console", *(f"$ {line}" for line in lines), "```"]))
        else:
            found.append(_escaped(" ".join(paragraph.split())))
    return "\n\n".join(found) + "\n"


def _row(param: click.Parameter) -> str | None:
    """Return a row of the table of what a command takes."""
    if isinstance(param, click.Argument):
        several = " ..." if param.nargs != 1 else ""
        name = param.metavar or str(param.name).upper()
        return f"| `{name}{several}` | {_kind(param)}{'' if param.required else ', may be left out'} |"
    if not isinstance(param, click.Option) or param.hidden:
        return None
    names = ", ".join([*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {param.metavar or _kind(param)}"
    default = f" Default: `{param.default}`." if param.show_default and not callable(param.default) else ""
    needed = " Must be given." if param.required else ""
    return f"| `{names}{value}` | {_escaped(param.help or '')}{needed}{default} |"


def _kind(param: click.Parameter) -> str:
    if isinstance(param.type, click.Choice):
        return " or ".join(str(choice) for choice in param.type.choices)
    return {"integer": "N", "integer range": "N"}.get(param.type.name, param.type.name)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
