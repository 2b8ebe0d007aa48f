"""What a raise adds to a request that writes a row: beside the same request that enqueues a task of Huey's or Celery's."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hueys
import work
from measure import Plan, Row, Samples, Skipped, alternate, quantile, ratio_at_most, row_of
from redis_queue import redis_queue
from servers import postgresql

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "adapters"))

Request = Callable[[], None]


def in_request(plan: Plan) -> list[Row]:
    """Milliseconds that a raise, or an enqueue, adds to a request: half of all requests, and all but one of a hundred."""
    for needed in ("flask_sqlalchemy", "django", "celery"):
        if importlib.util.find_spec(needed) is None:
            raise Skipped(f"{needed} is not installed")
    rows: list[Row] = []
    for what, site in (("Flask + SQLite", _flask), ("Django + PostgreSQL", _django)):
        with ExitStack() as stack:
            queues = _queues(stack, plan)
            request = stack.enter_context(site(plan, queues))
            rows += _rows_of(plan, what, {name: partial(request, name) for name in ("alone", "flagsweep", *queues)})
    return rows


def _queues(stack: ExitStack, plan: Plan) -> dict[str, Callable[[int], Any]]:
    """Return what enqueues with each of the peers."""
    from celery import Celery

    port, name = stack.enter_context(redis_queue(plan.folder))
    huey = hueys.redis_huey(port, name)
    app = Celery(name, broker=f"redis://{hueys.LOOPBACK}:{port}/0", set_as_current=False)
    app.conf.task_default_queue = name

    @app.task(name="mail", ignore_result=True)
    def celery_task(n: int) -> None: ...

    @huey.task(name="mail")
    def huey_task(n: int) -> None: ...

    @stack.callback
    def purge() -> None:
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            channel.queue_purge(name)
            for left in channel.client.keys(f"*{name}*"):
                channel.client.delete(left)
        app.close()

    return {"Huey on Redis": huey_task, "Celery on Redis": celery_task.delay}


@contextmanager
def _flask(plan: Plan, queues: dict[str, Callable[[int], Any]]) -> Iterator[Callable[[str], None]]:
    """Yield what makes a request of Flask's that writes a row through Flask-SQLAlchemy, and the queue by its name."""
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    path = plan.new_file("flask")
    app = Flask("bench")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{path}"
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        email = db.Column(db.String(100))

    with work.flagsweep_on(path, connection=db.session) as flags:
        raise_flag = work.noop_handler(flags, "mail").raise_flag

        @app.post("/<name>")
        def sign_up(name: str) -> str:
            user = User(email="ada@example.com")
            db.session.add(user)
            db.session.flush()
            if name == "flagsweep":
                raise_flag(user.id)
            db.session.commit()
            if name in queues:  # After the commit: a worker that was quicker would not find the row.
                queues[name](user.id)
            return "welcome"

        with app.app_context():
            db.create_all()
        client = app.test_client()
        yield lambda name: _must_be_200(client.post(f"/{name}").status_code)
        with app.app_context():
            db.engine.dispose()


@contextmanager
def _django(plan: Plan, queues: dict[str, Callable[[int], Any]]) -> Iterator[Callable[[str], None]]:
    """Yield what makes a request of Django's that writes a row in its transaction, and the queue by its name."""
    import layers
    from django.db import connections, transaction
    from django.http import HttpRequest, HttpResponse
    from django.test import Client, override_settings
    from django.urls import path

    with postgresql(plan) as url, work.flagsweep_at(url) as flags, layers.opened(layers.Django, url) as layer:
        layer.execute("CREATE TABLE shop_user (id SERIAL PRIMARY KEY, email VARCHAR(100))")
        raise_flag = work.noop_handler(flags, "mail").using(connection=layer.alias).raise_flag

        def sign_up(request: HttpRequest, name: str) -> HttpResponse:
            with transaction.atomic(using=layer.alias), connections[layer.alias].cursor() as cursor:
                cursor.execute("INSERT INTO shop_user (email) VALUES (%s) RETURNING id", ["ada@example.com"])
                (user_id,) = cursor.fetchone()
                if name == "flagsweep":
                    raise_flag(user_id)
                elif name in queues:
                    transaction.on_commit(lambda: queues[name](user_id), using=layer.alias)
            return HttpResponse("welcome")

        routes = type(sys)("bench_urls")
        routes.urlpatterns = [path("<str:name>", sign_up)]  # type: ignore[attr-defined]
        with override_settings(ROOT_URLCONF=routes, ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
            client = Client()
            yield lambda name: _must_be_200(client.get(f"/{name}").status_code)


def _must_be_200(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"the request ended with {status}")


def _rows_of(plan: Plan, what: str, sides: dict[str, Request]) -> list[Row]:
    count, rounds = plan.size(300, 30), plan.size(7, 2)
    for request in sides.values():  # Connections are made, and the database was checked.
        request()
    taken = alternate({name: partial(_timed, request, count) for name, request in sides.items()}, rounds)
    rows = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        quantiles = {name: [quantile(each, share) for each in runs] for name, runs in taken.items()}
        added = Samples(
            {
                name: [max(with_it - without, 0.01) for with_it, without in zip(values, quantiles["alone"], strict=True)]
                for name, values in quantiles.items()
            }
        )
        for peer in ("Huey on Redis", "Celery on Redis"):
            bound = ratio_at_most(1.0) if share == 0.5 else None
            rows.append(row_of(f"added to a request of {what}, {label}", "ms", added, "flagsweep", peer, bound))
    return rows


def _timed(request: Request, count: int) -> list[float]:
    """Return the milliseconds of each of so many requests."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        request()
        taken.append((time.perf_counter() - start) * 1000)
    return taken
