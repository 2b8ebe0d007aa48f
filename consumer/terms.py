"""Terms: how somebody who claims is entered among the consumers."""

from __future__ import annotations

from typing import NamedTuple

from ..sweep.roll import ONCE


class Terms(NamedTuple):
    """Say how a consumer is entered.

    :param mode: what its row says.
    :param alone: it is the only one of its mode on a database file.
    :param seated: it sweeps a lane only while it has a seat in it.
    :param patient: before it looks for the dead it waits until it can tell: it does not live to look again.
    """

    mode: str
    alone: bool
    seated: bool
    patient: bool


RUN = Terms("run", alone=True, seated=True, patient=False)
"""A consumer that stays."""

EMBEDDED = RUN._replace(mode="embedded")
"""One that stays in a process which serves the site."""

STAYING = (RUN.mode, EMBEDDED.mode)
"""What rows say of those that stay."""

SWEEP = Terms(ONCE, alone=False, seated=False, patient=True)
"""One that does what is due, and leaves."""
