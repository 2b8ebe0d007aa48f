"""flagsweep: work that is owed, kept as flags in the site's own database, and swept by Huey."""

from .app import FlagSweep
from .config import Backoff
from .errors import (
    ClaimLost,
    ConfigError,
    DatabaseAway,
    Discard,
    FlagSweepError,
    LaneStuck,
    LeaseHeld,
    NotReady,
    PayloadError,
    Retry,
    SignatureError,
    Snooze,
    UnknownKind,
    UnknownSchedule,
)
from .gates.retry_after import retry_after
from .handlers import Handler
from .models import Raised
from .operations.gate_info import GateInfo
from .operations.info import FlagInfo
from .operations.kinds import KindInfo
from .operations.schedule_info import ScheduleInfo

__all__ = [
    "Backoff",
    "ClaimLost",
    "ConfigError",
    "DatabaseAway",
    "Discard",
    "FlagInfo",
    "FlagSweep",
    "FlagSweepError",
    "GateInfo",
    "Handler",
    "KindInfo",
    "LaneStuck",
    "LeaseHeld",
    "NotReady",
    "PayloadError",
    "Raised",
    "Retry",
    "ScheduleInfo",
    "SignatureError",
    "Snooze",
    "UnknownKind",
    "UnknownSchedule",
    "retry_after",
]
