"""When a schedule fires: what a spec means in time, in the zone it is written for, and what was missed.

Nothing here asks the clock, and ``book.py`` alone the database: for the rows, and the transaction that fires one.
"""

from .at import At
from .cron import Cron
from .every import Every
from .sorts import parse
from .spec import Spec, SpecError

__all__ = ["At", "Cron", "Every", "Spec", "SpecError", "parse"]
