"""How a flag is raised: what all flags of one raise have in common, and which statement it takes."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple


class Occurrence(NamedTuple):
    """Say for which time of which schedule a flag is raised.

    :param intended: microseconds UTC.
    :param missed: how many occurrences this one stands for besides.
    """

    schedule: str
    zone: str
    intended: int
    missed: int = 0


class Form(NamedTuple):
    """Say which statement a raise takes."""

    keeps: bool = False
    """The first payload and expiry hold, not the latest."""
    debounced: bool = False
    """Each raise puts the due time off."""
    scheduled: bool = False
    """A schedule raises it."""
    traced: bool = False
    """It is a part of a trace."""


class Terms(NamedTuple):
    """Say how flags are raised. Times are microseconds UTC.

    :param longest: microseconds from the first raise, by which a debounced flag is due at the latest; None: it is not debounced.
    :param keeps: a flag that waits keeps its payload and expiry.
    :param trace: the raise's own context, as ``traceparent``, where it is a part of a trace.
    """

    priority: int
    due_at: int
    now: int
    expires_at: int | None = None
    longest: int | None = None
    keeps: bool = False
    occurrence: Occurrence | None = None
    trace: str | None = None

    @property
    def form(self) -> Form:
        """Which statement it takes."""
        return Form(self.keeps, self.longest is not None, self.occurrence is not None, self.trace is not None)

    def values(self, kind: Any, key: Any, payload: Any, bucket: Any) -> tuple[Any, ...]:
        """Return what is inserted, in the order of ``columns``."""
        common = (kind, key, payload, bucket, self.priority, self.due_at, self.now, self.expires_at, *(self.occurrence or ()))
        return common if self.trace is None else (*common, self.trace)

    @property
    def traced(self) -> tuple[str, ...]:
        """The parameter of its trace, where it has one."""
        return () if self.trace is None else (self.trace,)

    @property
    def updating(self) -> tuple[Any, ...]:
        """The parameters of what is done to a flag that is up."""
        return () if self.longest is None else (self.longest,)


COLUMNS = ("kind", "key", "payload", "bucket", "priority", "due_at", "raised_at", "expires_at")
"""The columns that each raise gives, in the order of ``Terms.values``."""
SCHEDULED = ("schedule", "zone", "intended", "missed")
"""Those that a schedule gives besides."""
TRACED = ("trace",)
"""The one that a raise gives which is a part of a trace."""
FORMS = tuple(Form(*each) for each in product((False, True), repeat=4))


def columns(form: Form) -> tuple[str, ...]:
    """Return the columns that a raise of this form gives."""
    return COLUMNS + (SCHEDULED if form.scheduled else ()) + (TRACED if form.traced else ())
