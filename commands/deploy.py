"""Have a supervisor keep the consumer: ``deploy``."""

from __future__ import annotations

import getpass
import math
import os
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..logs import printable
from .deploy_files import TARGETS, Deployed
from .failure import Failure, Misuse
from .locate import Given, Hosted

if TYPE_CHECKING:
    from ..app import FlagSweep

MARGIN = 10
"""Seconds that a consumer gets beyond ``shutdown_timeout``, to write down what has ended, and to give the rest back."""

OF_THE_SITE = ("FLASK_APP", "DJANGO_SETTINGS_MODULE", "FLAGSWEEP_")
"""What the names of variables begin with that a consumer needs where this command needed them."""

SECRETS = re.compile("key|secret|token|password|dsn|ping", re.IGNORECASE)
"""What the names of variables hold of which nothing is shown."""


@click.command()
@click.argument("target", type=click.Choice(tuple(TARGETS)))
@click.option(
    "--out", metavar="FOLDER", type=click.Path(file_okay=False), help="Write all files there instead of printing the first."
)
@click.option("--name", default="flagsweep", show_default=True, help="What the service is called.")
@click.option("--user", help="Whose it is. By default whose the database or the folder is.")
@click.option("--yes", is_flag=True, help="Write over what is there.")
@click.pass_obj
def deploy(given: Given, target: str, out: str | None, name: str, user: str | None, yes: bool) -> None:
    """Print the files that have systemd, supervisor, docker or compose keep the consumer.

    The signal and the time to stop, the folder, the application and the user are those of this site. What is secret belongs into
    one of them alone, a file of variables that only root and the service can read. 'flagsweep check' is the health check.

    \b
    flagsweep --app work:flags deploy systemd > /etc/systemd/system/flagsweep.service
    flagsweep deploy compose --out deploy
    """
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]*", name):
        raise Misuse(f"--name must be letters, digits, '-', '_' and '.', got {name!r}")
    flags = given.any_site() if isinstance(given, Hosted) else given.site()
    files = TARGETS[target](_deployed(given, flags, name, user))
    if out is not None:
        _write(Path(out), files, yes)
        return
    (first, (text, _)), *others = files.items()
    click.echo(text, nl=False)
    rest = ", ".join(other for other, _ in others)
    click.echo(f"this is {first}; with --out FOLDER also {rest}" if rest else f"this is {first}", err=True)


def _write(folder: Path, files: Mapping[str, tuple[str, str]], yes: bool) -> None:
    """Write the files; those of variables, which will hold secrets, for their owner alone."""
    there = [name for name in files if (folder / name).exists()]
    if there and not yes:
        raise Failure(f"{', '.join(there)} in {folder} would be written over; --yes does it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, what_then) in files.items():
        private = name.endswith(".env")
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644), "w") as file:
            file.write(text)
        click.echo(printable(f"{folder / name}: {what_then}"))


def _deployed(given: Given | Hosted, flags: FlagSweep, name: str, user: str | None) -> Deployed:
    """Return what is to be run, and what of the site it takes."""
    stop = flags.settings.shutdown_timeout * (1 if flags.also is None else 2) + MARGIN  # Then its own Huey ends, too.
    folder = Path.cwd()
    owner = user or _owner_of(flags.path if flags.path and flags.path.exists() else folder)
    if owner == "root":
        click.echo("the service would be root's: name another with --user", err=True)
    return Deployed(
        name=name,
        command=_words(given),
        folder=folder,
        user=owner,
        stop=math.ceil(stop),
        file=flags.path and flags.path.resolve(),
        server=flags.connections.dialect.name if flags.path is None else "",
        variables=_variables(os.environ),
        state_dir=str(flags.settings.state_dir or ""),
    )


def _words(given: Given | Hosted) -> tuple[str, ...]:
    """Return the words before the command, as any folder would call them."""
    here = Path(sys.executable).parent
    if not isinstance(given, Hosted):
        script = here / "flagsweep"
        return (*([str(script)] if script.exists() else [sys.executable, "-m", "flagsweep"]), "--app", given.located())
    at = sys.argv.index("flagsweep") if "flagsweep" in sys.argv else len(sys.argv)
    first, *more = sys.argv[: at + 1]
    if first.endswith(".py"):
        return (sys.executable, os.path.abspath(first), *more)
    return (str(here / Path(first).name), *more)


def _owner_of(path: Path) -> str:
    try:
        return pwd.getpwuid(path.stat().st_uid).pw_name
    except KeyError:  # A container's number without a name.
        return getpass.getuser()


def _variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return what of the environment the consumer needs; None for what nobody is to be shown."""
    found = {name: value for name, value in sorted(environ.items()) if name.startswith(OF_THE_SITE) and name != "FLAGSWEEP_APP"}
    return {name: None if SECRETS.search(name) or _has_password(value) else value for name, value in found.items()}


def _has_password(value: str) -> bool:
    return bool(re.search(r"://[^/\s]*@|[?&](password|passwd|sslpassword)=", value)) or "\n" in value
