"""What Peewee, SQLite and the kernel's file locks do that we rely on, or dodge: a change fails here first."""

import json
import os
import sqlite3
import struct
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime

import peewee
import pytest
from peewee import SQL, BigAutoField, DateTimeField, Model, NodeList, OperationalError, SqliteDatabase
from playhouse.sqliteq import SqliteQueueDatabase

try:
    import fcntl
except ImportError:
    fcntl = None

needs_ofd = pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="only Linux has locks of an open file")


def connect(path, **options):
    """Return a connection as another program has it: autocommit, and no patience."""
    return sqlite3.connect(path, **{"isolation_level": None, "timeout": 0, **options})


def values(connection):
    return [value for (value,) in connection.execute("SELECT x FROM t ORDER BY rowid")]


def in_thread(function):
    """Return what the function returns, or raises, in a thread of its own."""
    answer = []

    def run():
        try:
            answer.append(function())
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return answer[0]


def insert(db, value):
    db.execute_sql("INSERT INTO t VALUES (?)", (value,))


def fill_the_disk(db):
    db.pragma("max_page_count", 1)
    with pytest.raises(OperationalError, match="full"):
        insert(db, "x" * 100_000)


FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid


def lock(file, byte=0):
    """Lock a byte for this open file."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))


def is_locked(file, byte=0, length=1):
    """Return whether anybody but this open file holds one of these bytes."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, length, 0)
    return FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK


@pytest.fixture
def db(db_path):
    db = SqliteDatabase(db_path, pragmas={"journal_mode": "wal"}, timeout=0)
    db.execute_sql("CREATE TABLE t (x)")
    yield db
    if not db.is_closed():
        connection = db.connection()
        db.dispose()  # close() refuses what some tests leave on purpose
        connection.close()


@pytest.fixture
def other(db, db_path):
    with closing(connect(db_path)) as connection:
        yield connection


# Transactions that end early


def test_a_full_disk_ends_the_whole_transaction_unseen(db, other):
    """Why handlers run under a guard savepoint: who swallows this error goes on in autocommit, its first half gone."""
    with pytest.raises(OperationalError, match="cannot rollback"), db.atomic():
        insert(db, "before")
        fill_the_disk(db)
        assert (db.transaction_depth(), db.connection().in_transaction) == (1, False)
        insert(db, "after")
    assert values(other) == ["after"]


def commit(db):
    db.commit()


def run_a_script(db):
    db.connection().executescript("SELECT 1;")


@pytest.mark.parametrize("end", [fill_the_disk, commit, run_a_script])
def test_a_guard_savepoint_cannot_be_released_once_its_transaction_ended(db, end):
    """Why an error at RELEASE fails the handler and leaves its flag up."""
    db.begin()
    db.execute_sql("SAVEPOINT guard")
    insert(db, 1)
    end(db)
    assert not db.connection().in_transaction
    with pytest.raises(OperationalError, match="no such savepoint"):
        db.execute_sql("RELEASE SAVEPOINT guard")


@pytest.mark.parametrize("end", [commit, run_a_script])
def test_a_script_and_a_commit_of_the_drivers_make_half_a_transaction_durable(db, other, end):
    """What a handler must not do: the guard notices, but what was written before is committed."""
    with suppress(OperationalError), db.atomic():
        insert(db, "half")
        end(db)
    assert values(other) == ["half"]


def test_leaving_a_vanished_transaction_hides_the_error_that_was_on_its_way(db):
    """Why the last error is not always the reason: ours is found in its context."""
    with pytest.raises(OperationalError, match="cannot rollback") as caught, db.atomic():
        db.commit()
        raise ValueError("the reason")
    errors, error = [], caught.value
    while error := error.__context__:
        errors.append(str(error))
    assert "the reason" in errors


# Transactions that do not end


def test_a_leaked_session_turns_our_atomic_into_a_savepoint_nobody_sees(db, other):
    """Why the depth must be 0 after each handler."""
    db.session_start()
    with db.atomic():
        insert(db, 1)
    assert (db.transaction_depth(), values(other)) == (1, [])
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize("error", [None, ValueError])
def test_an_atomic_in_which_a_session_leaks_neither_commits_nor_rolls_back(db, error):
    """Why the guard compares depths: Peewee takes the leaked session for the block it leaves."""
    with suppress(ValueError), db.atomic():
        insert(db, 1)
        db.session_start()
        if error:
            raise error
    assert (db.transaction_depth(), db.connection().in_transaction, values(db.connection())) == (1, True, [1])


def test_a_leaked_begin_is_unknown_to_peewee_and_fails_the_next_atomic(db):
    """Why the driver is asked too, after each handler."""
    db.execute_sql("BEGIN")
    assert (db.transaction_depth(), db.in_transaction(), db.connection().in_transaction) == (0, False, True)
    with pytest.raises(OperationalError, match="cannot start a transaction within a transaction"), db.atomic():
        pass
    db.connection().rollback()
    assert not db.connection().in_transaction


def test_close_refuses_an_open_session_and_rolls_a_leaked_begin_back(db, other):
    """Why healing a connection first takes Peewee's transactions off, and then closes."""
    db.session_start()
    with pytest.raises(OperationalError, match="while transaction is open"):
        db.close()
    insert(db, 1)
    db.pop_transaction()
    assert db.close()
    assert values(other) == []
    other.execute("INSERT INTO t VALUES (2)")


# after_commit


def test_a_raising_after_commit_callback_turns_a_committed_transaction_into_an_error(db, other):
    """Why nothing that may raise is hung there: the data is in, the site hears otherwise, later callbacks are lost."""
    ran = []
    with pytest.raises(OperationalError, match="cannot rollback"), db.atomic():
        insert(db, 1)
        db.after_commit(lambda: 1 / 0)
        db.after_commit(lambda: ran.append(1))
    assert (values(other), ran) == ([1], [])


def test_after_commit_also_runs_for_a_savepoint_that_was_rolled_back(db):
    """Why such a callback may only say "look at the database"."""
    ran = []
    with db.atomic():
        with suppress(ValueError), db.atomic():
            db.after_commit(lambda: ran.append(1))
            raise ValueError
        assert ran == []
    assert ran == [1]


def test_after_commit_outside_a_transaction_runs_at_once(db):
    """Why the same call serves a raise in autocommit."""
    ran = []
    db.after_commit(lambda: ran.append(1))
    assert ran == [1]


# Locks of SQLite


def test_a_transaction_takes_no_lock_before_its_first_statement(db, other):
    """Why every write of ours begins IMMEDIATE."""
    with db.atomic():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


@pytest.mark.parametrize("patience", [0, 600])
def test_a_deferred_read_then_write_fails_at_once_after_another_commit(db, other, patience):
    """Why a site's database gets lock_type IMMEDIATE, and a whole transaction is repeated, never a statement."""
    db.timeout = patience
    began = time.monotonic()
    with pytest.raises(OperationalError, match="locked"), db.atomic():
        values(db.connection())
        other.execute("INSERT INTO t VALUES (1)")
        insert(db, 2)
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("where", ["constructor", "attribute", "call"])
def test_lock_type_immediate_holds_the_writer_from_the_beginning(db, other, db_path, where):
    """Why we may set _lock_type on a database that the site made, and ask for it per transaction."""
    assert db._lock_type is None
    if where == "constructor":
        db = SqliteDatabase(db_path, lock_type="IMMEDIATE")
    elif where == "attribute":
        db._lock_type = "IMMEDIATE"
    with db.connection_context(), db.atomic(*(["IMMEDIATE"] if where == "call" else [])):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert values(other) == []


def test_begin_immediate_waits_for_the_writer_as_long_as_its_timeout(db, other):
    """Why a busy database is a matter of patience for us: with none it fails at once, with some it comes through."""
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        db.begin("IMMEDIATE")
    about_to = threading.Event()

    def wait_and_write():
        db.timeout = 30
        with db.connection_context():
            db.connection().set_trace_callback(lambda sql: about_to.set())
            with db.atomic("IMMEDIATE"):
                insert(db, 1)

    thread = threading.Thread(target=wait_and_write)
    thread.start()
    assert about_to.wait(30)
    other.execute("COMMIT")
    thread.join(30)
    assert values(other) == [1]


@pytest.mark.parametrize(("journal", "first", "length"), [("delete", 0x40000001, 1), ("wal", 0x40000002, 510)])
@needs_ofd
def test_opening_and_closing_the_database_file_drops_the_locks_of_sqlite(tmp_path, journal, first, length):
    """Why nothing of ours opens that file, and handlers are told not to: another process then writes beside us."""
    path = tmp_path / "opened.db"
    with closing(connect(path)) as connection, path.open("rb") as witness:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN IMMEDIATE")
        assert is_locked(witness, first, length)
        path.open("rb").close()
        assert not is_locked(witness, first, length)


# Journal, durability, noticing commits


def test_wal_is_kept_in_the_file_and_synchronous_in_the_connection(db, db_path):
    """Why `init` sets the one once, and every connection of ours the other: its default depends on the build."""
    db.pragma("synchronous", "OFF")
    with closing(connect(db_path)) as fresh:
        assert fresh.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert fresh.execute("PRAGMA synchronous").fetchone() in [(1,), (2,)]
        fresh.execute("PRAGMA synchronous = FULL")
        assert (fresh.execute("PRAGMA synchronous").fetchone(), db.synchronous) == ((2,), 0)


def test_pragmas_are_set_again_on_every_threads_connection(db_path):
    """Why settings go into `pragmas` and not into one statement at the start."""
    db = SqliteDatabase(db_path, pragmas={"synchronous": 3})

    def ask():
        with db.connection_context():
            return db.synchronous

    assert [in_thread(ask), in_thread(ask)] == [3, 3]


def test_synchronous_cannot_be_changed_within_a_transaction(db):
    """Why it is set before BEGIN: for a claim, NORMAL; for settling, FULL."""
    with db.atomic(), pytest.raises(OperationalError, match="Safety level"):
        db.pragma("synchronous", "FULL")


def test_data_version_changes_with_anothers_commit_alone(db, other):
    """How the watcher sees work that anybody raised; its own connection must not be one that writes."""
    before = db.data_version
    insert(db, 1)
    assert db.data_version == before
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO t VALUES (2)")
    assert db.data_version == before
    other.execute("COMMIT")
    assert db.data_version != before


def test_data_version_stays_where_nothing_was_written(db, other):
    """Why empty claims wake nobody, and asking for sweeps comes to an end."""
    before = db.data_version
    for statement in ("BEGIN IMMEDIATE", "UPDATE t SET x = 1 WHERE x = 0", "COMMIT"):
        other.execute(statement)
    assert db.data_version == before


def test_an_open_reader_keeps_the_wal_from_being_emptied(db, other, db_path):
    """Why no read of ours stays open: the file beside the database would grow without end."""
    insert(db, 1)
    other.execute("BEGIN")
    values(other)
    insert(db, 2)
    assert db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 1
    other.execute("COMMIT")
    assert db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert os.stat(f"{db_path}-wal").st_size == 0


def test_the_wal_file_comes_and_goes_with_the_connections(db, db_path):
    """Why the watcher watches the folder, and looks for the file's name."""
    insert(db, 1)
    assert os.path.exists(f"{db_path}-wal")
    db.close()
    assert not os.path.exists(f"{db_path}-wal")


# Peewee's connections


def test_every_thread_has_a_connection_of_its_own_that_begins_closed(db):
    """Why a lane's thread opens and closes for itself."""
    mine = db.connection()
    assert in_thread(db.is_closed)
    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        raise in_thread(mine.close)


def test_any_statement_opens_a_connection_and_nobody_closes_it(db):
    """Why what we do in a site's thread is done within a borrowed connection."""
    db.close()
    db.execute_sql("SELECT 1")
    assert not db.is_closed()


def test_connection_context_closes_even_a_connection_that_it_found_open(db):
    """Why it is used only where is_closed() said so before."""
    assert not db.is_closed()
    with db.connection_context():
        pass
    assert db.is_closed()


def test_of_nested_connection_contexts_the_outermost_closes(db):
    """Why verbs may borrow within one another."""
    with db.connection_context():
        with db.connection_context():
            pass
        assert not db.is_closed()
    assert db.is_closed()


def test_connection_context_fails_where_it_ends_within_a_transaction(db):
    """Why the transaction is looked after before the connection."""
    with pytest.raises(OperationalError, match="while transaction is open"), db.connection_context():
        db.session_start()


def test_dispose_forgets_a_connection_without_closing_it(db):
    """What a forked child does: closing would speak on its parent's connection."""
    connection = db.connection()
    db.session_start()
    db.dispose()
    assert (db.is_closed(), db.transaction_depth()) == (True, 0)
    connection.execute("SELECT 1")
    connection.close()


def test_every_thread_has_a_memory_database_of_its_own():
    """Why :memory: is performed in the calling thread, and `run` refuses it."""
    db = SqliteDatabase(":memory:")
    with db.connection_context():
        db.execute_sql("CREATE TABLE t (x)")
        assert isinstance(in_thread(lambda: db.execute_sql("SELECT x FROM t")), OperationalError)


def test_a_queue_database_commits_in_another_thread_and_refuses_atomic(db_path):
    """Why SqliteQueueDatabase is refused: a flag could not commit with the data."""
    db = SqliteQueueDatabase(db_path, autostart=False)
    with pytest.raises(ValueError, match="not supported"):
        db.atomic().__enter__()


def test_a_missing_database_is_created_empty_unless_opened_with_mode_rw(tmp_path):
    """Why only `init` may make a file: a wrong path would be swept, empty, for ever."""
    SqliteDatabase(tmp_path / "typo.db").connection().close()
    assert (tmp_path / "typo.db").exists()
    careful = SqliteDatabase(f"file:{tmp_path}/absent.db?mode=rw", uri=True)
    with pytest.raises(OperationalError, match="unable to open"):
        careful.connect()
    assert not (tmp_path / "absent.db").exists()


# Errors


@pytest.mark.parametrize(
    ("statement", "text"),
    [("INSERT INTO u VALUES (1)", "no such table: u"), ("INSERT INTO t VALUES (1)", "readonly database")],
)
def test_errors_say_these_words(db, statement, text):
    """What our advice hangs on: SQLite's message, since Python 3.10 has no error names."""
    db.pragma("query_only", 1)
    with pytest.raises(OperationalError, match=text):
        db.execute_sql(statement)


def test_errors_of_the_drivers_own_connection_are_not_peewees(db):
    """Why both families are caught where the driver is spoken to."""
    with pytest.raises(sqlite3.OperationalError):
        db.connection().execute("SELECT x FROM missing")
    assert not issubclass(peewee.OperationalError, sqlite3.Error)


def test_text_with_half_a_surrogate_cannot_be_stored(db):
    """Why payloads are ASCII-escaped JSON, and error texts are cleaned: else recording a failure fails."""
    with pytest.raises(UnicodeEncodeError):
        insert(db, "\ud800")
    insert(db, json.dumps("\ud800"))
    [stored] = values(db.connection())
    assert json.loads(stored) == "\ud800"


# Rows


def test_datetimes_are_compared_as_text(db):
    """Why our times are integers: of three spellings of one instant, not all are due."""

    class Post(Model):
        at = DateTimeField()

        class Meta:
            database = db

    db.create_tables([Post])
    spellings = ("2024-05-01T10:00:00+00:00", "2024-05-01T12:00:00+02:00", "2024-05-01T05:00:00-05:00")
    for spelling in spellings:
        Post.create(at=datetime.fromisoformat(spelling))
    noon = datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert Post.select().where(Post.at <= noon).count() == 2
    assert Post.select().where(Post.at <= noon.replace(tzinfo=None)).count() == 1


def test_an_autoincrement_id_never_comes_back_and_a_plain_one_does(db):
    """Why our ids say AUTOINCREMENT: "discard 17" must not hit a newer flag."""
    ids = {}
    for table, extra in (("plain", ""), ("ours", "AUTOINCREMENT")):
        db.execute_sql(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY {extra})")
        for _ in range(2):
            ids[table] = db.execute_sql(f"INSERT INTO {table} DEFAULT VALUES").lastrowid
            db.execute_sql(f"DELETE FROM {table}")
    assert ids == {"plain": 1, "ours": 2}


def test_an_autoincrement_id_that_was_rolled_back_is_given_again(db):
    """Why the id of a raise means nothing before its commit."""
    db.execute_sql("CREATE TABLE ours (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    ids = []
    for _ in range(2):
        with db.atomic() as transaction:
            ids.append(db.execute_sql("INSERT INTO ours DEFAULT VALUES").lastrowid)
            transaction.rollback()
    assert ids == [1, 1]


def test_a_big_auto_field_may_be_declared_autoincrement(db):
    """How our models declare their ids: SQLite takes the word after INTEGER PRIMARY KEY alone."""

    class Id(BigAutoField):
        def ddl(self, context):
            return NodeList((super().ddl(context), SQL("AUTOINCREMENT")))

    class Ours(Model):
        id = Id()

        class Meta:
            database = db

    db.create_tables([Ours])
    assert "sqlite_sequence" in db.get_tables()


def test_a_statement_with_returning_commits_when_its_rows_are_fetched(db, other):
    """Why RETURNING is always followed by fetchall()."""
    cursor = db.execute_sql("INSERT INTO t VALUES (1), (2) RETURNING x")
    assert values(other) == []
    assert cursor.fetchall() == [(1,), (2,)]
    assert values(other) == [1, 2]


def test_rowcount_counts_the_rows_that_matched(db):
    """Why the row count decides whether a claim was still ours, even where a value stayed as it was."""
    insert(db, 1)
    counts = [db.execute_sql("UPDATE t SET x = 1 WHERE x = ?", (x,)).rowcount for x in (1, 2)]
    counts.append(db.connection().executemany("INSERT INTO t VALUES (?)", [(1,), (2,)]).rowcount)
    counts.append(db.execute_sql("DELETE FROM t WHERE x = 1").rowcount)
    assert counts == [1, 0, 2, 2]


def test_execute_sql_takes_named_parameters_and_ignores_spare_ones(db):
    """Why one dictionary of a step's values serves the statement that settles it."""
    assert db.execute_sql("SELECT :a + :a", {"a": 1, "spare": 2}).fetchall() == [(2,)]


def test_json_each_and_json_group_array_carry_many_rows_in_one_value(db):
    """Why a batch is one parameter and one answer, whatever its size."""
    db.execute_sql("INSERT INTO t SELECT value FROM json_each(?)", (json.dumps([3, 1]),))
    sql = """SELECT json_group_array(json_array(x, json('{"a":1}'), json(NULL))) FROM t"""
    assert json.loads(db.execute_sql(sql).fetchone()[0]) == [[3, {"a": 1}, None], [1, {"a": 1}, None]]


def test_json_that_is_none_is_an_operational_error(db):
    """Why a row that was damaged by hand is looked for one by one."""
    with pytest.raises((OperationalError, sqlite3.OperationalError), match="malformed JSON"):
        db.execute_sql("SELECT json('{')").fetchall()


def test_an_upsert_from_a_select_needs_a_where(db):
    """Why "WHERE true" stands before ON CONFLICT: SQLite would take ON for a join's."""
    db.execute_sql("CREATE UNIQUE INDEX u ON t (x)")
    upsert = "INSERT INTO t SELECT value FROM json_each('[1, 1]') {} ON CONFLICT (x) DO UPDATE SET x = 2 RETURNING x"
    with pytest.raises(OperationalError, match="syntax error"):
        db.execute_sql(upsert.format(""))
    assert db.execute_sql(upsert.format("WHERE true")).fetchall() == [(1,), (2,)]


# File locks of the kernel, for the lease


@pytest.fixture
def lease(tmp_path):
    """Give two openings of one file, as two consumers in one process have them."""
    with (tmp_path / "lease").open("w+b") as mine, (tmp_path / "lease").open("r+b") as theirs:
        yield mine, theirs


@needs_ofd
def test_two_openings_of_a_file_in_one_process_exclude_each_other(lease):
    """Why two FlagSweep objects on one database notice each other."""
    mine, theirs = lease
    lock(mine)
    with pytest.raises(OSError):
        lock(theirs)
    assert (is_locked(theirs), is_locked(mine)) == (True, False)


@needs_ofd
def test_a_plain_lockf_is_granted_twice_within_one_process(lease):
    """Why it is not used where the kernel has better."""
    for file in lease:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@needs_ofd
@pytest.mark.parametrize(("take", "left"), [(lock, True), (lambda file: fcntl.lockf(file, fcntl.LOCK_EX), False)])
def test_a_lock_of_the_open_file_outlives_an_open_and_close_and_a_plain_one_does_not(lease, take, left):
    """Why a backup that reads the folder costs us no lease."""
    mine, theirs = lease
    take(mine)
    assert is_locked(theirs)
    open(mine.name, "rb").close()
    assert is_locked(theirs) is left


@needs_ofd
def test_bytes_of_a_file_are_locked_one_by_one_even_behind_its_end(lease):
    """Why one empty file serves all consumers, a byte each."""
    mine, theirs = lease
    lock(mine, 0)
    lock(theirs, 2**40)
    assert [is_locked(theirs, byte) for byte in (0, 1)] == [True, False]


@needs_ofd
def test_closing_the_file_gives_its_locks_up(lease):
    """Why a dead consumer's claims are free at once: the kernel closes what the dead had open."""
    mine, theirs = lease
    lock(mine)
    mine.close()
    assert not is_locked(theirs)


@needs_ofd
def test_a_forked_child_keeps_a_lock_alive_until_it_closes_its_copy(lease):
    """Why a forked child closes the lease first of all; one that is exec'ed never gets it."""
    mine, theirs = lease
    lock(mine)
    assert not os.get_inheritable(mine.fileno())
    go_on, answer = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer)
        os.read(go_on, 1)
        os._exit(0)
    try:
        mine.close()
        assert is_locked(theirs)
    finally:
        os.close(answer)
        os.waitpid(child, 0)
        os.close(go_on)
    assert not is_locked(theirs)
