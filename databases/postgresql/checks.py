"""PostgreSQL: what doctor asks."""

from __future__ import annotations

from collections.abc import Iterator

from peewee import Database, Select

from ..server import Server
from ..server.sessions import Open, Room, Trouble, short

OPEN = """
SELECT pid, usename, application_name, coalesce(host(client_addr), 'this host'), state, query,
  extract(epoch FROM clock_timestamp() - xact_start)::float, extract(epoch FROM clock_timestamp() - state_change)::float,
  EXISTS (
    SELECT 1 FROM pg_locks AS held WHERE held.pid = session.pid AND held.mode = 'RowExclusiveLock'
    AND held.relation = to_regclass('flagsweep_flag')
  ),
  (SELECT count(*) FROM pg_stat_activity AS other
   WHERE other.wait_event_type = 'Lock' AND session.pid = ANY (pg_blocking_pids(other.pid)))
FROM pg_stat_activity AS session
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND xact_start < clock_timestamp() - make_interval(secs => {seconds})
ORDER BY xact_start LIMIT 10
"""
# Who has written a row last stands with it, and holds a lock on the number of its transaction for as long as that is open.
HOLDER = """
SELECT session.pid, usename, application_name, coalesce(host(client_addr), 'this host'), state, query,
  extract(epoch FROM clock_timestamp() - xact_start)::float, extract(epoch FROM clock_timestamp() - state_change)::float, true,
  (SELECT count(*) FROM pg_stat_activity AS other
   WHERE other.wait_event_type = 'Lock' AND session.pid = ANY (pg_blocking_pids(other.pid)))
FROM pg_locks AS held JOIN pg_stat_activity AS session ON session.pid = held.pid
WHERE held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted AND held.pid <> pg_backend_pid()
  AND held.transactionid = (SELECT xmax FROM flagsweep_flag WHERE id = %s)
"""
PREPARED = """
SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => {seconds}) ORDER BY prepared LIMIT 10
"""
HIDDEN = """
SELECT count(*), current_user::text FROM pg_stat_activity
WHERE datname = current_database() AND query = '<insufficient privilege>'
"""
ROOM = """
SELECT greatest(1, least(
    (SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings
     WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')),
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
  )),
  (SELECT sum(numbackends) FROM pg_stat_database)
"""
STANDBYS = """
SELECT coalesce(nullif(application_name, ''), 'a standby') || coalesce(' at ' || host(client_addr), ''), state, sync_state,
  extract(epoch FROM replay_lag)::float, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint
FROM pg_stat_replication
"""
LEFT_SLOTS = """
SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
WHERE NOT active AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > {most}
"""
MIB = 1024 * 1024
FAR_BEHIND = 60
"""Seconds that a standby may be behind; and ``MUCH``, MiB of log that it has yet to replay, or that nobody fetches."""
MUCH = 256


HOME = """
SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::text, to_regclass('flagsweep_fact')::oid::text,
  has_function_privilege('pg_control_system()', 'execute')
"""


class PostgresqlChecks(Server):
    """Answer what people ask."""

    ordered = "ORDER BY died_as, died_at "
    latest = "SELECT died_at FROM flagsweep_flag {where} ORDER BY died_as DESC, died_at DESC LIMIT 1"
    """As the index has them: of those without a cause it would look through all for the greatest."""

    def holder_of(self, db: Database, id: int) -> Open | None:
        return next((_open(*row) for row in db.execute_sql(HOLDER, (id,)).fetchall()), None)

    def home(self, db: Database) -> tuple[str, ...]:
        database, table, may_ask = db.execute_sql(HOME).fetchone()
        cluster = db.execute_sql("SELECT system_identifier::text FROM pg_control_system()").fetchone()[0] if may_ask else ""
        return cluster, str(database), str(table)

    def server_version(self, db: Database) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        number = int(db.execute_sql("SHOW server_version_num").fetchone()[0])
        return self.name, (number // 10000, number % 10000), (13, 0)

    def weak_commits(self, db: Database) -> str | None:
        for setting in ("fsync", "synchronous_commit"):
            if db.execute_sql(f"SHOW {setting}").fetchone()[0] == "off":
                return f"{setting} = off"
        return None

    def reads_all(self, db: Database, query: Select) -> bool:
        sql, parameters = db.get_sql_context().sql(query).query()
        with db.atomic():
            db.execute_sql("SET LOCAL enable_seqscan = off")  # A small table is read whole, index or not.
            plan = db.execute_sql("EXPLAIN " + sql, parameters).fetchall()
        return any("Seq Scan on" in row[0] and "flagsweep" not in row[0] for row in plan)

    def open_transactions(self, db: Database, seconds: int) -> tuple[list[Open], str]:
        found = [_open(*row) for row in db.execute_sql(OPEN.format(seconds=seconds)).fetchall()]
        for gid, owner, age in db.execute_sql(PREPARED.format(seconds=seconds)).fetchall():
            end = f"ROLLBACK PREPARED '{gid}'; (or COMMIT PREPARED, if its coordinator has decided so)"
            found.append(Open(f"the prepared transaction {gid!r} of {owner}", age, age, None, None, "", end))
        hidden, user = db.execute_sql(HIDDEN).fetchone()
        unseen = f"of {hidden} sessions of other users this is not shown to {user}: GRANT pg_read_all_stats TO {user};"
        return sorted(found, key=lambda each: -each.seconds), unseen if hidden else ""

    def room(self, db: Database) -> Room:
        most, used = db.execute_sql(ROOM).fetchone()
        return Room(int(most), int(used))

    def time(self, db: Database) -> int:
        return int(db.execute_sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0])

    def copies(self, db: Database) -> list[Trouble]:
        if db.execute_sql("SELECT pg_is_in_recovery()").fetchone()[0]:
            text = "this server is a standby: flags can be read here, and neither raised nor swept"
            return [
                Trouble("fail", text, "have the URL name the primary, or all of them with '?target_session_attrs=read-write'")
            ]
        if db.execute_sql("SHOW default_transaction_read_only").fetchone()[0] == "on":
            text = "default_transaction_read_only = on: no flag can be raised or swept"
            return [Trouble("fail", text, "set it back where it was set: ALTER SYSTEM, DATABASE or ROLE ... RESET it")]
        standbys = db.execute_sql(STANDBYS).fetchall()
        slots = db.execute_sql(LEFT_SLOTS.format(most=MUCH * MIB)).fetchall()
        return [*_nobody_confirms(db, standbys), *map(_behind, standbys), *map(_left_slot, slots)]


def _open(
    pid: int, user: str, program: str, host: str, state: str, query: str, age: float, idle: float, flags: bool, waiting: int
) -> Open:
    """Return what a row tells."""
    who = f"session {pid} of {user} from {host}{f' ({program})' if program else ''}"
    at_rest = idle if state.startswith("idle") else None
    return Open(who, age, at_rest, flags, waiting, short(query), f"SELECT pg_terminate_backend({pid});")


def _nobody_confirms(db: Database, standbys: list[tuple]) -> Iterator[Trouble]:
    """Yield that commits wait for a standby that is not there."""
    names = db.execute_sql("SHOW synchronous_standby_names").fetchone()[0]
    level = db.execute_sql("SHOW synchronous_commit").fetchone()[0]
    states = {row[2] for row in standbys}
    if names and level in ("on", "remote_write", "remote_apply") and not states & {"sync", "quorum", None}:
        text = f"no standby confirms commits, and synchronous_standby_names = {names!r} has each of them wait for one"
        yield Trouble(
            "fail", text, "start the standby, or ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();"
        )


def _behind(standby: tuple) -> Trouble:
    """Return how far a standby is behind."""
    name, state, sync, seconds, size = standby
    if state is None:
        return Trouble("ok", f"{name}: how far it is behind is not shown to this user (GRANT pg_monitor TO it)")
    lag = f"{seconds or 0:.0f} s and {(size or 0) / MIB:.1f} MiB behind"
    if (seconds or 0) > FAR_BEHIND or (size or 0) > MUCH * MIB:
        return Trouble("warn", f"{name} ({sync}) is {lag}: it would lose that if it took over", "see what slows it, in its log")
    return Trouble("ok", f"{name} ({sync}, {state}) is {lag}")


def _left_slot(slot: tuple) -> Trouble:
    name, size = slot
    text = f"the slot {name} keeps {size / MIB:,.0f} MiB of log for a standby that does not fetch it: the disk will be full"
    return Trouble("warn", text, f"start that standby, or SELECT pg_drop_replication_slot('{name}');")
