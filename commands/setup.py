"""What a site does first: ``init``."""

from __future__ import annotations

from contextlib import suppress

import click

from ..databases.schema import SCHEMA, script, version
from ..logs import printable
from ..models import AWAY
from .locate import Given


@click.command()
@click.option("--sql", is_flag=True, help="Print the SQL that makes them in an empty database, and leave the database alone.")
@click.pass_obj
def init(given: Given, sql: bool) -> None:
    """Create the tables, or upgrade them. Doing it again does no harm.

    \b
    flagsweep init
    flagsweep init --sql | psql site
    """
    flags = given.any_site()
    if sql:
        for statement in script(flags.connections.dialect):
            click.echo(f"{statement};")
        return
    before = None
    with suppress(*AWAY):  # What is wrong, init says.
        before = version(flags.connections.engine)
    made = flags.init()
    done = f"tables upgraded from version {before} to {SCHEMA}" if before else "tables created"
    click.echo(printable(f"{flags.connections.where}: {done if made else 'the tables are there already'}"))
