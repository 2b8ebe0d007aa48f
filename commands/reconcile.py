"""See what does not fit together, and mend it: ``reconcile``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..logs import printable
from ..operations.reconcile import Discrepancy
from .changing import ask
from .locate import Given
from .options import AS_JSON, YES
from .tables import print_json


@click.command()
@click.option("--fix", is_flag=True, help="Mend what a sweep would: raise, release, drop with a line of history.")
@YES
@AS_JSON
@click.pass_context
def reconcile(ctx: click.Context, fix: bool, yes: bool, as_json: bool) -> None:
    """Look for rows and flags that do not fit together, and mend that.

    Rows that are work and have no flag, flags whose own row is gone, claims of nobody; kinds that no handler takes, and schedules
    that cannot fire, which take a person.

    The exit code is 1 where something is left that does not fit.

    \b
    flagsweep reconcile
    flagsweep reconcile --fix --yes
    """
    given: Given = ctx.obj
    flags = given.any_site()
    found = flags.reconcile()
    mends = [each for each in found if each.what in MENDS]
    if fix and mends:
        if not as_json:
            click.echo("\n".join(line for each in found for line in _lines(each)))
        ask("Mend what can be mended?", yes)
        found = flags.reconcile(fix=True)
    if as_json:
        print_json([each.to_dict() for each in found])
    elif fix or not found:
        click.echo("\n".join(line for each in found for line in _mended(each)) or "all fits together")
    else:
        click.echo("\n".join(line for each in found for line in _lines(each)))
    if not flags.handlers and not as_json:
        click.echo("without --app the rows of the site's own tables, and kinds without a handler, cannot be looked at", err=True)
    ctx.exit(any(each.left for each in found))


MENDS = ("claims", "holds", "rows", "gone")
"""What is mended without a decision of a person's."""


def _lines(each: Discrepancy) -> Iterator[str]:
    examples = f" ({', '.join(each.examples)}{', ...' if each.count > len(each.examples) else ''})" if each.examples else ""
    yield printable(f"{each.text}{examples}")
    how = "--fix: " if each.what in MENDS else ""
    yield printable(f"  -> {how}{each.fix}")


def _mended(each: Discrepancy) -> Iterator[str]:
    if each.what not in MENDS:
        yield from _lines(each)
    elif each.left:
        yield printable(f"{each.text}: {each.mended} mended, {each.left} left")
    else:
        yield printable(f"{each.text}: mended")
