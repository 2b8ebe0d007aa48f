"""The same with kinds behind gates, and schedules: `flagsweep --app app_gated:flags run`."""

import work
from app_flagsweep import flags

work.gated_handlers(flags)
