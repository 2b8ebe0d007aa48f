"""FastAPI, Starlette and whatever else speaks ASGI: ``FastAPI(lifespan=lifespan(flags))``, or ``init_app(app, flags)``.

* Before the first request it is checked that the database is there and its tables fit: else the server does not start, and says
  why.
* With ``mode="embedded"`` the consumer starts then, in each process that serves, and stops as the server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from ..app import FlagSweep
from ..databases import schema
from ..errors import ConfigError

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What FastAPI and Starlette take as ``lifespan=``."""


def init_app(app: Any, flags: FlagSweep) -> None:
    """Take flagsweep into an application of FastAPI or Starlette that is made already, around the lifespan that it has.

    :raises ConfigError: where it is of another framework: give that ``lifespan(flags)``, if it takes one.
    """
    if not hasattr(getattr(app, "router", None), "lifespan_context"):
        raise ConfigError(f"{type(app).__name__} has no router.lifespan_context: hand lifespan(flags) to it where it is made")
    app.router.lifespan_context = lifespan(flags, app.router.lifespan_context)
    app.state.flagsweep = flags


def lifespan(flags: FlagSweep, within: Lifespan | None = None) -> Lifespan:
    """Return a lifespan that starts what has to be started, and stops it.

    :param within: the site's own, which runs within it; what it yields is handed on.

    Entered, it raises ``NotReady`` or ``DatabaseAway``, and ``ConfigError`` where no database was said.
    """

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        await asyncio.to_thread(_begin, flags)
        try:
            async with nullcontext() if within is None else within(app) as state:
                yield state
        finally:
            if flags.settings.mode == "embedded":
                await asyncio.to_thread(flags.stop, wait=True)

    return around


def _begin(flags: FlagSweep) -> None:
    """See to it that flags can be raised, and start the consumer that is to live here."""
    if not flags.connections.in_memory:  # That one is of each thread alone.
        try:
            with flags.connections.explained("the site does not start"):
                schema.require(flags.connections)
        finally:
            flags.connections.close_engine()
    if flags.settings.mode == "embedded":
        flags.start()
