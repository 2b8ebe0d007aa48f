"""What a consumer shows of itself and of the database: in Prometheus' format, bounded, and never going backwards."""

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rig import NEW_YEAR, idle, plain

import flagsweep
from flagsweep import FlagSweep
from flagsweep.consumer.membership import Enlisted
from flagsweep.consumer.outlook import Running
from flagsweep.consumer.terms import RUN
from flagsweep.operations.metrics import MOST_KINDS
from flagsweep.operations.outlook import Outlook
from flagsweep.sweep.tally import FIRST, SPENT, Tally, slot_of
from flagsweep.sweep.totals import Totals
from flagsweep.testing import FakeClock


@pytest.fixture
def site(ready_url, tmp_path):
    flags = FlagSweep(ready_url, clock=FakeClock(NEW_YEAR), promise={"mail": "1m"}, state_dir=str(tmp_path / "state"))
    flags.init()
    yield flags
    flags.connections.close_thread()


def watched(flags, totals=None):
    return Outlook(flags, Running({}, totals or Totals(), lambda: 7))


def samples(outlook):
    """Return what is told of flagsweep, by name and labels."""
    answer = outlook.answer("/metrics")
    assert answer.status == 200, answer.body
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            if sample.name.startswith("flagsweep"):
                assert found.setdefault((sample.name, tuple(sorted(sample.labels.items()))), sample.value) == sample.value
    return found


def one(found, metric, **labels):
    return found[f"flagsweep_{metric}", tuple(sorted(labels.items()))]


def test_what_is_due_and_dead_is_told_by_kind_and_lane(site):
    send = site.handler("send", lane="mail", max_attempts=1)(lambda n: 1 / n)
    send.raise_flag(0)
    site.sweep()
    send.raise_flag(1), send.raise_flag(2), send.using(delay="1h").raise_flag(3)
    site.clock.advance(90)
    found = samples(watched(site))
    assert one(found, "due_flags", kind="send", lane="mail") == 2
    assert one(found, "oldest_due_seconds", kind="send", lane="mail") == 90
    assert one(found, "dead_flags", kind="send", lane="mail") == 1
    assert one(found, "promise_seconds", lane="mail") == 60
    assert one(found, "promise_broken", lane="mail") == 1
    assert one(found, "health") == 2 and one(found, "database_up") == 1
    assert one(found, "info", consumer="7", version="0.1.0") == 1


def test_what_was_done_is_counted_and_its_durations_fill_buckets(make):
    totals, flags = Totals(), make()
    for microseconds in (100, 600, 10_000_000_000):
        tally = Tally()
        tally.add("send", "succeeded")
        row = dict(tally.by_kind())["send"]
        row[FIRST + slot_of(microseconds)] += 1
        row[SPENT] += microseconds
        totals.add(tally)
    found = samples(watched(flags, totals))
    assert one(found, "flags_total", kind="send", outcome="succeeded") == 3
    assert one(found, "run_seconds_bucket", kind="send", le="0.000512") == 1
    assert one(found, "run_seconds_bucket", kind="send", le="0.002048") == 2
    assert one(found, "run_seconds_bucket", kind="send", le="+Inf") == one(found, "run_seconds_count", kind="send") == 3
    assert one(found, "run_seconds_sum", kind="send") == pytest.approx(10_000.0007)


def test_kinds_without_number_share_one_label_and_what_was_counted_only_grows(make):
    flags, totals, before = make(), Totals(), {}
    idle(flags, "known")
    for number in range(3 * MOST_KINDS):
        tally = Tally()
        for kind in ("known", f"kind-{number % 200:03}"):
            tally.add(kind, "succeeded")
        totals.add(tally)
        if number % 150 == 149:
            found = samples(watched(flags, totals))
            counted = {labels: value for (name, labels), value in found.items() if name == "flagsweep_flags_total"}
            assert len({dict(labels)["kind"] for labels in counted}) <= MOST_KINDS + 1
            assert all(counted.get(labels, value) >= value for labels, value in before.items())
            before = counted
    assert sum(value for labels, value in before.items()) == 6 * MOST_KINDS
    assert before[(("kind", "known"), ("outcome", "succeeded"))] == 3 * MOST_KINDS


def test_closed_gates_are_told(make):
    flags = make()
    idle(flags, "send", lane="mail")
    flags.pause(lane="mail", by="ann")
    assert one(samples(watched(flags)), "gate_closed", sort="lane", name="mail", by_hand="yes") == 1


def test_names_that_a_hand_has_damaged_harm_no_answer(make, db_path):
    flags = make()
    work = idle(flags, "send")
    ids = [work.raise_flag(n).id for n in range(3)]
    plain(db_path, "UPDATE flagsweep_flag SET kind = CAST(? AS TEXT) WHERE id = ?", b'\xff\n"\\', ids[0])
    plain(db_path, "UPDATE flagsweep_flag SET kind = CAST(? AS TEXT), state = 'dead' WHERE id = ?", b"\xfe", ids[1])
    found = samples(watched(flags))
    assert one(found, "due_flags", kind="send", lane="default") == 1


def test_a_database_that_does_not_answer_is_told_and_counts_go_on(tmp_path):
    totals, tally = Totals(), Tally()
    tally.add("send", "succeeded")
    totals.add(tally)
    outlook = watched(FlagSweep(tmp_path / "gone.db"), totals)
    found = samples(outlook)
    assert one(found, "database_up") == 0 and one(found, "health") == 2
    assert one(found, "flags_total", kind="send", outcome="succeeded") == 1
    assert outlook.answer("/healthz").status == 503
    assert not (tmp_path / "gone.db").exists()


def test_without_the_extra_metrics_say_what_to_install_and_health_is_told(make, monkeypatch):
    monkeypatch.delitem(sys.modules, "flagsweep.operations.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    outlook = watched(make())
    answer = outlook.answer("/metrics")
    assert (answer.status, b"pip install 'flagsweep[metrics]'" in answer.body) == (501, True)
    assert outlook.answer("/healthz").body.startswith(b"FLAGSWEEP CRITICAL - no consumer runs")
    assert outlook.answer("/etc/passwd").status == 404


def test_a_site_is_well_where_somebody_sweeps_and_the_database_was_written(site):
    outlook = watched(site)
    assert not outlook.is_well()
    enlisted = Enlisted(site._duties(), RUN)
    try:
        outlook = watched(site)
        assert outlook.is_well()
        assert not outlook.is_well(), "once a minute"
    finally:
        enlisted.close()


@pytest.mark.long
def test_a_consumer_answers_while_it_sweeps_and_ends_with_it(tmp_path, spawn, db_path, until, make):
    (tmp_path / "shop.py").write_text(f"""
from flagsweep import FlagSweep
flags = FlagSweep({str(db_path)!r}, threads=1, listen="127.0.0.1:0")
@flags.handler
def work(n): ...
""")
    flags = make()
    child = spawn(sys.executable, "-m", "flagsweep", "--app", "shop:flags", "run")
    where = until(lambda: next((word for word in child.log.read_text().split() if word.endswith("/healthz")), None))
    flags.handler("work")(lambda n: None).raise_many([(n,) for n in range(20)])

    def asked(path):
        with urllib.request.urlopen(where.removesuffix("/healthz") + path, timeout=10) as answer:
            return answer.read().decode()

    until(lambda: 'flagsweep_flags_total{kind="work",outcome="succeeded"} 20.0' in asked("/metrics"))
    until(lambda: asked("/healthz").startswith("FLAGSWEEP OK - consumer "))  # What it said a moment ago is good for a second.
    metrics = asked("/metrics")
    assert 'flagsweep_threads{lane="default"} 1.0' in metrics and "process_open_fds" in metrics
    page = (Path(flagsweep.__file__).parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for name in re.findall(r"flagsweep_[a-z_]+", page):
        assert f"# TYPE {name.removesuffix('_bucket')} " in metrics, name
    taken = spawn(sys.executable, "-m", "flagsweep", "--app", "shop:flags", "run", "--listen", where.split("/")[2])
    assert taken.wait(20) == 1, "one consumer is enough"
    child.terminate()
    assert child.wait(20) == 0
    with pytest.raises(urllib.error.URLError):
        asked("/healthz")
