"""Inline: what is raised is swept in the thread that raises it, after its commit."""

import logging
import threading

import pytest
from layers import Django, opened, sqlalchemy_url
from rig import let_go
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

from flagsweep import FlagSweep
from flagsweep.adapters.layers import set_aside
from flagsweep.embed.sqlalchemy import init_app


class Site:
    """A site that notes what its handler did, and how it found its database."""

    def __init__(self, url, folder):
        self.flags = FlagSweep(url, mode="inline", state_dir=str(folder / "state"))
        self.flags.init()
        self.done = []
        self.fails = set()

        @self.flags.handler
        def work(n):
            self.done.append((n, threading.get_ident(), self.flags.database.is_closed(), self.flags.database.in_transaction()))
            if n in self.fails:
                raise OSError(f"no {n}")

        @self.flags.handler(lane="other")
        def chain(n):
            with self.flags.database.connection_context():
                work.raise_flag(n)
            self.done.append((f"chained {n}",))

        self.work, self.chain = work, chain

    def numbers(self):
        return [n for n, *_ in self.done]


@pytest.fixture
def site(url, tmp_path):
    site = Site(url, tmp_path)
    yield site
    site.flags.connections.close_thread()
    let_go(tmp_path)


def test_a_raise_returns_once_its_work_is_done_in_the_same_thread(site):
    site.work.raise_flag(1)
    assert [(n, thread) for n, thread, *_ in site.done] == [(1, threading.get_ident())]
    assert site.flags.find() == [] and site.flags.status()["consumers"] == []


def test_it_is_done_after_the_commit_and_never_where_that_is_rolled_back(site):
    db = site.flags.database
    with db.connection_context():
        with db.atomic():
            site.work.raise_flag(1)
            site.work.raise_many([{"n": 2}, {"n": 3}])
            assert site.done == []
        assert sorted(site.numbers()) == [1, 2, 3]
        with db.atomic() as transaction:
            site.work.raise_flag(4)
            transaction.rollback()
    assert sorted(site.numbers()) == [1, 2, 3]


def test_a_handler_finds_the_connection_closed_and_the_site_finds_its_own_open_again(site):
    db = site.flags.database
    with db.connection_context():
        before = db.connection()
        with db.atomic():
            site.work.raise_flag(1)
        assert not db.is_closed() and db.connection() is before
        site.chain.raise_flag(2)
        assert db.connection() is before
    assert {tuple(found) for _, *found in site.done if found} == {(threading.get_ident(), True, False)}


def test_what_a_handler_raises_is_done_before_the_first_raise_returns(site):
    site.chain.raise_flag(7)
    assert site.numbers() == ["chained 7", 7]


def test_an_error_is_logged_as_ever_and_leaves_the_commit_whole(site, caplog):
    site.fails.add(1)
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.work.raise_flag(1)
    assert "no 1" in caplog.text
    [flag] = site.flags.find()
    assert flag.state == "waiting" and flag.attempts == 1


def test_a_sweep_that_fails_leaves_the_commit_whole_and_says_so(site, caplog, monkeypatch):
    monkeypatch.setattr("flagsweep.consumer.inline.Once.sweep", lambda once: 1 / 0)
    with site.flags.database.connection_context(), site.flags.database.atomic():
        site.work.raise_flag(1)
    assert "work could not be swept after its raise, its flags stay up: division by zero" in caplog.text
    assert len(site.flags.find()) == 1


def test_no_breaker_holds_back_the_seventh_where_six_fail_alike(site, caplog):
    caplog.set_level(logging.CRITICAL, "flagsweep")
    site.fails.update(range(6))
    site.work.raise_many({"n": n} for n in range(7))
    assert sorted(site.numbers()) == list(range(7))


def test_where_nobody_tells_of_the_commit_it_waits_for_the_next_raise_and_says_so(site, caplog):
    db = site.flags.database
    with db.connection_context():
        with db.manual_commit():
            db.begin()
            site.work.raise_flag(1)
            db.commit()
        assert site.done == [] and "waits for the next raise of its kind" in caplog.text
        site.work.raise_flag(2)
    assert sorted(site.numbers()) == [1, 2]


def test_a_database_in_memory_is_swept_too():
    flags = FlagSweep("sqlite:///:memory:", mode="inline")
    flags.init()
    done = []

    @flags.handler
    def work(n):
        done.append(n)

    work.raise_flag(1)
    with flags.database.atomic():
        work.raise_flag(2)
        assert done == [1]
    assert done == [1, 2]
    flags.database.close()


# Beside other layers.


@pytest.fixture
def alchemy(site, url):
    """Give a registry of sessions that raises go over, as in a site whose tables are SQLAlchemy's."""
    engine = create_engine(sqlalchemy_url(url))
    session = scoped_session(sessionmaker(engine))
    init_app(session, site.flags)
    yield session
    session.remove()
    engine.dispose()


def test_a_handler_has_a_session_of_its_own_and_the_one_that_commits_is_as_it_was(site, alchemy, caplog):
    seen = []

    @site.flags.handler(max_attempts=1)
    def use(n):
        seen.append((n, alchemy(), alchemy.execute(text("SELECT 1")).scalar()))

    mine = alchemy()
    use.raise_flag(1)
    assert seen == []
    alchemy.commit()
    [(n, theirs, one)] = seen
    assert (n, one) == (1, 1) and theirs is not mine and alchemy() is mine
    use.raise_many([{"n": 2}, {"n": 3}])
    alchemy.commit()
    assert [n for n, *_ in seen] == [1, 2, 3] and site.flags.find() == [] and "could not" not in caplog.text
    assert alchemy.execute(text("SELECT 1")).scalar() == 1


def test_where_the_handler_used_no_session_the_thread_has_the_same_one_as_before(site, alchemy):
    mine = alchemy()
    site.work.raise_flag(1)
    alchemy.rollback()
    assert site.done == []
    site.work.raise_flag(2)
    alchemy.commit()
    assert site.numbers() == [2] and alchemy() is mine


def test_where_there_is_no_context_for_a_session_there_is_none_to_put_aside():
    def scope():
        raise RuntimeError("working outside of the application")

    with set_aside(scoped_session(sessionmaker(), scopefunc=scope)), set_aside(None):
        pass


def test_a_raise_where_the_layer_refuses_to_tell_of_the_commit_is_no_failed_one(site, url, caplog):
    """Django does outside ``atomic()``, with autocommit off."""
    with opened(Django, url) as django:
        django.raw.set_autocommit(False)
        raised = site.work.using(connection=django.alias).raise_flag(1)
        django.raw.commit()
        django.raw.set_autocommit(True)
    assert raised.how == "new" and len(site.flags.find()) == 1
    assert "work waits for the next raise of its kind: nobody tells of the commit of this one: " in caplog.text
    site.work.raise_flag(2)
    assert sorted(site.numbers()) == [1, 2]
