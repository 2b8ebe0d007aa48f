"""Handlers written with ``async def``: the same outcomes and limits as any other, many at a time in one thread."""

import asyncio
import contextvars
import functools
import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest
from peewee import IntegerField, Model
from playhouse.pool import PooledSqliteDatabase
from rig import lane_of, only

from flagsweep import ConfigError, Discard, FlagSweep, Retry, Snooze
from flagsweep.config import utc
from flagsweep.consumer.guard import Guard
from flagsweep.models import History
from flagsweep.sweep.loop import EventLoop

LIMIT = 20.0  # seconds for which anything here waits at the most


@pytest.fixture(params=["file", "memory"])
def flags_here(request, make):
    return make() if request.param == "file" else make(":memory:")


@pytest.fixture
def table(flags_anywhere):
    """Give a table of the site's."""
    meta = type("Meta", (), {"database": flags_anywhere.database})
    model = type("Effect", (Model,), {"n": IntegerField(), "Meta": meta})
    with flags_anywhere.database.connection_context():
        flags_anywhere.database.create_tables([model])
    return model


def ns(model):
    return sorted(row.n for row in model.select())


class Crowd:
    """Count how many are in it at the same time."""

    def __init__(self):
        self.now = self.most = 0

    def __enter__(self):
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *error):
        self.now -= 1


# What becomes of it.


def leave_a_transaction_open(flags):
    flags.database.connect(reuse_if_open=True)
    flags.database.begin()


def raises(error):
    def act(flags):
        raise error

    return act


ACTS = {
    "returns": lambda flags: None,
    "returns something": lambda flags: {"id": 17},
    "fails": raises(ValueError("no")),
    "asks for later": raises(Snooze(90)),
    "asks for later with nonsense": raises(Snooze(-1)),
    "gives up": raises(Discard("the address is wrong")),
    "asks to be tried again": raises(Retry()),
    "asks to be tried again after": raises(Retry(77)),
    "is not worth a retry": raises(KeyError("final")),
    "is to be discarded": raises(LookupError("gone")),
    "ends the process": raises(SystemExit(3)),
    "interrupts": raises(KeyboardInterrupt()),
    "is cancelled by itself": raises(asyncio.CancelledError()),
    "stops an iteration": raises(GeneratorExit()),
    "leaks": leave_a_transaction_open,
}
OPTIONS = {"backoff": 30, "history": True, "discard_on": LookupError, "retry_on": (ValueError, BaseException), "max_attempts": 2}


@pytest.mark.parametrize("act", ACTS)
def test_a_handler_has_the_same_outcome_whether_it_is_async_or_not(flags_anywhere, act):
    flags, do = flags_anywhere, ACTS[act]

    @flags.handler("sync", lane="sync", **OPTIONS)
    def work(n):
        return do(flags)

    @flags.handler("async", lane="async", **OPTIONS)
    async def work_too(n):
        await asyncio.sleep(0)
        return do(flags)

    seen = []
    for handler in (work, work_too):
        handler.raise_flag(1)
        swept = [+flags.sweep(handler.lane)]
        flags.clock.advance(100)
        swept.append(+flags.sweep(handler.lane))
        left = [
            (f.state, f.attempts, f.due_at and f.due_at - utc(flags.clock.now()), f.error and f.error.splitlines()[-1])
            for f in flags.find(handler.kind)
        ]
        lines = History.select(History.event, History.attempt, History.reason).where(History.kind == handler.kind)
        seen.append((swept, left, list(lines.order_by(History.id).tuples().execute(flags.connections.engine))))
    assert seen[0] == seen[1]


def test_what_a_task_does_to_itself_or_makes_ends_no_loop(flags_here):
    done = []

    @flags_here.handler(backoff=30)
    async def work(how):
        if how == "child ends the process":

            async def child():
                raise SystemExit(4)

            await asyncio.gather(child())
        if how == "cancels itself":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        if how == "cancels itself in vain":
            asyncio.current_task().cancel()
        if how == "stops the loop":
            asyncio.get_running_loop().stop()
        if how == "waits":
            await asyncio.sleep(0.05)
        done.append(how)

    fail = ["child ends the process", "cancels itself"]
    last = ["cancels itself in vain", "waits"] + (["stops the loop"] if not flags_here.connections.in_memory else [])
    work.raise_many([(how,) for how in fail + last])
    assert +flags_here.sweep() == {"lowered": len(last), "again": 2}
    assert sorted(done) == sorted(last)


def test_whoever_cancels_all_tasks_of_the_loop_fails_flags_and_loses_none(flags):
    @flags.handler(backoff=30)
    async def work(n):
        if n == 0:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        else:
            await asyncio.sleep(LIMIT)

    work.raise_many([(n,) for n in (1, 2, 3, 0)])
    swept = +flags.sweep(limit=4)
    assert swept["lowered"] == 1 and swept["again"] + swept["released"] == 3


def test_it_still_is_a_coroutine_function_to_call(flags):
    @flags.handler()
    async def work(n):
        return n + 1

    assert asyncio.run(work(1)) == 2


async def generator():
    yield


def test_what_yields_is_refused(flags):
    with pytest.raises(ConfigError, match="yields"):
        flags.handler("work")(generator)


@pytest.mark.parametrize("wrap", [lambda function: function, functools.partial])
def test_a_handler_that_is_async_and_atomic_is_refused(flags, wrap):
    async def work(n): ...

    with pytest.raises(ConfigError, match=r"async and atomic=True.*leave atomic out"):
        flags.handler("work", atomic=True)(wrap(work))


def test_rows_that_come_in_a_session_of_the_thread_are_refused(flags):
    orm = pytest.importorskip("sqlalchemy.orm")

    class Base(orm.DeclarativeBase): ...

    class Order(Base):
        __tablename__ = "shop_order"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        owed: orm.Mapped[bool]

    async def work(order): ...

    with pytest.raises(ConfigError, match=r"is async, and rows of SQLAlchemy .* flags.when\(table="):
        flags.when(Order.owed)(work)
    assert not flags.handlers


@pytest.mark.parametrize("lower", ["after", "before"])
def test_rows_of_a_table_by_name_may_be_an_async_handlers(flags_anywhere, table, lower):
    seen = []
    with flags_anywhere.database.connection_context():
        flags_anywhere.database.execute_sql("ALTER TABLE effect ADD COLUMN owed INTEGER")
        table.insert_many([{"n": 0}] * 3).execute()
        flags_anywhere.database.execute_sql("UPDATE effect SET owed = 1 WHERE id <> 2")

    @flags_anywhere.when(table="effect", column="owed", lower=lower)
    async def work(row):
        await asyncio.sleep(0)
        seen.append(row["id"])

    assert +flags_anywhere.sweep(raise_errors=True) == {"lowered": 2}
    assert sorted(seen) == [1, 3]


def test_one_that_returns_a_coroutine_has_not_done_its_work(flags):
    async def other(): ...

    @flags.handler()
    async def work():
        return other()

    work.raise_flag()
    assert +flags.sweep() == {"again": 1}
    assert "of which nothing has run" in only(flags).error


def test_a_flag_that_came_too_late_does_not_begin(flags):
    @flags.handler(expires=5)
    async def work(): ...

    work.raise_flag()
    flags.clock.advance(10)
    assert +flags.sweep() == {"expired": 1}


def test_it_gets_its_context_and_comes_further(flags_anywhere):
    @flags_anywhere.handler()
    async def work(n, flag):
        await asyncio.sleep(0)
        flag.progress((flag.cursor or 0) + 1)
        if flag.cursor < 3:
            raise Snooze(0)

    work.raise_many([(n,) for n in range(5)])
    assert +flags_anywhere.sweep() == {"snoozed": 10, "lowered": 5}


def test_work_for_rows_of_the_sites_own_may_be_async(flags_anywhere, table):
    @flags_anywhere.when(table.n == 0, kind="work", backoff=30)
    async def work(row):
        await asyncio.sleep(0)
        if row.id != 2:
            table.update(n=row.id).where(table.id == row.id).execute()

    with flags_anywhere.database.connection_context():
        table.insert_many([{"n": 0}] * 3).execute()
    assert +flags_anywhere.sweep() == {"lowered": 2, "again": 1}
    assert "condition still holds" in only(flags_anywhere).error
    with flags_anywhere.database.connection_context():
        assert ns(table) == [0, 1, 3]


# Side by side.


@pytest.mark.long
def test_handlers_that_wait_wait_at_the_same_time(flags):
    crowd, pause, many = Crowd(), 0.1, 1000

    @flags.handler()
    async def work(n):
        with crowd:
            await asyncio.sleep(pause)

    work.raise_many([(n,) for n in range(many)])
    began = time.monotonic()
    assert +flags.sweep() == {"lowered": many}
    took = time.monotonic() - began
    assert crowd.most == 100, "as many as the setting says"
    assert took < many * pause / 10, "a tenth of what they waited in all"


@pytest.mark.parametrize("tasks", [3, {"default": 3, "mail": 50}])
def test_no_more_run_at_a_time_than_the_setting_says(make, tasks):
    flags, crowd = make(tasks=tasks), Crowd()

    @flags.handler()
    async def work(n):
        with crowd:
            await asyncio.sleep(0.002)

    work.raise_many([(n,) for n in range(50)])
    assert +flags.sweep() == {"lowered": 50}
    assert crowd.most == 3


def test_a_lane_with_both_sorts_has_each_go_on_while_the_other_is_full(make, until):
    flags = make(threads=2, tasks=5)
    done, threads_full, tasks_full = Counter(), threading.Barrier(3), threading.Event()

    @flags.handler()
    def sync(n):
        if n < 2:  # Both threads wait until the tasks have done much.
            threads_full.wait(LIMIT)
            assert tasks_full.wait(LIMIT)
        done["sync"] += 1

    @flags.handler()
    async def work(n):
        if n == 0:
            await asyncio.to_thread(threads_full.wait, LIMIT)
        await asyncio.sleep(0)
        done["async"] += 1
        if done["async"] == 200:
            tasks_full.set()

    sync.raise_many([(n,) for n in range(20)])
    work.raise_many([(n,) for n in range(200)])
    assert +flags.sweep() == {"lowered": 220}
    assert done == {"sync": 20, "async": 200}


def test_threads_go_on_while_all_tasks_wait(make):
    flags, released = make(threads=1, tasks=2), []

    @flags.handler()
    async def work(n):
        while len(released) < 50:
            await asyncio.sleep(0.001)

    flags.handler("sync")(lambda n: released.append(n)).raise_many([(n,) for n in range(50)])
    work.raise_many([(n,) for n in range(10)])
    assert +flags.sweep() == {"lowered": 60}


def test_limits_hold_for_async_handlers(flags_anywhere):
    crowd, by_bucket = Crowd(), {"a": Crowd(), "b": Crowd()}

    @flags_anywhere.handler(limit=2)
    async def limited(n):
        with crowd:
            await asyncio.sleep(0.002)

    @flags_anywhere.handler(limit=1, per="customer")
    async def taking_turns(n, customer):
        with by_bucket[customer]:
            await asyncio.sleep(0.002)

    limited.raise_many([(n,) for n in range(12)])
    taking_turns.raise_many([(n, customer) for n in range(6) for customer in "ab"])
    assert (+flags_anywhere.sweep())["lowered"] == 24
    assert (crowd.most, by_bucket["a"].most, by_bucket["b"].most) == (2, 1, 1)


def test_a_rate_holds_for_async_handlers(flags_anywhere):
    ran = []

    @flags_anywhere.handler(rate="6/h burst 4")
    async def work(n):
        ran.append(n)

    work.raise_many([(n,) for n in range(10)])
    flags_anywhere.sweep()
    assert len(ran) == 4
    flags_anywhere.clock.advance(600)
    flags_anywhere.sweep()
    assert len(ran) == 5


def test_a_provider_that_refuses_at_once_is_not_asked_for_all_that_could_run(make):
    flags, asked = make(tasks=100), []

    @flags.handler(breaker=5, backoff=30)
    async def work(n):
        asked.append(n)
        raise ConnectionError("down")

    work.raise_many([(n,) for n in range(100)])
    flags.sweep()
    assert len(asked) == 5


def test_what_is_raised_again_while_it_runs_runs_once_more_and_not_beside_itself(flags_anywhere):
    crowd, runs = Crowd(), []

    @flags_anywhere.handler()
    async def work():
        with crowd:
            runs.append(1)
            if len(runs) == 1:
                work.raise_flag()
            await asyncio.sleep(0.01)

    work.raise_flag()
    assert +flags_anywhere.sweep() == {"again": 1, "lowered": 1}
    assert (len(runs), crowd.most) == (2, 1)


def test_suspects_run_one_at_a_time(flags):
    crowd = Crowd()

    @flags.handler()
    async def work(n):
        with crowd:
            await asyncio.sleep(0.002)

    work.raise_many([(n,) for n in range(10)])
    flags.database.execute_sql("UPDATE flagsweep_flag SET suspect = 1")
    flags.database.close()
    assert +flags.sweep() == {"lowered": 10}
    assert crowd.most == 1


# What tasks share.


def test_each_task_has_context_variables_of_its_own(flags_here):
    variable, seen = contextvars.ContextVar("variable", default="unset"), []
    variable.set("the sweeper's")

    @flags_here.around
    @contextmanager
    def around():
        token = variable.set(f"{variable.get()}, around")
        yield
        variable.reset(token)

    @flags_here.handler()
    async def work(n):
        before = variable.get()
        variable.set(n)
        await asyncio.sleep(0.001)
        seen.append((before, variable.get() == n))
        variable.set(before)

    work.raise_many([(n,) for n in range(20)])
    assert +flags_here.sweep(raise_errors=True) == {"lowered": 20}
    assert set(seen) == {("unset, around", True)}


@pytest.mark.parametrize("child", [False, True])
def test_a_task_that_waits_within_a_transaction_fails_alone(flags_anywhere, table, child):
    """What others wrote meanwhile was a part of it, and vanished with it, though their flags were lowered."""
    flags, begun = flags_anywhere, []

    async def write_and_wait():
        with flags.database.atomic():
            table.create(n=-1)
            begun.append(1)
            await asyncio.sleep(0.01)

    @flags.handler(backoff=30)
    async def careless():
        await (asyncio.gather(write_and_wait()) if child else write_and_wait())

    @flags.handler()
    async def careful(n):
        while not begun:
            await asyncio.sleep(0)
        with flags.database.atomic():
            table.create(n=n)
        await asyncio.sleep(0)
        table.create(n=n + 100)

    careless.raise_flag()
    careful.raise_many([(n,) for n in range(10)])
    assert +flags.sweep() == {"lowered": 10, "again": 1}
    assert "awaits within a transaction" in only(flags).error
    with flags.database.connection_context():
        assert ns(table) == [*range(10), *range(100, 110)]


def test_a_task_that_takes_no_notice_of_that_loses_its_transaction_and_no_other_does(flags_anywhere, table):
    flags = flags_anywhere

    @flags.handler(backoff=30)
    async def stubborn():
        flags.database.connect(reuse_if_open=True)
        flags.database.begin()
        table.create(n=-1)
        for _ in range(3):
            with suppress(BaseException):
                await asyncio.sleep(0.001)

    @flags.handler()
    async def careful(n):
        await asyncio.sleep(0.002)
        table.create(n=n)

    stubborn.raise_flag()
    careful.raise_many([(n,) for n in range(10)])
    flags.sweep()
    with flags.database.connection_context():
        assert ns(table) == list(range(10))


def test_the_same_awaitable_can_be_waited_for_once_the_transaction_has_ended(flags):
    @flags.handler()
    async def work():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, 1)
        try:
            with flags.database.atomic():
                await future
        except Exception as error:
            assert "awaits within" in str(error)
        assert await future == 1

    work.raise_flag()
    assert +flags.sweep(raise_errors=True) == {"lowered": 1}


def test_a_connection_context_may_be_waited_in_and_is_each_tasks_own(flags_anywhere):
    db = flags_anywhere.database

    @flags_anywhere.handler()
    async def within(n):
        with db.connection_context():
            for _ in range(3):
                assert not db.is_closed()
                db.execute_sql("SELECT 1")
                await asyncio.sleep(0.001)
        assert db.is_closed()

    @flags_anywhere.handler()
    async def without(n):
        for _ in range(3):
            assert db.is_closed(), "another task's is not this one's"
            db.connect()
            db.execute_sql("SELECT 1")
            await asyncio.sleep(0.001)

    within.raise_many([(n,) for n in range(10)])
    without.raise_many([(n,) for n in range(10)])
    assert +flags_anywhere.sweep(raise_errors=True) == {"lowered": 20}


def test_tasks_share_one_connection_of_a_small_pool_with_threads_beside_them(make, db_path):
    site = PooledSqliteDatabase(db_path, max_connections=3, check_same_thread=False)
    flags = make(site, threads=4, tasks=50)

    @flags.handler()
    async def work(n):
        site.execute_sql("SELECT 1").fetchall()
        await asyncio.sleep(0.001)
        site.execute_sql("SELECT 1").fetchall()

    @flags.handler()
    def sync(n):
        site.execute_sql("SELECT 1").fetchall()

    for handler in (work, sync):
        handler.raise_many([(n,) for n in range(100)])
    assert +flags.sweep(raise_errors=True) == {"lowered": 200}
    site.close_all()


def test_a_database_in_memory_says_why_it_cannot_be_swept_within_a_loop(make):
    flags = make(":memory:")

    @flags.handler()
    async def work(): ...

    work.raise_flag()

    async def main():
        return +flags.sweep()

    assert asyncio.run(main()) == {"again": 1}
    assert "an event loop runs already" in only(flags).error


def test_a_file_can_be_swept_within_a_loop(flags):
    @flags.handler()
    async def work():
        await asyncio.sleep(0)

    work.raise_flag()

    async def main():
        return +flags.sweep()

    assert asyncio.run(main()) == {"lowered": 1}


def test_what_a_handler_leaves_behind_ends_with_the_sweep(flags):
    ended = []

    async def background():
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ended.append(1)

    @flags.handler()
    async def work():
        work.task = asyncio.create_task(background())
        await asyncio.sleep(0)

    work.raise_flag()
    assert +flags.sweep() == {"lowered": 1}
    assert ended == [1]


def test_cancel_scopes_and_task_groups_of_anyio_work_as_anywhere(flags):
    anyio, done = pytest.importorskip("anyio"), []

    @flags.handler()
    async def work(n):
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep(LIMIT)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
            group.start_soon(anyio.to_thread.run_sync, lambda: done.append(n))
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0.001))

    work.raise_many([(n,) for n in range(10)])
    assert +flags.sweep(raise_errors=True) == {"lowered": 10}
    assert sorted(done) == list(range(10))


# Who looks after them.


def test_a_handler_that_blocks_the_loop_is_named_once_it_has(flags, monkeypatch, caplog):
    monkeypatch.setattr(EventLoop, "BLOCKING", 0.02)

    @flags.handler()
    async def work(n):
        if n in (1, 2):
            time.sleep(0.03)
        await asyncio.sleep(0.03)

    work.raise_many([(n,) for n in range(5)])
    with caplog.at_level(logging.WARNING, "flagsweep"):
        flags.sweep()
    (line,) = [record.message for record in caplog.records if "blocks the event loop of lane default" in record.message]
    assert line.startswith("work (flag 2)") and "asyncio.to_thread" in line


@pytest.mark.long
def test_the_guard_names_what_blocks_the_loop_and_what_is_slow_while_they_do(flags, monkeypatch, caplog, until):
    monkeypatch.setattr(EventLoop, "BLOCKING", 0.02)
    blocking, may_go_on = threading.Event(), threading.Event()

    @flags.handler(slow_after=0.01)
    async def waits():
        while not blocking.is_set():
            await asyncio.sleep(0.001)

    @flags.handler()
    async def blocks():
        await asyncio.sleep(0.05)
        blocking.set()
        assert may_go_on.wait(LIMIT)

    waits.raise_flag()
    blocks.raise_flag()
    with lane_of(flags, "default") as lane, caplog.at_level(logging.WARNING, "flagsweep"):
        sweep = threading.Thread(target=lane.sweep)
        sweep.start()
        guard = Guard({"default": lane}, flags.clock, lambda: None, lambda why: None, lambda why: None)
        try:
            assert blocking.wait(LIMIT)
            until(lambda: [guard._report_slow(), caplog.messages][1] and "blocks (flag 2) blocks the event loop" in caplog.text)
            assert "waits (flag 1) runs for" in caplog.text
            assert lane.pool.trouble(None) is None and lane.pool.trouble(60) is None
            assert lane.pool.trouble(0.001) == "blocks (flag 2) blocks its event loop for more than 0.001 s"
            box = lane.pool._member.box
            running = box.cells[1::3].tolist()
            assert 2 in running and 1 not in running, "who only waits is not to blame"
        finally:
            may_go_on.set()
            sweep.join(LIMIT)
            flags.connections.close_thread()


def test_a_lane_whose_tasks_all_hang_is_in_trouble(make, until):
    flags, may_go_on = make(tasks=2), []

    @flags.handler()
    async def work(n):
        while not may_go_on:
            await asyncio.sleep(0.001)

    work.raise_many([(n,) for n in range(2)])
    with lane_of(flags, "default") as lane:
        sweep = threading.Thread(target=lane.sweep)
        sweep.start()
        try:
            until(lambda: len(lane.pool.under_way()) == 2)
            assert lane.pool.trouble(60) is None
            until(lambda: lane.pool.trouble(0.01) == "all its tasks run for more than 0.01 s")
        finally:
            may_go_on.append(1)
            sweep.join(LIMIT)


def test_a_sweep_that_is_stopped_lets_tasks_end_and_gives_back_the_others(make, until):
    flags, started = make(tasks=3), []

    @flags.handler()
    async def work(n, flag):
        started.append(n)
        if len(started) == 3:
            flags.stop()
        while not flag.should_stop():
            await asyncio.sleep(0.001)
        raise Snooze(0)

    work.raise_many([(n,) for n in range(10)])
    swept = +flags.sweep()
    assert len(started) == 3 and swept["snoozed"] == 3
    assert [(f.state, f.attempts) for f in flags.find("work")] == [("waiting", 0)] * 10


def test_a_lane_goes_on_where_the_system_has_no_thread_for_its_loop_for_a_while(flags, monkeypatch, caplog):
    start, refused = threading.Thread.start, []

    def refuse(thread):
        if thread.name.endswith("-loop") and len(refused) < 2:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    @flags.handler()
    async def work(n): ...

    work.raise_many([(n,) for n in range(3)])
    with caplog.at_level(logging.ERROR, "flagsweep"):
        assert +flags.sweep() == {"lowered": 3}
    assert len(refused) == 2 and "lane default has no event loop for now" in caplog.text


def test_threads_and_tasks_may_not_be_too_many_in_all(make):
    flags = make(tasks=1000)
    for n in range(5):
        flags.handler(f"work{n}", lane=f"lane{n}")(asyncio.sleep)
    with pytest.raises(ConfigError, match="threads and tasks in all, and 4,096 are the most"):
        flags.sweep()


def test_a_lane_without_async_handlers_has_no_loop(flags, until):
    flags.handler("work")(lambda: None)
    with lane_of(flags, "default") as lane:
        assert lane.pool.loop is None


def test_settings_say_how_many_tasks_there_are(make, monkeypatch, tmp_path):
    def tasks():
        flags = FlagSweep("sqlite:///site.db")
        flags.handler("work", lane="mail")(asyncio.sleep)
        flags.handler("other")(asyncio.sleep)
        flags.handler("sync", lane="slow")(lambda: None)
        return flags._duties().tasks()

    assert tasks() == {"mail": 100, "default": 100}
    monkeypatch.setenv("FLAGSWEEP_TASKS", "7")
    assert tasks() == {"mail": 7, "default": 7}
    monkeypatch.setenv("FLAGSWEEP_TASKS", "mail=20,slow=5")
    assert tasks() == {"mail": 20, "default": 100}
    monkeypatch.delenv("FLAGSWEEP_TASKS")
    (tmp_path / "flags.toml").write_text("[tasks]\nmail = 9\n")
    monkeypatch.setenv("FLAGSWEEP_CONFIG", str(tmp_path / "flags.toml"))
    assert tasks() == {"mail": 9, "default": 100}


@pytest.mark.parametrize("tasks", [0, 1001, "many", True, {"mail": 0}, "mail=x", [5]])
def test_a_number_of_tasks_that_is_none_is_refused(tasks):
    with pytest.raises(ConfigError, match="tasks"):
        FlagSweep("sqlite:///site.db", tasks=tasks)
