"""How long a provider asked to be left alone: the header ``Retry-After`` (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from ..config import SECOND, Clock, seconds

LONGEST_TEXT = 1000
"""Characters of a header that are looked at."""

_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def retry_after(response_or_header: Any, now: float | None = None, cap: object = "1h") -> float | None:
    """Return the seconds for which a response asks to wait, and None where it does not ask or makes no sense.

    :param response_or_header: a header's text or bytes, headers by name in any case, or what has ``headers``: a response of
        requests, httpx or urllib, a ``urllib.error.HTTPError``, or an error of requests or httpx with its ``response``.
    :param now: seconds since 1970 UTC, for a header that is a date; None: the time it is.
    :param cap: the longest wait that is believed: a duration.
    :raises ConfigError: where ``cap`` is no duration.
    """
    longest = seconds(cap, "cap")
    text = _text(_header(response_or_header))
    wait = None if text is None else _wait(text.strip(), now)
    return None if wait is None else min(max(wait, 0.0), longest)


def _header(given: Any) -> Any:
    """Return the header's value, None where it is missing."""
    if given is None or isinstance(given, (str, bytes, int, float)):
        return given
    response = getattr(given, "response", None)
    given = given if response is None else response
    headers = getattr(given, "headers", given)
    items = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else ()
    return next((value for name, value in items if (_text(name) or "").lower() == "retry-after"), None)


def _text(value: Any) -> str | None:
    """Return a header's name or value as text; of several values the first."""
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = f"{value:f}"
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def _wait(text: str, now: float | None) -> float | None:
    """Return the seconds that a header's text asks for; negative for a date that has passed."""
    if _SECONDS.fullmatch(text):
        return float(text)
    date = _date(text)
    if date is None:
        return None
    return date - (Clock().now() / SECOND if now is None else now)


def _date(text: str) -> float | None:
    """Return the date in seconds since 1970, None where it is none. It may have any form of HTTP (RFC 9110, section 5.6.7)."""
    from email.utils import parsedate_tz  # Most handlers meet no date.

    try:
        parts = parsedate_tz(text)
        if parts is None or not 0 <= parts[5] <= 60:
            return None
        minute = datetime(*parts[:5], tzinfo=timezone(timedelta(seconds=parts[9] or 0)))
    except Exception:  # parsedate_tz raises whatever a text brings it to.
        return None
    return minute.timestamp() + parts[5]
