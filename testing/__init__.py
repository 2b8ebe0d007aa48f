"""For tests of a site, and for our own: a clock that is turned by hand, a drain, assertions about flags, and crash points."""

from .assertions import assert_raised, refute_raised
from .clock import FakeClock
from .crashes import AT, LOG, POINTS, CrashPoint, arm
from .draining import drain

__all__ = ["AT", "LOG", "POINTS", "CrashPoint", "FakeClock", "arm", "assert_raised", "drain", "refute_raised"]
