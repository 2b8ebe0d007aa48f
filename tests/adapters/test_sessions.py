"""What a handler leaves in a session of SQLAlchemy's: what is not committed nobody would ever see."""

import asyncio

import pytest
from mapped import SITES
from rig import FakeClock, let_go
from sqlalchemy import insert, select, text, update

from flagsweep import FlagSweep
from flagsweep.embed.sqlalchemy import init_app


@pytest.fixture
def site(db_path):
    site = SITES["sqlalchemy"](f"sqlite:///{db_path}")
    yield site
    site.close()


@pytest.fixture
def flags(site, tmp_path):
    flags = FlagSweep(clock=FakeClock(), threads=1)
    init_app(site.session, flags)
    flags.init()
    yield flags
    let_go(tmp_path)


def changed(site):
    """Return the ways to write in a session, each by its name."""
    session, order = site.session, site.Order
    return {
        "add": lambda: session.add(order(number=9)),
        "flush": lambda: (session.add(order(number=9)), session.flush()),
        "autoflush": lambda: (session.add(order(number=9)), session.scalars(select(order)).all()),
        "insert": lambda: session.execute(insert(order).values(number=9)),
        "update": lambda: session.execute(update(order).values(number=9)),
        "text": lambda: session.execute(text("update shop_order set number = 9")),
        "savepoint": lambda: (session.begin_nested(), session.add(order(number=9)), session.commit, session.flush()),
    }


WAYS = ("add", "flush", "autoflush", "insert", "update", "text", "savepoint")


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own_rows", [True, False])
def test_a_handler_that_does_not_commit_what_it_wrote_has_failed(site, flags, way, own_rows):
    def work(order=None):
        changed(site)[way]()

    if own_rows:
        site.add(needs_receipt=True)
        flags.when(site.Order.needs_receipt, kind="work")(lambda order: work())
    else:
        flags.handler("work")(lambda: work()).raise_flag()
        site.session.commit()
    assert flags.sweep() == {"again": 1}
    assert "not committed" in flags.find("work")[0].error
    assert site.read(1, "needs_receipt") is True if own_rows else True


@pytest.mark.long
@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize("way", WAYS)
def test_a_handler_that_ends_its_transaction_has_succeeded_either_way(site, flags, way, ending):
    @flags.handler("work")
    def work():
        changed(site)[way]()
        while site.session().in_transaction():
            getattr(site.session, ending)()

    work.raise_flag()
    site.session.commit()
    assert flags.sweep() == {"lowered": 1}


@pytest.mark.long
def test_a_handler_that_only_reads_or_fails_is_not_blamed_for_its_session(site, flags):
    site.add(number=1)

    @flags.handler("reads")
    def reads():
        assert site.session.scalars(select(site.Order)).first().number == 1

    @flags.handler("fails")
    def fails():
        site.session.add(site.Order())
        raise ValueError("its own")

    reads.raise_flag(), fails.raise_flag()
    site.session.commit()
    assert flags.sweep() == {"lowered": 1, "again": 1}
    assert "its own" in flags.find("fails")[0].error


@pytest.mark.long
def test_an_async_handler_that_ends_does_not_take_the_session_of_another_away(site, flags):
    both = []

    @flags.handler("writes")
    async def writes():
        site.session.add(site.Order(number=7))
        both.append("written")
        while len(both) < 2:
            await asyncio.sleep(0.001)
        site.session.commit()

    @flags.handler("ends")
    async def ends():
        while not both:
            await asyncio.sleep(0.001)

    @flags.on_dead
    def told(*what): ...

    writes.raise_flag(), ends.raise_flag()
    site.session.commit()

    @flags.handler("later")
    async def later():
        both.append("ended")

    later.raise_flag()
    site.session.commit()
    assert flags.sweep() == {"lowered": 3}
    assert site.read(1, "number") == 7
