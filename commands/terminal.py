"""What reaches a terminal: text that cannot steer it, tables, JSON, the log and the progress bar."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import click


def open_standard_streams() -> None:
    """Let stdin, stdout and stderr be /dev/null where they are closed, as a daemon or cron may leave them.

    Otherwise the next file that is opened, a database or a lease, gets the number of one of them, and what is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, errors="backslashreplace"))  # noqa: SIM115


def clean(text: str) -> str:
    """Return text in which nothing steers a terminal: control characters, C1 and bidirectional ones too, are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def described(error: BaseException) -> str:
    """Return type and text of an error, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "(without a text)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def span(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    for unit, size in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def print_json(value: Any) -> None:
    """Print JSON in ASCII, so that nothing in it steers a terminal."""
    click.echo(json.dumps(value, indent=2, default=str))


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
    cells = [[clean(cell) for cell in row] for row in rows]
    (_print_drawn if sys.stdout.isatty() else _print_aligned)(columns, cells)


def _print_drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, no_wrap=not column.elastic)
    for row in rows:
        # Rich takes room only from columns that may wrap; the text itself then does not wrap, and is cut.
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    Console().print(table)


def _print_aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.title for column in columns], *rows]
    widths = [min(40, max(_width(line[index]) for line in lines)) for index in range(len(columns))]
    for line in lines:
        padded = (_pad(cell, width, column.right) for cell, width, column in zip(line, widths, columns, strict=True))
        click.echo("  ".join(padded).rstrip())


def _pad(cell: str, width: int, right: bool) -> str:
    room = " " * (width - _width(cell))
    return room + cell if right else cell + room


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese, Japanese and Korean letters take two."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr for as long as something takes; give what is to be called with how many are done, and a remark."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, remark="": bar.update(task, completed=done, total=max(total, done), description=remark)


@contextmanager
def sweep_bar(due: int) -> Iterator[Callable[[Counter[str]], None]]:
    """Show a bar for as long as a sweep takes; give what is to be called with its counts."""
    with progress_bar("sweeping", due) as bar:

        def report(counts: Counter[str]) -> None:
            failed = counts["again"] + counts["dead"]
            bar(counts.total(), f"{failed} failed" if failed else "")

        yield report


class OneLine(logging.Formatter):
    """Write a record as one line, whatever a site's data holds; a traceback follows only where it was asked for."""

    def __init__(self, debug: bool):
        super().__init__()
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        name = "" if record.name == "flagsweep" else f"{record.name}: "
        line = f"{self.formatTime(record)} {record.levelname} {name}{record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return clean(line)
        line = clean(f"{line}: {described(error)}")
        return "\n".join([line, *map(clean, self._trace(error))])

    def _trace(self, error: BaseException) -> list[str]:
        return "".join(traceback.format_exception(error)).splitlines() if self._debug else []


class _Stderr(logging.Handler):
    """Write to whatever stderr is at that moment: the progress bar puts itself in its place, and keeps out of the way.

    What the root logger writes into files, or sends away, it gets, too; what it writes to the terminal would come twice.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            click.echo(self.format(record), err=True)
        except Exception:
            self.handleError(record)
        for handler in logging.getLogger().handlers:
            if record.levelno >= handler.level and not _is_terminal(handler):
                handler.handle(record)


class _Kept(logging.Logger):
    """A logger that no ``logging.config`` disables: its default is to silence every logger that exists already."""

    disabled = property(lambda self: False, lambda self, value: None)


def log_to_stderr(level: int, debug: bool) -> None:
    """Have flagsweep's log, and Huey's warnings, written to stderr, whatever the site's own logging does, now or later.

    A site that has a handler of its own for ``flagsweep`` which writes to the terminal keeps that one instead.
    """
    handler = _Stderr()
    handler.setFormatter(OneLine(debug))
    for name, least in (("flagsweep", level), ("huey", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.__class__ = _Kept
        logger.handlers = [each for each in logger.handlers if not isinstance(each, _Stderr)]
        if any(map(_is_terminal, logger.handlers)):
            continue
        logger.setLevel(least)
        logger.addHandler(handler)
        logger.propagate = False


def _is_terminal(handler: logging.Handler) -> bool:
    """Return whether a handler writes to stdout or stderr."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    return stream is not None and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
