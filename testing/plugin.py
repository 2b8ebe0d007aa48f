"""For pytest: fixtures that give a test the site's own FlagSweep in a fresh database. Nothing happens until one is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..app import FlagSweep
    from .clock import FakeClock
    from .crashing import CrashTest

NONE = (
    "which FlagSweep? Say so in pytest's settings, flagsweep_app = work:flags, or write a fixture flagsweep_app that returns it;"
    " none was found beside"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the setting ``flagsweep_app``."""
    parser.addini("flagsweep_app", "the site's FlagSweep, as module:attribute (default: that of work.py, app.py or manage.py)")


@pytest.fixture(scope="session")
def flagsweep_app(pytestconfig: pytest.Config) -> Any:
    """Return the site's FlagSweep, or ``module:attribute``. A site may have a fixture of this name instead."""
    if app := pytestconfig.getini("flagsweep_app"):
        return app
    from ..locate import beside

    if (found := beside(str(pytestconfig.rootpath))) is None:
        raise pytest.UsageError(NONE)
    return found.flags


@pytest.fixture
def flagsweep_database() -> Any:
    """Return where flags are kept in tests; None: in a fresh SQLite file. A site may have a fixture of this name instead."""
    return None


@pytest.fixture
def flags(flagsweep_app: Any, flagsweep_database: Any, pytestconfig: pytest.Config) -> Iterator[FlagSweep]:
    """Give the site's FlagSweep, in a fresh database. Nothing is swept unless the test does that."""
    from ..locate import load
    from .lending import fresh

    if isinstance(flagsweep_app, str):
        if str(pytestconfig.rootpath) not in sys.path:
            sys.path.append(str(pytestconfig.rootpath))
        flagsweep_app = load(flagsweep_app)
    with fresh(flagsweep_app, flagsweep_database):
        yield flagsweep_app


@pytest.fixture
def sweep_all(flags: FlagSweep) -> Callable[..., Any]:
    """Give ``sweep_all(lane=None)``: do all that is due, here and now, and raise the first error of a handler."""
    from .draining import sweep_all

    return partial(sweep_all, flags)


@pytest.fixture
def assert_raised(flags: FlagSweep) -> Callable[..., Any]:
    """Give ``assert_raised(handler, **arguments)``: assert that such a flag is up, and return it."""
    from .assertions import assert_raised

    return partial(assert_raised, flags)


@pytest.fixture
def refute_raised(flags: FlagSweep) -> Callable[..., Any]:
    """Give ``refute_raised(handler, **arguments)``: assert that no such flag is up."""
    from .assertions import refute_raised

    return partial(refute_raised, flags)


@pytest.fixture
def fake_clock(flags: FlagSweep) -> Iterator[FakeClock]:
    """Give a clock that stands still until ``fake_clock.advance("5m")``: backoffs, delays and schedules go by it."""
    from .clock import FakeClock
    from .lending import clocked

    clock = FakeClock()
    with clocked(flags, clock):
        yield clock


@pytest.fixture
def crash_at(flags: FlagSweep) -> CrashTest:
    """Give ``crash_at(point, handler, *arguments, effects=count)``: what becomes of an effect where the process is killed."""
    from .crashing import CrashTest

    return CrashTest(flags)
