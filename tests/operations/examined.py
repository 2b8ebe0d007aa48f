"""What doctor finds about one thing."""

from flagsweep.operations.doctor.examine import examine


def found(flags, what):
    """Return the only finding about something."""
    (finding,) = [finding for finding in examine(flags) if finding.what == what]
    return finding
