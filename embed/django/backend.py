"""The backend of ``django.tasks``: a task is a kind, each enqueue a flag, a queue a lane; results are in history."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.utils import timezone

from ...config import microseconds, utc
from ...errors import ConfigError
from ...handlers import Handler
from ...handlers.options import Options
from .frameworks import (
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
)
from .performing import Performing, Said, kind_on
from .site import flags

OURS = ("aliases", "atomic", "debounce", "history", "lane", "longest", "per", "priority", "replace", "result", "unique")
"""Options of a handler that a task has of its own, or that make no sense where each enqueue is a flag of its own."""

MOST_KEPT = 2_097_152
"""Bytes that are kept of a success: its arguments, a MiB at most, and what it returned, which has the usual limit."""

_MEETING = threading.Lock()


class FlagSweepBackend(BaseTaskBackend):
    """Keep tasks as flags in the site's own database, raised in its own transaction.

    OPTIONS may say of all tasks what ``flags.handler`` takes, such as ``max_attempts``, which is 1 here: a task that fails is
    FAILED, as with other backends.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]):
        super().__init__(alias, params)
        self._said = _checked(alias, self.options)

    def validate_task(self, task: Any) -> None:
        """Refuse a task that cannot be run, and meet one that can: from now on its flags have a handler."""
        super().validate_task(task)
        self.handler_of(task)

    def handler_of(self, task: Any) -> Handler:
        """Return the handler of a task on its queue.

        :raises InvalidTask: where path or queue are no names that flagsweep takes.
        """
        path, queue = task.module_path, task.queue_name
        first = flags.handlers.get(path)
        if first is None:
            for other in sorted(self.queues - {queue}):
                self._meet(task, kind_on(path, other), other)
            return self._meet(task, path, queue)
        assert isinstance(first.function, Performing)
        if first.function.queue == queue:
            return first
        kind = kind_on(path, queue)
        return flags.handlers.get(kind) or self._meet(task, kind, queue)

    def _meet(self, task: Any, kind: str, queue: str) -> Handler:
        with _MEETING:
            if (known := flags.handlers.get(kind)) is not None:
                return known
            performing = Performing(task, queue)
            try:
                handler = flags.handler(kind, **{"max_attempts": 1, **self._said, "lane": queue, "result": True})(performing)
            except ConfigError as error:
                raise InvalidTask(str(error)) from error
        performing.handler = handler
        handler.result_limit = MOST_KEPT
        handler.spare = kind != task.module_path
        return handler

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raise a flag of its own over Django's connection, within the transaction that is open there."""
        self.validate_task(task)
        key, now = uuid.uuid4().hex, flags.clock.now()
        payload = normalize_json({"args": args, "kwargs": kwargs})
        said = Said(now, task.priority, task.queue_name, _moment(task.run_after), self.alias)
        at = None if said.run_after is None or said.run_after <= now else utc(said.run_after)
        raised = self.handler_of(task).using(key=key, at=at, priority=task.priority).raise_flag(**payload, said=list(said))
        result = TaskResult(
            task=task,
            id=f"{raised.id}-{key}",
            status=TaskResultStatus.READY,
            enqueued_at=utc(now),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            **payload,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return what is known of a task, as this transaction sees it.

        :raises TaskResultDoesNotExist: where nothing is, or not any more.
        """
        from .results import result_of  # Models: a task may be declared before Django has loaded its apps.

        found = result_of(str(result_id), self.alias)
        if found is None:
            raise TaskResultDoesNotExist(result_id)
        return found

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return an error where the app is not installed that has the tables and the commands."""
        if apps.is_installed("flagsweep.embed.django"):
            return []
        said = f"TASKS[{self.alias!r}] is flagsweep's backend, and its app is not installed."
        return [Error(said, hint="Add 'flagsweep.embed.django' to INSTALLED_APPS.", id="flagsweep.E002")]


def _checked(alias: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what OPTIONS say of each task's handler.

    :raises InvalidTaskBackend: naming everything that is wrong at once.
    """
    known = [name for name in Options.names() if name not in OURS]
    problems = [f"there is no option {name!r}; there are {', '.join(known)}" for name in options if name not in known]
    try:
        Options.checked("task", {name: value for name, value in options.items() if name in known})
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise InvalidTaskBackend(f"OPTIONS of TASKS[{alias!r}]: {'; '.join(problems)}")
    return dict(options)


def _moment(run_after: datetime | None) -> int | None:
    """Return when a task may run, in microseconds UTC; a naive time is one of Django's current zone."""
    if run_after is None:
        return None
    return microseconds(run_after if timezone.is_aware(run_after) else timezone.make_aware(run_after))
