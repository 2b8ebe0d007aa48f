"""The command ``flagsweep``: its group. Each family of commands is a module in ``commands/``."""

from __future__ import annotations

import traceback
from typing import Any

import click

from .commands import changing, gates, kinds, listing, raising, running, schedules, setup, status
from .commands.failure import as_failure
from .commands.locate import Given
from .commands.terminal import open_standard_streams, spell_out_what_cannot_be_shown
from .logs import printable


def main() -> None:
    """Be the command ``flagsweep``."""
    open_standard_streams()
    spell_out_what_cannot_be_shown()
    cli(prog_name="flagsweep")


class Commands(click.Group):
    """Keep the commands in the order of this file, and turn every error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params["debug"]:
                click.echo("\n".join(map(printable, traceback.format_exc().splitlines())), err=True)
            raise as_failure(error) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--app", envvar="FLAGSWEEP_APP", metavar="MODULE:ATTRIBUTE", help="The site's FlagSweep; also FLAGSWEEP_APP.")
@click.option("--debug", is_flag=True, help="Show tracebacks, and log more.")
@click.pass_context
def cli(ctx: click.Context, app: str | None, debug: bool) -> None:
    """Look after work flags: durable rows that say work is owed."""
    ctx.obj = Given(app, debug)


for _command in (
    setup.init,
    running.run,
    running.sweep,
    status.status,
    kinds.kinds,
    listing.list_flags,
    listing.show,
    raising.raise_flag,
    changing.retry,
    changing.discard,
    changing.lower,
    schedules.schedule,
    gates.pause,
    gates.resume,
    gates.gates,
    gates.lane,
    status.doctor,
):
    cli.add_command(_command)
