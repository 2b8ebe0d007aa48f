"""Django's connections under handlers: transactions left open, coroutines side by side, inline sweeps, and a read replica."""

import pytest
from django_sites import database_settings

pytestmark = pytest.mark.long

WORK = """
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction
from flagsweep.embed.django import flags

@flags.handler(max_attempts=1, lane="one")
def write(n, leave=""):
    if leave == "begin":
        connection.cursor().execute("BEGIN")
    if leave == "atomic":
        transaction.atomic().__enter__()
    User.objects.create(username=str(n))
    if leave == "fail":
        connection.cursor().execute("BEGIN")
        raise ValueError("its own trouble")
"""

LEFT = """
from shop.work import User, write
write.raise_flag(0, leave=%r)
first = flags.sweep()
for n in (1, 2):
    write.raise_flag(n)
write.raise_flag(9, leave=%r)
write.raise_flag(10)
second = flags.sweep()
names = sorted(User.objects.values_list("username", flat=True))
error = flags.find("write", state="dead")[0].error
print(json.dumps([first, second, names, error]))
"""


@pytest.fixture
def kept(django_site):
    """Return a site whose connections outlast a handler, with one thread in its lane."""
    site = django_site(CONN_MAX_AGE=600)
    site.say("FLAGSWEEP['LANES'] = {'one': 1}\n")
    site.write("shop/work.py", WORK)
    site.manage("migrate", "-v", "0")
    return site


@pytest.mark.parametrize("way", ["begin", "atomic"])
def test_a_transaction_that_a_handler_leaves_open_fails_its_flag_and_no_later_one(kept, way):
    first, second, names, error = kept.ask(LEFT % (way, way))
    assert (first, second) == ({"dead": 1}, {"lowered": 3, "dead": 1})
    assert names == ["1", "10", "2"]
    assert "LeakedTransaction" in error and "Django's connection 'default'" in error


def test_a_handler_that_fails_within_a_transaction_left_open_keeps_its_own_error_in_the_traceback(kept):
    first, second, names, error = kept.ask(LEFT % ("fail", "begin"))
    assert (first, second, names) == ({"dead": 1}, {"lowered": 3, "dead": 1}, ["0", "1", "10", "2"])
    assert "its own trouble" in error and "LeakedTransaction" in error


def test_a_transaction_that_was_open_before_a_handler_is_left_alone(kept):
    """A test's own, in whose thread a handler runs."""
    kept.write(
        "shop/tests.py",
        """
from django.test import TestCase
from shop.work import User

class InATransaction(TestCase):
    def test_inline(self):
        from flagsweep.embed.django.fresh import fresh_connections
        User.objects.create(username="before")
        with fresh_connections():
            User.objects.create(username="within")
        self.assertEqual(User.objects.count(), 2)
""",
    )
    kept.manage("test", "shop")


def test_async_handlers_do_not_close_the_connection_that_another_reads(django_site):
    site = django_site(CONN_MAX_AGE=0)
    site.write(
        "shop/work.py",
        """
import asyncio
from django.contrib.auth.models import User
from django.db import connection
from asgiref.sync import sync_to_async
from flagsweep.embed.django import flags
SEEN, HALF, OTHER = [], asyncio.Event(), asyncio.Event()

@flags.handler(max_attempts=1)
async def read():
    SEEN.append(await sync_to_async(lambda: connection.connection is not None)())
    async for user in User.objects.order_by("id").aiterator(chunk_size=10):
        SEEN.append(user.id)
        HALF.set()
        await asyncio.wait_for(OTHER.wait(), 20)

@flags.handler(max_attempts=1)
async def other():
    await asyncio.wait_for(HALF.wait(), 20)
    await User.objects.acount()
    asyncio.get_running_loop().call_later(0.2, OTHER.set)
""",
    )
    site.manage("migrate", "-v", "0")
    found = site.ask("""
from shop import work
work.User.objects.bulk_create([work.User(username=str(n)) for n in range(50)])
work.read.raise_flag(); work.other.raise_flag()
first = flags.sweep()
work.read.raise_flag()
print(json.dumps([first, flags.sweep(), len(work.SEEN), work.SEEN[0], work.SEEN[51], [each.error for each in flags.find()]]))
""")
    assert found == [{"lowered": 2}, {"lowered": 1}, 102, False, False, []]


def test_what_an_async_handler_leaves_open_is_not_the_next_ones(kept):
    kept.write(
        "shop/tasks.py",
        """
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from flagsweep.embed.django import flags

@flags.handler(max_attempts=1)
async def write_too(n, leave=False):
    if leave:
        await sync_to_async(lambda: connection.cursor().execute("BEGIN") and None)()
    await User.objects.acreate(username=str(n))
""",
    )
    found = kept.ask("""
from shop.tasks import User, write_too
write_too.raise_flag(1, leave=True)
flags.sweep()
write_too.raise_flag(2)
flags.sweep()
print(json.dumps(list(User.objects.values_list("username", flat=True))))
""")
    assert found == ["2"]


def test_an_inline_sweep_leaves_the_connection_that_the_raising_thread_reads_from(django_site, url):
    """On SQLite with one raise: who still reads there cannot write again once another connection has, whoever closes what."""
    site = django_site(CONN_MAX_AGE=0)
    site.say("FLAGSWEEP['MODE'] = 'inline'\n")
    site.write(
        "shop/work.py",
        """
from django.contrib.auth.models import User
from django.db import connection
from flagsweep.embed.django import flags
SEEN = []

@flags.handler(max_attempts=1)
def look(n):
    SEEN.append(User.objects.filter(pk=n).count())
""",
    )
    site.manage("migrate", "-v", "0")
    raises = 1 if url.startswith("sqlite") else 50
    program = """
from shop.work import SEEN, User, connection, look
User.objects.bulk_create([User(username=str(n)) for n in range(50)])
read = 0
for user in User.objects.order_by("id").iterator(chunk_size=10):
    if read < RAISES:
        look.raise_flag(user.id)
    read += 1
before = connection.connection
look.raise_flag(1000)
print(json.dumps([read, sum(SEEN), len(SEEN), before is connection.connection, [each.error for each in flags.find()]]))
"""
    assert site.ask(program.replace("RAISES", str(raises))) == [50, raises, raises + 1, True, []]


REPLICA = """
class Router:
    def db_for_read(self, model, **hints):
        return "replica" if model._meta.app_label == "shop" else None

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, one, other, **hints):
        return True
"""


@pytest.mark.parametrize("what", ["Order.needs_receipt", "Order.objects.filter(needs_receipt=True)"])
def test_rows_are_found_where_flags_are_raised_and_not_on_a_read_replica(site, tmp_path, what):
    site.write("shop/routers.py", REPLICA)
    site.write(
        "shop/models.py",
        "from django.db import models\n\nclass Order(models.Model):\n    needs_receipt = models.BooleanField(default=False)\n",
    )
    lowers = "" if what == "Order.needs_receipt" else "Order.objects.filter(pk=order.pk).update(needs_receipt=False)"
    site.write(
        "shop/work.py",
        f"""
from flagsweep.embed.django import flags
from shop.models import Order
SENT = []

@flags.when({what}, max_attempts=1)
def send_receipt(order):
    SENT.append(order.pk)
    {lowers}
""",
    )
    replica = database_settings(f"sqlite:///{tmp_path}/replica.db")
    site.say(f"DATABASES['replica'] = {replica!r}\nDATABASE_ROUTERS = ['shop.routers.Router']\n")
    site.manage("makemigrations", "shop", "-v", "0")
    site.manage("migrate", "-v", "0")
    site.manage("migrate", "-v", "0", "--database", "replica", "shop")
    found = site.ask("""
from shop.models import Order
from shop.work import SENT
Order.objects.create(needs_receipt=True)
lagging = Order.objects.using("replica").create(pk=77, needs_receipt=True)
print(json.dumps([flags.sweep(limit=5), SENT, list(Order.objects.using("default").values_list("needs_receipt", flat=True))]))
""")
    assert found == [{"lowered": 1}, [1], [False]]
