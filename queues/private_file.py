"""Files that only their owner can read: a SQLite queue, and the key beside it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def make_private(path: Path, content: bytes = b"") -> None:
    """Make a file that only its owner can read, unless it is there."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    if path.exists():
        return
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Whose folder it is must be able to go on without root.
            owner = os.stat(path.parent)
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(content)
    try:
        os.link(draft, path)  # Whoever opens it finds it whole.
    except FileExistsError:
        pass
    finally:
        draft.unlink()
