"""The host: the process in which somebody sweeps, and what of it is ours to use."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """Say what may be done with the process.

    :param signals: SIGTERM, SIGINT and SIGHUP are ours: the first stops the consumer, a second ends the process at once.
    :param crash_log: ``faulthandler`` is ours: it writes down which thread crashed.
    :param exits: the process may be ended where it can do nothing more, or hangs for ``stuck_after``.
    :param alone: nothing else works in it, so that we need not pause for others.
    :param huey_level: the level from which Huey's own log is shown, where nobody has set one; None leaves it alone.
    """

    signals: bool = True
    crash_log: bool = True
    exits: bool = True
    alone: bool = True
    huey_level: int | None = logging.WARNING
    """Three lines a sweep, with nothing in them that ours does not say."""


OWN = Host()
"""A process that is there for the consumer alone, as of ``flagsweep run``."""

GUEST = Host(signals=False, crash_log=False, exits=False, alone=False, huey_level=None)
"""A process that does other work besides, and calls us, as ``sweep()`` is called."""
