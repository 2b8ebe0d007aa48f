"""Embedded under real servers: one of their workers sweeps, whoever is killed, recycled or reloaded."""

import os
import signal
import statistics
import time

import pytest
from served import SERVERS, Served, why_missing


@pytest.fixture
def serve(spawn, env, tmp_path):
    """Give `serve(server, url)`: a site under a server, with load."""
    served = []

    def serve(server, url=None, missing=lambda reason: None):
        if problem := why_missing(server):
            (pytest.skip if server == "uwsgi" else missing)(problem)  # Debian's, and its plugin for Debian's Python.
        served.append(Served(spawn, env, tmp_path, url or f"sqlite:///{tmp_path / 'site.db'}", server))
        return served[-1]

    yield serve
    for each in served:
        each.close()


def kill_the_sweeper(site, until, times):
    """Kill whoever sweeps, again and again; return the moment of each kill by process, and how long each takeover took."""
    killed, took = {}, []
    for _ in range(times):
        pid = site.sweeper(until)
        until(lambda pid=pid: not site.ends_if_killed(pid))
        since = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        killed[pid] = since
        took.append(until(lambda pid=pid, since=since: site.taken_over(pid, since), 30))
    return killed, took


def reload_all(site, until, times):
    """Have all workers replaced gracefully, again and again; return how long each takeover took."""
    took = []
    for _ in range(times):
        pid, since = site.sweeper(until), time.monotonic()
        site.child.send_signal(signal.SIGHUP)
        until(lambda pid=pid: pid not in site.workers(), 30)
        ended = time.monotonic()
        took.append(max(0.0, until(lambda pid=pid, since=since: site.taken_over(pid, since), 30) + since - ended))
    return took


def check(site, until, killed, took):
    site.end_load()
    site.drained(until)
    # How long it takes a slow machine is no matter of right and wrong: 2 s is what it is to be, and -s shows it.
    print(f"{len(took)} takeovers: median {statistics.median(took):.2f} s, longest {max(took):.2f} s; {site.raised} flags")
    assert site.lost() == set()
    assert site.repeated(killed) == set(), "run again though nobody was killed"
    turns = site.turns()
    assert len(turns) == len(set(turns)), "two swept at one time"


def end(site):
    site.child.terminate()
    assert site.child.wait(30) is not None


@pytest.mark.long
@pytest.mark.parametrize("server", [name for name in SERVERS if name != "hypercorn"])
def test_one_worker_sweeps_and_another_takes_over_when_it_is_killed(serve, until, missing, server):
    site = serve(server, missing=missing)
    killed, took = kill_the_sweeper(site, until, 4)
    check(site, until, killed, took)
    if server == "granian":  # A SIGTERM that comes while a worker of its starts is lost to that worker.
        until(lambda: len(answered := {site.ask() for _ in range(4)} - {None}) == 2 and answered <= set(site.workers()), 30)
    end(site)
    assert site.flags.status()["consumers"] == [], site.child.log.read_text()[-2000:]


@pytest.mark.long
def test_a_killed_worker_ends_hypercorn_which_sweeps_on_when_it_is_started_again(serve, until):
    """It is the server that ends: what was raised waits."""
    site = serve("hypercorn")
    killed = {site.sweeper(until): time.monotonic()}
    os.kill(*killed, signal.SIGKILL)
    site.child.wait(20)
    site.serve_again()
    site.sweeper(until)
    check(site, until, killed, [0.0])
    end(site)
    assert site.flags.status()["consumers"] == [], site.child.log.read_text()[-2000:]


@pytest.mark.long
def test_one_worker_sweeps_a_database_on_a_server_and_another_takes_over(serve, until, url):
    site = serve("gunicorn", url)
    killed, took = kill_the_sweeper(site, until, 4)
    check(site, until, killed, took)
    end(site)
    assert site.flags.status()["consumers"] == [], site.child.log.read_text()[-2000:]


@pytest.mark.long
def test_a_graceful_reload_hands_the_sweeping_on(serve, until):
    site = serve("gunicorn")
    took = reload_all(site, until, 2)
    check(site, until, {}, took)
    end(site)


@pytest.mark.long
def test_a_consumer_of_its_own_keeps_all_workers_standing_by_until_it_ends(serve, until, spawn, tmp_path, env):
    site = serve("gunicorn")
    site.sweeper(until)
    end(site)
    site.serve_again(before=lambda environment: site.consume(spawn, environment))
    until(lambda: "stands by" in site.child.log.read_text(), 20)
    until(lambda: len(site.lines()) > 20 and site.lines()[-1][2] == site.consumer.pid, 20)
    site.consumer.terminate()
    site.sweeper(until)
    check(site, until, {}, [0.0])
    assert site.child.log.read_text().count("stands by") == 1, "it is told once, not by each worker"
    end(site)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["gunicorn", "gunicorn --preload", "gunicorn gthread", "gunicorn --max-requests"])
def test_fifty_kills_and_twenty_reloads_lose_nothing_and_repeat_nothing(serve, until, server):
    site = serve(server)
    killed, took = kill_the_sweeper(site, until, 50)
    took_again = reload_all(site, until, 20)
    print(f"reloads: median {statistics.median(took_again):.2f} s, longest {max(took_again):.2f} s")
    check(site, until, killed, took)
    end(site)
