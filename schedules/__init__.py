"""When a schedule fires: what a spec means in time, in the zone it is written for. No clock and no database is asked."""

from .at import At
from .cron import Cron
from .every import Every
from .sorts import parse
from .spec import Spec, SpecError

__all__ = ["At", "Cron", "Every", "Spec", "SpecError", "parse"]
