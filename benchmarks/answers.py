"""What it takes to be told how things are, beside a million flags of which half are dead: on SQLite and on both servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import servers
import work
from measure import Plan, Row, Samples, Skipped, at_most, paired, row_of, seconds_of

from flagsweep import FlagSweep

KINDS, CAUSES = 5, 4
BOUND = 300
"""Milliseconds."""
ANSWERS = ("why", "status", "dead", "kinds", "check", "find", "history")
BESIDE = "count(*)"

# Every other flag of each kind is dead, of one of the causes; what waits is due, or will be within minutes.
COLUMNS = "kind, {key}, payload, state, due_at, raised_at, attempts, error, died_at, died_as"
DEAD = f"n %% {2 * KINDS} < {KINDS}"
VALUES = f"""
'kind' || (n %% {KINDS}), '{{"user_id":' || n || '}}', '{{"user_id":' || n || '}}',
CASE WHEN {DEAD} THEN 'dead' ELSE 'waiting' END, {{now}} + (n %% 1000 - 500) * 1000000, {{now}},
CASE WHEN {DEAD} THEN 8 ELSE 0 END,
CASE WHEN {DEAD} THEN 'ValueError: mailbox ' || n || ' is full' END, CASE WHEN {DEAD} THEN {{now}} - n * 1000 END,
CASE WHEN {DEAD} THEN 'ValueError mail.py:send:' || (n %% {2 * KINDS * CAUSES} / {2 * KINDS}) END
"""
NUMBERS = {
    "sqlite": "(WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {many}) SELECT n FROM c)",
    "postgresql": "generate_series(1, {many})",
    "mysql": "(WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {many}) SELECT n FROM c)",
}


def answers(plan: Plan) -> list[Row]:
    """Milliseconds of each answer, called in a process that has its connection open."""
    rows = _answers_on(plan, "SQLite", f"sqlite:///{plan.new_file('answers')}")
    return rows + servers.on_each("answers", _answers_on, plan)


def _answers_on(plan: Plan, server: str, url: str) -> list[Row]:
    many, times = plan.size(1_000_000, 20_000), plan.size(11, 3)
    with work.flagsweep_at(url, **servers.settings_of(plan)) as flags:
        for n in range(KINDS):
            work.noop_handler(flags, f"kind{n}")
        _fill(flags, url.partition(":")[0], many)
        rows = _rows(flags, f"{server}: {{}}, {many:,} flags, half dead", times)
        if url.startswith("postgresql"):
            flags.database.execute_sql("VACUUM ANALYZE flagsweep_flag")
            rows += _rows(flags, f"{server}: {{}}, the same after VACUUM", times)
        flags.connections.close_engine()
    return rows


def _rows(flags: FlagSweep, what: str, times: int) -> list[Row]:
    rows = []
    for name in ANSWERS:
        if not hasattr(flags, name):
            raise Skipped(f"this flagsweep has no {name}()")
        sides: dict[str, Callable[[], float]] = {
            name: partial(_ms, getattr(flags, name)),
            BESIDE: partial(_ms, partial(_count, flags)),
        }
        samples: Samples = paired(sides, times)
        rows.append(row_of(what.format(f"{name}()"), "ms", samples, name, BESIDE, at_most(BOUND)))
    return rows


def _ms(action: Callable[[], object]) -> float:
    return 1000 * seconds_of(action)


def _count(flags: FlagSweep) -> int:
    return flags.database.execute_sql("SELECT count(*) FROM flagsweep_flag").fetchone()[0]


def _fill(flags: FlagSweep, scheme: str, many: int) -> None:
    """Put the flags up, in one statement."""
    values = VALUES.replace("{now}", str(flags.clock.now()))
    columns = COLUMNS.format(key="`key`" if scheme == "mysql" else "key")
    execute = flags.database.execute_sql
    if scheme == "mysql":
        execute("SET SESSION sql_mode = concat(@@sql_mode, ',PIPES_AS_CONCAT')")
        execute(_deep(flags).format(many=many + 1))
        values = values.replace(f"{2 * KINDS * CAUSES} / ", f"{2 * KINDS * CAUSES} DIV ")
    insert = f"INSERT INTO flagsweep_flag ({columns}) SELECT {values} FROM {NUMBERS[scheme].format(many=many)} AS numbers (n)"
    if scheme != "postgresql":
        insert = insert.replace("AS numbers (n)", "AS numbers")
    # A driver that is given no parameters takes a percent sign for itself.
    execute(insert.replace("%%", "%")) if scheme == "sqlite" else execute(insert, ())


def _deep(flags: FlagSweep) -> str:
    """Return what lets a recursion go as deep as there are flags."""
    maria = "maria" in flags.database.execute_sql("SELECT version()").fetchone()[0].lower()
    return f"SET SESSION {'max_recursive_iterations' if maria else 'cte_max_recursion_depth'} = {{many}}"
