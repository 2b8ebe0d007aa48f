"""Write the log to stderr, a line each, whatever the site does with its own logging."""

from __future__ import annotations

import logging
import sys
import traceback

import click

from ..logs import printable
from ..modules import described


def log_to_stderr(level: int, debug: bool, huey: int = logging.WARNING) -> None:
    """Have flagsweep's log, and Huey's warnings, written to stderr, whatever the site's own logging does, now or later.

    :param huey: from which level on Huey's are.

    A site that has a handler of its own for ``flagsweep`` which writes to the terminal keeps that one instead.
    """
    handler = _Stderr()
    handler.setFormatter(OneLine(debug))
    for name, least in (("flagsweep", level), ("huey", huey)):
        logger = logging.getLogger(name)
        logger.__class__ = _Kept
        logger.handlers = [each for each in logger.handlers if not isinstance(each, _Stderr)]
        if any(map(_is_terminal, logger.handlers)):
            continue
        logger.setLevel(least)
        logger.addHandler(handler)
        logger.propagate = False


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
            return printable(line)
        line = printable(f"{line}: {described(error)}")
        return "\n".join([line, *map(printable, self._trace(error))])

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


def _is_terminal(handler: logging.Handler) -> bool:
    """Return whether a handler writes to stdout or stderr."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    return stream is not None and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
