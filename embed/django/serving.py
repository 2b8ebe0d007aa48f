"""Serving: a process that answers requests is where ``mode="embedded"`` sweeps; never a test, a shell or a command."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from django.core.signals import request_started

from ...errors import FlagSweepError

log = logging.getLogger("flagsweep")

SERVERS = (("django.core.handlers.wsgi", "WSGIHandler"), ("django.core.handlers.asgi", "ASGIHandler"))
"""What sends the signal where a request comes from outside; Django's test client sends it, too."""


PAUSE = 10.0
"""Seconds until a start that failed is tried again."""

_tried = (0, 0.0)
"""In which process, and when, the last start was tried."""


def start_when_serving(sender: Any, **_: Any) -> None:
    """At the first request: start the consumer in this process, where the settings say so; at a later one, if that failed."""
    global _tried
    if not _serves(sender) or _is_a_test():
        return
    process, now = os.getpid(), time.monotonic()
    if process == _tried[0] and now < _tried[1] + PAUSE:
        return
    _tried = process, now
    try:
        _start()
    except Exception as error:  # The request is not to blame.
        why = "nothing is swept in this process, it is tried again in %.0f s: %s"
        log.error(why, PAUSE, error, exc_info=not isinstance(error, FlagSweepError))
    else:
        request_started.disconnect(start_when_serving, dispatch_uid="flagsweep")


def _start() -> None:
    from .discovery import discover
    from .site import flags

    if flags.settings.mode == "embedded":
        discover()
        flags.start()


def _serves(sender: Any) -> bool:
    handlers = tuple(getattr(sys.modules[module], name) for module, name in SERVERS if module in sys.modules)
    return isinstance(sender, type) and issubclass(sender, handlers)


def _is_a_test() -> bool:
    """Return whether Django's test environment is set up: a live server's requests are a test's, too."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")
