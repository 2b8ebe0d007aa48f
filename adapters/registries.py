"""Registries of sessions: what an inline sweep finds in one of SQLAlchemy's is the session that is just committing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def set_aside(given: Any) -> Iterator[None]:
    """Have a ``scoped_session`` hold no session meanwhile, as in a thread of its own, and the same one as before afterwards.

    :param given: whatever raises go over; all else is left as it is.
    """
    from sqlalchemy.orm import scoped_session

    if not isinstance(given, scoped_session):
        yield
        return
    registry = given.registry
    if not _is_usable(registry):
        yield
        return
    kept = [registry()] if registry.has() else []
    registry.clear()
    try:
        yield
    finally:
        given.remove()
        for session in kept:
            registry.set(session)


def _is_usable(registry: Any) -> bool:
    """Return whether it can hold a session here: where it has one for each context of an application, there may be none."""
    try:
        registry.has()
    except RuntimeError:
        return False
    return True
