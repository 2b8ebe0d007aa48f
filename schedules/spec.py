"""What every spec can be asked, and the error of one that cannot be used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from ..payloads import short

LONGEST_TEXT = 200
"""Characters of a spec: far above what five fields need, far below what takes long to read."""

LAST = 221_845_392_000 * 1_000_000
"""The beginning of the year 9000 in microseconds UTC: nothing is looked for beyond it, so that no date overflows."""


class SpecError(ConfigError):
    """Refuse a spec: which part, what is allowed there, and an example.

    :param problem: one readable sentence.
    :param position: the column of the mistake in the text as it was given, counted from 0; None where no column is at fault.
    """

    def __init__(self, problem: str, position: int | None = None):
        super().__init__(problem)
        self.position = position


@dataclass(frozen=True)
class Spec(ABC):
    """Say at which moments a schedule fires. Moments are microseconds UTC; none before 1970 and none after the year 9000.

    :ivar text: the normal form, which parses again to an equal spec.
    :ivar zone: the IANA name of the zone whose wall clock the text means.
    """

    sort: ClassVar[str]
    text: str
    zone: str = "UTC"

    @abstractmethod
    def next(self, after: int, anchor: int = 0) -> int | None:
        """Return the first occurrence later than ``after``; None: never again.

        :param anchor: the moment from which an ``every`` counts its periods; others take no notice of it.
        """

    @abstractmethod
    def latest(self, not_after: int, after: int, anchor: int = 0) -> int | None:
        """Return the last occurrence that is later than ``after`` and not later than ``not_after``, found backwards; or None."""

    @abstractmethod
    def plain(self) -> str:
        """Return the spec in plain English, without its zone."""

    def count(self, after: int, until: int, most: int = 1000, anchor: int = 0) -> int:
        """Return how many occurrences are later than ``after`` and not later than ``until``: at most ``most``, nor more steps."""
        return len(self.times(after, until, most, anchor))

    def times(self, after: int, until: int, most: int, anchor: int = 0) -> list[int]:
        """Return the occurrences later than ``after`` and not later than ``until``: the oldest ``most``, oldest first."""
        found: list[int] = []
        moment = self.next(after, anchor)
        while len(found) < most and moment is not None and moment <= until:
            found.append(moment)
            moment = self.next(moment, anchor)
        return found

    def lost(self, now: int, days: int = 60) -> list[str]:
        """Return what the clock changes within ``days`` days from ``now`` do to occurrences, in sentences; none: nothing."""
        return []


def check_text(text: object, example: str) -> str:
    """Return a spec's text, if it is printable ASCII and not too long.

    :param example: a text that would be right.
    :raises SpecError: with the position of the first character that cannot be.
    """
    if not isinstance(text, str):
        raise SpecError(f"the spec must be text such as {example!r}, got {short(text)}")
    if not text.strip():
        raise SpecError(f"the spec is empty: write it as text such as {example!r}", 0)
    if len(text) > LONGEST_TEXT:
        raise SpecError(f"the spec has {len(text):,} characters, at most {LONGEST_TEXT} are read: {short(text)}", LONGEST_TEXT)
    bad = next((at for at, character in enumerate(text.rstrip()) if not (" " <= character <= "~" or character == "\t")), None)
    if bad is not None:
        raise SpecError(
            f"{text[bad]!r} in {short(text)} cannot stand in a spec: use ASCII letters, digits and signs, as in {example!r}",
            bad,
        )
    return text
