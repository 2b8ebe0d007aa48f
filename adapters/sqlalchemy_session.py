"""What a session of SQLAlchemy's has written and not committed: a handler that leaves such has failed, whatever it returned."""

from __future__ import annotations

import re
from typing import Any

WROTE = "flagsweep_wrote"
"""Where a session says that it has written since its transaction began."""

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|MERGE|WITH)\b", re.IGNORECASE)


class Uncommitted(Exception):
    """A handler returned with changes in its session that it has not committed: nobody else would ever see them."""


def watch(sessions: Any) -> None:
    """Have sessions say what they write.

    :param sessions: a session, or what makes them: a ``sessionmaker`` or ``scoped_session``. Watched once, however often asked.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import scoped_session

    target = sessions.session_factory if isinstance(sessions, scoped_session) else sessions
    for name, note in (
        ("after_flush", _flushed),
        ("do_orm_execute", _executed),
        ("after_commit", _committed),
        ("after_soft_rollback", _rolled_back),
    ):
        if not event.contains(target, name, note):
            event.listen(target, name, note)


def refuse_uncommitted(session: Any) -> None:
    """Refuse what is left in a session.

    :raises Uncommitted: where it has changes, flushed or not, that were not committed.
    """
    left = [*session.new, *session.dirty, *session.deleted]
    if left or session.info.get(WROTE):
        what = f"changed {left[0]!r}" if left else "written in its session"
        raise Uncommitted(f"the handler has {what} and not committed: end it with session.commit(), or session.rollback()")


def _flushed(session: Any, context: Any) -> None:
    session.info[WROTE] = True


def _executed(state: Any) -> None:
    statement = getattr(state.statement, "text", None)
    if state.is_insert or state.is_update or state.is_delete or (isinstance(statement, str) and _WRITES.match(statement)):
        state.session.info[WROTE] = True


def _committed(session: Any) -> None:
    if not session.in_nested_transaction():  # Else a savepoint was released.
        session.info[WROTE] = False


def _rolled_back(session: Any, previous: Any) -> None:
    if not previous.nested:
        session.info[WROTE] = False
