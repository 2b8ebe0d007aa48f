"""For tests of a site, and for our own: a fresh database, a clock to turn, a drain, assertions about flags, and crash points."""

from typing import TYPE_CHECKING

from ..modules import handed_on

if TYPE_CHECKING:
    from .assertions import assert_raised, refute_raised
    from .clock import FakeClock
    from .crashes import AT, LOG, POINTS, CrashPoint, arm
    from .crashing import CrashReport, CrashTest, crash_points
    from .draining import drain, sweep_all
    from .lending import fresh

__all__ = [
    "AT",
    "LOG",
    "POINTS",
    "CrashPoint",
    "CrashReport",
    "CrashTest",
    "FakeClock",
    "arm",
    "assert_raised",
    "crash_points",
    "drain",
    "fresh",
    "refute_raised",
    "sweep_all",
]

_HOMES = {
    ".assertions": ("assert_raised", "refute_raised"),
    ".clock": ("FakeClock",),
    ".crashes": ("AT", "LOG", "POINTS", "CrashPoint", "arm"),
    ".crashing": ("CrashReport", "CrashTest", "crash_points"),
    ".draining": ("drain", "sweep_all"),
    ".lending": ("fresh",),
}
"""Where each name is at home. None is imported before it is asked for: pytest imports this package in every site's tests."""

__getattr__, __dir__ = handed_on(__name__, {name: home for home, names in _HOMES.items() for name in names})
