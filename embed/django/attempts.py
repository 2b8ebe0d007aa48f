"""Attempts: what history says of the attempts of one task, over Django's own connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ...config import utc
from ...errors import FlagSweepError
from .frameworks import TaskError
from .models import History
from .settings import alias_of_settings

ATTEMPTED = ("failed", "dead", "succeeded")


class Attempts(NamedTuple):
    """Hold what history says of the attempts of one flag."""

    started_at: datetime | None
    last_attempted_at: datetime | None
    errors: Sequence[Any]
    worker_ids: Sequence[str]


def attempts_of(id: int, key: str) -> Attempts:
    """Return what history says of the attempts of a flag."""
    return attempts_in(lines_of(id, key))


def lines_of(id: int, key: str) -> list[Any]:
    """Return the lines of history of a flag, the oldest first."""
    return list(History.objects.using(alias_of_settings()).filter(flag=id, key=key).order_by("id"))


def attempts_in(lines: Sequence[Any]) -> Attempts:
    """Return what lines of history say of attempts."""
    ran = [line for line in lines if line.event in ATTEMPTED]
    began = [utc(line.at - (line.took or 0)) for line in ran]
    errors = [_error(line) for line in ran if line.event != "succeeded"]
    workers = [str(line.consumer) for line in ran if line.consumer is not None]
    return Attempts(began[0] if began else None, began[-1] if began else None, errors, workers)


def _error(line: Any) -> Any:
    told = json.loads(line.result) if line.result else {}
    return error_of(told.get("error") or line.reason, told.get("exception"))


def error_of(text: str, path: str | None = None) -> Any:
    """Return an error as the framework has it; without the exception's path it is one of ours: a process that died."""
    return TaskError(exception_class_path=path or f"{FlagSweepError.__module__}.{FlagSweepError.__qualname__}", traceback=text)
