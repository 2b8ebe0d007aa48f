"""``django.tasks``: enqueued and run to the end by our backend, beside django-tasks-db on the same database."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from measure import Plan, Row, Skipped, paired, ratio_at_least, row_of
from servers import postgresql

HERE = Path(__file__).resolve().parent
OURS, THEIRS = "flagsweep.embed.django.FlagSweepBackend", "django_tasks_db.DatabaseBackend"


def django_tasks(plan: Plan) -> list[Row]:
    """Tasks a second, each enqueued with a commit of its own, then run by one worker; results are kept by both."""
    for needed in ("django", "django_tasks", "django_tasks_db"):
        if importlib.util.find_spec(needed) is None:
            raise Skipped(f"{needed} is not installed")
    rows = []
    for place in ("SQLite", "PostgreSQL"):
        sides = {"flagsweep": partial(_rate, plan, place, OURS), "django-tasks-db": partial(_rate, plan, place, THEIRS)}
        samples = paired(sides, plan.size(5, 1))
        rows.append(row_of(f"django.tasks to the end, {place}", "/s", samples, "flagsweep", "django-tasks-db", ratio_at_least(5)))
    return rows


def _rate(plan: Plan, place: str, backend: str) -> float:
    with ExitStack() as stack:
        database = _sqlite(plan) if place == "SQLite" else _server(stack.enter_context(postgresql(plan)))
        told = json.dumps({"backend": backend, "database": database})
        done = subprocess.run(
            [sys.executable, "-c", "import app_tasks; app_tasks.main()", str(plan.size(1000, 50))],
            cwd=HERE, env={**os.environ, "BENCH_DJANGO": told}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout.split()[-1])


def _sqlite(plan: Plan) -> dict[str, Any]:
    path = str(plan.new_file("tasks"))
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"transaction_mode": "IMMEDIATE"}}


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    known = {"HOST": parts.hostname, "PORT": str(parts.port or ""), "USER": parts.username, "PASSWORD": parts.password or ""}
    return {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], **known}
