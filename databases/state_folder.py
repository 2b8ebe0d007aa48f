"""The folder of what is noted beside a database: leases, black boxes, crash logs, and the bell that a raise rings."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ..errors import NotReady


def folder_of(database: Path) -> Path:
    """Return the folder beside a database file. A link leads to the same one, or two consumers could run on one file."""
    return Path(f"{database.resolve()}.flagsweep")


def folder_on_host(where: str, state_dir: str | os.PathLike[str] = "") -> Path:
    """Return the folder for what consumers of a database server note on this host, made for this user alone.

    :param where: what tells the database from every other.
    :param state_dir: the folder to make it in; by default below the user's home.
    :raises NotReady: where it cannot be made, or strangers may write to it.
    """
    folder = path_on_host(where, state_dir)
    try:
        folder = folder.expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:  # A user without a home, too.
        raise NotReady(
            f"{folder}, for a consumer's notes, cannot be made: {error}; "
            "set state_dir (FLAGSWEEP_STATE_DIR) to a folder of its user"
        ) from error
    if found.st_mode & 0o022 or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise NotReady(
            f"{folder}, for a consumer's notes, belongs to {user_name(found.st_uid)} or can be written by others: "
            "set state_dir (FLAGSWEEP_STATE_DIR) to another"
        )
    return folder


def path_on_host(where: str, state_dir: str | os.PathLike[str] = "") -> Path:
    """Return the path of that folder, which may not be there, and may begin with ``~``."""
    base = Path(state_dir or os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    return base / ("" if state_dir else "flagsweep") / hashlib.sha256(where.encode()).hexdigest()[:16]


def user_name(uid: int) -> str:
    """Return the name of a user, or its number where it has none."""
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"


def opened(path: Path, flags: int = 0) -> int:
    """Open a file of a consumer's, made where it is missing, and return its descriptor. No link is followed.

    What root makes is given to who owns the folder: whose database it is must be able to go on without root.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safe | flags, 0o600)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = os.stat(path.parent)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def made_for(folder: Path, database: Path) -> None:
    """Make the folder beside a database, as its owner's also where root makes it."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(FileNotFoundError):
            owner = database.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)


def out_of_reach(folder: Path, error: OSError) -> NotReady:
    """Return the error of a folder that this user may not use, saying whose it is and what mends that."""
    database = Path(str(folder).removesuffix(".flagsweep"))
    why = f"{folder}, where consumers keep their leases, cannot be used: {error.strerror}"
    try:
        theirs, ours = user_name(folder.stat().st_uid), user_name(database.stat().st_uid)
    except OSError:
        return NotReady(f"{why}; run flagsweep as the user who owns the database")
    if theirs == ours:
        return NotReady(f"{why}; it belongs to {theirs}, as the database does: run flagsweep as that user")
    return NotReady(f"{why}; it belongs to {theirs}, and the database to {ours}: 'chown -R {ours} {folder}' mends it")
