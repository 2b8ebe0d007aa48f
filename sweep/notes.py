"""Notes: what flags tell of their gates, kept until it is written and committed, and noted anew with a turn that fails."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field

from ..gates.limits import Took
from ..gates.shut import Closing

Gate = tuple[str, str]
"""A kind, and the bucket of it; empty for the kind as a whole."""


@dataclass
class Note:
    """Keep what flags tell of one gate until its row can be locked.

    :param ended: (flag, fingerprint or None for a success, attempts before).
    :param unanswered: flags that tell nothing, and were charged nothing.
    :param returned: what those took of limits that were given back unstarted.
    :param closed: until when all others wait, in microseconds UTC, and why.
    """

    ended: list[tuple[int, str | None, int]] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    returned: list[Took] = field(default_factory=list)
    closed: Closing | None = None


class Notes:
    """Keep notes by gate, over transactions that commit or do not."""

    def __init__(self) -> None:
        self._notes: dict[Gate, Note] = defaultdict(Note)
        self._before: dict[Gate, Note | None] = {}
        """Notes as they were before the open transaction; its outcomes are noted again in the next, if it fails."""
        self._returned: list[tuple[Gate, Took]] = []
        """What flags took that ended unstarted in the open transaction."""

    def __bool__(self) -> bool:
        return bool(self._notes)

    def of(self, gate: Gate) -> Note:
        """Return the note of a gate, to be added to within the open transaction's turn."""
        if gate not in self._before:
            self._before[gate] = deepcopy(self._notes.get(gate))
        return self._notes[gate]

    def returned(self, gate: Gate, took: Took) -> None:
        """Note what a flag took that ended unstarted: it is there again once that has committed.

        Not at once: where the answer to the commit is lost the flag is given back once more, and says so again.
        """
        self._returned.append((gate, took))

    def pending(self) -> list[Gate]:
        """Return the gates of which something is still to be written."""
        return sorted(self._notes)

    def written(self, gate: Gate) -> None:
        """Take note that a note is written, and not yet committed."""
        del self._notes[gate]
        if (before := self._before[gate]) is not None:
            before.returned.clear()  # Of a commit whose answer is lost nobody knows: tokens are lost rather than doubled.

    def committed(self) -> list[Gate]:
        """Take note that what was written is kept; return the gates that get something back with the next transaction."""
        self._before.clear()
        returned, self._returned = self._returned, []
        for gate, took in returned:
            self._notes[gate].returned.append(took)
        return [gate for gate, _ in returned]

    def rolled_back(self) -> None:
        """Take note that nothing of what was written is kept: what was noted before is to be written again. What the turn itself
        had noted it notes anew."""
        for gate, before in self._before.items():
            self._notes.pop(gate, None)
            if before is not None:
                self._notes[gate] = before
        self._before.clear()
        self._returned.clear()
