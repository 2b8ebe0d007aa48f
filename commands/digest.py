"""Tell how the site is on one page, and mail it: ``digest``."""

from __future__ import annotations

import click

from .locate import Given
from .options import AS_JSON
from .tables import print_json


@click.command()
@click.option("--to", metavar="ADDRESS", help="Mail it there, by the settings smtp and mail_from; without it, it is printed.")
@click.option("--since", metavar="TIME", help="How far it looks back; by default to the last one sent there, or 24h.")
@AS_JSON
@click.pass_obj
def digest(given: Given, to: str | None, since: str | None, as_json: bool) -> None:
    """Tell on one page how the site is, what died and failed lately, and what mends it.

    \b
    flagsweep digest
    flagsweep digest --to owner@example.org
    """
    flags = given.any_site()
    made = flags.digest(since, to or "")
    if to:
        flags.send_digest(to, made)
    if as_json:
        print_json({**made.to_dict(), "to": to})
    elif to:
        click.echo(given.as_called(f"sent to {to}: {made.subject}"))
    else:
        click.echo(given.as_called(f"Subject: {made.subject}\n\n{made.text()}"), nl=False)
