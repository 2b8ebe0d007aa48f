"""One side of the benchmark django-tasks: a Django set up by BENCH_DJANGO, whose tasks are enqueued and run to the end."""

from __future__ import annotations

import json
import os
import sys
import time

import django
from django.conf import settings

SAID = json.loads(os.environ["BENCH_DJANGO"])

if not settings.configured:
    settings.configure(
        SECRET_KEY="bench",
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "flagsweep.embed.django",
            "django_tasks",
            "django_tasks_db",
        ],
        DATABASES={"default": SAID["database"]},
        TASKS={"default": {"BACKEND": SAID["backend"]}},
        LOGGING_CONFIG=None,
    )
    django.setup()

from django_tasks import task  # noqa: E402 (wants the settings)


@task()
def noop(n: int) -> None:
    """Do nothing."""


def main() -> None:
    """Print how many tasks a second were enqueued, each with a commit of its own, and run to the end."""
    from django.core.management import call_command

    count = int(sys.argv[1])
    call_command("migrate", verbosity=0)
    start = time.perf_counter()
    results = [noop.enqueue(n) for n in range(count)]
    if "flagsweep" in SAID["backend"]:
        from flagsweep.embed.django import flags

        flags.sweep()
    else:
        call_command("db_worker", batch=True, interval=0, startup_delay=False, reload=False, verbosity=0)
    took = time.perf_counter() - start
    for result in (results[0], results[-1]):
        result.refresh()
        if result.status.name not in ("SUCCESSFUL", "SUCCEEDED"):
            raise SystemExit(f"a task ended as {result.status.name}")
    print(count / took)
