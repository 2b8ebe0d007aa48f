"""Write the log to stderr, a line each, whatever the site does with its own logging."""

from __future__ import annotations

import logging
import sys
import traceback

import click

from ..logs import EVENT, JsonLines, printable
from ..modules import described


def log_to_stderr(level: int, debug: bool, huey: int = logging.WARNING, form: str = "text") -> None:
    """Have flagsweep's log, and Huey's warnings, written to stderr, whatever the site's own logging does, now or later.

    :param huey: from which level on Huey's are.
    :param form: ``text``, or ``json``: a line of JSON for each line of text, and for each event besides.

    A site that has a handler of its own for ``flagsweep`` which writes to the terminal keeps that one instead.
    """
    as_json = form == "json"
    handler = _JsonStderr() if as_json else _Stderr()
    handler.setFormatter(JsonLines() if as_json else OneLine(debug))
    events = logging.getLogger("flagsweep.events")
    events.__class__ = _Kept
    events.setLevel(EVENT if as_json else logging.NOTSET)
    for name, least in (("flagsweep", level), ("huey", huey)):
        logger = logging.getLogger(name)
        logger.__class__ = _Kept
        logger.handlers = [each for each in logger.handlers if not isinstance(each, _Stderr)]
        if as_json:  # Asked for by name: a text of the site's own in between would be no JSON.
            logger.handlers = [each for each in logger.handlers if not _is_terminal(each)]
        elif any(map(_is_terminal, logger.handlers)):
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
            if self._shows(record):
                click.echo(self.format(record), err=True)
        except Exception:
            self.handleError(record)
        for handler in logging.getLogger().handlers if record.levelno > EVENT else ():
            if record.levelno >= handler.level and not _is_terminal(handler):
                handler.handle(record)

    def _shows(self, record: logging.LogRecord) -> bool:
        return True


class _JsonStderr(_Stderr):
    """Write events, and lines of text of which no event tells."""

    def _shows(self, record: logging.LogRecord) -> bool:
        return not getattr(record, "as_event", False)


class _Kept(logging.Logger):
    """A logger that no ``logging.config`` disables: its default is to silence every logger that exists already."""

    disabled = property(lambda self: False, lambda self, value: None)


def _is_terminal(handler: logging.Handler) -> bool:
    """Return whether a handler writes to stdout or stderr."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    return stream is not None and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
