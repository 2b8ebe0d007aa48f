"""Raise a flag by hand: ``raise``."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

import click

from ..config import seconds
from ..errors import ConfigError
from ..modules import described
from .failure import Misuse
from .locate import Given
from .options import AS_JSON
from .tables import print_json

AS_ARGUMENTS = """write them as '{"user_id": 17}' or '[17]'"""


@click.command("raise")
@click.argument("kind")
@click.argument("arguments", metavar="[JSON]", default="{}")
@click.option("--delay", help="How long to wait before it is due, such as 90, 5m or 1h30m.")
@click.option("--at", metavar="ISO", help="When it is due, such as 2030-01-31T09:00; local time unless it says otherwise.")
@click.option("--key", help="What makes the flag this flag, instead of its arguments.")
@click.option("--priority", type=int, help="-100 to 100, the higher the sooner.")
@AS_JSON
@click.pass_obj
def raise_flag(given: Given, kind: str, arguments: str, at: str | None, as_json: bool, **options: Any) -> None:
    """Raise a flag of KIND.

    JSON holds the handler's arguments: an object with their names, '{"user_id": 17}', or an array, '[17]'; - reads it from stdin.

    \b
    flagsweep raise send_mail '{"user_id": 17}'
    flagsweep raise send_mail '[17]' --delay 5m
    """
    if at is not None and options["delay"] is not None:
        raise click.UsageError("give --delay or --at, not both")
    site = given.site()
    handler = site.handler_of(kind)
    args, kwargs = read_arguments(arguments)
    # Never over the site's own connection, which nobody would commit here.
    raised = handler.using(at=parse_time(at, "--at"), connection=site.database, **options).raise_flag(*args, **kwargs)
    if as_json:
        print_json(raised._asdict())
    else:
        click.echo(f"flag {raised.id}: {raised.how}")


def read_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments that JSON text holds, or stdin where it is a dash."""
    try:
        values = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"the arguments are not JSON: {described(error)}; {AS_ARGUMENTS}") from error
    if not isinstance(values, (dict, list)):
        raise Misuse(f"the arguments must be a JSON object or array, got {values!r:.80}; {AS_ARGUMENTS}")
    return ([], values) if isinstance(values, dict) else (values, {})


def parse_time(text: str | None, option: str) -> datetime | None:
    """Return the time that ISO 8601 text names, local where it names no zone.

    :param option: the one that it was given with.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone()
    except (ValueError, OverflowError) as error:
        raise Misuse(f"{option} must be a time such as 2030-01-31T09:00 or 2030-01-31T09:00:00+01:00, got {text!r}") from error


def parse_end(text: str | None, option: str = "--until", how: str = "from now") -> float | datetime | None:
    """Return what ``--until`` says: how long from now, in seconds, or the time that ISO 8601 text names.

    :param option: the one that it was given with.
    :param how: ``from now``, or ``ago`` where it is of the past.
    """
    try:
        return None if text is None else seconds(text)
    except ConfigError:
        pass
    try:
        return parse_time(text, option)
    except Misuse as error:
        wanted = f"how long {how}, such as 2h, or a time such as 2030-01-31T09:00"
        raise Misuse(f"{option} must be {wanted}, got {text!r}") from error
