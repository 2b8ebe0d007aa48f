"""Turn errors into one readable line, and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from peewee import PeeweeException

from ..errors import ConfigError, FlagSweepError, PayloadError, UnknownKind
from ..logs import printable
from ..modules import described
from .tables import width_of


class Failure(click.ClickException):
    """End the command with one readable line: what was asked for failed."""

    def show(self, file: Any = None) -> None:
        click.echo(f"flagsweep: {printable(self.message)}", err=True)


class Misuse(Failure):
    """End the command with one readable line: it cannot be meant as it was given."""

    exit_code = 2


class Misspelt(Misuse):
    """End the command with a line that says what is wrong, and the text that was given with a caret below the mistake.

    :param position: the column of the mistake, counted from 0.
    """

    def __init__(self, message: str, text: str, position: int):
        super().__init__(message)
        self._text = text
        self._position = position

    def show(self, file: Any = None) -> None:
        super().show(file)
        before = width_of(printable(self._text[: self._position]))
        click.echo(f"    {printable(self._text)}\n    {' ' * before}^", err=True)


def as_failure(error: BaseException, as_called: Callable[[str], str] = str) -> click.ClickException:
    """Return what to say about an error, and the exit code that goes with it.

    :param as_called: returns a text with the commands that it names as the site calls them.
    """
    failure = _as_failure(error)
    return type(failure)(as_called(failure.message)) if type(failure) in (Failure, Misuse) else failure


def _as_failure(error: BaseException) -> click.ClickException:
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
