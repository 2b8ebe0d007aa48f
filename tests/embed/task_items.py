"""Run in a generated site: what the documentation of ``django.tasks`` says, a function for each item; prints what failed."""

import asyncio
import json
import logging
import os
import pickle
import sys
import traceback
from dataclasses import replace
from datetime import datetime, timedelta
from datetime import timezone as zones

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
sys.path.insert(0, os.getcwd())
import django

django.setup()

from django.core.checks import run_checks  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402
from shop import tasks  # noqa: E402

from flagsweep.embed.django import FlagSweepBackend, flags  # noqa: E402
from flagsweep.embed.django import frameworks as f  # noqa: E402
from flagsweep.embed.django.models import Flag, History  # noqa: E402

READY, RUNNING, FAILED, SUCCESSFUL = (getattr(f.TaskResultStatus, name) for name in ("READY", "RUNNING", "FAILED", "SUCCESSFUL"))


def sweep():
    return dict(flags.sweep())


def refused(call, error, said=""):
    try:
        call()
    except error as found:
        assert said in str(found), found
        return
    raise AssertionError(f"{error.__name__} was not raised")


# The decorator, and the task that it makes.


def item_a_task_is_what_the_decorator_makes_and_its_function_is_still_called_directly():
    assert isinstance(tasks.add, f.Task)
    assert (tasks.add.name, tasks.add.module_path, tasks.add.backend) == ("add", "shop.tasks.add", "default")
    assert tasks.add.func(1, 2) == tasks.add.call(1, 2) == 3
    assert asyncio.run(tasks.add.acall(1, 2)) == 3 and asyncio.run(tasks.asleep.acall(4)) == 4 == tasks.asleep.call(4)
    assert isinstance(tasks.add.get_backend(), FlagSweepBackend)


def item_the_decorator_takes_priority_and_queue():
    assert (tasks.urgent.priority, tasks.urgent.queue_name) == (50, "slow")
    assert (tasks.add.priority, tasks.add.queue_name, tasks.add.run_after) == (0, "default", None)


def item_using_changes_a_copy():
    other = tasks.add.using(priority=7, queue_name="slow")
    assert (other.priority, other.queue_name, tasks.add.priority, tasks.add.queue_name) == (7, "slow", 0, "default")
    assert other.func is tasks.add.func


def item_a_task_that_cannot_be_run_is_refused():
    def local(): ...

    refused(lambda: replace(tasks.add, func=local), f.InvalidTask, "module level")
    refused(lambda: tasks.add.using(priority=101), f.InvalidTask, "between -100 and 100")
    refused(lambda: tasks.add.using(queue_name="nosuch"), f.InvalidTask, "not valid for backend")
    refused(lambda: tasks.add.using(run_after=datetime(2030, 1, 1)), f.InvalidTask, "aware")
    refused(lambda: replace(tasks.add, takes_context=True), f.InvalidTask, "context")


def item_the_backend_says_that_it_supports_everything():
    backend = tasks.add.get_backend()
    assert all(getattr(backend, f"supports_{what}") for what in ("defer", "async_task", "get_result", "priority"))


# Enqueueing.


def item_an_enqueue_returns_a_result_that_is_ready():
    before = timezone.now()
    result = tasks.add.enqueue(1, b=2)
    assert (result.status, result.is_finished, result.args, result.kwargs) == (READY, False, [1], {"b": 2})
    assert before - timedelta(seconds=1) <= result.enqueued_at <= timezone.now()
    assert (result.started_at, result.finished_at, result.last_attempted_at, result.attempts) == (None, None, None, 0)
    assert (result.errors, result.worker_ids, result.backend, len(result.id) <= 64) == ([], [], "default", True)
    refused(lambda: result.return_value, ValueError, "not finished")


def item_each_enqueue_is_a_task_of_its_own():
    one, two = tasks.add.enqueue(1, 2), tasks.add.enqueue(1, 2)
    assert one.id != two.id and sweep() == {"lowered": 2}


def item_arguments_are_json_and_tuples_become_lists():
    result = tasks.echo.enqueue((1, 2), key={"a": (3,)})
    assert (result.args, result.kwargs) == ([[1, 2]], {"key": {"a": [3]}})
    sweep()
    result.refresh()
    assert result.return_value == [[[1, 2]], {"key": {"a": [3]}}]
    refused(lambda: tasks.add.enqueue(datetime.now(zones.utc), 1), TypeError)  # noqa: UP017
    refused(lambda: tasks.add.enqueue(object(), 1), TypeError)


def item_arguments_that_are_too_large_are_refused_with_the_fix():
    refused(lambda: tasks.echo.enqueue("x" * 40_000), ValueError, "keep the data in a table and pass its id")


def item_an_enqueue_is_a_part_of_djangos_transaction():
    try:
        with transaction.atomic():
            gone = tasks.add.enqueue(1, 2)
            assert tasks.add.get_result(gone.id).status == READY
            raise LookupError
    except LookupError:
        pass
    refused(lambda: tasks.add.get_result(gone.id), f.TaskResultDoesNotExist)
    with transaction.atomic():
        kept = tasks.add.enqueue(1, 2)
    assert sweep() == {"lowered": 1} and tasks.add.get_result(kept.id).status == SUCCESSFUL


def item_an_enqueue_is_one_statement():
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as seen:
        tasks.add.enqueue(1, 2)
    assert len(seen) == 1, seen.captured_queries


def item_aenqueue_and_aget_result_do_the_same():
    async def both():
        result = await tasks.add.aenqueue(1, 2)
        assert (await tasks.add.aget_result(result.id)).status == READY
        return result

    result = asyncio.run(both())
    sweep()
    asyncio.run(result.arefresh())
    assert result.return_value == 3


def item_run_after_is_heeded():
    later = tasks.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1, 2)
    past = tasks.add.using(run_after=timezone.now() - timedelta(days=1)).enqueue(1, 2)
    assert sweep() == {"lowered": 1}
    assert tasks.add.get_result(past.id).status == SUCCESSFUL
    found = tasks.add.get_result(later.id)
    assert found.status == READY and abs(found.task.run_after - later.task.run_after) < timedelta(milliseconds=1)


def item_higher_priority_runs_first():
    tasks.RAN.clear()
    for priority in (0, 90, -90, 10):
        tasks.note.using(priority=priority).enqueue(priority)
    sweep()
    assert tasks.RAN == [90, 10, 0, -90]


def item_a_queue_is_a_lane():
    one, two = tasks.add.using(queue_name="slow").enqueue(1, 2), tasks.add.enqueue(3, 4)
    assert {"default", "slow"} <= set(flags.lane_names())
    assert dict(flags.sweep("slow")) == {"lowered": 1}
    assert tasks.add.get_result(one.id).task.queue_name == "slow"
    assert (tasks.add.get_result(one.id).status, tasks.add.get_result(two.id).status) == (SUCCESSFUL, READY)


# Results.


def item_a_result_is_found_by_its_id_and_refreshed():
    result = tasks.add.enqueue(1, 2)
    sweep()
    assert result.status == READY  # As it was.
    result.refresh()
    assert (result.status, result.is_finished, result.return_value, result.attempts) == (SUCCESSFUL, True, 3, 1)
    assert result.enqueued_at <= result.started_at <= result.finished_at and result.last_attempted_at == result.started_at
    found = tasks.add.get_backend().get_result(result.id)
    assert (found, found.args, found.task) == (result, [1, 2], tasks.add) and len(found.worker_ids) == 1


def item_none_is_told_from_no_result():
    result = tasks.nothing.enqueue()
    sweep()
    result.refresh()
    assert result.status == SUCCESSFUL and result.return_value is None


def item_an_id_of_nothing_is_told():
    for id in ("", "nosuch", "17", "17-" + "0" * 32, "1'; --", "9" * 40):
        refused(lambda id=id: tasks.add.get_result(id), f.TaskResultDoesNotExist)


def item_a_result_of_another_task_is_told():
    result = tasks.nothing.enqueue()
    refused(lambda: tasks.add.get_result(result.id), Exception, "does not match")


def item_a_failure_is_kept_with_its_traceback():
    result = tasks.boom.enqueue("why")
    assert sweep() == {"dead": 1}
    result.refresh()
    assert (result.status, result.is_finished, result.attempts) == (FAILED, True, 1)
    (error,) = result.errors
    assert error.exception_class is tasks.Boom and error.exception_class_path == "shop.tasks.Boom"
    assert "Traceback" in error.traceback and "shop.tasks.Boom: why" in error.traceback
    assert result.finished_at is not None
    refused(lambda: result.return_value, ValueError, "failed")


def item_what_is_no_json_fails_and_says_so():
    for task in (tasks.unfit, tasks.too_large):
        result = task.enqueue()
        assert sweep() == {"dead": 1}
        result.refresh()
        assert result.status == FAILED, result
    assert "32,768" in result.errors[0].traceback


def item_a_running_task_is_seen_as_running_with_its_worker():
    result = tasks.look.enqueue()
    sweep()
    result.refresh()
    status, attempts, workers = result.return_value
    assert (status, attempts, workers) == ("RUNNING", 1, result.worker_ids) and all(isinstance(each, str) for each in workers)


def item_attempts_errors_and_workers_add_up_where_the_site_asks_for_attempts():
    result = tasks.second_time.enqueue()
    assert sweep() == {"again": 1}
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (READY, 1, 1)
    flags.retry(kind="shop.tasks.second_time")
    assert sweep() == {"lowered": 1}
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (SUCCESSFUL, 2, 1)
    assert result.started_at < result.last_attempted_at and result.return_value == [1, 2]


def item_a_dead_task_that_a_person_retries_is_ready_again():
    result = tasks.boom.enqueue("once")
    sweep()
    tasks.MENDED.append(1)
    flags.retry(kind="shop.tasks.boom")
    result.refresh()
    assert result.status == READY
    sweep()
    result.refresh()
    tasks.MENDED.clear()
    assert (result.status, result.return_value, len(result.errors), result.attempts) == (SUCCESSFUL, "mended", 1, 2)


def item_results_go_with_history():
    result = tasks.add.enqueue(1, 2)
    sweep()
    History.objects.all().delete()
    refused(lambda: tasks.add.get_result(result.id), f.TaskResultDoesNotExist)


# Context, coroutines, signals.


def item_a_task_gets_its_context():
    result = tasks.contextual.enqueue(5)
    sweep()
    result.refresh()
    assert result.return_value == [result.id, 1, 5]


def item_coroutines_are_run():
    result = tasks.asleep.enqueue(3)
    failed = tasks.afail.enqueue()
    sweep()
    result.refresh()
    failed.refresh()
    assert result.return_value == 3 and failed.status == FAILED


def signals(run):
    seen = []
    for name in ("task_enqueued", "task_started", "task_finished"):

        def receive(sender, task_result, name=name, **_):
            error = sys.exc_info()[1]
            seen.append((name, sender, task_result.status, type(error).__name__ if error else None, task_result.id))

        getattr(f, name).connect(receive, weak=False, dispatch_uid=f"test {name}")
    try:
        result = run()
    finally:
        for name in ("task_enqueued", "task_started", "task_finished"):
            getattr(f, name).disconnect(dispatch_uid=f"test {name}")
    assert {(sender, id) for _, sender, _, _, id in seen} == {(FlagSweepBackend, result.id)}
    return [(name, status, error) for name, _, status, error, _ in seen]


def item_signals_tell_of_a_success():
    def run():
        result = tasks.add.enqueue(1, 2)
        sweep()
        return result

    assert signals(run) == [
        ("task_enqueued", READY, None),
        ("task_started", RUNNING, None),
        ("task_finished", SUCCESSFUL, None),
    ]


def item_signals_tell_of_a_failure_within_its_exception():
    def run():
        result = tasks.boom.enqueue("x")
        sweep()
        return result

    assert signals(run)[1:] == [("task_started", RUNNING, None), ("task_finished", FAILED, "Boom")]


def item_an_attempt_that_is_tried_again_has_not_finished():
    def run():
        result = tasks.second_time.enqueue()
        sweep()
        flags.retry(kind="shop.tasks.second_time")
        sweep()
        return result

    assert [(name, status) for name, status, _ in signals(run)] == [
        ("task_enqueued", READY),
        ("task_started", RUNNING),
        ("task_started", RUNNING),
        ("task_finished", SUCCESSFUL),
    ]


def item_a_receiver_that_fails_harms_no_task():
    def receive(**_):
        raise RuntimeError("of the receiver")

    for signal in (f.task_started, f.task_finished):
        signal.connect(receive, weak=False, dispatch_uid="failing")
    try:
        result = tasks.add.enqueue(1, 2)
        assert sweep() == {"lowered": 1}
    finally:
        for signal in (f.task_started, f.task_finished):
            signal.disconnect(dispatch_uid="failing")
    result.refresh()
    assert result.status == SUCCESSFUL


# Who is run.


def item_a_task_that_nobody_has_imported_is_met_when_its_flag_waits():
    assert "shop.jobs" not in sys.modules
    say("shop.jobs.hidden")
    assert sweep() == {"lowered": 1} and "shop.jobs" in sys.modules


def item_nothing_but_a_task_of_this_backend_is_ever_called():
    """Neither a function, nor a module that is none of the site's, nor a task of another backend."""
    kinds = ("shop.jobs.plain", "os.getpid", "antigravity.fly", "shop.nosuch.x", "shop.jobs.elsewhere", "nosuch", "..", "shop.")
    kinds += ("shop.tasks.add@nosuch", "shop.quits.x", "shop.tasks.add.func", "shop.tasks")
    for kind in kinds:
        say(kind)
    assert sweep() == {} and "antigravity" not in sys.modules
    assert {each.kind for each in flags.find(state="waiting")} == set(kinds)


def say(kind):
    """Raise a flag as a program would that has the task's module."""
    now = flags.clock.now()
    payload = json.dumps({"args": [], "kwargs": {}, "said": [now, 0, "default", None, "default"]})
    with connection.cursor() as cursor:
        key = connection.ops.quote_name("key")
        cursor.execute(
            f"INSERT INTO flagsweep_flag (kind, {key}, payload, due_at, raised_at) VALUES (%s, %s, %s, %s, %s)",
            [kind, f"{len(kind)}", payload, now, now],
        )


def item_a_task_can_be_pickled_where_the_framework_says_so():
    if hasattr(f.Task, "_reconstruct"):
        assert pickle.loads(pickle.dumps(tasks.add)) == tasks.add


# The backend.


def item_options_are_those_of_a_handler_and_bad_ones_are_named_at_once():
    params = {"QUEUES": [], "OPTIONS": {"max_attempts": 0, "colour": "red", "lane": "x"}}
    refused(lambda: FlagSweepBackend("other", params), f.InvalidTaskBackend, "no option 'colour'")
    refused(lambda: FlagSweepBackend("other", params), f.InvalidTaskBackend, "no option 'lane'")
    refused(lambda: FlagSweepBackend("other", params), f.InvalidTaskBackend, "max_attempts of 'task'")


def item_a_backend_without_queues_takes_any():
    backend = FlagSweepBackend("other", {"QUEUES": []})
    backend.validate_task(tasks.add.using(queue_name="slow"))
    assert backend.queues == set()


def item_the_checks_find_nothing_wrong():
    old = (
        ("flagsweep.W001",) if django.VERSION < (5, 1) else ()
    )  # It has no way to begin SQLite's transactions as they should be.
    assert [each for each in run_checks() if each.level >= 30 and each.id not in old] == []


def run(item):
    """Run one item on empty tables; return what went wrong, or nothing."""
    Flag.objects.all().delete()
    History.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM flagsweep_gate")
    try:
        item()
    except BaseException:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    logging.disable()
    found = {name: run(item) for name, item in list(globals().items()) if name.startswith("item_")}
    print(json.dumps(found))
