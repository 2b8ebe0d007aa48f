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


def noop_handler(flags: FlagSweep, kind: str = "noop", **options: object):
    """Return the handler that does nothing."""

    @flags.handler(kind=kind, **options)
    def noop(user_id: int) -> None:
        pass

    return noop


def nap_handler(flags: FlagSweep, seconds: float):
    """Return the handler that sleeps, as one that waits for a mail server does."""

    @flags.handler(kind="nap")
    def nap(user_id: int) -> None:
        time.sleep(seconds)

    return nap


def async_noop_handler(flags: FlagSweep, kind: str = "noop", **options: object):
    """Return the handler that does nothing, in an event loop."""

    @flags.handler(kind=kind, **options)
    async def noop(user_id: int) -> None:
        pass

    return noop


def wait_handler(flags: FlagSweep, seconds: float):
    """Return the handler that waits without a thread, as for a slow service."""
    import asyncio  # The consumers whose memory is measured import this module.

    @flags.handler(kind="wait")
    async def wait(user_id: int) -> None:
        await asyncio.sleep(seconds)

    return wait


def stamp_handler(flags: FlagSweep, set_now: Callable[[int], None]):
    """Return the handler that stamps its start into slot `n`."""

    @flags.handler(kind="stamp")
    def stamp(n: int) -> None:
        set_now(n)

    return stamp


def shared_handler(flags: FlagSweep, set_now: Callable[[int], None] = lambda n: None, **options: object):
    """Return the handler whose flags may take turns by customer; it stamps its start where it has a slot."""

    @flags.handler(kind="shared", **options)
    def shared(customer: str, n: int = -1) -> None:
        if n >= 0:
            set_now(n)

    return shared


def gated_handlers(flags: FlagSweep) -> list[str]:
    """Make twenty kinds behind gates of four sorts, and a hundred schedules that are not due today; return those to be paused."""
    gates: dict[str, dict[str, object]] = {
        "rated": {"rate": "10/m", "budget": "500/d"},
        "limited": {"limit": 2},
        "quiet": {"quiet": "00:00-23:59"},
        "paused": {},
    }
    kinds = {sort: [f"{sort}-{n}" for n in range(5)] for sort in gates}
    for sort, options in gates.items():
        for kind in kinds[sort]:
            handler = noop_handler(flags, kind, **options)
            for n in range(5):
                handler.every("30d", name=f"{kind}-{n}", arguments={"user_id": n})
    return kinds["paused"]
