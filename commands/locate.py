"""Which site a command is for: what was said before it, or stands beside."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from ..logs import printable

if TYPE_CHECKING:  # The engine is entered once a command wants the site: the help does without.
    from ..app import FlagSweep

NO_APP = (
    "which FlagSweep? Say so with --app module:attribute or FLAGSWEEP_APP ('flags = FlagSweep(...)' in work.py is work:flags);"
    " none was found beside, in {};"
    " FLAGSWEEP_DATABASE alone is enough for all commands but run, sweep and raise"
)


class Given(NamedTuple):
    """What was said before the command."""

    app: str | None
    debug: bool

    def site(self) -> FlagSweep:
        """Return the site's FlagSweep, with its handlers; say where it was found, where nobody has said that."""
        from ..locate import BESIDE, beside, load
        from .failure import Misuse

        if self.app:
            return load(self.app)
        found = beside()
        if found is None:
            raise Misuse(NO_APP.format(f"{', '.join(BESIDE[:-1])} or {BESIDE[-1]}"))
        click.echo(f"flagsweep: found in {printable(found.file)}, as with --app {printable(found.app)}", err=True)
        return found.flags

    def located(self) -> str:
        """Return how the site's FlagSweep is named, wherever it was found."""
        from ..locate import beside

        found = None if self.app else beside()
        return found.app if found else self.app or ""

    def any_site(self) -> FlagSweep:
        """Return the site's FlagSweep, or one that knows no handlers where only the environment names the database."""
        if not self.app and ("FLAGSWEEP_DATABASE" in os.environ or "FLAGSWEEP_CONFIG" in os.environ):
            from ..app import FlagSweep

            return FlagSweep.from_env()
        return self.site()

    def as_called(self, text: str) -> str:
        """Return a text as it is: the commands that it names are called as it names them."""
        return text


class Hosted(NamedTuple):
    """Be what was said before the command where a host's own command line has found the site already.

    :param find: returns its FlagSweep.
    :param app: where that stands, for people.
    :param path: how the group is called there.
    """

    find: Callable[[], FlagSweep]
    app: str
    debug: bool = False
    path: str = "flagsweep"

    def as_called(self, text: str) -> str:
        """Return a text with the commands that it names as they are called here, such as ``flask flagsweep init``."""
        return text.replace("'flagsweep ", f"'{self.path} ")

    def site(self) -> FlagSweep:
        """Return the site's FlagSweep, with its handlers."""
        return self.find()

    def any_site(self) -> FlagSweep:
        """Return the same."""
        return self.find()
