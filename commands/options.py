"""The options and arguments that several commands take."""

from __future__ import annotations

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class FlagId(click.IntRange):
    """A flag's id. The name is what click's errors call it."""

    name = "flag id"


ID = FlagId(1, 2**63 - 1)
IDS = click.argument("ids", nargs=-1, type=ID)
KIND = click.option("--kind", help="All of this kind.")
ALL = click.option("--all", "everything", is_flag=True, help="All there are.")
YES = click.option("--yes", is_flag=True, help="Do not ask before acting on all.")
