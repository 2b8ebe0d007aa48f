"""What the Huey consumers of the benchmark import: `huey_consumer app_huey.huey`."""

import hueys
import stamps

huey = hueys.from_environment()
stamp = hueys.stamp_task(huey, stamps.from_environment().set_now)
