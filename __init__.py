"""flagsweep: work that is owed, kept as flags in the site's own database, and swept by Huey."""

from typing import TYPE_CHECKING

from .modules import handed_on

if TYPE_CHECKING:
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
        NotDone,
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
    from .operations.dead import DeadGroup
    from .operations.gate_info import GateInfo
    from .operations.health import Health
    from .operations.info import FlagInfo
    from .operations.kinds import KindInfo
    from .operations.results import Result
    from .operations.schedule_info import ScheduleInfo
    from .operations.why.answer import Why
    from .sweep.notices import Failure
    from .telling.alarms import Alarm

__all__ = [
    "Alarm",
    "Backoff",
    "ClaimLost",
    "ConfigError",
    "DatabaseAway",
    "DeadGroup",
    "Discard",
    "Failure",
    "FlagInfo",
    "FlagSweep",
    "FlagSweepError",
    "GateInfo",
    "Handler",
    "Health",
    "KindInfo",
    "LaneStuck",
    "LeaseHeld",
    "NotDone",
    "NotReady",
    "PayloadError",
    "Raised",
    "Result",
    "Retry",
    "ScheduleInfo",
    "SignatureError",
    "Snooze",
    "UnknownKind",
    "UnknownSchedule",
    "Why",
    "retry_after",
]

_HOMES = {
    ".app": ("FlagSweep",),
    ".config": ("Backoff",),
    ".errors": (
        "ClaimLost",
        "ConfigError",
        "DatabaseAway",
        "Discard",
        "FlagSweepError",
        "LaneStuck",
        "LeaseHeld",
        "NotDone",
        "NotReady",
        "PayloadError",
        "Retry",
        "SignatureError",
        "Snooze",
        "UnknownKind",
        "UnknownSchedule",
    ),
    ".gates.retry_after": ("retry_after",),
    ".handlers": ("Handler",),
    ".models": ("Raised",),
    ".operations.dead": ("DeadGroup",),
    ".operations.gate_info": ("GateInfo",),
    ".operations.health": ("Health",),
    ".operations.info": ("FlagInfo",),
    ".operations.kinds": ("KindInfo",),
    ".operations.results": ("Result",),
    ".operations.schedule_info": ("ScheduleInfo",),
    ".operations.why.answer": ("Why",),
    ".sweep.notices": ("Failure",),
    ".telling.alarms": ("Alarm",),
}
"""Where each name is at home. None is imported before it is asked for: pytest imports this package in every site's tests."""

__getattr__, __dir__ = handed_on(__name__, {name: home for home, names in _HOMES.items() for name in names})
