"""What is found of other sessions of a server: open transactions, connections, copies, and the clocks of hosts."""

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clients import Client
from examined import found
from rig import let_go
from servers import KEPT, PrivatePostgres, free_port

from flagsweep import FlagSweep
from flagsweep.config import Clock
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.terms import EMBEDDED, RUN
from flagsweep.models import Consumer
from flagsweep.operations.doctor import transactions
from flagsweep.operations.doctor.examine import examine

INSERT = "INSERT INTO flagsweep_flag (kind, key, payload, due_at, raised_at) VALUES ('send', 'k', '{}', 1, 1)"

EVERY = 0.25
"""Seconds between two looks: InnoDB tells whoever asks again within a tenth what it has told before."""


@pytest.fixture(params=["postgresql", "mysql"])
def server_url(request):
    return request.getfixturevalue(f"{'postgres' if request.param == 'postgresql' else 'mysql'}_url")


@pytest.fixture
def site(server_url, tmp_path):
    """Give `site(**settings)`: a FlagSweep on a server, with one handler."""
    made = []

    def site(url=server_url, **settings):
        flags = FlagSweep(url, state_dir=str(tmp_path / "state"), **settings)
        made.append(flags)
        flags.init()
        flags.handler("send")(lambda user_id: None)
        return flags

    yield site
    for flags in made:
        flags.connections.close_thread()
    let_go(tmp_path)


def test_a_server_at_rest_has_nothing_to_mend_but_its_version(site):
    findings = examine(site())
    of_this_place = {"PostgreSQL", "MariaDB", "MySQL", "commits", "versions", "bell"}  # A test's folder has a long path.
    assert {finding.what for finding in findings if finding.level != "ok"} <= of_this_place


def test_a_transaction_that_is_left_open_is_named_with_the_statement_that_ends_it(site, server_url, until, monkeypatch):
    flags = site()
    monkeypatch.setattr(transactions, "IDLE", 0)
    assert found(flags, "transactions").level == "ok"
    with closing(Client(server_url)) as other:
        other.ask("BEGIN")
        other.ask(INSERT)
        finding = until(lambda: (one := found(flags, "transactions")).level == "warn" and one, every=EVERY)
        id = other.ask("SELECT pg_backend_pid()" if other.scheme == "postgresql" else "SELECT connection_id()")[0][0]
        assert f"session {id} of " in finding.text and "idle for" in finding.text
        assert "it has written flags" in finding.text or "1 rows written" in finding.text
        end = finding.fix.partition("end it: ")[2].partition(";")[0]
        flags.connections.engine.execute_sql(end)
        until(lambda: found(flags, "transactions").level == "ok", every=EVERY)
        with suppress(Exception):
            other.ask("SELECT 1")


def test_a_transaction_that_was_only_prepared_is_told(private_postgres, tmp_path, monkeypatch):
    private_postgres.ask("ALTER SYSTEM SET max_prepared_transactions = 2")
    private_postgres.immediate_restart()
    flags = FlagSweep(private_postgres.url, state_dir=str(tmp_path / "state"))
    flags.init()
    monkeypatch.setattr(transactions, "IDLE", 0)
    with closing(Client(private_postgres.url)) as other:
        other.ask("BEGIN")
        other.ask(INSERT)
        other.ask("PREPARE TRANSACTION 'left'")
    finding = found(flags, "transactions")
    assert finding.level == "warn" and "'left'" in finding.text and "ROLLBACK PREPARED 'left';" in finding.fix
    private_postgres.ask("ROLLBACK PREPARED 'left'")
    flags.connections.close_thread()


def test_what_this_user_may_not_see_is_said_and_fails_nothing(site, server_url):
    flags = site()
    parts = urlsplit(server_url)
    with closing(Client(server_url)) as root:
        if root.scheme == "postgresql":
            make = [
                "CREATE ROLE flagsweep_doctor_guest LOGIN",
                "GRANT ALL ON ALL TABLES IN SCHEMA public TO flagsweep_doctor_guest",
                "GRANT USAGE, CREATE ON SCHEMA public TO flagsweep_doctor_guest",
            ]
            drop, port, right = (
                ["DROP OWNED BY flagsweep_doctor_guest", "DROP ROLE flagsweep_doctor_guest"],
                5432,
                "pg_read_all_stats",
            )
        else:
            make = ["CREATE USER flagsweep_guest", f"GRANT ALL ON {parts.path[1:]}.* TO flagsweep_guest"]
            drop, port, right = ["DROP USER flagsweep_guest"], 3306, "PROCESS"
        user = "flagsweep_doctor_guest" if root.scheme == "postgresql" else "flagsweep_guest"
        for statement in make:
            root.ask(statement)
        try:
            guest = FlagSweep(f"{parts.scheme}://{user}@{parts.hostname}:{parts.port or port}{parts.path}")
            finding = found(guest, "transactions")
            assert finding.level == "ok" and f"GRANT {right}" in finding.text
            assert "fail" not in {each.level for each in examine(guest)}
            guest.connections.close_thread()
        finally:
            for statement in drop:
                root.ask(statement)
    assert "GRANT" not in found(flags, "transactions").text


def test_consumers_that_may_want_more_connections_than_there_are_are_told(site):
    flags = site(threads=1000)
    assert found(flags, "connections").level == "ok"
    with closing(Enlisted(flags._duties(), RUN)) as consumer:
        finding = found(flags, "connections")
        assert (
            finding.level == "warn" and f"consumer {consumer.id} up to 1006" in finding.text and "max_connections" in finding.fix
        )
        lanes = {"mail": {"threads": 2, "kinds": ["send"]}}
        Consumer.update(lanes=json.dumps(lanes)).execute(flags.connections.engine)
        assert found(flags, "connections").text.endswith("1 consumers may want 8")
        Consumer.update(lanes="{").execute(flags.connections.engine)
        assert found(flags, "connections").level == "warn"


def test_a_server_whose_connections_are_nearly_used_up_is_told(site, monkeypatch):
    monkeypatch.setattr(transactions, "FULL", 0.0)
    assert found(site(), "connections").level == "warn"


def test_a_clock_that_differs_from_the_databases_is_told_with_how_much(site):
    class Late(Clock):
        def now(self):
            return super().now() - 300 * 1_000_000

    finding = found(site(clock=Late()), "clocks")
    assert finding.level == "warn" and finding.text.startswith("this host's clock is 5 min behind")
    assert found(site(), "clocks").level == "ok"


@pytest.mark.parametrize(
    ("age", "said"), [(-600, "10 min ahead"), (600, "at least 9 min behind"), (80, None), (0, None)], ids=str
)
def test_the_clocks_of_other_hosts_are_judged_by_what_their_consumers_noted(site, age, said):
    flags = site()
    with closing(Enlisted(flags._duties(), RUN)):
        noted = flags.connections.dialect.time(flags.connections.engine) - age * 1_000_000
        Consumer.update(ticked_at=noted, host="far").execute(flags.connections.engine)
        finding = found(flags, "clocks")
    assert finding.level == ("warn" if said else "ok") and "far" in finding.text
    assert said is None or (said in finding.text.replace("from now: the clock there is at least so much", "")) or "ahead" in said


def test_an_embedded_consumer_beside_a_run_is_told(site):
    flags = site()
    with closing(Enlisted(flags._duties(), RUN)):
        assert found(flags, "company").level == "ok"
        with closing(Enlisted(flags._duties(), EMBEDDED)):
            finding = found(flags, "company")
    assert finding.level == "warn" and "mode='external'" in finding.fix


def test_more_sweepers_than_there_are_consumers_are_told(site):
    flags = site(sweepers=3)
    assert found(flags, "company").level == "ok"  # None runs, which is told elsewhere.
    with closing(Enlisted(flags._duties(), RUN)):
        assert "sweepers = 3" in found(flags, "company").text


def test_a_standby_and_what_waits_for_one_fail(private_postgres, tmp_path):
    flags = FlagSweep(private_postgres.url, state_dir=str(tmp_path / "state"))
    flags.init()
    assert found(flags, "replication").level == "ok"
    private_postgres.ask("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    private_postgres.ask("SELECT pg_reload_conf()")
    private_postgres.ask("SELECT pg_sleep(0.1)")
    flags.connections.close_thread()
    finding = found(flags, "replication")
    assert finding.level == "fail" and "no standby confirms commits" in finding.text
    private_postgres.ask("ALTER SYSTEM RESET synchronous_standby_names")
    flags.connections.close_thread()
    private_postgres.kill()
    (private_postgres.folder / "data" / "standby.signal").touch()
    private_postgres.start()
    finding = found(flags, "replication")
    assert finding.level == "fail" and "is a standby" in finding.text and "primary" in finding.fix
    flags.connections.close_thread()


def test_a_database_that_takes_no_writes_fails(site, server_url, postgres_url):
    if not server_url.startswith("postgresql"):
        pytest.skip("read_only is the whole server's on MySQL and MariaDB")
    flags = site()
    flags.connections.close_thread()
    name = urlsplit(postgres_url).path[1:]
    with closing(Client(postgres_url)) as root:
        root.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            assert found(flags, "replication").level == "fail"
        finally:
            root.ask("SET default_transaction_read_only = off")
            root.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@pytest.fixture
def standby(private_postgres, tmp_path):
    """Give a standby that copies the test's own PostgreSQL."""
    primary, copy = private_postgres, private_postgres.folder / "copy"
    reach = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
    primary._run("pg_basebackup", *reach, "-D", copy, "-R", "-c", "fast", "--no-sync")
    standby = PrivatePostgres()
    try:
        shutil.rmtree(standby.folder / "data")
        shutil.move(copy, standby.folder / "data")
        yield standby.start()
    finally:
        standby.close()


def test_how_far_copies_are_behind_is_told_and_what_nobody_fetches(private_postgres, standby, tmp_path, until, monkeypatch):
    flags = FlagSweep(private_postgres.url, state_dir=str(tmp_path / "state"))
    flags.init()
    until(lambda: "(async, streaming) is 0 s and" in found(flags, "replication").text)
    there = FlagSweep(standby.url, state_dir=str(tmp_path / "state"))
    until(lambda: standby.ask("SELECT to_regclass('flagsweep_flag')") != [(None,)])
    finding = found(there, "replication")
    assert finding.level == "fail" and "is a standby" in finding.text
    there.connections.close_thread()
    standby.freeze()
    monkeypatch.setattr("flagsweep.databases.postgresql.checks.MUCH", 1)
    private_postgres.ask("SELECT pg_create_physical_replication_slot('old', true)")
    private_postgres.ask("CREATE TABLE much AS SELECT repeat(md5(random()::text), 50) FROM generate_series(1, 4000)")
    findings = {each.text: each.fix for each in examine(flags) if each.what == "replication" and each.level == "warn"}
    assert len(findings) == 2 and any("it would lose that" in text for text in findings)
    assert any("pg_drop_replication_slot('old')" in fix for fix in findings.values())
    standby.thaw()
    flags.connections.close_thread()


@pytest.fixture
def private_mariadb(missing):
    """Give the URL of a MariaDB of the test's own, and a way to ask it."""
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
        missing("the programs of a MariaDB server are not installed")
    folder = Path(tempfile.mkdtemp(prefix="flagsweep-mariadb-"))
    user = ["--user=mysql"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "mysql")
    made = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--auth-root-authentication-method=normal", *user]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    command = [
        "mariadbd",
        "--no-defaults",
        f"--datadir={folder}/data",
        f"--port={port}",
        f"--socket={folder}/socket",
        "--server-id=2",
    ]
    server = subprocess.Popen([*command, "--bind-address=127.0.0.1", *user], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    KEPT.add(server.pid)
    yield f"mysql://root@127.0.0.1:{port}/site"
    server.kill()
    server.wait()
    KEPT.discard(server.pid)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_replica_and_a_server_that_takes_no_writes_are_told(private_mariadb, tmp_path, until):
    def root():
        with suppress(Exception):
            return Client(private_mariadb.replace("/site", "/mysql"))

    with closing(until(root, limit=30, every=0.1)) as server:
        server.ask("CREATE DATABASE site")
        flags = FlagSweep(private_mariadb, state_dir=str(tmp_path / "state"))
        flags.init()
        assert found(flags, "replication").level == "ok"
        server.ask("CHANGE MASTER TO master_host = '127.0.0.9', master_user = 'copy'")
        finding = found(flags, "replication")
        assert finding.level == "warn" and "a replica of 127.0.0.9, and does not copy it just now" in finding.text
        assert "SHOW REPLICA STATUS" in finding.fix
        server.ask("SET GLOBAL read_only = 1")
        findings = [each for each in examine(flags) if each.what == "replication"]
        assert [each.level for each in findings] == ["fail", "warn"] and "read_only is on" in findings[0].text
        flags.connections.close_thread()
