"""Own rows of Django, of SQLAlchemy, and of tables by name: on every database."""

import datetime

import pytest
from mapped import NOW, SITES
from rig import FakeClock, let_go

from flagsweep import ConfigError, FlagSweep, SignatureError


@pytest.fixture(params=SITES)
def site(request, url):
    site = SITES[request.param](url)
    yield site
    site.close()


@pytest.fixture
def flags(site, url, tmp_path):
    flags = FlagSweep(url, clock=FakeClock(), threads=2, state_dir=str(tmp_path), connection=site.given)
    flags.init()
    if hasattr(site, "fresh"):  # As an embedding does it: a thread that has performed keeps no connection of Django's.
        flags.around(site.around)
    yield flags
    flags.database.close()
    let_go(tmp_path)


@pytest.mark.long
def test_a_boolean_column_comes_down_with_its_flag_and_the_handler_gets_the_sites_own_instance(site, flags):
    got = []

    @flags.when(site.column("needs_receipt"))
    def receipt(order):
        got.append((type(order), order.number, order.needs_receipt))

    pk, other = site.add(number=7, needs_receipt=True), site.add(number=8)
    assert flags.sweep() == {"lowered": 1}
    assert got == [(site.Order, 7, True)]
    assert (site.read(pk, "needs_receipt"), site.read(other, "needs_receipt")) == (False, False)
    assert flags.sweep() == {}


def test_a_timestamp_that_is_set_anew_while_its_handler_runs_stays_up(site, flags):
    aware = datetime.UTC if hasattr(site, "fresh") else None
    moments = [NOW.replace(tzinfo=aware), NOW.replace(microsecond=123457, tzinfo=aware)]
    runs = []

    @flags.when(site.column("owed_at"))
    def receipt(order):
        runs.append(order.owed_at)
        if len(runs) == 1:
            site.change(pk, owed_at=moments[1])

    pk = site.add(owed_at=moments[0])
    flags.sweep()
    flags.sweep()
    assert runs == moments
    assert site.read(pk, "owed_at") is None


@pytest.mark.long
def test_a_condition_is_asked_in_the_layers_own_words_and_the_handler_makes_it_false(site, flags):
    @flags.when(site.condition())
    def receipt(order):
        order.sent = True
        site.save(order)

    pk = site.add(paid=True)
    site.add(paid=False)
    assert flags.sweep() == {"lowered": 1}
    assert site.read(pk, "sent") is True
    assert flags.sweep() == {}


def test_a_condition_that_still_holds_after_success_is_a_failure(site, flags):
    @flags.when(site.condition())
    def receipt(order): ...

    site.add(paid=True)
    assert flags.sweep() == {"again": 1}
    assert "its condition still holds" in flags.find("receipt")[0].error


@pytest.mark.long
def test_a_function_is_asked_anew_each_time(site, flags):
    limit, seen = [10], []

    @flags.when(site.changing(lambda: limit[0]))
    def receipt(order):
        seen.append(order.number)
        order.number = 0
        site.save(order)

    site.add(number=5)
    assert flags.sweep() == {}
    limit[0] = 5
    assert flags.sweep() == {"lowered": 1} and seen == [5]


def test_behind_dead_flags_whose_rows_are_found_each_time_others_are_seen(site, flags):
    @flags.when(site.condition(), max_attempts=1, retry_on=())
    def receipt(order):
        if order.number < 3:
            raise ValueError("no")
        order.sent = True
        site.save(order)

    flags.settings.batch  # noqa: B018 (opened before its batch is made small)
    object.__setattr__(flags.settings, "batch", 2)
    for number in range(6):
        site.add(number=number, paid=True)
    for _ in range(5):
        flags.sweep()
    assert sorted(flag.state for flag in flags.find("receipt")) == ["dead"] * 3
    assert [site.read(pk, "sent") for pk in range(1, 7)] == [False] * 3 + [True] * 3


@pytest.mark.long
def test_lower_before_takes_a_new_setting_for_new_work(site, flags):
    runs = []

    @flags.when(site.column("needs_receipt"), lower="before")
    def receipt(order):
        runs.append(site.read(pk, "needs_receipt"))
        if len(runs) == 1:
            site.change(pk, needs_receipt=True)

    pk = site.add(needs_receipt=True)
    flags.sweep()
    flags.sweep()
    assert runs == [False, False]


@pytest.mark.long
def test_a_uuid_names_its_row(site, flags):
    got = []

    @flags.when(site.column("owed", site.Ticket))
    def ticket(ticket):
        got.append(ticket.id)

    pk = site.add(site.Ticket)
    assert flags.sweep() == {"lowered": 1} and got == [pk]
    assert site.read(pk, "owed", site.Ticket) is False
    site.change(pk, site.Ticket, owed=True)
    assert ticket.using(connection=flags.database).raise_flag(pk).how == "new"
    assert flags.sweep() == {"lowered": 1} and got == [pk, pk]


def test_a_raise_takes_an_instance_or_its_primary_key_and_nothing_else(site, flags):
    @flags.when(site.column("needs_receipt"))
    def receipt(order): ...

    pk = site.add(needs_receipt=True)
    raised = receipt.using(connection=flags.database)
    first = raised.raise_flag(pk)
    assert raised.raise_flag(str(pk)) == (first.id, "coalesced")
    order = site.Order(id=pk)
    assert raised.raise_flag(order) == (first.id, "coalesced")
    for wrong in (None, 1.5, "seven", site.Order()):
        with pytest.raises(SignatureError, match="saved"):
            raised.raise_flag(wrong)
    assert flags.sweep() == {"lowered": 1}


def test_a_failing_handler_leaves_the_column_up_and_is_tried_again(site, flags):
    @flags.when(site.column("needs_receipt"))
    def receipt(order):
        raise ValueError("no")

    pk = site.add(needs_receipt=True)
    assert flags.sweep() == {"again": 1}
    assert site.read(pk, "needs_receipt") is True


def test_discarding_a_dead_flag_lowers_its_column(site, flags):
    @flags.when(site.column("needs_receipt"), max_attempts=1)
    def receipt(order):
        raise ValueError("no")

    pk = site.add(needs_receipt=True)
    assert flags.sweep() == {"dead": 1}
    flags.discard(kind="receipt")
    assert site.read(pk, "needs_receipt") is False


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["number", "two"])
def test_what_cannot_be_lowered_or_named_is_refused(site, flags, wrong):
    if wrong == "number":
        with pytest.raises(ConfigError, match="neither Boolean nor nullable"):
            flags.when(site.column("number"))
    else:
        with pytest.raises(ConfigError, match="needs a column that can be lowered"):
            flags.when(site.condition(), lower="before")


def test_doctor_looks_for_an_index_where_a_column_says_what_is_owed(site, flags):
    flags.when(site.column("needs_receipt"), kind="by-column")(lambda order: None)
    flags.when(site.condition(), kind="by-condition")(lambda order: None)
    told = {finding.text for finding in flags.doctor() if finding.what == "own rows"}
    assert any("by-column" in text and "reads the whole table shop_order" in text for text in told)
    assert any("by-condition" in text and "find its rows" in text for text in told)


# One layer alone.


@pytest.mark.long
@pytest.mark.parametrize("site", ["django"], indirect=True)
def test_djangos_default_manager_decides_what_is_found(site, flags):
    got = []
    flags.when(site.Order.needs_receipt, kind="receipt")(lambda order: got.append(order.number))
    site.add(number=1, needs_receipt=True, hidden=True)
    site.add(number=2, needs_receipt=True)
    flags.sweep()
    assert got == [2]


# A table by its names.


@pytest.mark.parametrize(
    ("boolean", "owed"),
    [("needs_receipt", True), ("owed_at", "2026-01-01 10:00:00.123456")],
)
@pytest.mark.parametrize("lower", ["after", "before"])
def test_a_table_by_name_gives_its_rows_as_dicts(site, flags, url, boolean, owed, lower):
    got = []

    @flags.when(table="shop_order", column=boolean, pk="id", lower=lower, kind="receipt")
    def receipt(row):
        got.append(row)

    aware = datetime.UTC if hasattr(site, "fresh") else None
    value = owed if owed is True else NOW.replace(tzinfo=aware)
    pk = site.add(number=7, **{boolean: value})
    site.add(number=8)
    assert flags.sweep() == {"lowered": 1}
    assert [(row["id"], row["number"]) for row in got] == [(pk, 7)]
    assert not site.read(pk, boolean)
    assert flags.sweep() == {}


def test_a_table_that_is_not_there_or_has_no_such_column_waits_alone(site, flags, caplog):
    flags.when(table="nosuch", column="owed", kind="one")(lambda row: None)
    flags.when(table="shop_order", column="nosuch", kind="two")(lambda row: None)
    flags.handler("three")(lambda: None).using(connection=flags.database).raise_flag()
    assert flags.sweep() == {"lowered": 1}
    assert "nosuch" in caplog.text and "it has id" in caplog.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "shop_order"}, "column=None"),
        ({"column": "owed"}, "table=None"),
        ({"table": "", "column": "owed"}, "table=''"),
        ({"table": "shop_order", "column": "owed", "pk": 7}, "pk=7"),
    ],
)
def test_names_that_are_none_are_refused(db_path, given, said):
    with pytest.raises(ConfigError, match=said):
        FlagSweep(f"sqlite:///{db_path}").when(**given)
