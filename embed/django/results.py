"""Results of tasks: what the flag and its history say, over Django's own connection."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...config import utc
from ...logs import headline
from .attempts import attempts_in, error_of, lines_of
from .frameworks import TaskResult, TaskResultStatus
from .latecomers import task_of
from .models import Flag
from .performing import Said, as_enqueued
from .settings import alias_of_settings
from .site import flags

STATUS = {"waiting": TaskResultStatus.READY, "claimed": TaskResultStatus.RUNNING, "dead": TaskResultStatus.FAILED}


def result_of(result_id: str, alias: str) -> Any:
    """Return the result of that id, or None where nothing is known of it.

    :param alias: the backend that is asked.
    """
    if not (match := re.fullmatch(r"(\d{1,18})-([0-9a-f]{32})", result_id)):
        return None
    id, key = int(match[1]), match[2]
    # The flag first: what is settled between the two is found in history.
    flag = Flag.objects.using(alias_of_settings()).filter(id=id, key=key).first()
    lines = lines_of(id, key)
    if flag is None and not lines:
        return None
    return _result(result_id, flag, lines, alias)


def _result(result_id: str, flag: Any, lines: Sequence[Any], alias: str) -> Any:
    done = next((json.loads(line.result) for line in reversed(lines) if line.event == "succeeded" and line.result), None)
    payload = done or ({} if flag is None else json.loads(flag.payload))
    said = Said(*payload["said"]) if "said" in payload else Said(lines[0].at, 0, "default", None, alias)
    task = task_of(flags, lines[0].kind if flag is None else flag.kind)
    if task is None or said.backend != alias:
        return None
    status = TaskResultStatus.SUCCESSFUL if done else TaskResultStatus.FAILED if flag is None else STATUS[flag.state]
    past = attempts_in(lines)
    running = flag if flag is not None and flag.state == "claimed" and not done else None
    finished = status in (TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED)
    result = TaskResult(
        task=as_enqueued(task, said),
        id=result_id,
        status=status,
        enqueued_at=utc(said.enqueued_at),
        started_at=past.started_at or (utc(running.claimed_at) if running else None),
        last_attempted_at=utc(running.claimed_at) if running else past.last_attempted_at,
        finished_at=_ended(flag, lines) if finished else None,
        args=payload.get("args", []),
        kwargs=payload.get("kwargs", {}),
        backend=alias,
        errors=[*past.errors, *_unwritten(flag, lines)],
        worker_ids=[*past.worker_ids, *([str(running.claimed_by)] if running else [])],
    )
    object.__setattr__(result, "_return_value", done["value"] if done else None)
    return result


def _unwritten(flag: Any, lines: Sequence[Any]) -> list[Any]:
    """Return the error of a flag whose process died: nobody was left to write a line of history."""
    if flag is None or not flag.error or any(headline(flag.error)[:500] == line.reason for line in lines):
        return []
    return [error_of(flag.error)]


def _ended(flag: Any, lines: Sequence[Any]) -> datetime | None:
    if flag is not None and flag.died_at is not None:
        return utc(flag.died_at)
    return utc(lines[-1].at) if lines else None
