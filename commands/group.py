"""All commands as one group: of the command ``flagsweep``, and of a host's own command line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..logs import printable
from .locate import Hosted

if TYPE_CHECKING:
    from ..app import FlagSweep

ABOUT = "Look after work flags: durable rows that say work is owed."
HOW = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks, and log more.")


class Commands(click.Group):
    """Have every command, in the order of this file, and turn every error into one line.

    They are imported once one is asked for: a site that only offers them starts without.
    """

    @property
    def commands(self) -> Any:
        """All of them, by name."""
        return {name: command_of(name) for name in COMMANDS}

    @commands.setter
    def commands(self, given: Any) -> None:
        """Keep to those of this file."""

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return command_of(cmd_name) if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            from .failure import as_failure

            if ctx.params["debug"]:
                click.echo("\n".join(map(printable, traceback.format_exc().splitlines())), err=True)
            raise as_failure(error, ctx.obj.as_called if isinstance(ctx.obj, Hosted) else str) from None


COMMANDS = {
    "init": "setup.init",
    "run": "running.run",
    "sweep": "running.sweep",
    "status": "status.status",
    "kinds": "kinds.kinds",
    "list": "listing.list_flags",
    "show": "listing.show",
    "raise": "raising.raise_flag",
    "retry": "changing.retry",
    "discard": "changing.discard",
    "lower": "changing.lower",
    "schedule": "schedules.schedule",
    "pause": "gates.pause",
    "resume": "gates.resume",
    "gates": "gates.gates",
    "lane": "gates.lane",
    "doctor": "status.doctor",
}
"""Where each command is, in the order in which they are listed."""


def command_of(name: str) -> click.Command:
    """Return a command. Its module is entered for it alone."""
    module, _, attribute = COMMANDS[name].partition(".")
    found: click.Command = getattr(import_module(f".{module}", __package__), attribute)
    return found


def hosted(find: Callable[[], FlagSweep], app: str) -> click.Group:
    """Return all commands as a group for a host's own command line, which knows the site already.

    :param find: returns the site's FlagSweep; called once a command needs it.
    :param app: where that stands, for people, such as ``the Flask application``.
    """

    @click.group("flagsweep", cls=Commands, context_settings=HOW, help=ABOUT)
    @DEBUG
    @click.pass_context
    def group(ctx: click.Context, debug: bool) -> None:
        ctx.obj = Hosted(find, app, debug, ctx.command_path)

    return group
