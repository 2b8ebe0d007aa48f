"""The handlers that every benchmark sweeps, and flagsweep on a new file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flagsweep import FlagSweep


@contextmanager
def flagsweep_on(path: Path, **settings: object) -> Iterator[FlagSweep]:
    """Yield a FlagSweep on the file, as ``flagsweep_at`` does."""
    with flagsweep_at(f"sqlite:///{path}", **settings) as flags:
        yield flags


@contextmanager
def flagsweep_at(url: str, **settings: object) -> Iterator[FlagSweep]:
    """Yield a FlagSweep, initialised, with this thread's connection open as in a site's request."""
    flags = FlagSweep(url, **settings)
    flags.init()
    with flags.database.connection_context():
        yield flags


def noop_handler(flags: FlagSweep):
    """Return the handler that does nothing."""

    @flags.handler(kind="noop")
    def noop(user_id: int) -> None:
        pass

    return noop


def nap_handler(flags: FlagSweep, seconds: float):
    """Return the handler that sleeps, as one that waits for a mail server does."""

    @flags.handler(kind="nap")
    def nap(user_id: int) -> None:
        time.sleep(seconds)

    return nap


def stamp_handler(flags: FlagSweep, set_now: Callable[[int], None]):
    """Return the handler that stamps its start into slot `n`."""

    @flags.handler(kind="stamp")
    def stamp(n: int) -> None:
        set_now(n)

    return stamp
