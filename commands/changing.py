"""Decide about flags: ``retry``, ``discard`` and ``lower``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import click

from ..app import FlagSweep
from ..logs import printable
from ..operations.info import FlagInfo
from .failure import Failure
from .locate import Given
from .options import ALL, IDS, KIND, YES
from .stopping import to_many
from .words import plural


@click.command()
@IDS
@KIND
@ALL
@YES
@click.pass_obj
def retry(given: Given, ids: tuple[int, ...], kind: str | None, everything: bool, yes: bool) -> None:
    """Let dead flags wait again from scratch.

    Flags that wait for another attempt after a failure are due at once.

    \b
    flagsweep retry 17 18
    flagsweep retry --kind send_mail
    """
    _check_choice(ids, kind, everything)
    flags = given.any_site()
    if not ids:
        ask(f"{_dead(flags, kind)} Retry all, and have what backs off be due now?", yes)
    before = flags.find(id=ids, limit=None) if ids else []
    count = to_many("retried", len(ids) or _dead_count(flags, kind), partial(flags.retry, id=ids or None, kind=kind))
    click.echo(f"retried {plural(count, 'flag')}")
    _name_missed(ids, before, _may_retry, {"waiting": "waits, and has not failed", "claimed": "runs just now"})


@click.command()
@IDS
@KIND
@ALL
@click.option("--reason", default="", help="Kept in the history.")
@YES
@click.pass_obj
def discard(given: Given, ids: tuple[int, ...], kind: str | None, everything: bool, reason: str, yes: bool) -> None:
    """Drop dead flags for good, with a line of history for each.

    \b
    flagsweep discard 17 --reason "left the club"
    flagsweep discard --kind send_mail --yes
    """
    _check_choice(ids, kind, everything)
    flags = given.any_site()
    if not ids:
        ask(f"{_dead(flags, kind)} Discard all?", yes)
    before = flags.find(id=ids, limit=None) if ids else []
    act = partial(flags.discard, id=ids or None, kind=kind, reason=reason)
    count = to_many("discarded", len(ids) or _dead_count(flags, kind), act)
    click.echo(f"discarded {plural(count, 'flag')}")
    if count:
        warn_of_own_rows(flags)
    _name_missed(ids, before, _may_discard, {"waiting": "waits, it is not dead", "claimed": "runs, it is not dead"})


def _check_choice(ids: Sequence[int], kind: str | None, everything: bool) -> None:
    """Refuse to guess which flags are meant."""
    if ids and (kind is not None or everything):
        raise click.UsageError("name flags by id, or give --kind or --all, not both")
    if not (ids or kind is not None or everything):
        raise click.UsageError("which flags? Name them by id, or give --kind KIND or --all")


def _dead_count(flags: FlagSweep, kind: str | None) -> int:
    """Return how many flags are dead."""
    counts = flags.verbs.counts(flags.clock.now(), None)
    return sum(many for its_kind, state, many, _, _ in counts if state == "dead" and kind in (None, its_kind))


def _dead(flags: FlagSweep, kind: str | None) -> str:
    """Return how many flags are dead, as a sentence."""
    count = _dead_count(flags, kind)
    return f"{plural(count, 'flag')}{'' if kind is None else f' of kind {kind}'} {'is' if count == 1 else 'are'} dead."


def ask(question: str, yes: bool) -> None:
    """Go on only when the answer is yes."""
    try:
        agreed = yes or click.confirm(printable(question), err=True)
    except click.Abort:
        agreed = False
    if not (yes or sys.stdin.isatty()):
        click.echo(err=True)  # An answer from a pipe ends no line.
    if not agreed:
        raise Failure("nothing was changed; --yes answers in advance")


def _may_retry(flag: FlagInfo) -> bool:
    """Return whether there is anything to retry."""
    return flag.state == "dead" or (flag.state == "waiting" and flag.attempts > 0)


def _may_discard(flag: FlagInfo) -> bool:
    """Return whether nobody else decides about this flag any more."""
    return flag.state == "dead"


def _name_missed(
    ids: Sequence[int], before: Sequence[FlagInfo], may: Callable[[FlagInfo], bool], why_not: Mapping[str, str]
) -> None:
    """Fail where a flag that was named could not be acted on, saying why; the others are done."""
    known = {flag.id: flag for flag in before}
    missed = [f"there is no flag {id}" for id in ids if id not in known]
    missed += [f"flag {flag.id} {why_not[flag.state]}" for flag in before if not may(flag)]
    if missed:
        raise Failure("; ".join(missed))


@click.command()
@click.argument("kind")
@click.argument("key")
@click.option("--yes", is_flag=True, help="For scripts that always give it: a flag that is named is not asked about.")
@click.pass_obj
def lower(given: Given, kind: str, key: str, yes: bool) -> None:
    """Take one flag down, whatever its state. A handler that runs just now is not stopped.

    \b
    flagsweep lower send_mail '{"user_id":17}'
    """
    flags = given.any_site()
    if not flags.lower(kind, key):
        raise Failure(f"no flag of kind {kind!r} with the key {key!r} is up; 'flagsweep list --kind {kind}' shows those that are")
    click.echo("lowered")
    warn_of_own_rows(flags)


def warn_of_own_rows(flags: FlagSweep) -> None:
    """Say what cannot be done without the site's handlers."""
    if not flags.handlers:
        click.echo(
            "without --app no column of the site's own rows comes down: a flag that stands for such a row comes back", err=True
        )
