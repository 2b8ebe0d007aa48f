"""The three sorts of specs, and how text becomes one."""

from __future__ import annotations

from ..payloads import short
from .at import At
from .cron import Cron
from .every import Every
from .spec import Spec, SpecError
from .zones import check_zone

SORTS: dict[str, type[Cron] | type[Every] | type[At]] = {"cron": Cron, "every": Every, "at": At}


def parse(sort: str, text: object, zone: str = "UTC") -> Spec:
    """Return what a text means.

    :param sort: ``cron`` (``"0 4 * * 1"``), ``every`` (``"10m"``) or ``at`` (``"2026-12-24 18:00"``).
    :param text: of an ``every`` a number of seconds or a ``timedelta`` as well, of an ``at`` a ``datetime`` as well.
    :param zone: the IANA name of the zone whose wall clock the text means.
    :raises SpecError: naming the part that is wrong, where it stands, and what would be right.
    """
    if not isinstance(sort, str) or sort not in SORTS:
        raise SpecError(f"the sort of a spec is 'cron', 'every' or 'at', got {short(sort)}")
    return SORTS[sort].parse(text, check_zone(zone))
