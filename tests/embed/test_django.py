"""A generated Django site with flagsweep: tables, settings, commands, raises, handlers, checks, and the admin."""

import json
import re
import socket
import sys
import urllib.request
from contextlib import closing

import django
import pytest
from places import Place

pytestmark = pytest.mark.long

WORK = """
from flagsweep.embed.django import flags

@flags.handler(result=True, max_attempts=1)
def greet(name):
    from django.contrib.auth.models import User
    user = User.objects.create(username=name)
    return user.id

@flags.handler(max_attempts=1)
def fail(n):
    raise ValueError(f"no {n}")
"""


@pytest.fixture
def place(url):
    return Place(url.partition("://")[0], url)


@pytest.fixture
def shop(site):
    """Return a site with handlers and tables."""
    site.write("shop/work.py", WORK)
    site.manage("migrate", "-v", "0")
    return site


# Tables.


def ours(place):
    """Return the layout of our tables, without what Django made."""
    layout = []
    for row in place.layout():
        name = row[1] if place.kind == "sqlite" else row[0]
        text = " ".join(map(str, row))
        if "flagsweep_" in text and name != "django_content_type":
            layout.append(tuple(re.sub(r"\d{10,}", "", part) if isinstance(part, str) else part for part in row))
    return layout


def test_migrations_make_the_very_tables_that_init_makes(site, place):
    site.manage("flagsweep", "init")
    made, versions = ours(place), place.versions()
    assert len(made) > 8
    place.wipe()
    site.manage("migrate", "-v", "0")
    assert (ours(place), place.versions()) == (made, versions)


def test_init_and_migrate_in_any_order_do_no_harm(site, place):
    site.manage("migrate", "-v", "0")
    made = ours(place)
    assert "the tables are there already" in site.manage("flagsweep", "init").stdout
    place.wipe()
    site.manage("flagsweep", "init")
    site.manage("migrate", "-v", "0")
    site.manage("migrate", "-v", "0", "flagsweep", "zero")  # Nothing is dropped: what is owed stays.
    site.manage("migrate", "-v", "0")
    assert ours(place) == made and place.versions() == sorted(set(place.versions()))


def test_older_tables_are_upgraded_by_migrate(site, place):
    from test_upgrade import filled, held, upgraded

    filled(place, 100)
    before = held(place)
    site.manage("migrate", "-v", "0")
    assert held(place) == upgraded(before)


def test_the_models_need_no_migration_of_the_sites(site):
    assert "No changes detected" in site.manage("makemigrations", "--check", "--dry-run").stdout


def test_a_migrated_sqlite_file_has_a_write_ahead_log(shop, place):
    if place.kind == "sqlite":
        assert place.ask("PRAGMA journal_mode") == [("wal",)]


# Commands.


def test_every_command_is_one_of_manage_py(shop):
    listed = shop.manage("flagsweep", "--help").stdout
    assert all(name in listed for name in ("init", "run", "sweep", "status", "doctor", "discard"))
    assert shop.manage("help", "flagsweep").stdout.startswith("Usage: manage.py flagsweep")
    assert shop.manage("flagsweep", "raise", "greet", '{"name": "ada"}').stdout == "flag 1: new\n"
    assert (
        shop.manage("flagsweep", "--settings=mysite.settings", "sweep", "--pythonpath", ".").stdout == "swept 1 flag: 1 lowered\n"
    )
    wrong = shop.manage("flagsweep", "raise", "nosuch", check=False)
    assert wrong.returncode == 2 and "there are fail, greet" in wrong.stderr


def test_call_command_runs_them_and_raises_djangos_error(shop):
    found = shop.ask("""
from django.core.management import CommandError, call_command
call_command("flagsweep", "raise", "greet", '{"name": "ada"}')
call_command("flagsweep", "sweep")
try:
    call_command("flagsweep", "sweep", "--lane", "nosuch")
except CommandError as error:
    print(json.dumps(str(error)))
""")
    assert "no handler is in lane 'nosuch'" in found


def test_a_broken_module_is_named_with_its_line(shop):
    shop.write("shop/tasks.py", "\nimport nosuch_thing\n")
    done = shop.manage("flagsweep", "sweep", check=False)
    assert done.returncode == 2 and "shop.tasks" in done.stderr and "line 2" in done.stderr and "nosuch_thing" in done.stderr
    assert "Traceback" not in done.stderr
    shop.manage("check")  # Everything else goes on.


URLS = """
from django.db import transaction
from django.http import JsonResponse
from django.urls import path
from shop.work import flags, greet

def order(request, name):
    try:
        with transaction.atomic():
            raised = greet.raise_flag(name=name)
            if name == "mallory":
                raise LookupError
    except LookupError:
        return JsonResponse({"rolled": "back"})
    return JsonResponse({"user": flags.result(raised).wait(30).value})

urlpatterns = [path("order/<name>", order)]
"""


@pytest.fixture
def get(shop, spawn, until):
    """Give `get(path)`: ask a served site, which is started with the first question; return the JSON that it answers."""
    shop.write("mysite/urls.py", URLS)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    command = (sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    started = []

    def answer(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as found:
                return json.load(found)
        except OSError as error:
            if isinstance(getattr(error, "reason", error), ConnectionError):
                return None
            raise

    def get(path):
        if not started:
            started.append(spawn(*command, cwd=shop.folder, env=shop.env))
        return until(lambda: started[0].poll() is None and answer(path), limit=60)

    return get


def users(site):
    return site.ask("from django.contrib.auth.models import User\nprint(json.dumps([u.username for u in User.objects.all()]))")


def test_a_request_raises_and_another_process_does_the_work(shop, get, spawn):
    """Real HTTP: the view raises in its transaction, and waits for the result once that has committed."""
    spawn(sys.executable, "manage.py", "flagsweep", "run", cwd=shop.folder, env=shop.env)
    assert get("order/mallory") == {"rolled": "back"}
    assert get("order/ada") == {"user": 1} and users(shop) == ["ada"]


def test_an_embedded_consumer_begins_with_the_first_request(shop, get):
    """No other process: not even `migrate` and `shell` of the same settings sweep."""
    shop.say("FLAGSWEEP['MODE'] = 'embedded'\n")
    shop.manage("migrate", "-v", "0")
    assert shop.ask("from shop.work import fail\nfail.raise_flag(1)\nprint(json.dumps(flags.sweeping))") is False
    assert get("order/ada") == {"user": 1} and users(shop) == ["ada"]
    assert shop.ask("print(json.dumps([each.state for each in flags.find()]))") == ["dead"]


def test_inline_sweeps_once_djangos_transaction_has_committed(shop):
    shop.say("FLAGSWEEP['MODE'] = 'inline'\n")
    found = shop.ask("""
from django.contrib.auth.models import User
from django.db import transaction
from shop.work import greet
with transaction.atomic():
    raised = greet.raise_flag(name="ada")
    before = User.objects.count()
print(json.dumps([before, User.objects.count(), flags.result(raised).state]))
""")
    assert found == [0, 1, "lowered"]


# Settings.


@pytest.mark.parametrize(
    "said, told",
    [
        ({"DATABASE": "other"}, ["DATABASE must be an alias of DATABASES (default), got 'other'"]),
        (
            {"THREDS": 3, "threads": 2},
            ["no setting 'THREDS'; did you mean 'THREADS'?", "no setting 'threads'; did you mean 'THREADS'?"],
        ),
        ({"THREADS": 0, "WATCH": "often"}, ["threads must be", "watch must be 'auto', 'poll' or 'off', got 'often'"]),
        ({"DRIVER": "apsw"}, ["two SQLite libraries in one process drop each other's locks"]),
        ([], ["it must be a dict such as {'DATABASE': 'default'}, got []"]),
    ],
)
def test_bad_settings_are_named_all_at_once(site, url, said, told):
    if not url.startswith("sqlite"):
        pytest.skip("settings are the same on every database")
    site.set(FLAGSWEEP=said)
    done = site.manage("check", check=False)
    assert done.returncode == 1
    assert all(each in done.stderr for each in told) and done.stderr.count("flagsweep.E001") == len(told)
    swept = site.manage("flagsweep", "sweep", check=False)
    assert swept.returncode == 2 and all(each in swept.stderr for each in told) and "Traceback" not in swept.stderr


def test_bad_options_of_kinds_are_named_without_an_import_of_the_handlers(site, url):
    if not url.startswith("sqlite"):
        pytest.skip("settings are the same on every database")
    site.write("shop/work.py", "raise SystemExit")
    site.set(FLAGSWEEP={"KINDS": {"greet": {"longest": "2h", "rat": "10/m", "result": True}, "fail": {"limit": 0}}})
    done = site.manage("check", check=False)
    told = ["no option 'rat'; did you mean 'rate'?", "result is a part of the handler's code", "limit of 'fail' must be"]
    assert done.returncode == 1 and all(each in done.stderr for each in told)
    assert done.stderr.count("flagsweep.E001") == len(told)
    site.set(FLAGSWEEP={"KINDS": {"greet": {"longest": "2h", "rate": "10/m"}}})
    site.manage("check")


def test_settings_in_capitals_are_those_of_flagsweep(site):
    site.say("FLAGSWEEP.update(THREADS=7, LANES={'mail': 2}, KEEP_HISTORY='2d')\n")
    found = site.ask("s = flags.settings; print(json.dumps([s.threads, dict(s.lanes), s.keep_history['succeeded']]))")
    assert found == [7, {"mail": 2}, 2 * 86400]


@pytest.mark.parametrize(
    "engine, said, url",
    [
        ("sqlite3", {"NAME": "/srv/a b/site.db"}, "/srv/a b/site.db"),
        ("postgresql", {"NAME": "site"}, "postgresql:///site"),
        (
            "postgresql",
            {
                "NAME": "a/b",
                "USER": "u@x",
                "PASSWORD": "p:/%?#",
                "HOST": "db",
                "PORT": "5433",
                "OPTIONS": {"sslmode": "require", "pool": True},
            },
            "postgresql://u%40x:p%3A%2F%25%3F%23@db:5433/a%2Fb?sslmode=require",
        ),
        (
            "postgresql",
            {"NAME": "s", "HOST": "/run/pg", "PORT": 5433, "OPTIONS": {"assume_role": "r"}},
            "postgresql:///s?port=5433&options=-c+role%3Dr&host=%2Frun%2Fpg",
        ),
        (
            "mysql",
            {"NAME": "s", "USER": "root", "HOST": "/run/m.sock", "OPTIONS": {"charset": "latin1", "ssl": {"ca": "/ca"}}},
            "mysql://root@localhost/s?ssl_ca=%2Fca&unix_socket=%2Frun%2Fm.sock",
        ),
    ],
)
def test_databases_become_urls(monkeypatch, engine, said, url):
    """What Django says of a connection is said so that flagsweep's own reach the same database."""
    from django.conf import settings as django_settings

    if not django_settings.configured:
        django_settings.configure()
    from flagsweep.embed.django.settings import MAKERS

    known = {"USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}, **said}
    assert MAKERS[engine.removesuffix("3")](known, "default") == url


TESTS = """
from django.test import TestCase, TransactionTestCase
from django.contrib.auth.models import User
from shop.work import fail, flags, greet

class RollsBack(TestCase):
    def test_a_view_may_raise(self):
        fail.raise_flag(n=1)  # The first of a process asks besides whether the database is the consumer's.
        with self.assertNumQueries(1):
            self.assertEqual(greet.raise_flag(name="ada").how, "new")
        self.seen()

    def test_and_nothing_of_it_is_left(self):
        self.assertEqual(greet.raise_flag(name="ada").how, "new")
        self.seen()

    def seen(self):
        if flags.connections.in_memory:  # Else its own connection sees nothing of the test's transaction.
            self.assertEqual([each.payload for each in flags.find(kind="greet")], [{"name": "ada"}])

class Commits(TransactionTestCase):
    available_apps = None

    def tearDown(self):
        for flag in flags.find():
            flags.lower(flag.kind, flag.key)

    def test_what_it_raises_is_swept(self):
        greet.raise_flag(name="ada"), fail.raise_flag(n=1)
        self.assertEqual(flags.sweep(), {"lowered": 1, "dead": 1})
        self.assertEqual([user.username for user in User.objects.all()], ["ada"])
"""


@pytest.mark.parametrize("where", ["as it is", "a file"])
def test_a_sites_own_tests_raise_and_sweep(site, url, where):
    """SQLite's test database is in memory, where nobody but Django sees it; servers' are databases of their own."""
    site.write("shop/work.py", WORK)
    site.write("shop/tests.py", TESTS)
    if where == "a file":
        if not url.startswith("sqlite"):
            pytest.skip("only SQLite's can be in memory")
        site.say("DATABASES['default']['TEST'] = {'NAME': str(BASE_DIR / 'test.sqlite3')}\n")
    site.manage("test", "--noinput")


def test_no_consumer_runs_on_a_database_in_memory(site, url):
    if not url.startswith("sqlite"):
        pytest.skip("only SQLite keeps a database in memory")
    site.say("DATABASES['default']['NAME'] = ':memory:'\n")
    done = site.manage("flagsweep", "run", check=False)
    assert done.returncode == 2 and "needs a database that other processes can see, not one in memory" in done.stderr


# Checks.


def test_checks_tell_what_to_know_of_the_site(site, url):
    site.say(
        "DATABASES['default']['ATOMIC_REQUESTS'] = True\n"
        "DATABASES['other'] = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'o.db'}\n"
    )
    if url.startswith("sqlite"):
        site.say("DATABASES['default']['OPTIONS'] = {}\n")
    found = site.ask("""
from django.core.checks import run_checks
print(json.dumps({each.id: [each.msg, each.hint] for each in run_checks() if each.id.startswith("flagsweep.")}))
""")
    assert set(found) == {"flagsweep.I001", "flagsweep.I002", *(["flagsweep.W001"] if url.startswith("sqlite") else [])}
    assert "not with those of 'other'" in found["flagsweep.I001"][0]
    if url.startswith("sqlite"):
        assert "'transaction_mode': 'IMMEDIATE'" in found["flagsweep.W001"][1]


def test_a_sound_site_is_told_nothing(shop, url):
    if url.startswith("sqlite") and django.VERSION < (5, 1):
        pytest.skip("this Django cannot begin SQLite's transactions as they should be, and is told so")
    assert "no issues" in shop.manage("check").stdout


# Raising, and handlers.


def test_a_raise_goes_over_djangos_connection_and_in_its_transaction(shop):
    found = shop.ask("""
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from shop.work import greet
with CaptureQueriesContext(connection) as seen:
    greet.raise_flag(name="kept")
sent = [q["sql"] for q in seen.captured_queries if q["sql"].lstrip().upper().startswith(("INSERT", "WITH"))]
try:
    with transaction.atomic():
        greet.raise_flag(name="rolled back")
        with transaction.atomic():
            greet.raise_flag(name="in a savepoint")
        raise LookupError
except LookupError:
    pass
print(json.dumps([len(sent), [each.payload["name"] for each in flags.find()]]))
""")
    assert found == [1, ["kept"]]


def test_flags_can_be_used_before_apps_are_loaded(site):
    """An app's module that its models import may register handlers and declare schedules."""
    site.write("shop/models.py", WORK.replace("return user.id", "return None"))
    site.write("shop/work.py", "from shop.models import fail, greet\n")
    site.manage("migrate", "-v", "0")
    assert site.manage("flagsweep", "raise", "fail", '{"n": 1}').stdout == "flag 1: new\n"


def test_handlers_have_connections_as_fresh_as_a_request(shop):
    """What a server has ended, and what is older than CONN_MAX_AGE, is replaced before a handler; after it nothing stays open."""
    shop.write(
        "shop/tasks.py",
        """
from django.db import connection
from flagsweep.embed.django import flags
SEEN = []

@flags.handler(max_attempts=1)
def look(n):
    SEEN.append([connection.connection is not None, connection.in_atomic_block])
    connection.ensure_connection()
    if n == 1:
        connection.set_autocommit(False)
        connection.cursor().execute("DELETE FROM auth_user")
""",
    )
    found = shop.ask("""
from shop import tasks
tasks.look.raise_many([(n,) for n in range(4)])
swept = flags.sweep()
print(json.dumps([swept, tasks.SEEN]))
""")
    assert found == [{"lowered": 4}, [[False, False]] * 4]


def test_async_handlers_have_fresh_connections_where_django_keeps_theirs(shop):
    shop.write(
        "shop/tasks.py",
        """
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from flagsweep.embed.django import flags
from shop.work import greet
SEEN = []

@flags.handler(max_attempts=1)
async def look(n):
    SEEN.append(await sync_to_async(lambda: connection.connection is not None)())
    await User.objects.acount()
    await greet.araise_flag(name=str(n))
""",
    )
    found = shop.ask("""
from shop import tasks
for n in range(3):
    tasks.look.raise_flag(n)
    swept = flags.sweep()
print(json.dumps([swept, tasks.SEEN]))
""")
    assert found == [{"lowered": 2}, [False] * 3]


def test_rows_of_the_sites_own_models_are_work(site):
    site.write(
        "shop/models.py",
        """
from django.db import models

class Order(models.Model):
    needs_receipt = models.BooleanField(default=False, db_index=True)
    total = models.IntegerField(default=0)
""",
    )
    site.write(
        "shop/work.py",
        """
from flagsweep.embed.django import flags
from shop.models import Order
SENT = []

@flags.when(Order.objects.filter(needs_receipt=True), max_attempts=1)
def send_receipt(order):
    if order.total < 0:
        raise ValueError("a negative order")
    SENT.append([order.total, type(order).__name__])
    Order.objects.filter(pk=order.pk).update(needs_receipt=False)
""",
    )
    site.manage("makemigrations", "shop", "-v", "0")
    site.manage("migrate", "-v", "0")
    found = site.ask("""
from shop.models import Order
from shop.work import SENT
for total in (10, 20, -1):
    Order.objects.create(needs_receipt=True, total=total)
swept = flags.sweep()
print(json.dumps([swept, sorted(SENT), list(Order.objects.filter(needs_receipt=True).values_list("total", flat=True))]))
""")
    assert found == [{"lowered": 2, "dead": 1}, [[10, "Order"], [20, "Order"]], [-1]]


def test_waiting_for_a_result_within_djangos_transaction_is_refused(shop):
    found = shop.ask("""
from django.db import transaction
from flagsweep import FlagSweepError
from shop.work import greet
with transaction.atomic():
    try:
        flags.result(greet.raise_flag(name="x")).wait(5)
    except FlagSweepError as error:
        print(json.dumps([type(error).__name__, str(error)]))
""")
    assert found[0] == "FlagSweepError" and "within an open transaction would wait for ever" in found[1]


def test_a_consumer_is_embedded_only_where_requests_come_from_outside(shop):
    """Not in a test client's, a live server's, a shell or a command."""
    shop.say("FLAGSWEEP['MODE'] = 'embedded'\n")
    found = shop.ask("""
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.test import Client
from django.test.utils import setup_test_environment, teardown_test_environment
from flagsweep.embed.django import serving
started = []
type(flags).start = lambda self: started.append(1)
told = []
setup_test_environment()
Client().get("/nosuch"); told.append(len(started))
request_started.send(sender=WSGIHandler, environ={}); told.append(len(started))
teardown_test_environment()
request_started.send(sender=object); told.append(len(started))
request_started.send(sender=WSGIHandler, environ={}); told.append(len(started))
request_started.send(sender=WSGIHandler, environ={}); told.append(len(started))
print(json.dumps(told))
""")
    assert found == [0, 0, 0, 1, 1]


def test_a_start_that_fails_is_no_requests_harm_and_is_tried_again(shop):
    shop.say("FLAGSWEEP['MODE'] = 'embedded'\n")
    found = shop.ask("""
import logging
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from flagsweep.embed.django import serving
tried, told = [], []
class Listener(logging.Handler):
    def emit(self, record):
        told.append([record.getMessage(), record.exc_info is not None and bool(record.exc_info)])
logging.getLogger("flagsweep").addHandler(Listener())
def start(self):
    tried.append(1)
    if len(tried) < 3:
        raise flags_error if len(tried) == 1 else ValueError("a site's own trouble")
from flagsweep import FlagSweepError
flags_error = FlagSweepError("no tables yet")
type(flags).start = start
counts = []
def request():
    request_started.send(sender=WSGIHandler, environ={}); counts.append(len(tried))
request(); request()
serving.PAUSE = 0.0
request(); request(); request()
print(json.dumps([counts, told]))
""")
    counts, told = found
    assert counts == [1, 1, 2, 3, 3]
    assert [each[1] for each in told] == [False, True] and "tried again" in told[0][0] and "own trouble" in told[1][0]


# The admin.


ADMIN = """
from django.contrib.auth.models import Permission, User
from django.test import Client
from shop.work import fail, greet
flags.handlers["greet"].cron("0 4 * * *", arguments=("nightly",))
fail.raise_many([(n,) for n in range(3)])
flags.sweep()
greet.raise_flag(name="ä <b>")
boss = User.objects.create_superuser("boss", password="x")
clerk = User.objects.create_user("clerk", password="x", is_staff=True)
clerk.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))

def client(user):
    made = Client()
    made.force_login(user)
    return made

def pages(user):
    names = ("flag", "schedule", "history")
    return {name: client(user).get(f"/admin/flagsweep/{name}/") for name in names}

def act(user, action, ids):
    return client(user).post("/admin/flagsweep/flag/", {"action": action, "_selected_action": ids}, follow=True).content.decode()
"""


def test_the_admin_shows_flags_schedules_and_history_and_changes_nothing(shop):
    found = shop.ask(
        ADMIN
        + """
shown = {name: page.content.decode() for name, page in pages(boss).items()}
flag = flags.find(kind="fail")[0]
one = client(boss).get(f"/admin/flagsweep/flag/{flag.id}/change/").content.decode()
add, delete = client(boss).get("/admin/flagsweep/flag/add/"), client(boss).post(f"/admin/flagsweep/flag/{flag.id}/delete/")
codes = [add.status_code, delete.status_code]
searched = client(boss).get("/admin/flagsweep/flag/?q=greet&state__exact=waiting")
print(json.dumps([["ValueError: no 0" in shown["flag"], "0 4 * * *" in shown["schedule"], "dead" in shown["history"]],
    "Traceback" in one and "_save" not in one, codes, "&lt;b&gt;" in shown["flag"], searched.status_code]))
"""
    )
    assert found == [[True, True, True], True, [403, 403], True, 200]


def test_dead_flags_are_retried_and_discarded_in_the_admin_by_who_may(shop):
    found = shop.ask(
        ADMIN
        + """
from flagsweep.embed.django.models import History
ids = [each.id for each in flags.find(state="dead")]
refused = act(clerk, "retry", ids)
left = len(flags.find(state="dead"))
told = act(boss, "retry", ids[:1])
after = [each.state for each in flags.find(kind="fail")]
dropped = act(boss, "discard", ids)
why = list(History.objects.filter(event="discarded").values_list("reason", flat=True))
print(json.dumps([left, "1 of 1 retried" in told, after, "2 of 3 discarded" in dropped, why, len(flags.find(kind="fail"))]))
"""
    )
    assert found == [3, True, ["waiting", "dead", "dead"], True, ["by boss in the admin"] * 2, 1]


def test_actions_of_the_admin_work_with_atomic_requests(django_site):
    site = django_site(ATOMIC_REQUESTS=True)
    site.write("shop/work.py", WORK)
    site.manage("migrate", "-v", "0")
    found = site.ask(
        ADMIN
        + """
ids = [each.id for each in flags.find(state="dead")]
told = act(boss, "retry", ids)
print(json.dumps(["at the end of this request" in told, [each.state for each in flags.find(kind="fail")]]))
"""
    )
    assert found == [True, ["waiting"] * 3]
