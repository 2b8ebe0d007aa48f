"""The digest as a schedule: a kind of flagsweep's own, in the consumer whose settings or code switch it on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from ..handlers import Handlers
from ..payloads import short
from .people import add

DIGEST = "flagsweep.digest"


def declare(handlers: Handlers, to: str, at: str, send: Callable[[str], Any]) -> None:
    """Have a digest sent each day, by a schedule as others are.

    :param at: ``HH:MM``, by the setting ``timezone``.
    :param send: sends one to an address; to ``""`` where it goes to all whom ``tell`` names.
    """
    time = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", at) if isinstance(at, str) else None
    if time is None:
        raise ConfigError(f"a digest is sent at a time of day such as '07:30', got {short(at)}")

    def digest(to: str) -> None:
        send(to)

    handler = add(handlers, DIGEST, digest, {"max_attempts": 10, "expires": "12h"})
    name = DIGEST if DIGEST not in handlers.schedules else f"{DIGEST}.{len(list(handlers.schedules))}"
    spec = f"{int(time[2])} {int(time[1])} * * *"
    handler._declare("cron", spec, {"__name__": __name__}, name=name, arguments={"to": to})
