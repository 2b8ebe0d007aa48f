"""FastAPI and Starlette take flagsweep in: a lifespan that starts and stops what there is to start."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from asgi_server import serve
from fastapi import FastAPI
from rig import let_go
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from flagsweep import ConfigError, FlagSweep, NotReady
from flagsweep.embed.asgi import init_app, lifespan


@pytest.fixture
def flags(url, tmp_path):
    """Give a FlagSweep on each kind of database, without tables yet."""
    flags = FlagSweep(url, threads=1)
    yield flags
    flags.connections.close_thread()
    flags.connections.close_engine()
    let_go(tmp_path)


@pytest.fixture
def calls(flags, monkeypatch):
    """Give what is called of an embedded consumer, in order."""
    flags.adopt("test", {"mode": "embedded"})
    flags.init()
    calls = []
    monkeypatch.setattr(flags, "start", lambda: calls.append("start"))
    monkeypatch.setattr(flags, "stop", lambda wait: calls.append("stop"))
    return calls


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
def test_a_server_starts_only_where_the_flags_can_be_raised(flags, framework):
    app = framework(lifespan=lifespan(flags))
    with pytest.raises(NotReady, match="init"):
        serve(app)
    flags.init()
    assert serve(app, "/none").status == 404


def test_a_server_without_a_database_says_so_at_its_start():
    with pytest.raises(ConfigError, match="no database"):
        serve(FastAPI(lifespan=lifespan(FlagSweep())))


def test_an_embedded_consumer_starts_only_where_there_is_work_to_find(flags, calls):
    flags.database.execute_sql("DROP TABLE flagsweep_schema")
    with pytest.raises(NotReady, match="init"):
        serve(FastAPI(lifespan=lifespan(flags)))
    assert calls == []


def test_an_embedded_consumer_lives_as_long_as_the_server(flags, calls):
    def during(request):
        return PlainTextResponse(" ".join(calls))

    app = Starlette(routes=[Route("/", during)], lifespan=lifespan(flags))
    assert serve(app, "/").text == "start" and calls == ["start", "stop"]


def test_a_sites_own_lifespan_runs_within_and_its_state_is_handed_on(flags, calls):
    @asynccontextmanager
    async def own(app):
        calls.append("own begins")
        yield {"pool": 17}
        calls.append("own ends")

    def during(request):
        return PlainTextResponse(str(request.state.pool))

    app = Starlette(routes=[Route("/", during)], lifespan=lifespan(flags, own))
    assert serve(app, "/").text == "17"
    assert calls == ["start", "own begins", "own ends", "stop"]


def test_an_application_that_is_made_already_keeps_its_lifespan(flags, calls):
    @asynccontextmanager
    async def own(app):
        calls.append("own")
        yield

    app = FastAPI(lifespan=own)
    init_app(app, flags)
    assert serve(app, "/docs").status == 200
    assert calls == ["start", "own", "stop"] and app.state.flagsweep is flags


def test_a_consumer_is_stopped_where_the_sites_own_lifespan_fails(flags, calls):
    @asynccontextmanager
    async def own(app):
        raise RuntimeError("no pool")
        yield

    with pytest.raises(RuntimeError, match="no pool"):
        serve(FastAPI(lifespan=lifespan(flags, own)))
    assert calls == ["start", "stop"]


def test_beside_a_consumer_of_its_own_nothing_is_started_or_stopped(flags, monkeypatch):
    flags.init()
    monkeypatch.setattr(flags, "stop", lambda: pytest.fail("stopped"))
    assert serve(FastAPI(lifespan=lifespan(flags)), "/docs").status == 200


def test_what_is_neither_fastapi_nor_starlette_is_told_what_to_do(flags):
    async def app(scope, receive, send): ...

    with pytest.raises(ConfigError, match="hand lifespan\\(flags\\) to it"):
        init_app(app, flags)


def test_a_lifespan_needs_no_framework(flags):
    flags.init()

    async def life():
        async with lifespan(flags)(None) as state:
            return state

    assert asyncio.run(life()) is None


def test_what_is_raised_in_a_request_is_done_in_the_server_that_has_answered_it(url, tmp_path, until):
    flags, done = FlagSweep(url, mode="embedded", state_dir=tmp_path / "state"), []
    flags.init()

    @flags.handler()
    def greet(user_id):
        done.append(user_id)

    def sign_up(request):
        greet.raise_flag(17)
        until(lambda: done == [17], 60)
        return PlainTextResponse(str(flags.sweeping))

    app = Starlette(routes=[Route("/", sign_up)], lifespan=lifespan(flags))
    assert serve(app).text == "True"
    assert not flags.sweeping and flags.find() == []
    flags.connections.close_thread()
    flags.connections.close_engine()
    let_go(tmp_path)
