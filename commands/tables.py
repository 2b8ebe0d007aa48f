"""Print tables, fitted to a terminal, and JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from ..logs import printable
from .terminal import color_wanted

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: Any) -> None:
    """Print JSON in ASCII, so that nothing in it steers a terminal."""
    click.echo(json.dumps(value, indent=2, default=str))


def line_width() -> int:
    """Return how many columns a line may have: as many as the terminal, elsewhere any number."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000_000


def console(**options: Any) -> Console:
    """Return rich's console, with colours where the environment wants them."""
    from rich.console import Console

    return Console(no_color=color_wanted(os.environ) is False or None, highlight=False, **options)


class Column(NamedTuple):
    """A column of a table.

    :param right: numbers stand to the right.
    :param elastic: cut to what room there is, on a terminal.
    """

    title: str
    right: bool = False
    elastic: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn and fitted on a terminal, aligned and whole elsewhere."""
    cells = [[printable(cell) for cell in row] for row in rows]
    (_print_drawn if sys.stdout.isatty() else _print_aligned)(columns, cells)


def _print_drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    screen = console()
    tight = _width_of_all(columns, rows) > screen.width
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 0 if tight else 1, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        title = column.title.replace(" ", "\n", 1) if tight else column.title
        table.add_column(title, justify=justify, no_wrap=not column.elastic)
    for row in rows:
        # Rich takes room only from columns that may wrap; the text itself then does not wrap, and is cut.
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    screen.print(table)


def _width_of_all(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns of a terminal a drawn table takes where nothing is cut."""
    return sum(_widths([[column.title for column in columns], *rows])) + 2 * len(columns)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width_of, cells)) for cells in zip(*lines, strict=True)]


def _print_aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.title for column in columns], *rows]
    widths = [min(40, width) for width in _widths(lines)]
    for line in lines:
        padded = (_pad(cell, width, column.right) for cell, width, column in zip(line, widths, columns, strict=True))
        click.echo("  ".join(padded).rstrip())


def _pad(cell: str, width: int, right: bool) -> str:
    room = " " * (width - width_of(cell))
    return room + cell if right else cell + room


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese, Japanese and Korean letters take two."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
