"""Sentry, where the site has set it up: one event for each cause and hour. It is never imported here, nor set up."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ..config import Clock
from ..databases.connections import Connections
from ..logs import clean, headline, printable, theirs
from ..sweep.notices import Failure, Notices
from .discreet import digest_of, discreet
from .turns import Turns

log = logging.getLogger("flagsweep")

EVERY = 3600.0
"""Seconds from one event of a cause to the next."""

LONGEST = 2000
"""Characters of an exception's own text."""


def is_there() -> bool:
    """Return whether the site has imported Sentry's SDK, and given it somewhere to send to."""
    client = getattr(sys.modules.get("sentry_sdk"), "get_client", lambda: None)()
    return client is not None and bool(client.is_active())


class Sentry:
    """Hand failures to Sentry's SDK."""

    def __init__(self, connections: Connections, clock: Clock):
        self._notices = Notices("sentry", connections.close_thread)
        self._notices.listeners.append(self._capture)
        self._turns = Turns(connections, clock)
        self._sent = False

    def tell(self, failure: Failure, error: BaseException | None) -> None:
        """Send an event, unless this cause had one within the hour. Its exception is kept until then, and no longer."""
        if is_there() and self._turns.may_ask(_name(failure), EVERY):
            self._notices.tell(failure, error)

    def flush(self) -> None:
        """Wait until what happened so far is on its way, and for two seconds until it has arrived."""
        self._notices.flush()
        if self._sent and is_there():
            self._sent = False
            sys.modules["sentry_sdk"].flush(timeout=2.0)

    def _capture(self, failure: Failure, error: BaseException | None) -> None:
        if not self._turns.take(_name(failure), EVERY):
            return
        sdk = sys.modules["sentry_sdk"]
        event, hint = _of_exception(sdk, error) if error is not None else (_of_text(failure), {})
        event.update(_told(failure))
        # What led up to it in this thread, the log's lines and queries, is not that of the handler.
        with sdk.isolation_scope() as scope:
            scope.clear()
            sdk.get_current_scope().clear()
            sdk.get_current_scope().add_event_processor(_without_values)  # The last there is, whatever others add.
            sdk.capture_event(event, hint)
        self._sent = True


def _name(failure: Failure) -> str:
    return f"sentry:{digest_of(failure.kind, failure.fingerprint)}"


def _of_exception(sdk: Any, error: BaseException) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an event of an exception, without the values of its frames' variables: the payload is among them."""
    options = {**sdk.get_client().options, "include_local_variables": False, "add_full_stack": False}
    told = (type(error), error, theirs(error))
    event, hint = sys.modules["sentry_sdk.utils"].event_from_exception(
        told, client_options=options, mechanism={"type": "flagsweep", "handled": True}
    )
    return event, hint


def _of_text(failure: Failure) -> dict[str, Any]:
    # An empty list of threads: else the SDK may add the stack of this one, with all its variables.
    return {"message": headline(failure.error)[:LONGEST], "threads": {"values": []}}


def _told(failure: Failure) -> dict[str, Any]:
    tags = {"kind": failure.kind, "attempt": failure.attempt, "flag": failure.flag, "final": failure.final}
    more = {"key": discreet(failure.key), "fingerprint": failure.fingerprint}
    return {
        "level": "error" if failure.final else "warning",
        "logger": "flagsweep",
        "transaction": printable(failure.kind),
        "fingerprint": ["flagsweep", failure.kind, failure.fingerprint],
        "tags": {name: printable(str(value))[:200] for name, value in {**tags, "key": more["key"]}.items()},
        "contexts": {"flagsweep": {**tags, **more}},
    }


def _without_values(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any]:
    """Take out the values of variables, whoever has put them there."""
    for sort in ("exception", "threads"):
        for value in (event.get(sort) or {}).get("values") or ():
            if isinstance(value.get("value"), str):
                value["value"] = clean(value["value"])[-LONGEST:]
            for frame in (value.get("stacktrace") or {}).get("frames") or ():
                frame.pop("vars", None)
    return event
