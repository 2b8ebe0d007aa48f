"""All commands as one group: of the command ``flagsweep``, and of a host's own command line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..logs import printable
from .locate import Hosted
from .terminal import color_wanted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..app import FlagSweep

ABOUT = "Look after work flags: durable rows that say work is owed."
HOW = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks, and log more.")


class Known(Mapping[str, click.Command]):
    """Have every command by its name. One is imported once it is asked for, none by being listed."""

    def __getitem__(self, name: str) -> click.Command:
        return command_of(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Group(click.Group):
    """Name the nearest commands where one is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = " or ".join(map(repr, get_close_matches(name, list(self.commands), 3, 0.6)))
            told = f": did you mean {near}?" if near else "; -h lists those there are"
            raise click.UsageError(f"there is no command {printable(name)!r}{told}", ctx)
        return super().resolve_command(ctx, args)


class Commands(Group):
    """Have every command, in the order of this file, and turn every error into one line.

    They are imported once one is asked for: the help, and a site that only offers them, do without.
    """

    @property
    def commands(self) -> Any:
        """All of them, by name."""
        return Known()

    @commands.setter
    def commands(self, given: Any) -> None:
        """Keep to those of this file."""

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = command_of(cmd_name)
        if ctx.resilient_parsing:  # A shell asks what may follow.
            from .names import complete_names

            complete_names(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        widest = max(map(len, COMMANDS))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(widest), about) for name, (_, about) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands, and the options of the group: no command is entered for that."""
        from click.shell_completion import CompletionItem

        told = ((name, about) for commands in SECTIONS.values() for name, (_, about) in commands.items())
        found = [CompletionItem(name, help=about) for name, about in told if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.color = color_wanted(os.environ)
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            from .failure import as_failure

            if ctx.params["debug"]:
                click.echo("\n".join(map(printable, traceback.format_exc().splitlines())), err=True)
            raise as_failure(error, ctx.obj.as_called if isinstance(ctx.obj, Hosted) else str) from None


SECTIONS = {
    "Look at it": {
        "status": ("status.status", "Show what is up in each lane, and who sweeps."),
        "top": ("top.top", "Watch lanes and kinds, what runs, and what is wrong; pause and retry by a key."),
        "kinds": ("kinds.kinds", "Show of each kind what is due, how much is done, how well, and how long it takes."),
        "list": ("listing.list_flags", "List flags, without their payloads."),
        "show": ("listing.show", "Show one flag with its payload and its error."),
        "dead": ("dead.dead", "Show dead flags by what they died of; retry or discard many of them."),
        "why": ("why.why", "Say why something does not run, since when, when it will, and what would change that."),
        "history": ("history.history", "Show what happened to flags, newest first."),
        "gates": ("gates.gates", "Show what is closed or limited just now, and why."),
        "check": ("check.check", "Say in one line whether all is well, for monitoring."),
        "digest": ("digest.digest", "Tell on one page how the site is, what died and failed lately, and what mends it."),
        "doctor": ("status.doctor", "Check the database and what it stands on."),
        "reconcile": ("reconcile.reconcile", "Look for rows and flags that do not fit together, and mend that."),
    },
    "Act": {
        "raise": ("raising.raise_flag", "Raise a flag of KIND."),
        "retry": ("changing.retry", "Let dead flags wait again from scratch."),
        "discard": ("changing.discard", "Drop dead flags for good, with a line of history for each."),
        "lower": ("changing.lower", "Take one flag down, whatever its state."),
        "prune": ("prune.prune", "Delete history and counts that are older than they are kept."),
        "pause": ("gates.pause", "Have no flag of KIND start, or of a lane, or at all."),
        "resume": ("gates.resume", "Let go on what was paused by that name."),
        "confirm": ("restored.confirm", "Have a database go on that was restored or copied, and is paused for it."),
        "lane": ("gates.lane", "Give a lane more threads, or fewer, while its consumer runs."),
    },
    "Schedules": {
        "schedule": ("schedules.schedule", "Look after schedules, which raise flags at their times."),
    },
    "Move": {
        "export": ("moving.export", "Write flags, schedules, gates and history as lines of JSON."),
        "import": ("moving.import_file", "Read what export wrote from FILE, or from the standard input (-)."),
        "move": ("moving.move", "Move flags, schedules, gates and history to another database."),
    },
    "Run": {
        "init": ("setup.init", "Create the tables, or upgrade them."),
        "run": ("running.run", "Be the consumer: sweep until SIGTERM or Ctrl-C."),
        "sweep": ("running.sweep", "Do what is due and exit: for cron, or beside a running consumer."),
        "drain": ("drain.drain", "Have nothing start any more, and wait until nothing runs."),
        "deploy": ("deploy.deploy", "Print the files that have systemd, supervisor, docker or compose keep the consumer."),
        "completion": ("completion.completion", "Print what has a shell complete commands, options, and names of the site."),
    },
}
"""By what they are for, in the order in which they are listed: where each command is, and the first sentence of its help."""

COMMANDS = {name: place for commands in SECTIONS.values() for name, (place, _) in commands.items()}
"""Where each command is."""


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
