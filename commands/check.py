"""Ask whether all is well: ``check``, for monitoring."""

from __future__ import annotations

from typing import Any

import click

from ..config import seconds
from ..errors import ConfigError
from .locate import Given
from .options import AS_JSON
from .tables import print_json

UNKNOWN = 3
"""The exit code of what could not be asked, as monitoring expects it: 2 would mean that something is wrong with the site."""


class _Duration(click.ParamType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(value, "it")
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class _Misused(click.UsageError):
    exit_code = UNKNOWN


class _Check(click.Command):
    """Have every trouble end with the code for unknown: what is misspelt in a monitoring's configuration is no outage."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)
        except click.UsageError as error:
            raise _Misused(error.format_message(), error.ctx) from None


@click.command(cls=_Check)
@click.option("--dead-since", type=_Duration(), default="24h", help="Warn of flags that died within this time; 0: of none.")
@click.option("--no-consumer", is_flag=True, help="Nobody need sweep just now: cron or the site does, now and then.")
@AS_JSON
@click.pass_context
def check(ctx: click.Context, dead_since: float, no_consumer: bool, as_json: bool) -> None:
    """Say in one line whether all is well, for monitoring.

    Exit codes are those of Nagios: 0 fine, 1 warning, 2 critical, 3 unknown: it could not be asked.

    \b
    flagsweep check
    flagsweep check --dead-since 1h --json
    """
    given: Given = ctx.obj
    try:
        health = given.any_site().check(dead_since, not no_consumer)
    except Exception as error:
        from ..operations.health import unknown
        from .failure import as_failure

        health = unknown(as_failure(error, given.as_called).message)
    if as_json:
        print_json(health.to_dict())
    else:
        click.echo(given.as_called(health.line))
    ctx.exit(health.code)
