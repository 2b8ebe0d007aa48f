"""The show of `make demo-timetables`: played in a small size, and a judge that sees what it is there to see."""

import subprocess
import sys
from pathlib import Path

import pytest

import flagsweep

EXAMPLES = Path(flagsweep.__file__).resolve().parent / "examples"
ROWS = 60


@pytest.fixture
def judge(monkeypatch):
    """Give the judge's module, which stands beside a module `api` and borrows another."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES / "demo")
    monkeypatch.syspath_prepend(EXAMPLES / "timetables")
    import judge

    yield judge
    for name in set(sys.modules) - before:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def evidence(judge):
    """Give evidence of a collector that did all as it should."""

    def called(number, status=200, wait=None):
        page = f"/lessons?school={1 + number // 3}&after={number % 3}"
        return judge.Call(number / 10, number / 10 + 0.05, page, status, wait)

    calls = [called(n) for n in range(20)] + [called(20, 429, 2)._replace(left=2.05)]
    kept = [tuple(judge.lesson(school.id, number).values()) for school in judge.schools(ROWS) for number in range(school.rows)]
    return judge.Evidence(ROWS, calls, kept, 1, ["began", "ended"], 0, 0, 1.0)


def broken(judge, evidence):
    return [line.what for line in judge.verdict(evidence) if line.holds is False]


def test_what_is_as_it_should_be_is_not_blamed(judge, evidence):
    assert broken(judge, evidence) == []


def test_a_row_that_is_missing_or_another_is_seen(judge, evidence):
    row = evidence.kept.pop()
    assert broken(judge, evidence) == ["kept"]
    evidence.kept.append((*row[:-1], 1))
    assert broken(judge, evidence) == ["kept"]


def test_a_row_that_is_there_twice_is_seen(judge, evidence):
    evidence.kept.append((17, *evidence.kept[0][1:]))
    assert broken(judge, evidence) == ["kept", "kept twice"]


def test_a_page_that_was_served_again_needs_a_flag_in_hand_at_the_kill(judge, evidence):
    evidence.calls.append(evidence.calls[0])
    assert broken(judge, evidence) == []
    evidence.in_hand = 0
    assert broken(judge, evidence) == ["served again"]


def test_one_request_too_many_in_a_window_is_seen(judge, evidence):
    call = evidence.calls.pop()
    most = judge.longest_crowd(1)
    evidence.calls = [call._replace(came=n / most, left=n / most + 0.01) for n in range(most)]
    assert broken(judge, evidence) == []
    evidence.calls.append(call._replace(came=0.99, left=0.999))
    assert broken(judge, evidence) == ["in any 1 s"]


def test_one_request_too_many_at_the_same_time_is_seen(judge, evidence):
    evidence.calls += [evidence.calls[5]._replace(status=500)] * 3
    assert broken(judge, evidence) == []
    evidence.calls += [evidence.calls[5]._replace(status=500)]
    assert broken(judge, evidence) == ["at the same time"]


@pytest.mark.parametrize(("after", "blamed"), [(0.9, []), (1.5, ["sent away"]), (2.1, [])])
def test_whoever_asks_although_everybody_was_told_to_wait_is_seen(judge, evidence, after, blamed):
    moment = evidence.calls[-1].left + after
    evidence.calls.append(evidence.calls[0]._replace(came=moment, left=moment, status=500))
    assert broken(judge, evidence) == blamed


@pytest.mark.parametrize("told", [[], ["began"], ["began", "ended", "began"]])
def test_a_breaker_that_never_opened_or_has_not_closed_is_seen(judge, evidence, told):
    evidence.outages = told
    assert broken(judge, evidence) == ["breaker"]


@pytest.mark.slow
def test_the_collector_gets_every_row_once_and_never_asks_more_often_than_allowed(env, tmp_path):
    command = (sys.executable, EXAMPLES / "timetables" / "timetables.py", "--rows", "2000", "--page", "20")
    show = subprocess.run(command, env={**env, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=180)
    assert show.returncode == 0, show.stdout + show.stderr
    assert "All 2,000 rows, each once." in show.stdout and "BROKEN" not in show.stdout
    assert list(tmp_path.iterdir()) == []
