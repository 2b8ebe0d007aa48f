"""Within Django's TestCase and pytest-django: what a test's transaction holds is swept, and what it rolls back is taken back."""

import sys

import pytest

pytestmark = pytest.mark.long

SETTINGS = """
SECRET_KEY = "no secret"
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db", "TEST": {"NAME": TEST_NAME}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

FILES = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models

class Order(models.Model):
    receipts = models.IntegerField(default=0)
    paid = models.BooleanField(default=False)
    praised = models.BooleanField(default=False)
    shipped_at = models.DateTimeField(null=True)
    told = models.IntegerField(default=0)
""",
    "shop/migrations/__init__.py": "",
    "work.py": """
from flagsweep import FlagSweep

flags = FlagSweep("sqlite:///flags.db", connection="default")

@flags.handler(backoff="10s")
def send_receipt(order_id, fails=False):
    from shop.models import Order
    if fails:
        raise OSError("no mail server")
    order = Order.objects.get(id=order_id)
    order.receipts += 1
    order.save()

def watch():
    from shop.models import Order

    @flags.when(Order.objects.filter(paid=True, receipts=0))
    def receipt_of_a_paid_one(order):
        order.receipts += 1
        order.save(update_fields=["receipts"])

    @flags.when(Order.shipped_at)
    def tell(order):
        order.told += 1
        order.save(update_fields=["told"])

    @flags.when(Order.praised, lower="before")
    def thank(order):
        assert not order.praised

def pay(fails=False):
    from django.db import transaction
    from shop.models import Order
    with transaction.atomic():
        order = Order.objects.create()
        send_receipt.raise_flag(order_id=order.id)
        if fails:
            raise ValueError("no money")
    return order
""",
}

TEST_CASES = """
from django.db import transaction
from django.test import TestCase
from flagsweep.testing import FakeClock, assert_raised, fresh, refute_raised, sweep_all
import work


class Orders(TestCase):
    def setUp(self):
        self.clock = FakeClock()
        if "tell" not in work.flags.handlers:
            work.watch()
        self.flags = self.enterContext(fresh(work.flags, clock=self.clock))

    def test_a_receipt_is_sent_for_an_order_that_is_paid(self):
        order = work.pay()
        assert_raised(self.flags, work.send_receipt, order_id=order.id)
        self.assertEqual(sweep_all(self.flags), {"lowered": 1})
        order.refresh_from_db()
        self.assertEqual(order.receipts, 1)

    def test_what_is_rolled_back_is_not_raised_and_what_was_raised_before_it_stays(self):
        order = work.pay()
        for _ in range(10):
            with self.assertRaises(ValueError):
                work.pay(fails=True)
        for _ in range(10):
            work.pay()
        self.assertEqual(len(self.flags.find()), 11)
        assert_raised(self.flags, work.send_receipt, order_id=order.id)

    def test_what_is_raised_many_times_is_taken_back_alike(self):
        with self.assertRaises(ValueError), transaction.atomic():
            work.send_receipt.raise_many([(1,), (2,)])
            self.assertEqual(len(self.flags.find()), 2)
            raise ValueError
        refute_raised(self.flags, work.send_receipt)

    def test_rows_that_are_work_are_found_within_the_tests_transaction_and_lowered_there(self):
        from django.utils import timezone
        from shop.models import Order
        Order.objects.create()
        order = Order.objects.create(paid=True, praised=True, shipped_at=timezone.now())
        self.assertEqual(sweep_all(self.flags)["lowered"], 3)
        order.refresh_from_db()
        self.assertEqual((order.receipts, order.told, order.praised, order.shipped_at), (1, 1, False, None))
        self.assertEqual(sweep_all(self.flags), {})

    def test_a_row_is_raised_by_hand_and_asserted_by_its_instance(self):
        from shop.models import Order
        order = Order.objects.create(paid=True)
        self.flags.handlers["receipt_of_a_paid_one"].raise_flag(order)
        assert_raised(self.flags, "receipt_of_a_paid_one", order=order)

    def test_a_failure_is_tried_again_by_the_clock(self):
        work.send_receipt.raise_flag(1, fails=True)
        for attempt in (1, 2):
            with self.assertRaises(OSError):
                sweep_all(self.flags)
            self.assertEqual(self.flags.find()[0].attempts, attempt)
            self.clock.advance("1m")
"""

WITH_PYTEST = """
import pytest
from django.test import TestCase
import work


class Orders(TestCase):
    @pytest.fixture(autouse=True)
    def of_flagsweep(self, sweep_all, refute_raised):
        self.sweep_all, self.refute_raised = sweep_all, refute_raised

    def test_a_receipt_is_sent(self):
        order = work.pay()
        self.sweep_all()
        order.refresh_from_db()
        self.assertEqual(order.receipts, 1)

    def test_what_is_rolled_back_is_not_raised(self):
        with self.assertRaises(ValueError):
            work.pay(fails=True)
        self.refute_raised(work.send_receipt)


@pytest.mark.django_db
def test_a_receipt_is_sent_within_the_transaction_of_a_test(flags, sweep_all, assert_raised, fake_clock):
    order = work.pay()
    assert_raised(work.send_receipt, order_id=order.id)
    sweep_all()
    order.refresh_from_db()
    assert order.receipts == 1


@pytest.mark.django_db(transaction=True)
def test_a_receipt_is_sent_beyond_it(sweep_all, refute_raised):
    with pytest.raises(ValueError):
        work.pay(fails=True)
    refute_raised(work.send_receipt)
    order = work.pay()
    sweep_all()
    order.refresh_from_db()
    assert order.receipts == 1


@pytest.mark.django_db(transaction=True)
def test_a_receipt_is_repeated_by_a_crash_after_it(crash_at):
    from shop.models import Order

    order = Order.objects.create()
    receipts = lambda: Order.objects.get(id=order.id).receipts
    assert crash_at("after_effect", work.send_receipt, order.id, effects=receipts).repeated
    assert crash_at("before_handler", work.send_receipt, order.id, effects=receipts).once
"""


@pytest.fixture
def project(tmp_path, spawn, env):
    """Give `project(tests, *command)`: what a command says in a Django project with these tests."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def project(tests, *command, test_name="None"):
        (tmp_path / "settings.py").write_text(SETTINGS.replace("TEST_NAME", test_name))
        (tmp_path / "test_orders.py").write_text(tests)
        made = spawn(sys.executable, "manage.py", "makemigrations", "shop")
        assert made.wait(60) == 0, made.log.read_text()
        child = spawn(sys.executable, *command)
        code = child.wait(120)
        return code, child.log.read_text()

    return project


def test_in_djangos_own_test_runner(project, tmp_path):
    code, text = project(TEST_CASES, "manage.py", "test")
    assert code == 0 and "Ran 6 tests" in text, text
    assert not (tmp_path / "flags.db").exists()


@pytest.mark.parametrize("test_name", ["None", "'test.db'"], ids=["memory", "file"])
def test_with_pytest_django(project, tmp_path, test_name):
    options = ("--ds=settings", "-q", "-p", "no:cacheprovider", "-k", "not crash" if test_name == "None" else "")
    code, text = project(WITH_PYTEST, "-m", "pytest", *options, test_name=test_name)
    assert code == 0 and f"{4 if test_name == 'None' else 5} passed" in text, text
    assert not (tmp_path / "flags.db").exists()
