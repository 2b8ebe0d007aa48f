"""Results: what a handler returned is found by its raise, on every database; which run's it is; and waiting for it."""

import asyncio
import json
import re
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import NEW_YEAR

import flagsweep
from flagsweep import ConfigError, Discard, FlagSweep, FlagSweepError, NotDone, Raised, Retry, Snooze
from flagsweep.config import SECOND
from flagsweep.payloads import RESULT_LIMIT
from flagsweep.sweep.records import Records

DOCUMENT = Path(flagsweep.__file__).parent / "docs" / "results.md"
WORK = """
import os, sys
from flagsweep import FlagSweep
flags = FlagSweep(os.environ["URL"], threads=2)

@flags.handler(result=True)
def add(a, b):
    return {"sum": a + b}
"""


@pytest.fixture
def flags(flags_anywhere):
    return flags_anywhere


def told(result):
    return result.state, result.value


def kept(client):
    return client.ask("SELECT event, attempt, generation, result FROM flagsweep_history ORDER BY id")


@pytest.fixture(params=[False, True], ids=["grouped", "atomic"])
def atomic(request):
    return request.param


# What is kept.


def test_what_a_handler_returned_is_found_by_its_raise(flags, atomic):
    add = flags.handler("add", result=True, atomic=atomic)(lambda a, b: {"sum": a + b})
    raised = [add.raise_flag(1, n) for n in range(5)]
    assert [told(flags.result(each)) for each in raised] == [("waiting", None)] * 5
    assert flags.sweep() == {"lowered": 5}
    assert [told(flags.result(each)) for each in raised] == [("lowered", {"sum": 1 + n}) for n in range(5)]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "größer 🚩 %s ' \\", [], {"a": [1, None]}, "x" * (RESULT_LIMIT - 2)])
def test_any_json_of_32_kib_comes_back(flags, value):
    give = flags.handler("give", result=True)(lambda: value)
    raised = give.raise_flag()
    assert flags.sweep() == {"lowered": 1}
    assert told(flags.result(raised)) == ("lowered", value)


@pytest.mark.parametrize(
    "value, said",
    [
        (datetime(2026, 1, 1, tzinfo=UTC), r"result of give is .*, which is not JSON: return \.isoformat\(\) and parse it where"),
        (float("nan"), "result of give is nan, which JSON does not have: return None or a string"),
        ({1: 2}, r"the key 1: JSON has only strings as keys, so return str\(1\)"),
        ("x" * RESULT_LIMIT, "result of give has 32,770 bytes, the limit is 32,768: keep it in a table and return its id"),
    ],
)
def test_what_cannot_be_kept_fails_the_attempt_with_the_fix(flags, client, atomic, value, said):
    give = flags.handler("give", result=True, max_attempts=1, atomic=atomic)(lambda: value)
    raised = give.raise_flag()
    with pytest.raises(ValueError, match=said):
        flags.sweep(raise_errors=True)
    result = flags.result(raised)
    assert result.state == "dead" and "PayloadError" in result.error
    assert [event for event, *_ in kept(client)] == ["dead"]


@pytest.mark.long
def test_many_large_results_are_kept_together(flags):
    """In statements that every server takes: MySQL refuses what is larger than its packet."""
    give = flags.handler("give", result=True)(lambda n: "x" * (RESULT_LIMIT - 10))
    many = 700 if flags.connections.dialect.name == "MySQL" else 100
    raised = [give.raise_flag(n) for n in range(many)]
    assert flags.sweep() == {"lowered": many}
    assert len(flags.result(raised[-1]).value) == RESULT_LIMIT - 10


def test_what_an_async_handler_returned_is_kept_as_well(flags):
    @flags.handler(result=True, max_attempts=1)
    async def add(a, b):
        return object() if b is None else a + b

    raised, unfit = add.raise_flag(1, 2), add.raise_flag(1, None)
    assert flags.sweep() == {"lowered": 1, "dead": 1}
    assert told(flags.result(raised)) == ("lowered", 3)
    assert "which is not JSON" in flags.result(unfit).error


def test_a_kind_without_results_keeps_no_row(flags, client):
    raised = flags.handler("add")(lambda a, b: a + b).raise_flag(1, 2)
    assert flags.sweep() == {"lowered": 1} and kept(client) == []
    assert flags.result(raised).state == "gone"


def test_a_line_of_history_alone_has_no_value(flags, client):
    raised = flags.handler("add", history=True)(lambda a, b: a + b).raise_flag(1, 2)
    flags.sweep()
    assert kept(client) == [("succeeded", 1, None, None)] and flags.result(raised).state == "gone"


def test_a_result_goes_with_its_history(flags):
    add = flags.handler("add", result=True)(lambda a, b: a + b)
    raised = add.raise_flag(1, 2)
    flags.sweep()
    Records(flags.connections).prune({"succeeded": 60.0}, 100, NEW_YEAR + 61 * SECOND)
    assert told(flags.result(raised)) == ("gone", None)
    flags.connections.close_engine()


def test_what_an_atomic_handler_returned_rolls_back_with_it(flags, client):
    """The flag is lowered by hand while the handler runs: what it wrote is gone, and so is its result."""

    @flags.handler(result=True, atomic=True)
    def add(a, b):
        flags.lower("add", json.dumps({"a": a, "b": b}, separators=(",", ":")))
        return a + b

    raised = add.raise_flag(1, 2)
    assert flags.sweep().keys() <= {"lost", "lowered", "again"}
    assert all(event != "succeeded" for event, *_ in kept(client)) and flags.result(raised).value is None


def test_a_result_that_was_damaged_by_hand_says_so(flags, client):
    raised = flags.handler("give", result=True)(lambda: 1).raise_flag()
    flags.sweep()
    client.ask("UPDATE flagsweep_history SET result = '{'")
    result = flags.result(raised)
    assert told(result) == ("lowered", None) and "is no JSON" in result.error


# Whose result it is.


def test_a_raise_that_coalesced_has_the_result_of_the_run_that_came(flags):
    count = iter(range(10))
    tick = flags.handler("tick", result=True)(lambda: next(count))
    raised = [tick.raise_flag(), tick.raise_flag()]
    flags.sweep()
    later = tick.raise_flag()
    assert [told(flags.result(each)) for each in raised] == [("lowered", 0)] * 2
    assert told(flags.result(later)) == ("waiting", None)


def test_a_raise_while_it_runs_has_the_result_of_the_next_run(flags, client, atomic):
    if atomic and client.scheme == "sqlite":
        pytest.skip("on SQLite an atomic handler holds the only writer, so nobody can raise meanwhile")
    count, raised = iter(range(10)), []

    @flags.handler(result=True, atomic=atomic)
    def tick():
        n = next(count)
        if n == 0:  # By another program: a raise of this thread would be a part of an atomic handler's transaction.
            client.ask("UPDATE flagsweep_flag SET generation = generation + 1 WHERE kind = 'tick'")
            raised.append(Raised(raised[0].id, "bumped", 2))
            assert [flags.result(each).state for each in raised] == ["claimed", "waiting"]
        return n

    raised.append(tick.raise_flag())
    assert flags.sweep() == {"again": 1, "lowered": 1}
    assert [told(flags.result(each)) for each in raised] == [("lowered", 0), ("lowered", 1)]


def test_a_flag_that_is_raised_by_its_own_handler_tells_the_two_runs_apart(flags):
    count, raised = iter(range(10)), []

    @flags.handler(result=True)
    def tick():
        n = next(count)
        if n < 2:
            raised.append(tick.raise_flag())
        return n

    raised.append(tick.raise_flag())
    assert flags.sweep() == {"again": 2, "lowered": 1}
    assert [told(flags.result(each)) for each in raised] == [("lowered", n) for n in range(3)]
    assert [(each.how, each.generation) for each in raised] == [("new", 1), ("bumped", 2), ("bumped", 3)]


OPS = st.lists(st.sampled_from(["raise", "sweep", "fail", "bump"]), min_size=1, max_size=12)


@pytest.mark.long
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPS)
def test_every_raise_gets_the_first_success_that_began_after_it(make, clock, ops):
    """Beside a model: each raise is answered by the first run that has succeeded and begun after it."""
    flags = make()
    runs, open_raises, answered, plan = [], [], {}, []

    @flags.handler(result=True, max_attempts=1000, backoff=0, unique=True)
    def work():
        waiting, how = list(open_raises), plan.pop() if plan else "sweep"
        if how == "bump":
            put_up()
        if how == "fail":
            raise ValueError("as asked")
        runs.append(len(runs))
        for each in waiting:
            answered[each] = runs[-1]
            open_raises.remove(each)
        return runs[-1]

    def put_up():
        raised = work.raise_flag()
        key = (raised.id, raised.generation)
        open_raises.append(key)
        found[key] = raised

    found = {}
    for op in ops:
        if op == "raise":
            put_up()
        else:
            plan[:] = [op]
            flags.sweep(limit=1)
            clock.advance(3600)
        for key, raised in found.items():
            result = flags.result(raised)
            assert told(result) == (("lowered", answered[key]) if key in answered else ("waiting", None))
    flags.lower(work.kind, "{}")


# What went wrong.


def test_a_failed_attempt_tells_its_error_and_waits(flags):
    tries = iter([ValueError("not yet"), None])

    @flags.handler(result=True, backoff=0)
    def work():
        if (error := next(tries)) is not None:
            raise error
        return "done"

    raised = work.raise_flag()
    flags.sweep(limit=1)
    result = flags.result(raised)
    assert (result.state, result.is_over) == ("waiting", False) and "ValueError: not yet" in result.error
    flags.clock.advance(3600)
    flags.sweep()
    assert (told(flags.result(raised)), flags.result(raised).error) == (("lowered", "done"), None)


def test_a_dead_flag_tells_why_and_a_retry_answers_the_same_raise(flags, client):
    tries = iter([1 / 2, 0])

    @flags.handler(result=True, max_attempts=1)
    def work():
        if next(tries):
            raise ValueError("no")
        return "done"

    raised = work.raise_flag()
    flags.sweep()
    result = flags.result(raised)
    assert (result.state, result.is_over) == ("dead", True) and "ValueError: no" in result.error
    ((event, attempt, generation, how),) = kept(client)
    assert (event, attempt, generation, json.loads(how)["exception"]) == ("dead", 1, 1, "builtins.ValueError")
    flags.retry(id=raised.id)
    flags.sweep()
    assert told(flags.result(raised)) == ("lowered", "done")


def test_what_was_given_up_says_so(flags):
    @flags.handler(result=True, max_attempts=1, expires="1h")
    def work(how):
        raise Discard("gone") if how == "discard" else Snooze(5) if how == "snooze" else Retry()

    raised = {how: work.raise_flag(how) for how in ("discard", "snooze", "retry")}
    late = work.using(delay="1s").raise_flag("late")
    flags.sweep()
    flags.discard(reason="not wanted")
    flags.lower("work", '{"how":"snooze"}')
    found = {how: flags.result(each) for how, each in raised.items()}
    assert {how: each.state for how, each in found.items()} == dict.fromkeys(raised, "discarded")
    assert [each.error for each in found.values()] == ["gone", "lowered by hand: was waiting", "not wanted"]
    flags.clock.advance(2 * 3600)
    flags.sweep()
    assert flags.result(late).state == "expired"


@pytest.mark.long
def test_what_cannot_be_lowered_has_no_result(flags, client, request):
    """A trigger of the site's forbids it: the attempt has failed, and history tells no success."""
    if client.scheme != "sqlite":
        pytest.skip("a trigger is written in each database's own language; SQLite's stands for all")
    raised = flags.handler("work", result=True, max_attempts=1)(lambda: 7).raise_flag()
    client.ask("CREATE TRIGGER no BEFORE DELETE ON flagsweep_flag BEGIN SELECT RAISE(ABORT, 'kept for ever'); END")
    flags.sweep()
    result = flags.result(raised)
    assert result.state == "dead" and "kept for ever" in result.error
    assert [event for event, *_ in kept(client)] == ["dead"]


def test_only_a_raise_has_a_result(flags):
    with pytest.raises(ConfigError, match="give what raise_flag returned, got 17"):
        flags.result(17)


def test_a_raise_is_still_the_pair_of_id_and_what_it_did():
    raised = Raised(1, "new", 3)
    id, how = raised
    assert (id, how) == (1, "new") == raised and repr(raised) == "Raised(id=1, how='new')" and raised.generation == 3


# Waiting.


@pytest.fixture
def consumer(url, tmp_path, spawn, env):
    """Give `consumer()`: start a process that sweeps; return the site that it serves."""
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    flags = FlagSweep(url)
    add = flags.handler("add", result=True)(lambda a, b: None)
    flags.init()

    def start():
        spawn(sys.executable, "-m", "flagsweep", "--app", "work:flags", "run", env={**env, "URL": url})

    yield flags, add, start
    flags.connections.close_thread()


@pytest.mark.long
def test_wait_wakes_when_it_is_done(consumer, until):
    flags, add, start = consumer
    first = add.raise_flag(1, 2)
    start()
    assert told(flags.result(first).wait(30)) == ("lowered", {"sum": 3})
    assert [told(flags.result(add.raise_flag(n, 0)).wait(30)) for n in range(5)] == [("lowered", {"sum": n}) for n in range(5)]


def test_wait_ends_with_its_time_and_says_the_state(flags_anywhere):
    raised = flags_anywhere.handler("add", result=True)(lambda: 1).raise_flag()
    with pytest.raises(NotDone, match=rf"flag {raised.id} is waiting, not done within 0\.05 s: .*'flagsweep status'"):
        flags_anywhere.result(raised).wait(0.05)
    with pytest.raises(TimeoutError):
        flags_anywhere.result(raised).wait(0.01)
    assert flags_anywhere.connections.engine.is_closed()


def test_wait_within_a_transaction_is_refused(flags_anywhere):
    add = flags_anywhere.handler("add", result=True)(lambda: 1)
    with flags_anywhere.database.atomic():
        raised = add.raise_flag()
        with pytest.raises(FlagSweepError, match="within an open transaction would wait for ever"):
            flags_anywhere.result(raised).wait(1)


def test_nobody_waits_for_a_database_in_memory():
    flags = FlagSweep(":memory:")
    flags.init()
    add = flags.handler("add", result=True)(lambda: 7)
    raised = add.raise_flag()
    with pytest.raises(ConfigError, match="call sweep"):
        flags.result(raised).wait(1)
    flags.sweep()
    assert told(flags.result(raised).wait(1)) == ("lowered", 7)
    flags.database.close()


def test_many_threads_wait_at_once(flags_anywhere, until):
    add = flags_anywhere.handler("add", result=True)(lambda n: n)
    raised = [add.raise_flag(n) for n in range(8)]
    found, waiting = {}, []

    def wait(n):
        result = flags_anywhere.result(raised[n])
        waiting.append(n)
        found[n] = result.wait(30).value
        flags_anywhere.connections.close_thread()

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(waiting) == 8)
    flags_anywhere.sweep()
    for thread in threads:
        thread.join(30)
    assert found == {n: n for n in range(8)}


@pytest.mark.long
def test_a_wait_of_a_second_costs_next_to_no_cpu_where_commits_are_seen(url, tmp_path):
    if url.startswith("mysql"):
        pytest.skip("nobody is told of a commit there: it is asked for")
    flags = FlagSweep(url)
    flags.init()
    raised = flags.handler("add", result=True)(lambda: 1).raise_flag()
    looks = []
    original = type(flags.store).changes
    flags.store.changes = lambda: looks.append(1) or original(flags.store)
    with pytest.raises(NotDone):
        flags.result(raised).wait(1.5)
    assert len(looks) < 100
    flags.connections.close_thread()


def test_a_coroutine_has_a_thread_wait_while_its_loop_goes_on(db_path):
    """As the document says; here the loop itself has the sweep done."""
    flags = FlagSweep(db_path)
    flags.init()
    price = flags.handler("price", result=True)(lambda: 17.5)
    raised = price.raise_flag()

    def sweep():
        flags.sweep()
        flags.connections.close_thread()

    async def both():
        waiting = asyncio.create_task(asyncio.to_thread(flags.result(raised).wait, 20))
        await asyncio.sleep(0)
        await asyncio.to_thread(sweep)
        return await waiting

    assert told(asyncio.run(both())) == ("lowered", 17.5)
    assert "await asyncio.to_thread(flags.result(raised).wait, 5)" in DOCUMENT.read_text(encoding="utf-8")
    flags.connections.close_thread()


def test_the_documents_program_runs(db_path, capsys, until):
    """Another thread sweeps, as a consumer would."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    flags = FlagSweep(db_path)
    flags.init()

    def sweep():
        until(flags.sweep, limit=20)
        flags.connections.close_thread()

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    exec(program, {"flags": flags})
    sweeping.join()
    assert capsys.readouterr().out == "lowered 17.5\n"
    flags.connections.close_thread()
