"""What raising, claiming and settling cost, in statements, in query plans and in steps of SQLite's machine: never in seconds."""

import re
from contextlib import contextmanager
from importlib import import_module
from pkgutil import iter_modules

import pytest
from peewee import BooleanField, Model
from playhouse.test_utils import assert_query_count, count_queries

from flagsweep import Backoff, FlagSweep, Raised, Retry
from flagsweep.config import SECOND
from flagsweep.consumer.outlook import Running
from flagsweep.databases import sqlite
from flagsweep.databases.raising import Terms
from flagsweep.databases.sqlite import census
from flagsweep.databases.sqlite import counts as of_counts
from flagsweep.databases.sqlite import flags as of_flags
from flagsweep.databases.way import is_open
from flagsweep.operations.outlook import Outlook
from flagsweep.sweep.claims import Step
from flagsweep.sweep.totals import Totals
from flagsweep.testing import FakeClock

NOW = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
FUTURE = NOW + 3600 * SECOND
MANY = 20_000
ME = 1


class Site:
    def __init__(self, path):
        self.flags = FlagSweep(path, clock=FakeClock(NOW))
        self.flags.init()
        self.store, self.verbs = self.flags.store, self.flags.verbs
        self.handler = self.flags.handler("work", backoff=Backoff())(lambda n: None)
        self.flags.database.connect(reuse_if_open=True)
        self.store.connections.engine.connect(reuse_if_open=True)

    def fill(self, count, kind="work", priority=0, due=NOW, state="waiting", start=1_000_000):
        """Put many flags up, in one statement each thousand."""
        items = [f'{{"n":{n}}}' for n in range(start, start + count)]
        chunks = ["[" + ",".join(items[at : at + 1000]) + "]" for at in range(0, count, 1000)]
        assert self.verbs.raise_many(kind, chunks, Terms(priority, due, NOW)) == {"new": count}
        if state != "waiting":
            ask(self, "UPDATE flagsweep_flag SET state = ?, claimed_by = 99, claim_token = 99, claimed_generation = 1", state)

    def cycle(self, limit):
        """Look what is due, claim and lower it, as a sweep does; return how many flags that was."""
        with self.store.connections.write():
            due = [(p, kind) for kind, p, earliest in self.store.agenda(["work", "other"]) if earliest <= NOW]
            (priority, kind) = max(due)
            taken = self.store.claim(kind, priority, limit, ME, NOW)
        with self.store.connections.write():
            return self.store.lower([each.id for each in taken], taken[0].token)[0]

    def close(self):
        self.store.connections.close_thread()


@pytest.fixture
def site(db_path):
    site = Site(db_path)
    yield site
    site.close()


def ask(site, statement, *arguments):
    return site.store.connections.engine.execute_sql(statement, arguments).fetchall()


# Statements.


@pytest.mark.parametrize("state", ["new", "waiting", "claimed", "dead"])
def test_a_raise_is_one_statement_whatever_the_state_of_its_flag(site, state):
    if state != "new":
        site.fill(1, state=state)
    with assert_query_count(1):
        site.handler.raise_flag(1_000_000)


def test_a_raise_in_the_sites_transaction_adds_one_statement_to_it(site):
    with site.flags.database.atomic(), assert_query_count(1):
        site.handler.raise_flag(1)


@pytest.mark.parametrize("count", [1, 1000])
def test_a_thousand_raises_are_one_statement_in_one_transaction(site, count):
    with count_queries() as counter:
        site.handler.raise_many([(n,) for n in range(count)])
    assert counter.count <= 3  # BEGIN, INSERT, COMMIT


def statements(site, limit):
    with count_queries() as counter:
        assert site.cycle(limit) == limit
    return counter.count


def test_claiming_and_lowering_takes_as_many_statements_for_one_flag_as_for_a_thousand(site):
    site.fill(1001)
    statements(site, 1)
    site.fill(1)
    few, many = statements(site, 1), statements(site, 1000)
    assert few + 1 == many <= 10, "a few are claimed and returned by one statement, many by two"


def test_a_sweep_takes_fewer_statements_than_a_tenth_of_its_flags(site):
    site.fill(3000)
    with count_queries() as counter:
        assert +site.flags.sweep() == {"lowered": 3000}
    assert counter.count < 300


def test_a_sweep_with_nothing_to_do_writes_no_flag_and_takes_few_statements(site):
    site.fill(50, due=FUTURE)
    site.flags.sweep()  # The first one stamps the database.
    with count_queries() as counter:
        site.flags.sweep()
    assert counter.count <= 25
    assert not [
        query for query in texts(counter) if re.match(r"\s*(UPDATE|DELETE|INSERT)\b.*flagsweep_flag\b.*claim_token = \?", query)
    ]


def texts(counter):
    return [record.msg[0] for record in counter._handler.queries]


# Query plans.

WAITING = "USING (COVERING )?INDEX flagsweep_waiting"
BY_ID = r"USING INTEGER PRIMARY KEY \(rowid=\?\)"
CLAIMED = r"USING (COVERING )?INDEX flagsweep_claimed \(claimed_by=\?( AND claim_token=\?)?\)"
DUE = r"USING (COVERING )?INDEX flagsweep_waiting \(kind=\? AND priority=\? AND due_at<\?\)"

HOT = {
    "agenda": (of_flags.AGENDA, [WAITING]),
    "claim": (of_flags.CLAIM, [BY_ID, DUE]),
    "claim of a few": (of_flags.CLAIM_FEW, [BY_ID, DUE]),
    "claim of these": (of_flags.CLAIM_THESE, [BY_ID]),
    "claimed rows": (of_flags.CLAIMED_ROWS, [CLAIMED]),
    "claimed ids": (of_flags.CLAIMED_IDS, [CLAIMED]),
    "claimed row": (of_flags.CLAIMED_ROW, [BY_ID]),
    "lower": (of_flags.LOWER, [BY_ID]),
    "lower bumped": (of_flags.LOWER_BUMPED, [BY_ID]),
    "settle one": (of_flags.SETTLE_ONE, [BY_ID]),
    "release": (of_flags.RELEASE, [BY_ID]),
    "claimed by": (of_flags.CLAIMED_BY, [CLAIMED]),
    "generations": (of_flags.GENERATIONS, [BY_ID]),
    "retry": (of_flags.RETRY, [BY_ID]),
    "space": (of_flags.SPACE, [BY_ID]),
    "dead groups of a kind": (census.DEAD_GROUPS_OF, [r"USING (COVERING )?INDEX flagsweep_dead_group"]),
    "record dead": (of_flags.RECORD_DEAD, [BY_ID]),
    "drop dead": (of_flags.DROP_DEAD, [BY_ID]),
    "progress": (of_flags.PROGRESS, [BY_ID]),
    **{f"raise {form}": (statement, []) for form, statement in of_flags.RAISE.items()},
    **{f"raise many {form}": (statement, []) for form, statement in of_flags.RAISE_MANY.items()},
    "discover": (of_flags.DISCOVER, []),
    "count": (of_counts.COUNT, []),
    "kinds": (of_flags.KINDS, [WAITING]),
    "kinds of the dead": (census.DEAD_KINDS, [r"USING (COVERING )?INDEX flagsweep_dead\b"]),
    "due of each kind": (census.DUE_COUNTS, [WAITING]),
}


@pytest.fixture(scope="module", params=["empty", "full", "analyzed"])
def planned(request, tmp_path_factory):
    """Return a site whose tables are empty, full, or full and analyzed, as a site's own PRAGMA optimize leaves them."""
    site = Site(tmp_path_factory.mktemp("plans") / "site.db")
    if request.param != "empty":
        for number, kind in enumerate(("work", "other", "nobody")):
            site.fill(1000, kind=kind, state="dead" if kind == "other" else "waiting", start=number * 10_000)
            site.fill(300, kind=kind, priority=5, due=FUTURE, start=number * 10_000 + 5000)
    if request.param == "analyzed":
        ask(site, "ANALYZE")
    yield site
    site.close()


def plan_of(site, statement):
    names = re.findall(r":\w+", statement)
    arguments = {name[1:]: None for name in names} if names else [None] * statement.count("?")
    return [row[3] for row in site.store.connections.engine.execute_sql("EXPLAIN QUERY PLAN " + statement, arguments).fetchall()]


@pytest.mark.parametrize("name", HOT)
def test_every_hot_statement_uses_its_index_and_scans_no_table(planned, name):
    statement, wanted = HOT[name]
    plan = plan_of(planned, statement)
    on_flags = [step for step in plan if "flagsweep_flag" in step or re.search(r"\bflag\b", step)]
    assert not [step for step in on_flags if step.startswith("SCAN")], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    for pattern in wanted:
        assert any(re.search(pattern, step) for step in on_flags), plan
    assert all(any(re.search(pattern, step) for pattern in wanted) for step in on_flags), plan


@pytest.mark.parametrize("statement", [census.COUNTS, census.CLAIMED_KINDS, census.DEAD_GROUPS])
def test_what_is_up_is_counted_in_indexes_that_have_nothing_but_its_state(planned, statement):
    on_flags = [step for step in plan_of(planned, statement) if "flagsweep_flag" in step]
    assert on_flags and all(re.search(r"INDEX flagsweep_(waiting|claimed|dead|dead_group)\b", step) for step in on_flags), (
        on_flags
    )
    scans = [step for step in on_flags if step.startswith("SCAN")]
    allowed = ("INDEX flagsweep_claimed", "INDEX flagsweep_dead_group")
    assert all(any(index in step for index in allowed) for step in scans), "of what waits or is dead each kind is a range"


def test_monitoring_reads_of_the_flags_no_more_than_an_index_hands_it(planned):
    with count_queries() as counter:
        planned.flags.check()
        assert Outlook(planned.flags, Running({}, Totals(), lambda: 1)).answer("/metrics").status == 200
    asked = [text for text in texts(counter) if "flagsweep_flag" in text]
    assert len(asked) >= 5
    for text in asked:
        steps = [step for step in plan_of(planned, text) if "flagsweep_flag" in step]
        assert steps and all(step.startswith("SEARCH") and "INDEX flagsweep_" in step for step in steps), (text, steps)


def test_a_result_is_found_through_the_index_of_its_flag(planned):
    with count_queries() as counter:
        planned.flags.result(Raised(10**9, "new"))
    asked = [text for text in texts(counter) if "flagsweep_history" in text]
    assert len(asked) == 2
    for text in asked:
        (step,) = [step for step in plan_of(planned, text) if not step.startswith("USE TEMP")]
        assert "USING INDEX flagsweep_history_flag (flag=?" in step


def test_results_cost_two_statements_a_batch_and_nothing_where_none_is_kept(site):
    kept = site.flags.handler("kept", result=True)(lambda n: n)
    counts = {}
    for handler in (site.handler, kept):
        handler.raise_many([(n,) for n in range(500)])
        with count_queries() as counter:
            assert +site.flags.sweep() == {"lowered": 500}
        counts[handler.kind] = counter.count
        told = [text for text in texts(counter) if "claimed_generation FROM" in text or "flagsweep_history" in text]
        assert bool(told) == (handler is kept)
    assert counts["kept"] < counts["work"] + 60


def test_the_plans_of_all_statements_are_looked_at():
    """A statement that is new must be looked at here, or be named as one that is allowed to take its time."""
    slow = {"COUNTS", "DEAD_GROUPS", "CLAIMED_KINDS", "LATEST_RAISE", "DAMAGED", "CLAIMERS", "CLAIMS_OF", "HIGHEST"}
    slow |= {"OLDEST", "WALK", "TAKE", "TAKE_THESE", "CLAIMED_BUCKETS"}  # test_buckets.py looks at these.
    modules = [import_module(f"{sqlite.__name__}.{each.name}") for each in iter_modules(sqlite.__path__)]
    named = {name: value for module in modules for name, value in vars(module).items() if isinstance(value, str)}
    whole = {name for name, text in named.items() if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", text)}
    assert slow < whole
    assert whole - slow == {name for name in whole if named[name] in [statement for statement, _ in HOT.values()]}


@pytest.mark.parametrize("statement", [of_flags.CLAIMERS, of_flags.CLAIMS_OF])
def test_who_has_claimed_what_is_read_from_the_index_of_the_claimed_alone(planned, statement):
    on_flags = [step for step in plan_of(planned, statement) if "flagsweep_flag" in step]
    assert on_flags and all("INDEX flagsweep_claimed" in step for step in on_flags)


@pytest.mark.parametrize("name", ["claim", "claim of these", "lower bumped", "release"])
def test_a_change_of_flags_makes_no_list_but_that_of_their_ids(site, name):
    """With CHECK (state IN (...)) SQLite makes a table of the three states for every row that changes."""
    statement = HOT[name][0].replace(is_open(), "true")  # What is asked of gates is asked once, and not of each row.
    steps = ask(site, "EXPLAIN " + statement, *[None] * statement.count("?"))
    assert [step[1] for step in steps].count("OpenEphemeral") == 1


def test_looking_for_own_rows_asks_for_their_flags_by_kind_and_key(site):
    class Person(Model):
        owed = BooleanField(default=False, index=True)

        class Meta:
            database = site.flags.database

    site.flags.database.create_tables([Person])
    greet = site.flags.when(Person.owed, kind="greet")(lambda person: None)
    seen = []
    connection = site.store.connections.engine.connection()
    connection.set_trace_callback(seen.append)
    greet.rows.find(site.store.connections.engine, site.store.connections.dialect, greet.kind, 100)
    connection.set_trace_callback(None)
    (query,) = [text for text in seen if "person" in text]
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query)]
    assert any("flag_kind_key" in step and "(kind=? AND key=?)" in step for step in plan), plan


# Steps of SQLite's virtual machine.


@contextmanager
def steps(database):
    """Count how often SQLite's machine comes round: that is the same every time, whatever else the computer does."""
    count = [0]

    def tick():
        count[0] += 1
        return 0

    connection = database.connection()
    connection.set_progress_handler(tick, 1)
    yield count
    connection.set_progress_handler(None, 1)


def cost_of_a_cycle(site):
    """Return the steps of claiming and lowering a hundred flags that are due."""
    site.fill(100, start=0)
    with steps(site.store.connections.engine) as count:
        assert site.cycle(100) == 100
    return count[0]


CROWDS = {
    "future flags": lambda site: site.fill(MANY, due=FUTURE),
    "future flags of a higher priority": lambda site: site.fill(MANY, priority=50, due=FUTURE),
    "future flags of a lower priority": lambda site: site.fill(MANY, priority=-50, due=FUTURE),
    "due flags of the same kind": lambda site: site.fill(MANY, due=NOW),
    "due flags of a kind without handler": lambda site: site.fill(MANY, kind="nobody", due=NOW - 1),
    "future flags of another kind": lambda site: site.fill(MANY, kind="other", due=FUTURE),
    "dead flags": lambda site: site.fill(MANY, state="dead"),
    "flags that another consumer has claimed": lambda site: site.fill(MANY, state="claimed"),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return what a cycle costs where nothing else is up."""
    site = Site(tmp_path_factory.mktemp("alone") / "site.db")
    cost = cost_of_a_cycle(site)
    again = cost_of_a_cycle(site)
    assert again == pytest.approx(cost, rel=0.01), "the measure itself must not waver"  # A few steps: tokens are random.
    site.close()
    return cost


def analyze(site, claimed):
    """Leave statistics as a site's own ANALYZE does at an unlucky moment: all there is waits, or is one claim."""
    site.fill(1000, start=0)
    if not claimed:
        ask(site, "ANALYZE")
    with site.store.connections.write():
        taken = site.store.claim("work", 0, 1000, ME, NOW)
    if claimed:
        ask(site, "ANALYZE")
    with site.store.connections.write():
        site.store.lower([each.id for each in taken], taken[0].token)


ANALYZED = {
    "never": (lambda site: None, lambda site: None),
    "while a thousand waited": (lambda site: analyze(site, claimed=False), lambda site: None),
    "while a thousand were claimed": (lambda site: analyze(site, claimed=True), lambda site: None),
    "beside the crowd": (lambda site: None, lambda site: ask(site, "ANALYZE")),
}


@pytest.mark.long
@pytest.mark.parametrize("analyzed", ANALYZED)
@pytest.mark.parametrize("crowd", CROWDS)
def test_claiming_costs_the_same_beside_twenty_thousand(site, alone, crowd, analyzed):
    before, after = ANALYZED[analyzed]
    before(site)
    CROWDS[crowd](site)
    after(site)
    assert cost_of_a_cycle(site) == pytest.approx(alone, rel=0.2)


GATES = {
    "paused": lambda flags: flags.pause("shut"),
    "in a lane that is paused": lambda flags: flags.pause(lane="default"),
    "asked to wait": lambda flags: shut_by_itself(flags, Retry("1h", all=True)),
    "whose provider is away": lambda flags: shut_by_itself(flags, ConnectionError("no route")),
    "whose budget is used up": lambda flags: None,
}


def shut_by_itself(flags, error):
    def shut(n):
        raise error

    flags.handlers["shut"].function = shut
    flags.sweep()


@pytest.mark.parametrize("gate", GATES)
def test_a_sweep_costs_the_same_beside_twenty_thousand_behind_a_closed_gate(gate):
    site = Site(":memory:")  # Without threads: each sweep takes the same turns.
    flags = site.flags
    flags.handler("shut", budget="10/d" if "budget" in gate else None)(lambda n: None).raise_many([(n,) for n in range(40)])
    other = flags.handler("other", lane="other")(lambda n: None)
    GATES[gate](flags)
    flags.sweep()

    def cost():
        other.raise_many([(n,) for n in range(100)])
        with steps(flags.database) as count:
            assert +flags.sweep() == {"lowered": 100}
        return count[0]

    cost()
    before = cost()
    site.fill(MANY, kind="shut")
    beside = cost()
    site.close()
    assert beside == pytest.approx(before, rel=0.1)


def test_the_measure_sees_a_query_that_reads_what_it_need_not(site, monkeypatch):
    """The control: one order over kind and priority, which a first sketch would have, reads every future flag."""
    slow = of_flags.CLAIM.replace("AND priority = ? AND due_at <= ?", "AND priority >= ? AND due_at + 0 <= ?")
    monkeypatch.setattr(of_flags, "CLAIM", slow)
    before = cost_of_a_cycle(site)
    site.fill(MANY, priority=50, due=FUTURE)
    assert cost_of_a_cycle(site) > 2 * before


def test_a_raise_costs_the_same_beside_twenty_thousand(site):
    def cost(n):
        with steps(site.flags.database) as count:
            site.handler.raise_flag(n)
            site.handler.raise_flag(n)
        return count[0]

    empty = cost(1)
    site.fill(MANY)
    assert cost(2) == pytest.approx(empty, rel=0.2)


def test_a_failed_attempt_costs_the_same_beside_twenty_thousand(site):
    def cost():
        site.fill(1, start=0, due=NOW - 1)
        with site.store.connections.write():
            (flag,) = site.store.claim("work", 0, 1, ME, NOW)
        step = Step("waiting", 1, FUTURE, 1, FUTURE, error="x")
        with site.store.connections.write(), steps(site.store.connections.engine) as count:
            site.store.settle_one(flag.id, flag.token, step, NOW)
        site.verbs.lower_one("work", flag.key, NOW)
        return count[0]

    empty = cost()
    site.fill(MANY)
    assert cost() == pytest.approx(empty, rel=0.2)


def test_looking_what_is_due_costs_by_the_priorities_in_use_and_not_by_the_flags(site):
    for priority in range(-5, 5):
        site.fill(10, priority=priority, due=FUTURE, start=(priority + 5) * 100)

    def cost():
        with steps(site.store.connections.engine) as count:
            assert len(site.store.agenda(["work"])) == 10
        return count[0]

    few = cost()
    for priority in range(-5, 5):
        site.fill(MANY // 10, priority=priority, due=FUTURE, start=100_000 + (priority + 5) * MANY)
    assert cost() == pytest.approx(few, rel=0.2)


def test_naming_the_kinds_that_wait_costs_by_the_kinds_and_not_by_the_flags(site):
    def cost():
        with steps(site.store.connections.engine) as count:
            assert site.store.waiting_kinds() == ["a", "b"]
        return count[0]

    site.fill(1, kind="a")
    site.fill(1, kind="b")
    few = cost()
    site.fill(MANY, kind="b", start=0)
    assert cost() == pytest.approx(few, rel=0.2)
