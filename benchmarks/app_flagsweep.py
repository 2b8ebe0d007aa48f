"""What the flagsweep consumers of the benchmark import: `flagsweep --app app_flagsweep:flags run`."""

import stamps
import work

from flagsweep import FlagSweep

flags = FlagSweep.from_env()
marks = stamps.from_environment()
stamp = work.stamp_handler(flags, marks.set_now)
noop = work.noop_handler(flags)
nap = work.nap_handler(flags, 0.010)
shared = work.shared_handler(flags, marks.set_now, per="customer")
