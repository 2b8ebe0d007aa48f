"""flagsweep on database servers: beside Huey's own PostgresHuey, with several consumers, and where such servers get slow.

Every benchmark makes a database of its own, and drops it. Where a server does not answer, a line says so.
"""

from __future__ import annotations

import importlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hueys
import processes
import work
from as_service import Range, latency_rows, new_marks
from measure import Plan, Row, Samples, Skipped, alternate, paired, quantile, ratio_at_most, row_of, seconds_of
from redis_queue import redis_queue

from flagsweep import FlagSweep
from flagsweep.databases.postgresql import Postgresql

POSTGRESQL = os.environ.get("BENCH_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432")
MYSQL = os.environ.get("BENCH_MYSQL", "mysql://root@127.0.0.1:3306")
WAITING = int(os.environ.get("BENCH_WAITING", "1000000"))
"""How many flags wait in the full table; ten million take minutes and some gigabytes."""
NAP_SECONDS, NAP_THREADS = 0.010, 8
HOLD = 0.2
"""Seconds for which a request keeps its transaction open after it raised the hot key."""
DRAIN_LIMIT = 120


# Databases of our own.


@contextmanager
def postgresql(plan: Plan) -> Iterator[str]:
    """Yield the URL of a new database on PostgreSQL."""
    with _administrator("psycopg", POSTGRESQL, {"autocommit": True}) as run, _made(run, " WITH (FORCE)") as name:
        yield f"{POSTGRESQL}/{name}"


@contextmanager
def mysql(plan: Plan) -> Iterator[str]:
    """Yield the URL of a new database on MySQL or MariaDB."""
    with _administrator("pymysql", MYSQL, {"autocommit": True}) as run, _made(run, "") as name:
        yield f"{MYSQL}/{name}"


@contextmanager
def _administrator(driver: str, url: str, options: dict[str, Any]) -> Iterator[Callable[[str], None]]:
    try:
        module = importlib.import_module(driver)
    except ImportError:
        raise Skipped(f"the package {driver} is not installed") from None
    parts = urlsplit(url)
    whole = {"host": parts.hostname, "port": parts.port, "user": parts.username, "connect_timeout": 3, **options}
    if parts.password:
        whole["password"] = parts.password
    try:
        connection = module.connect(**whole)
    except module.Error as error:
        raise Skipped(f"no server at {parts.hostname}:{parts.port}: {' '.join(str(error).split())}") from None
    try:
        yield lambda statement: connection.cursor().execute(statement)
    finally:
        connection.close()


@contextmanager
def _made(run: Callable[[str], None], how_to_drop: str) -> Iterator[str]:
    name = f"flagsweep_bench_{secrets.token_hex(4)}"
    run(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        run(f"DROP DATABASE {name}{how_to_drop}")


SERVERS = {"PostgreSQL": postgresql, "MySQL/MariaDB": mysql}


def settings_of(plan: Plan, **more: object) -> dict[str, Any]:
    """Return the settings of a flagsweep on a server."""
    return {"state_dir": str(plan.folder / "state"), **more}


def environment_of(plan: Plan, url: str, **more: object) -> dict[str, str]:
    """Return the variables of the environment that say the same to a consumer."""
    settings = {"database": url, **settings_of(plan, **more)}
    return {f"FLAGSWEEP_{name.upper()}": str(value) for name, value in settings.items()}


def on_each(name: str, run: Callable[[Plan, str, str], list[Row]], plan: Plan) -> list[Row]:
    """Return the rows of each server, or one that says why it has none.

    :param run: gets the plan, the server's name, and the URL of a new database on it.
    """
    rows: list[Row] = []
    for server, made in SERVERS.items():
        try:
            with made(plan) as url:
                rows += run(plan, server, url)
        except Skipped as reason:
            rows.append(Row(f"{server}: {name}", note=str(reason)))
    return rows


# Throughput and latency, beside PostgresHuey.


def server_drain(plan: Plan) -> list[Row]:
    """Raises, enqueues, flags and tasks a second on a server."""
    return on_each("raise and drain", _drain_on, plan)


def _drain_on(plan: Plan, server: str, url: str) -> list[Row]:
    one, many, tasks = plan.size(1000, 200), plan.size(20_000, 2_000), plan.size(2_000, 300)
    peer = "PostgresHuey" if url.startswith("postgresql") else ""
    with work.flagsweep_at(url, **settings_of(plan)) as flags:
        noop = work.noop_handler(flags)
        raising: dict[str, Callable[[], float]] = {"flagsweep": lambda: _raise_rate(flags, noop, one)}
        draining: dict[str, Callable[[], float]] = {"flagsweep": lambda: _drain_rate(flags, noop, many)}
        if peer:
            raising[peer] = lambda: hueys.postgres_enqueue_rate(url, one)
            draining[peer] = lambda: hueys.postgres_drain_rate(url, tasks)
        times = plan.size(5, 2)
        raised = paired(raising, times)
        raised_many = paired({"flagsweep": lambda: _raise_many_rate(flags, noop, many)}, times)
        drained = paired(draining, times)
    return [
        _row(f"{server}: raise, one commit each", "/s", raised, peer),
        _row(f"{server}: raise_many of {many:,}", "/s", raised_many, ""),
        _row(f"{server}: drain of {many:,} no-op flags", "/s", drained, peer),
    ]


def _row(what: str, unit: str, samples: Samples, peer: str) -> Row:
    if peer:
        return row_of(what, unit, samples, "flagsweep", peer)
    return Row(what, unit, samples.median("flagsweep"), samples=samples.values)


def _raise_rate(flags: FlagSweep, noop, count: int) -> float:
    _empty(flags)
    return count / seconds_of(lambda: [noop.raise_flag(user_id=n) for n in range(count)])


def _raise_many_rate(flags: FlagSweep, noop, count: int) -> float:
    _empty(flags)
    return count / seconds_of(lambda: noop.raise_many({"user_id": n} for n in range(count)))


def _drain_rate(flags: FlagSweep, noop, count: int) -> float:
    _raise_many_rate(flags, noop, count)
    return count / seconds_of(lambda: _sweep(flags, count))


def _sweep(flags: FlagSweep, count: int) -> None:
    outcomes = flags.sweep()
    if outcomes["lowered"] != count:
        raise RuntimeError(f"the sweep was to lower {count} flags, but gave {dict(outcomes)}")


def _empty(flags: FlagSweep) -> None:
    flags.database.execute_sql("TRUNCATE TABLE flagsweep_flag")


def server_latency(plan: Plan) -> list[Row]:
    """Milliseconds from commit to handler start at an idle consumer on a server, raised by another process."""
    return on_each("commit to handler start", _latency_on, plan)


def _latency_on(plan: Plan, server: str, url: str) -> list[Row]:
    with ExitStack() as stack:
        ranges = {"flagsweep": stack.enter_context(_flagsweep_range(plan, url))}
        note = ""
        if url.startswith("postgresql"):
            ranges["PostgresHuey"] = stack.enter_context(_huey_range(plan, url))
        else:
            try:
                ranges["nudged by Redis"] = stack.enter_context(_nudged_range(plan, stack))
            except Skipped as reason:
                note = f"without a queue to nudge through: {reason}"
        for shots in ranges.values():
            shots.shoot(5)
        sides = {side: partial(shots.shoot, plan.size(50, 10)) for side, shots in ranges.items()}
        taken = {side: list(chain(*blocks)) for side, blocks in alternate(sides, plan.size(4, 2)).items()}
    bounds = {"call to handler start, p50": ratio_at_most(1.5, 1.2)} if "PostgresHuey" in taken else {}
    return latency_rows(taken, bounds, f"{server}: ") + ([Row(f"{server}: nudged", note=note)] if note else [])


@contextmanager
def _flagsweep_range(plan: Plan, url: str, **more: object) -> Iterator[Range]:
    marks = new_marks(plan.new_file("latency"))
    environment = environment_of(plan, url, **more)
    with work.flagsweep_at(url, **settings_of(plan, **more)) as flags:
        stamp = work.stamp_handler(flags, marks.set_now)
        with processes.flagsweep_at(environment, marks) as consumer:
            yield Range(lambda n: stamp.raise_flag(n=n), consumer, marks)


@contextmanager
def _nudged_range(plan: Plan, stack: ExitStack) -> Iterator[Range]:
    """The same on a database of its own, whose raises nudge the consumer through Redis."""
    port, _ = stack.enter_context(redis_queue(plan.new_file("redis").parent))
    url = stack.enter_context(mysql(plan))
    queue, key = f"redis://{hueys.LOOPBACK}:{port}/0", secrets.token_urlsafe(32)
    flags = FlagSweep(url, **settings_of(plan, queue=queue, queue_key=key))
    flags.init()
    assert flags.queue is not None
    stack.callback(_forget, port, flags.queue.place.name())
    with _flagsweep_range(plan, url, queue=queue, queue_key=key) as shots:
        yield shots


def _forget(port: int, name: str) -> None:
    redis = importlib.import_module("redis").Redis(host=hueys.LOOPBACK, port=port)
    for key in redis.scan_iter(f"{name}*"):
        redis.delete(key)
    redis.close()


@contextmanager
def _huey_range(plan: Plan, url: str) -> Iterator[Range]:
    marks = new_marks(plan.new_file("huey"))
    stamp = hueys.stamp_task(hueys.postgres_huey(url), marks.set_now)
    with processes.huey_consumer(url, marks) as consumer:
        yield Range(stamp, consumer, marks)


# Several consumers.


def scaling(plan: Plan) -> list[Row]:
    """Flags a second that several consumers drain on PostgreSQL, and the processor time that they take."""
    rows = []
    noops, naps = plan.size(40_000, 4_000), plan.size(8_000, 800)
    with postgresql(plan) as url:
        for count, sweepers in ((1, 4), (2, 4), (4, 4), (10, 4), (10, 10))[: plan.size(5, 2)]:
            for kind, amount in (("noop", noops), ("nap", naps)):
                what = f"{count} consumers, sweepers={sweepers}: {_KINDS[kind]}"
                try:
                    rate, note = _drain_by(plan, url, count, sweepers, kind, amount)
                    rows.append(Row(what, "/s", rate, note=note))
                except (RuntimeError, TimeoutError) as error:
                    rows.append(Row(what, note=str(error), failed=True))
    return rows


_KINDS = {"noop": "no-op flags", "nap": f"handlers of 10 ms on {NAP_THREADS} threads each"}


def _drain_by(plan: Plan, url: str, count: int, sweepers: int, kind: str, amount: int) -> tuple[float, str]:
    """Start consumers, commit all flags at once, and see how long they last."""
    environment = environment_of(plan, url, sweepers=sweepers, lanes=f"default={NAP_THREADS}")
    with ExitStack() as stack:
        flags = stack.enter_context(work.flagsweep_at(url, **settings_of(plan)))
        handler = work.noop_handler(flags) if kind == "noop" else work.nap_handler(flags, NAP_SECONDS)
        _empty(flags)
        marks = new_marks(plan.new_file("scaling"))
        crew = [stack.enter_context(processes.flagsweep_at(environment, marks)) for _ in range(count)]
        _until(lambda: _seats(flags) >= min(count, sweepers) and len(flags.store.consumers()) == count, 30)
        with flags.database.atomic():
            handler.raise_many({"user_id": n} for n in range(amount))
            cpu, machine = _cpu_seconds(crew), _busy_seconds()
            start = time.monotonic()
        start_committed = time.monotonic()
        _until(lambda: not flags.database.execute_sql("SELECT 1 FROM flagsweep_flag LIMIT 1").fetchall(), DRAIN_LIMIT)
        seconds = time.monotonic() - start_committed
        used = _cpu_seconds(crew) - cpu
        busy = (_busy_seconds() - machine) / (time.monotonic() - start)
    note = (
        f"processor time of the consumers {1e6 * used / amount:.0f} us a flag; "
        f"{busy:.1f} of {os.cpu_count()} cores busy, others' work included; load {os.getloadavg()[0]:.0f}"
    )
    return amount / seconds, note


def _seats(flags: FlagSweep) -> int:
    """Return how many seats in the lane are taken: locks of sessions, beside those of the consumers themselves."""
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return flags.database.execute_sql(query).fetchone()[0] - len(flags.store.consumers())


def _cpu_seconds(crew: list[processes.Consumer]) -> float:
    """Return the processor time of the consumers so far, with that of threads which have ended."""
    stats = [Path(f"/proc/{consumer.pid}/stat").read_text().rpartition(")")[2].split() for consumer in crew]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def _busy_seconds() -> float:
    """Return for how many seconds the machine's processors have worked, all together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {seconds:g} s")
        time.sleep(0.02)


# Where a server gets slow.


def notify(plan: Plan) -> list[Row]:
    """Raises a second of eight requests at once, each flag with a commit of its own, by who tells of them."""
    count, threads = plan.size(150, 30), 8
    with ExitStack() as stack:
        sides = {}
        for setting in ("off", "raise", "trigger"):
            url = stack.enter_context(postgresql(plan))
            flags = stack.enter_context(work.flagsweep_at(url, **settings_of(plan, notify=setting)))
            sides[f"notify={setting}"] = partial(_raise_together, flags, work.noop_handler(flags), threads, count)
        samples = paired(sides, plan.size(5, 2))
    what = f"{threads} requests raise, a commit each"
    return [row_of(f"{what}, {side}", "/s", samples, side, "notify=off") for side in sides if side != "notify=off"]


def _raise_together(flags: FlagSweep, noop, threads: int, count: int) -> float:
    _empty(flags)

    def work_off(who: int) -> None:
        with flags.database.connection_context():
            for n in range(count):
                noop.raise_flag(user_id=who * count + n)

    return threads * count / seconds_of(lambda: _together(*(partial(work_off, who) for who in range(threads))))


def hot_key(plan: Plan) -> list[Row]:
    """Two requests that raise one flag, and a request whose snapshot is older than another's raise."""
    with postgresql(plan) as url, work.flagsweep_at(url, **settings_of(plan)) as flags:
        noop, count = work.noop_handler(flags), plan.size(500, 100)
        sides = {
            "one hot key": lambda: _two_raise(flags, noop, count, lambda who, n: 0),
            "a key each": lambda: _two_raise(flags, noop, count, lambda who, n: who),
        }
        samples = paired(sides, plan.size(5, 2))
        waited = _wait_for_holder(flags, noop)
        loud = _raise_with_old_snapshot(flags, noop)
    return [
        row_of("two requests raise, a commit each", "/s", samples, *sides),
        Row(f"raise of a key that an open transaction raised {HOLD * 1000:.0f} ms before its commit", "ms", 1000 * waited),
        Row("raise in REPEATABLE READ of a flag raised since", "of 1 failed", 1.0 if loud else 0.0, note=loud),
    ]


def _two_raise(flags: FlagSweep, noop, count: int, key: Callable[[int, int], int]) -> float:
    _empty(flags)

    def work_off(who: int) -> None:
        with flags.database.connection_context():
            for n in range(count):
                noop.raise_flag(user_id=key(who, n))

    return 2 * count / seconds_of(lambda: _together(partial(work_off, 1), partial(work_off, 2)))


def _together(*actions: Callable[[], object]) -> None:
    crew = [threading.Thread(target=action) for action in actions]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def _wait_for_holder(flags: FlagSweep, noop) -> float:
    """Return the seconds of a raise that finds its row raised in a transaction which commits HOLD seconds later."""
    raised, took = threading.Event(), []

    def hold() -> None:
        with flags.database.connection_context(), flags.database.atomic():
            noop.raise_flag(user_id=0)
            raised.set()
            time.sleep(HOLD)

    def wait() -> None:
        with flags.database.connection_context():
            raised.wait()
            took.append(seconds_of(lambda: noop.raise_flag(user_id=0)))

    _together(hold, wait)
    return took[0]


def _raise_with_old_snapshot(flags: FlagSweep, noop) -> str:
    """Return what a raise says whose transaction began, REPEATABLE READ, before another one raised the same flag."""
    db, said = flags.database, ""
    noop.raise_flag(user_id=0)
    with suppress(_Undone), db.atomic():
        db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.execute_sql("SELECT count(*) FROM flagsweep_flag").fetchall()
        other = threading.Thread(target=lambda: _in_own_connection(db, lambda: noop.raise_flag(user_id=0)))
        other.start()
        other.join()
        try:
            noop.raise_flag(user_id=0)
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise _Undone
    return said


class _Undone(Exception):
    """Roll a transaction back."""


def _in_own_connection(db: Any, action: Callable[[], object]) -> None:
    with db.connection_context():
        action()


def old_snapshot(plan: Plan) -> list[Row]:
    """Milliseconds of a claim of ten flags when many were lowered under a snapshot that keeps them from being cleared away."""
    many, claims = plan.size(100_000, 5_000), plan.size(60, 20)
    with postgresql(plan) as url, work.flagsweep_at(url, **settings_of(plan)) as flags:
        noop = work.noop_handler(flags)
        fresh = _claim_ms(flags, noop, claims)
        _empty(flags)
        noop.raise_many({"user_id": n} for n in range(many))
        with _snapshot(url):
            _sweep(flags, many)
            kept = _claim_ms(flags, noop, claims)
    rows = []
    for name, found in (("no snapshot", fresh), (f"{many:,} lowered under an old one", kept)):
        for figure, of in (("median", lambda v: quantile(v, 0.5)), ("mean", lambda v: sum(v) / len(v))):
            ours, plain = (of(found[side]) for side in ("with the mark", "without"))
            rows.append(
                Row(f"claim of 10, {name}, {figure}", "ms", ours, "without the mark", plain, ours / plain, samples=found)
                if figure == "median"
                else Row(f"claim of 10, {name}, {figure}", "ms", ours, "without the mark", plain, ours / plain)
            )
    return rows


@contextmanager
def _snapshot(url: str) -> Iterator[None]:
    """Keep the state of now in sight, as a dump or a long report does."""
    parts = urlsplit(url)
    psycopg = importlib.import_module("psycopg")
    with psycopg.connect(host=parts.hostname, port=parts.port, user=parts.username, dbname=parts.path[1:]) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM flagsweep_flag").fetchall()
        yield
        other.rollback()


def _claim_ms(flags: FlagSweep, noop, claims: int, size: int = 10) -> dict[str, list[float]]:
    """Return the milliseconds of claims, in turn by a dialect that begins where the last one ended and by one that does not."""
    noop.raise_many({"user_id": n} for n in range(2 * claims * size))
    db = flags.connections.engine
    sides = {"with the mark": Postgresql(), "without": Postgresql()}
    took: dict[str, list[float]] = {side: [] for side in sides}
    with db.connection_context():
        for turn in range(claims):
            for side, dialect in sides.items():
                if side == "without":
                    dialect._low.clear()
                with dialect.transaction(db, True):
                    start = time.perf_counter()
                    found = dialect.claim(db, "noop", 0, size, 1, turn + 1, flags.clock.now())
                    took[side].append(1000 * (time.perf_counter() - start))
                if len(found) != size:
                    raise RuntimeError(f"{len(found)} flags were claimed instead of {size}")
    return took


def full_table(plan: Plan) -> list[Row]:
    """Milliseconds of claims and raises in a table where millions wait, beside those in an empty one."""
    many, times = plan.size(WAITING, 20_000), plan.size(51, 11)
    with ExitStack() as stack:
        by_side = {}
        for side, count in (("empty table", 0), (f"{many:,} waiting", many)):
            url = stack.enter_context(postgresql(plan))
            flags = FlagSweep(url, **settings_of(plan))
            flags.init()
            stack.callback(flags.database.close)
            stack.callback(flags.connections.close_engine)
            if count:
                _fill(flags, count)
            by_side[side] = flags
        rows = []
        sides: dict[str, Callable[[], float]]
        for what, measured in (("raise, one commit", _raise_ms), ("claim of 100", _claim_100_ms)):
            sides = {side: partial(measured, flags) for side, flags in reversed(by_side.items())}
            rows.append(row_of(f"{what}, {many:,} waiting", "ms", paired(sides, times), *sides))
        status = 1000 * seconds_of(next(reversed(by_side.values())).status)
        swept = _sweep_ms(next(reversed(by_side.values())))
        rows.append(Row(f"sweep(limit=1000), {many:,} waiting", "ms", swept))
        rows.append(Row(f"status(), {many:,} waiting", "ms", status))
    return rows


def backlog(plan: Plan) -> list[Row]:
    """Flags a second that ten consumers lower where millions wait, and what a request that raises one waits meanwhile."""
    many, seconds, consumers = plan.size(WAITING, 100_000), plan.size(20, 2), 10
    with ExitStack() as stack:
        url = stack.enter_context(postgresql(plan))
        flags = stack.enter_context(work.flagsweep_at(url, **settings_of(plan)))
        _fill(flags, many)
        marks = new_marks(plan.new_file("backlog"))
        environment = environment_of(plan, url, sweepers=consumers)
        for _ in range(consumers):
            stack.enter_context(processes.flagsweep_at(environment, marks))
        _until(lambda: _seats(flags) >= consumers and len(flags.store.consumers()) == consumers, 60)
        noop, raised = work.noop_handler(flags), []
        start, before = time.monotonic(), _count(flags)
        while time.monotonic() < start + seconds:
            raised.append(1000 * seconds_of(lambda: noop.raise_flag(user_id=-1 - len(raised))))
            time.sleep(0.05)
        elapsed, after = time.monotonic() - start, _count(flags)
    what = f"10 consumers, sweepers=10, {many:,} no-op flags waiting"
    note = f"load {os.getloadavg()[0]:.0f}"
    return [
        Row(what, "/s", (before + len(raised) - after) / elapsed, note=note),
        *(Row(f"raise meanwhile, {name}", "ms", quantile(raised, share)) for name, share in (("p50", 0.5), ("p99", 0.99))),
    ]


def _count(flags: FlagSweep) -> int:
    return flags.database.execute_sql("SELECT count(*) FROM flagsweep_flag").fetchone()[0]


def _fill(flags: FlagSweep, count: int) -> None:
    text = """'{"user_id":' || n || '}'"""
    flags.database.execute_sql(
        "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) "
        f"SELECT 'noop', {text}, {text}, %s + n, %s FROM generate_series(1, %s) AS n",
        (flags.clock.now() - 3 * count, flags.clock.now(), count),
    )
    flags.database.execute_sql("ANALYZE flagsweep_flag")


_last = 1_000_000_000


def _raise_ms(flags: FlagSweep) -> float:
    global _last
    _last += 1
    noop = _noop_of(flags)
    flags.database.connect(reuse_if_open=True)
    return 1000 * seconds_of(lambda: noop.raise_flag(user_id=_last))


def _claim_100_ms(flags: FlagSweep) -> float:
    """Time a claim of 100 by a consumer that has just come, and undo it; an empty table gets its flags before."""
    _noop_of(flags).raise_many({"user_id": -n} for n in range(1, 101))
    db, dialect = flags.connections.engine, Postgresql()
    try:
        with db.connection_context(), dialect.transaction(db, False):  # A claim alone would commit by itself.
            start = time.perf_counter()
            found = dialect.claim(db, "noop", 0, 100, 1, 1, flags.clock.now())
            took = 1000 * (time.perf_counter() - start)
            if len(found) != 100:
                raise RuntimeError(f"{len(found)} flags were claimed instead of 100")
            raise _Undone
    except _Undone:
        return took


def _sweep_ms(flags: FlagSweep) -> float:
    _noop_of(flags)
    flags.database.close()
    return 1000 * seconds_of(lambda: flags.sweep(limit=1000))


def _noop_of(flags: FlagSweep):
    return flags.handlers.get("noop") or work.noop_handler(flags)
