"""A queue on PostgreSQL: whatever becomes of it, flags are raised and swept."""

import pytest
from queue_rig import goes_on
from work import running


def test_a_queue_on_postgresql_whose_connections_are_cut_and_tables_dropped_comes_back(postgres_url, make, until, impatient):
    psycopg = pytest.importorskip("psycopg")
    work = make(postgres_url)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with running(work.flags, until), psycopg.connect(postgres_url, autocommit=True) as db:
        goes_on(work, until, range(5))
        for round in range(3):
            db.execute(f"SELECT pg_terminate_backend(pid) {others}")
            goes_on(work, until, range(5 * round + 5, 5 * round + 10))
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
        goes_on(work, until, range(20, 25))
        until(lambda: work.flags.queue.place.outage.since is None)
        until(lambda: db.execute("SELECT to_regclass('flagsweep_queue_task')").fetchone()[0])
