"""For tests of a site, and for our own: a clock that is turned by hand, a drain, assertions about flags, and crash points."""

from .crashes import AT, LOG, POINTS, CrashPoint, FakeClock, arm, assert_raised, drain, refute_raised

__all__ = ["AT", "LOG", "POINTS", "CrashPoint", "FakeClock", "arm", "assert_raised", "drain", "refute_raised"]
