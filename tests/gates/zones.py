"""Zones whose clocks were put on or back in every way there is, and times around that."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from flagsweep.config import SECOND

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND


def at(*when, zone=UTC, fold=0):
    """Return the microseconds UTC at which a zone's clock shows this."""
    return int(datetime(*when, tzinfo=zone, fold=fold).timestamp()) * SECOND


CHANGES = [
    ("Europe/Berlin", 2026, 3, 29),  # 02:00 -> 03:00
    ("Europe/Berlin", 2026, 10, 25),  # 03:00 -> 02:00
    ("America/New_York", 2026, 11, 1),  # 02:00 -> 01:00
    ("America/Sao_Paulo", 2018, 11, 4),  # 00:00 -> 01:00: no midnight
    ("America/Sao_Paulo", 2018, 2, 18),  # 00:00 -> 23:00 of the day before
    ("America/Havana", 2026, 11, 1),  # 01:00 -> 00:00: midnight twice
    ("America/St_Johns", 2010, 11, 7),  # 00:01 -> 23:01: the 7th begins twice
    ("America/Toronto", 1919, 3, 31),  # 23:30 -> 00:30: the 31st has no first half hour
    ("Australia/Lord_Howe", 2026, 4, 5),  # 02:00 -> 01:30
    ("Pacific/Apia", 2011, 12, 30),  # no such day
    ("Asia/Kathmandu", 1986, 1, 1),  # by a quarter of an hour
    ("Africa/Casablanca", 2026, 2, 15),  # Ramadan
    ("Asia/Tokyo", 2026, 1, 1),  # never
    ("UTC", 2026, 12, 31),
]
AROUND = st.builds(
    lambda change, minutes: (ZoneInfo(change[0]), at(*change[1:]) + minutes * MINUTE),
    st.sampled_from(CHANGES),
    st.integers(-36 * 60, 36 * 60),
)
"""A zone and a time near one of its changes."""
