"""F25, F26, F27 and F30: data that is too big, text that is no text, rows that were damaged by hand, and tables in the making."""

import itertools
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing

import psutil
import pytest
from rig import ended, forked

from flagsweep import FlagSweep, FlagSweepError, NotReady
from flagsweep.databases.schema import SCHEMA
from flagsweep.models import Flag

MB = 1024 * 1024


@pytest.fixture
def flags(backend):
    """A site of its own on each database."""
    flags = FlagSweep(backend.database, threads=2)
    flags.init()
    yield flags
    flags.connections.close_thread()


def rss(pid=None):
    return psutil.Process(pid).memory_info().rss / MB


# F25: big.


def test_f25_a_payload_beyond_the_limit_is_refused_at_the_raise(backend, flags, bound, report):
    seen = []

    @flags.handler
    def keep(data):
        seen.append(data)

    limit, nested = flags.settings.payload_limit, []
    for _ in range(10_000):
        nested = [nested]
    frame = len('{"data":""}')
    sizes = {
        "limit-1": "x" * (limit - frame - 1),
        "limit": "x" * (limit - frame),
        "limit+1": "x" * (limit - frame + 1),
        "10 MB": "x" * 10 * MB,
        "depth 10,000": nested,
        "ten million values": [0] * 10_000_000,
    }
    before, took = {}, Counter()
    for name, data in sizes.items():
        memory, began = rss(), time.monotonic()
        try:
            keep.raise_flag(data=data)
            how = "taken"
        except FlagSweepError:
            how = "refused"
        before[name] = f"{how}, {rss() - memory:+.0f} MB"
        took[how] += 1
        assert time.monotonic() - began < bound(2)
    flags.sweep()
    del nested
    ok = sorted(map(len, seen)) == [limit - frame - 1, limit - frame] and took == {"taken": 2, "refused": 4}
    report("F25", "big payloads", ", ".join(f"{name}: {how}" for name, how in before.items()), ok, backend=backend.name)


def test_f25_a_million_flags_that_wait_cost_a_claim_nothing(backend, sized, until, bound, report):
    count, claims = sized(200_000 if backend.name == "sqlite" else 50_000, 1_000_000, 20_000), 300
    site = backend.site()
    store, clock = site.flags.store, site.flags.clock
    for start in range(0, count, 10_000):
        site.flags.handlers["work"].raise_many([{"n": n} for n in range(start, start + 10_000)])
    memory, took = rss(), []
    for _ in range(claims):
        began = time.monotonic()
        with store.connections.write():
            taken = store.claim("work", 0, 100, 1, clock.now())
        took.append(time.monotonic() - began)
        assert len(taken) == 100
        with store.connections.write():
            store.release([flag.id for flag in taken], taken[0].token, clock.now())
    store.connections.close_thread()
    grown = rss() - memory
    child = backend.consume()
    until(lambda: "flagsweep sweeps" in child.log.read_text())
    begun = rss(child.pid)
    until(lambda: len(site.journal.flags("end")) > 5_000, limit=60, every=0.5)
    swept = rss(child.pid) - begun
    child.kill()
    child.wait()
    p99 = sorted(took)[int(claims * 0.99)]
    report(
        "F25",
        f"{count:,} flags waiting",
        f"a claim of 100: p50 {sorted(took)[claims // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms <= {bound(100):g} ms; "
        f"RSS grew by {grown:.0f} MB while claiming, a consumer's by {swept:.0f} MB",
        p99 <= bound(0.1) and grown <= 50 and swept <= 50,
        backend=backend.name,
    )


# F26: bad text.

TEXTS = {
    "NUL": "a\0b",
    "lone surrogate": "a\ud800b",
    "half a pair": "\udc00",
    "bidi": "\u202egnp.exe\u2066",
    "escape codes": "\x1b[2J\x1b]0;title\x07",
    "lines": "a\r\nERROR b\rc\x85d\u2028e",
    "combining": "e" + "\u0301" * 500,
    "emoji": "\U0001f9d1\u200d\U0001f4bb",
    "percent": "100% %s %(x)s {0} {x!r}",
    "quotes": "'; DROP TABLE flagsweep_flag; --\\\"",
    "not a character": "\uffff\ufffe",
    "long": "x" * 20_000,
    "nothing": "",
    "white": " \t\n ",
}


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Bytes(Exception):
    def __str__(self):
        return b"no text"


class Exits(Exception):
    def __str__(self):
        raise SystemExit(3)


def circular():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def deep():
    error = ValueError("0")
    for n in range(3_000):
        error, inner = ValueError(str(n)), error
        error.__cause__ = inner
    return error


ERRORS = {
    "__str__ raises": lambda: Mute(),
    "__str__ returns bytes": lambda: Bytes(),
    "__str__ exits": lambda: Exits(),
    "caused by itself": circular,
    "3,000 causes": deep,
    "10 MB": lambda: ValueError("x" * 10 * MB),
    "10 MB of surrogates": lambda: ValueError("\ud800" * 10 * MB),
    "a thousand notes": lambda: noted(ValueError("x")),
    "odd arguments": lambda: ValueError(object(), b"\xff", float("nan")),
    "a name that is no text": lambda: type("E\ud800\0", (Exception,), {})("x"),
    **{f"text: {name}": lambda text=text: ValueError(text) for name, text in TEXTS.items()},
}


def noted(error):
    for n in range(1_000):
        getattr(error, "add_note", str)(f"note {n} \0")
    return error


def test_f26_every_failure_is_recorded_whatever_its_text(backend, flags, report):
    @flags.handler(max_attempts=1, backoff=0, breaker=None)
    def fail(name):
        raise ERRORS[name]()

    @flags.handler(max_attempts=1, atomic=True, breaker=None)
    def fail_within(name):
        raise ERRORS[name]()

    for name in ERRORS:
        fail.raise_flag(name=name)
        fail_within.raise_flag(name=name)
    flags.sweep()
    found = flags.find(limit=None)
    errors = [flag.error or "" for flag in found]
    recorded = [flag for flag in found if flag.state == "dead" and flag.error and flag.headline.isprintable()]
    report(
        "F26",
        "errors of handlers",
        f"{len(recorded)} of {2 * len(ERRORS)} recorded, the longest with {max(map(len, errors))} characters",
        len(recorded) == len(found) == 2 * len(ERRORS),
        backend=backend.name,
    )


def test_f26_text_comes_back_as_it_was_or_is_refused(backend, flags, report):
    payloads, cursors, keys, refused = {}, {}, set(), []

    @flags.handler
    def keep(name, text):
        payloads[name] = text

    @flags.handler(backoff=0, breaker=None)
    def come_far(name, flag):
        if flag.cursor is None:
            flag.progress({"text": TEXTS[name]})
            raise RuntimeError("again")
        cursors[name] = flag.cursor["text"]

    @flags.handler
    def keyed(name, flag):
        keys.add((name, flag.key))

    for name, text in TEXTS.items():
        keep.raise_flag(name=name, text=text)
        come_far.raise_flag(name=name)
        try:
            keyed.using(key=text).raise_flag(name=name)
        except FlagSweepError:
            refused.append(name)
    for value in (float("nan"), float("inf"), b"bytes", {1: 2}, object(), {"a": {"b": float("-inf")}}):
        with pytest.raises(FlagSweepError):
            keep.raise_flag(name="no JSON", text=value)
    while flags.sweep():
        pass
    same = (payloads == TEXTS) + (cursors == TEXTS) + (keys == {(n, t) for n, t in TEXTS.items() if n not in refused})
    report(
        "F26",
        "payloads, cursors and keys",
        f"of {len(TEXTS)} each, {len(payloads)} payloads, {len(cursors)} cursors and {len(keys)} keys came back as they were; "
        f"{len(refused)} keys refused at the raise",
        same == 3 and not flags.find(),
        backend=backend.name,
    )


# F27: rows that were damaged by hand.

GARBAGE = (
    b"\xff\xfe\x00",
    "",
    "not JSON",
    "\x00",
    "nan",
    -1,
    2**63 - 1,
    -(2**63),
    1.5,
    None,
    "[]",
    "null",
    "1",
    '{"n": }',
    "[" * 5_000,
)
COLUMNS = {
    "payload": ('{"other": 1}', '{"n": "x"}', '{"n": NaN}', '{"n": 1, "n": 2}', '"' + "x" * 100_000 + '"'),
    "kind": ("unknown", "no kind ", "W" * 500),
    "key": ("k" * 1_000,),
    "due_at": ("soon", 10**18),
    "raised_at": ("then", 10**18),
    "priority": ("high", 10**4),
    "attempts": ("many", 10**9),
    "crashes": ("many", 10**9),
    "suspect": ("yes", 10**9),
    "generation": ("first", 10**9),
    "cursor": ("{", '"' + "y" * 100_000),
    "error": ("\ud800",),
    "state": ("lost", "WAITING"),
    "claim_token": ("mine", 5),
    "claimed_by": ("me", 5),
    "settled_at": ("never", 10**18),
}


def test_f27_a_damaged_row_harms_no_other(backend, seed, sized, report):
    chance, mutations, found, wrong = random.Random(seed), sized(1_000, 10_000, 100), Counter(), []
    mutations = mutations if backend.name == "sqlite" else mutations // 5  # A server takes its time over each sweep.
    flags = FlagSweep(backend.database, threads=2)
    flags.init()
    done = set()

    @flags.handler(max_attempts=2, backoff=0)
    def work(n):
        done.add(n)

    numbers, mark = itertools.count(), flags.database.param
    while found.total() < mutations:
        work.raise_many([{"n": n} for n in itertools.islice(numbers, 20)])
        numbered = {flag.id: flag.payload["n"] for flag in flags.find(limit=None)}
        victims, said = chance.sample(sorted(numbered), 4), {}
        for id in victims:
            column = chance.choice(list(COLUMNS))
            value = chance.choice((*COLUMNS[column], *GARBAGE))
            try:
                with flags.database.connection_context(), flags.database.atomic():
                    sql = f"UPDATE flagsweep_flag SET {column} = {mark} WHERE id = {mark}"
                    flags.database.execute_sql(sql, (value, id))
                said[id] = (column, value if not isinstance(value, str) else value[:20])
            except Exception as error:  # The database, or its driver, refuses it.
                assert column and error
                found["refused by the database"] += 1
        healthy = {n for id, n in numbered.items() if id not in said}
        swept(flags, said, wrong)
        flags.store.heal_clock(flags.clock.now(), flags.clock.now() + 11 * 365 * 86400 * 1_000_000)
        swept(flags, said, wrong)
        if not healthy <= done:
            wrong.append((said, f"{len(healthy - done)} others were not done"))
        left = {flag.id: flag for flag in flags.find(limit=None)}
        for id in said:
            found[fate(flags, left.pop(id, None), said[id], wrong)] += 1
        if left:
            wrong.append((said, f"others are up: {[(flag.state, flag.error) for flag in left.values()]}"))
        with flags.database.connection_context():
            flags.database.execute_sql("DELETE FROM flagsweep_flag")
    flags.connections.close_thread()
    report(
        "F27",
        "random garbage in a random column of a fifth of the rows",
        ", ".join(f"{count} {how}" for how, count in found.most_common()) + f"; wrong {len(wrong)}",
        not wrong,
        backend=backend.name,
        why="; ".join(map(repr, wrong[:3])),
    )


def swept(flags, said, wrong):
    try:
        while flags.sweep():
            pass
    except Exception as error:
        wrong.append((said, f"the sweep failed: {error!r}"))


def fate(flags, flag, said, wrong):
    """Say what became of a damaged row, and whether a person can see it."""
    if flag is None:
        return "done"
    if flag.state == "dead":
        if not flag.error:
            wrong.append((said, "dead without a reason"))
        return "parked"
    if flag.kind not in flags.handlers:
        return "shown under lane -"
    if any(finding.level != "ok" and finding.what != "SQLite" for finding in flags.doctor()):
        return "found by doctor"
    if flag.due_at is not None and flag.due_at.timestamp() > flags.clock.now() / 1e6:
        return "due later"
    wrong.append((said, f"{flag.state}, and nobody is told"))
    return "forgotten"


# F30: the tables are made, by many at once, or not to the end.


def tables(database):
    with closing(sqlite3.connect(database)) as db:
        return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall(), db.execute(
            "SELECT version FROM flagsweep_schema"
        ).fetchall()


def test_f30_ten_processes_make_the_tables_at_once(tmp_path, sized, report):
    races, codes, different = sized(20, 200, 5), Counter(), 0
    FlagSweep(tmp_path / "model.db").init()
    for race in range(races):
        database = tmp_path / f"{race}.db"
        read, write = os.pipe()

        def join(database=database, read=read, write=write):
            os.close(write)
            os.read(read, 1)  # All start when the parent closes its end.
            FlagSweep(database).init()

        pids = [forked(join) for _ in range(10)]
        os.close(write)
        codes.update(map(ended, pids))
        os.close(read)
        different += tables(database) != tables(tmp_path / "model.db")
    report(
        "F30",
        "ten processes call init() at once on nothing",
        f"{races} races: {codes[0]} of {10 * races} calls went well, tables otherwise than they should be {different}",
        codes == {0: 10 * races} and not different,
    )


def test_f30_init_goes_on_where_a_killed_one_has_ended(tmp_path, report):
    FlagSweep(tmp_path / "model.db").init()
    killed, wrong = 0, []
    for n in itertools.count(1):
        database = tmp_path / f"{n}.db"

        def die(database=database, n=n):
            flags, left = FlagSweep(database), itertools.count(1)
            run = flags.connections.engine.execute_sql

            def counted(*arguments, **options):
                if next(left) == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return run(*arguments, **options)

            flags.connections.engine.execute_sql = counted
            flags.init()

        code = ended(forked(die))
        if code == 0:
            break
        killed += 1
        assert code == -signal.SIGKILL
        FlagSweep(database).init()
        if tables(database) != tables(tmp_path / "model.db"):
            wrong.append(n)
    report(
        "F30",
        "killed before each statement of init()",
        f"{killed} statements, {killed - len(wrong)} times the next init() completed it",
        killed > 5 and not wrong,
    )


def test_f30_tables_of_a_newer_version_are_refused(tmp_path, report):
    flags = FlagSweep(tmp_path / "site.db")
    flags.init()
    work = flags.handler("work")(lambda n: None)
    work.raise_flag(n=1)
    with closing(sqlite3.connect(tmp_path / "site.db")) as db:
        db.execute("UPDATE flagsweep_schema SET version = ? WHERE version = ?", (SCHEMA + 1, SCHEMA))
        db.commit()
    refused = 0
    for verb in (flags.init, flags.sweep, flags.run):
        with pytest.raises(NotReady, match="install a newer flagsweep"):
            verb()
        refused += 1
    flags.connections.close_thread()
    with closing(sqlite3.connect(tmp_path / "site.db")) as db:
        left = db.execute(f"SELECT count(*) FROM {Flag._meta.table_name}").fetchone()[0]
    report("F30", "old code on newer tables", f"init, sweep and run refused: {refused} of 3; flags kept {left} of 1", left == 1)
