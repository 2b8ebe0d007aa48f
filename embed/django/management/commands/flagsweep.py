"""``manage.py flagsweep ...``: all of flagsweep's commands, on the site's own FlagSweep."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from .....commands.group import hosted
from ...discovery import discovered

OF_DJANGO = ("--settings", "--pythonpath")
"""Options that ``manage.py`` has heeded already, wherever they stand."""


class Command(BaseCommand):
    """Hand everything on to flagsweep's own command line."""

    help = "Work flags: init, run, sweep, status and more; 'manage.py flagsweep --help' lists them."
    requires_system_checks: Sequence[str] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run a command of the terminal."""
        _group()(args=list(_ours(argv[2:])), prog_name=f"{argv[0]} {argv[1]}")

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print flagsweep's own help."""
        _group()(args=["--help"], prog_name=f"{prog_name} {subcommand}", standalone_mode=False)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take everything, for ``call_command``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run a command of ``call_command("flagsweep", ...)``."""
        try:
            _group()(args=list(options["arguments"]), prog_name="manage.py flagsweep", standalone_mode=False)
        except Exception as error:
            raise CommandError(getattr(error, "message", None) or str(error)) from error


def _group() -> Any:
    return hosted(discovered, "this Django site")


def _ours(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is not Django's."""
    left = iter(arguments)
    for argument in left:
        if argument in OF_DJANGO:
            next(left, None)
        elif argument.partition("=")[0] not in OF_DJANGO:
            yield argument
