"""What each handler runs within (``flags.around``)."""

from contextlib import contextmanager, suppress

import pytest

from flagsweep import FlagSweep


@pytest.fixture
def flags(db_path):
    flags = FlagSweep(f"sqlite:///{db_path}", threads=1)
    flags.init()
    return flags


@pytest.mark.parametrize("atomic", [False, True])
def test_each_handler_runs_within_the_contexts_the_first_outermost(flags, atomic):
    seen = []

    @flags.around
    @contextmanager
    def outer():
        seen.append("outer in")
        yield
        seen.append("outer out")

    @flags.around
    @contextmanager
    def inner():
        seen.append("inner in")
        yield
        seen.append("inner out")

    @flags.handler(atomic=atomic)
    def work(n):
        seen.append(n)

    work.raise_many([(1,), (2,)])
    assert flags.sweep() == {"lowered": 2}
    assert seen == ["outer in", "inner in", 1, "inner out", "outer out", "outer in", "inner in", 2, "inner out", "outer out"]


def test_a_context_that_swallows_the_error_does_not_make_a_success_of_a_failure(flags):
    flags.around(lambda: suppress(ValueError))

    @flags.handler()
    def work():
        raise ValueError("the mail server said no")

    work.raise_flag()
    assert flags.sweep() == {"again": 1}
    assert "the mail server said no" in flags.find("work")[0].error


@pytest.mark.parametrize("when", ["entering", "leaving"])
def test_an_error_in_a_context_is_a_failure_of_its_handler(flags, when):
    @flags.around
    @contextmanager
    def broken():
        if when == "entering":
            raise OSError("no session")
        yield
        raise OSError("no session")

    @flags.handler()
    def work(): ...

    work.raise_flag()
    assert flags.sweep() == {"again": 1}
    assert "no session" in flags.find("work")[0].error
