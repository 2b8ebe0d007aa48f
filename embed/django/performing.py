"""Performing a task: what its flag calls, with the framework's context, result and signals."""

from __future__ import annotations

from traceback import format_exception
from typing import Any, NamedTuple

from django.utils import timezone

from ...config import utc
from ...errors import Snooze
from ...handlers import Handler
from ...payloads import RESULT_LIMIT, encode_result
from .frameworks import TaskContext, TaskError, TaskResult, TaskResultStatus, normalize_json, task_finished, task_started


class Said(NamedTuple):
    """Hold what an enqueue said besides the arguments. Times are microseconds UTC."""

    enqueued_at: int
    priority: int
    queue: str
    run_after: int | None
    backend: str


def kind_on(path: str, queue: str) -> str:
    """Return the kind of a task on another queue than its own."""
    return f"{path}@{queue}"


class Performing:
    """Be the handler of a task on one queue.

    :param task: as it was met.
    """

    handler: Handler
    """What it is the function of."""

    def __init__(self, task: Any, queue: str):
        self.task = task
        self.queue = queue
        self.__module__, self.__qualname__ = task.func.__module__, task.func.__qualname__
        self.__name__, self.__doc__ = task.func.__name__, task.func.__doc__

    def __call__(self, args: list, kwargs: dict, said: list, flag: Any) -> dict[str, Any]:
        """Run the task once; return what is kept of a success."""
        result = self._running(args, kwargs, Said(*said), flag)
        backend = type(result.task.get_backend())
        task_started.send_robust(sender=backend, task_result=result)
        try:
            value = self._returned(result)
        except Snooze:
            raise
        except BaseException as error:
            if self._is_final(error, flag.attempt):
                _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
                result.errors.append(
                    TaskError(exception_class_path=_path(type(error)), traceback="".join(format_exception(error)))
                )
                task_finished.send_robust(sender=backend, task_result=result)
            raise
        _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        task_finished.send_robust(sender=backend, task_result=result)
        return {"value": value, "args": args, "kwargs": kwargs, "said": said}

    def _running(self, args: list, kwargs: dict, said: Said, flag: Any) -> Any:
        """Return the result as it is while this attempt runs."""
        from .attempts import attempts_of  # Models: a task may be declared before Django has loaded its apps.

        # Who retries by hand has a flag begin anew. Only what looks at attempts pays for a look at them.
        asks = flag.attempt > 1 or self.task.takes_context
        now, before = timezone.now(), attempts_of(flag.id, flag.key) if asks else None
        return TaskResult(
            task=as_enqueued(self.task, said),
            id=f"{flag.id}-{flag.key}",
            status=TaskResultStatus.RUNNING,
            enqueued_at=utc(said.enqueued_at),
            started_at=(before and before.started_at) or now,
            last_attempted_at=now,
            finished_at=None,
            args=args,
            kwargs=kwargs,
            backend=said.backend,
            errors=list(before.errors) if before else [],
            worker_ids=[*(before.worker_ids if before else ()), str(flag._claimed.consumer)],
        )

    def _returned(self, result: Any) -> Any:
        context = (TaskContext(task_result=result),) if self.task.takes_context else ()
        value = normalize_json(self.task.call(*context, *result.args, **result.kwargs))
        encode_result(value, self.task.module_path, RESULT_LIMIT)
        return value

    def _is_final(self, error: BaseException, attempt: int) -> bool:
        options = self.handler.options
        return attempt >= options.max_attempts or isinstance(error, options.discard_on) or not isinstance(error, options.retry_on)


def as_enqueued(task: Any, said: Said) -> Any:
    """Return a task as it was when it was enqueued."""
    after = None if said.run_after is None else utc(said.run_after)
    return task.using(priority=said.priority, queue_name=said.queue, run_after=after, backend=said.backend)


def _set(result: Any, **values: Any) -> None:
    """Set what a frozen result has, as the framework's own backends do."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _path(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
