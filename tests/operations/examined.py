"""What doctor finds about one thing, and runs for it to find."""

from flagsweep.config import SECOND
from flagsweep.databases.counts import COLUMNS
from flagsweep.operations.doctor.examine import examine
from flagsweep.sweep.tally import MINUTE, slot_of


def found(flags, what):
    """Return the only finding about something."""
    (finding,) = [finding for finding in examine(flags) if finding.what == what]
    return finding


def count_runs(flags, kind, runs, seconds, consumer=1):
    """Count runs of a length in the present minute, as a consumer does."""
    minute = flags.clock.now() // (MINUTE * SECOND) * MINUTE * SECOND
    took = int(seconds * SECOND)
    row = dict.fromkeys(COLUMNS, 0) | {"kind": kind, "span": MINUTE, "at": minute, "consumer": consumer}
    row |= {"succeeded": runs, "spent": runs * took, "longest": took, f"d{slot_of(took)}": runs}
    with flags.connections.write() as db:
        flags.connections.dialect.count(db, [tuple(row[name] for name in COLUMNS)])
