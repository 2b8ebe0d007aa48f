"""The command ``flagsweep``: its group. Each family of commands is a module in ``commands/``."""

from __future__ import annotations

import click

from .commands.group import ABOUT, DEBUG, HOW, Commands, hosted
from .commands.locate import Given
from .commands.terminal import open_standard_streams, spell_out_what_cannot_be_shown

__all__ = ["cli", "hosted", "main"]


def main() -> None:
    """Be the command ``flagsweep``."""
    open_standard_streams()
    spell_out_what_cannot_be_shown()
    cli(prog_name="flagsweep")


APP = "The site's FlagSweep; also FLAGSWEEP_APP. Left out: that of work.py, app.py, main.py or manage.py, in this folder."


@click.group(cls=Commands, context_settings=HOW, help=ABOUT)
@click.option("--app", envvar="FLAGSWEEP_APP", metavar="MODULE[:ATTRIBUTE]", help=APP)
@DEBUG
@click.pass_context
def cli(ctx: click.Context, app: str | None, debug: bool) -> None:
    """Find the site, and leave the rest to a command."""
    ctx.obj = Given(app, debug)
