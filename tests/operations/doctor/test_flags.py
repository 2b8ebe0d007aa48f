"""What is found of the flags themselves."""

import pytest
from examined import found
from peewee import BooleanField, Model, TextField
from rig import FakeClock, plain

from flagsweep import FlagSweep
from flagsweep.models import Fact


def test_flags_of_a_kind_without_handler_are_counted(flags, db_path):
    flags.handler("gone")(lambda: None).raise_flag()
    finding = found(FlagSweep(db_path), "kinds")
    assert finding.level == "ok" and "not checked" in finding.text
    other = FlagSweep(db_path)
    other.handler("send")(lambda user_id: None)
    assert "another application seems to serve them" in found(other, "kinds").text
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 1 WHERE kind = 'gone'")
    finding = found(other, "kinds")
    assert finding.level == "warn" and "gone; flags that wait for one: 1" in finding.text
    other.handler("new", aliases="gone")(lambda: None)
    assert found(other, "kinds").level == "ok"


def test_who_had_the_handler_of_a_kind_is_told_and_which_it_may_be_now(flags_anywhere):
    flags = flags_anywhere
    flags.handler("send_mail")(lambda: None).raise_flag()
    flags.store.note_served(flags._duties().served(), flags.clock.now())
    flags.clock.advance(3600)
    renamed = FlagSweep(flags.settings.database, clock=flags.clock)
    renamed.handler("send_mails")(lambda: None)
    finding = found(renamed, "kinds")
    assert finding.level == "warn" and "send_mail was served by " in finding.text and "(2026-01-01 00:00:00 UTC)" in finding.text
    assert "in the aliases= of that of send_mails, if it was renamed" in finding.fix
    with flags.connections.write() as db:
        Fact.update(value="{").execute(db)
    assert "was served" not in found(renamed, "kinds").text
    renamed.connections.close_thread()


def test_dead_flags_are_counted(flags, db_path):
    flags.handlers["send"].raise_many([(1,), (2,)])
    plain(db_path, "UPDATE flagsweep_flag SET state = 'dead'")
    finding = found(flags, "dead flags")
    assert finding.level == "warn" and finding.text.startswith("2,")


def test_damaged_rows_are_named(flags, db_path):
    flags.handlers["send"].raise_many([(1,), (2,), (3,), (4,)])
    plain(db_path, "UPDATE flagsweep_flag SET due_at = 'soon' WHERE id = 2")
    plain(db_path, "UPDATE flagsweep_flag SET payload = '{' WHERE id = 3")
    plain(db_path, "UPDATE flagsweep_flag SET payload = x'ff' WHERE id = 4")
    finding = found(flags, "rows")
    assert finding.level == "warn" and "flag 2, 3, 4" in finding.text


def test_a_raise_by_a_clock_that_goes_wrong_is_told(db_path):
    clock = FakeClock()
    flags = FlagSweep(db_path, clock=clock)
    flags.init()
    clock.advance(86400)
    flags.handler("send")(lambda: None).raise_flag()
    clock.advance(-86400)
    finding = found(flags, "raise times")
    assert finding.level == "warn" and "2026-01-02" in finding.text and "2026-01-01" in finding.text


class TestOwnRows:
    @pytest.fixture
    def Order(self, flags):
        class Order(Model):
            paid = BooleanField(default=True)
            receipt_sent = BooleanField(default=False)
            cancelled_at = TextField(null=True)

            class Meta:
                database = flags.database

        with flags.database.connection_context():
            flags.database.create_tables([Order])
        return Order

    @pytest.mark.parametrize(
        "condition",
        [
            lambda order: order.paid,
            lambda order: order.cancelled_at,
            lambda order: order.paid & ~order.receipt_sent,
            lambda order: (order.paid == True) & order.cancelled_at.is_null(),  # noqa: E712
        ],
        ids=["Boolean", "timestamp", "condition", "condition with a parameter"],
    )
    def test_a_condition_without_an_index_is_told_and_the_suggested_index_serves_it(self, flags, db_path, Order, condition):
        flags.when(condition(Order), kind="handle")(lambda order: None)
        finding = found(flags, "own rows")
        assert finding.level == "warn" and "the whole table order" in finding.text
        plain(db_path, finding.fix)
        assert found(flags, "own rows").level == "ok"

    def test_a_missing_table_is_told(self, flags, Order):
        with flags.database.connection_context():
            Order.drop_table()
        flags.when(Order.paid, kind="handle")(lambda order: None)
        assert "there is no table order" in found(flags, "own rows").text
