"""``django.tasks``: what its documentation says, item by item, on each kind of database; and tasks beside a running consumer."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django_sites import AFTER_SETUP, BACKEND, TASK, DjangoSite

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
ITEMS = [
    node.name.removeprefix("item_")
    for node in ast.parse((HERE / "task_items.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("item_")
]

TASKS = (
    TASK
    + """
RAN, MENDED, TRIED = [], [], []

class Boom(Exception):
    pass

@task
def add(a, b):
    return a + b

@task(priority=50, queue_name="slow")
def urgent():
    pass

@task
def echo(*args, **kwargs):
    return args, kwargs

@task
def note(n):
    RAN.append(n)

@task()
def nothing():
    pass

@task
def boom(why):
    if MENDED:
        return "mended"
    raise Boom(why)

@task
def unfit():
    return object()

@task
def too_large():
    return "x" * 40_000

@task(takes_context=True)
def look(context):
    found = look.get_result(context.task_result.id)
    return found.status, found.attempts, found.worker_ids

@task(takes_context=True, backend="patient")
def second_time(context):
    if context.attempt == 1:
        raise Boom("not yet")
    return [1, context.attempt]

@task(takes_context=True)
def contextual(context, n):
    return [context.task_result.id, context.attempt, n]

@task
async def asleep(n):
    import asyncio
    await asyncio.sleep(0)
    return n

@task
async def afail():
    raise Boom("in a coroutine")
"""
)
JOBS = (
    TASK
    + """
@task
def hidden():
    return "met"

@task(backend="elsewhere")
def elsewhere():
    raise SystemExit("a task of another backend was run")

def plain():
    raise SystemExit("what is no task was called")
"""
)
SETTINGS = f"""
import django
OF_DJANGO = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
INSTALLED_APPS += [OF_DJANGO] if OF_DJANGO == "django_tasks" else []
TASKS = {{
    "default": {{"BACKEND": {BACKEND!r}, "QUEUES": ["default", "slow"]}},
    "patient": {{"BACKEND": {BACKEND!r}, "OPTIONS": {{"max_attempts": 3}}}},
    "elsewhere": {{"BACKEND": f"{{OF_DJANGO}}.backends.dummy.DummyBackend"}},
}}
FLAGSWEEP["THREADS"] = 1
"""


def made(site):
    """Return a site with tasks and tables."""
    site.say(SETTINGS)
    site.write("shop/tasks.py", TASKS)
    site.write("shop/jobs.py", JOBS)
    site.write("shop/quits.py", "raise SystemExit('a module that ends whoever imports it')\n")
    site.manage("migrate", "-v", "0")
    return site


@pytest.fixture(scope="module")
def answers():
    """Keep what was found on each kind of database: all items are run in one process."""
    return {}


@pytest.fixture(autouse=True)
def _has_tasks(missing):
    if importlib.util.find_spec("django.tasks") is None and importlib.util.find_spec("django_tasks") is None:
        missing("neither Django 6 nor django-tasks is installed")


@pytest.mark.parametrize("item", ITEMS)
def test_what_the_documentation_says(item, answers, request, tmp_path, env, _django_skeleton, url):
    kind = url.partition("://")[0]
    if kind not in answers:
        site = made(DjangoSite(_django_skeleton, tmp_path / "project", env, url))
        shutil.copy(HERE / "task_items.py", site.folder)
        answers[kind] = json.loads(site.run("task_items.py").stdout.splitlines()[-1])
    told = answers[kind][f"item_{item}"]
    assert not told, told


def test_a_running_consumer_does_tasks_of_modules_that_it_has_not_imported(site, spawn, until):
    made(site)
    consumer = spawn(sys.executable, "manage.py", "flagsweep", "run", cwd=site.folder, env=site.env)
    until(lambda: "flagsweep sweeps" in consumer.log.read_text(), limit=30)
    found = site.ask("""
import time
from shop.jobs import hidden
from shop.tasks import add
def done(result):
    end = time.monotonic() + 30
    while not result.is_finished and time.monotonic() < end:
        time.sleep(0.02)
        result.refresh()
    return result.return_value
print(json.dumps([done(add.enqueue(1, 2)), done(hidden.enqueue()), done(hidden.enqueue())]))
""")
    assert found == [3, "met", "met"]
    consumer.terminate()
    assert consumer.wait(20) == 0, consumer.log.read_text()


ENQUEUED = """
import time
from shop.jobs import hidden
result = hidden.enqueue()
end = time.monotonic() + 30
while not result.is_finished and time.monotonic() < end:
    time.sleep(0.02)
    result.refresh()
print(json.dumps(result.return_value))
"""


def test_an_embedded_consumer_does_tasks_of_modules_that_it_has_not_imported(site, spawn, until):
    made(site)
    site.say("FLAGSWEEP['MODE'] = 'embedded'\n")
    site.write(
        "serves.py",
        AFTER_SETUP
        + """
from flagsweep.embed.django.discovery import discover
discover()
flags.start()
while not flags.sweeping:
    flags._starting.acquire(timeout=0.05) and flags._starting.release()
assert "shop.jobs.hidden" not in flags.handlers
print("sweeping", flush=True)
sys.stdin.read()
""",
    )
    server = spawn(sys.executable, "serves.py", cwd=site.folder, env=site.env, stdin=subprocess.PIPE)
    until(lambda: "sweeping" in server.log.read_text(), limit=30)
    assert site.ask(ENQUEUED) == "met"
    server.stdin.close()
    assert server.wait(20) == 0, server.log.read_text()


def test_no_program_is_imported_as_a_tasks_module(site):
    made(site)
    site.write("shop/__main__.py", "from pathlib import Path\nPath('was_run').touch()\n")
    found = site.ask("""
from flagsweep.embed.django.latecomers import task_of
print(json.dumps([task_of(flags, "shop.__main__.run"), task_of(flags, "shop.jobs.hidden") is not None]))
""")
    assert found == [None, True] and not (site.folder / "was_run").exists()


def test_a_module_that_could_not_be_imported_is_tried_again_after_a_pause(site):
    made(site)
    site.write("shop/flaky.py", "import os\nif 'MENDED' not in os.environ:\n    raise OSError('a disk')\n" + JOBS)
    found = site.ask("""
from shop.jobs import hidden
from flagsweep.embed.django import latecomers
os.environ["MENDED"] = "1"
from shop import flaky
flaky.hidden.enqueue()
del os.environ["MENDED"], sys.modules["shop.flaky"]
for kind in [each for each in flags._handlers.by_kind if "flaky" in each]:
    del flags._handlers.by_kind[kind]
late, found = latecomers.Latecomers(flags), []
def look():
    late._look()
    found.append([each.state for each in flags.find("shop.flaky.hidden")])
now = [1000.0]
flags.clock.monotonic = lambda: now[0]
look()
os.environ["MENDED"] = "1"
look()
now[0] += latecomers.AGAIN
look()
print(json.dumps(found))
""")
    assert found == [["waiting"], ["waiting"], []]


def test_a_task_may_be_declared_before_apps_are_loaded(site):
    """In a module that models import, as many a package does."""
    made(site)
    site.write("shop/models.py", "from shop.tasks import add\n")
    program = "from shop.models import add\nprint(json.dumps([add.enqueue(1, 2).status, flags.sweep()]))"
    assert site.ask(program) == ["READY", {"lowered": 1}]


def test_a_sweep_without_tables_says_what_to_do(site, url):
    site.say(SETTINGS)
    done = site.manage("flagsweep", "sweep", check=False)
    assert done.returncode != 0 and "flagsweep init" in done.stderr and "Traceback" not in done.stderr


def test_a_backend_without_its_framework_says_what_to_install(site, url):
    """Django before 6.0 has none of its own."""
    if not url.startswith("sqlite"):
        pytest.skip("what is installed is the same on every database")
    site.manage("migrate", "-v", "0")
    site.set(TASKS={"default": {"BACKEND": BACKEND}})
    site.say("import sys\nsys.modules['django.tasks'] = sys.modules['django_tasks'] = None\n")
    for command in (["check"], ["flagsweep", "sweep"], ["flagsweep", "run"]):
        done = site.manage(*command, check=False)
        assert done.returncode != 0 and "pip install django-tasks" in done.stderr and "Traceback" not in done.stderr, command
    assert "flagsweep.E001" in site.manage("check", check=False).stderr


def test_kinds_shows_a_task_on_another_queue_once_it_has_flags(site):
    made(site)
    asked = "\nprint(json.dumps([each.kind for each in flags.kinds() if each.kind.startswith('shop.tasks.add')]))"
    assert site.ask(f"from shop.tasks import add{asked}") == ["shop.tasks.add"]
    raised = "from shop.tasks import add\nadd.using(queue_name='slow').enqueue(1, 2)"
    assert site.ask(raised + asked) == ["shop.tasks.add", "shop.tasks.add@slow"]


def test_a_backend_without_its_app_is_told(site):
    made(site)
    site.write("shop/models.py", "import shop.tasks\n")  # Only a framework that is imported checks its backends.
    site.say("INSTALLED_APPS.remove('flagsweep.embed.django')\n")
    done = site.manage("check", check=False)
    assert "flagsweep.E002" in done.stderr and "Add 'flagsweep.embed.django' to INSTALLED_APPS" in done.stderr
