"""The judge: what the API's log says of how it was asked, and what it served, against what the site kept."""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from api import AT_ONCE, BURST, RATE, lesson, longest_crowd, schools
from ledger import Line

WINDOWS = (1, 5)
"""Seconds of the windows in which requests are counted."""

HEARD = 1.0
"""Seconds after a 429 in which others may still come, who were on their way or had not heard of it."""


class Call(NamedTuple):
    """One request, as the log has it. Times are seconds of the machine's monotonic clock."""

    came: float
    left: float
    path: str
    status: int
    wait: int | None

    @property
    def page(self):
        """School, and the number of the page's first lesson; None where it asked for something else."""
        query = dict(parse_qsl(urlsplit(self.path).query))
        return (int(query["school"]), int(query["after"])) if "school" in query else None


class LogReader:
    """Read what has been added to a log since the last look."""

    def __init__(self, path):
        self.calls = []
        self.pages = set()
        """The pages that were served: school, and the number of the first lesson."""
        self.served = Counter()
        """How many different pages of each school were served."""
        self.latest = {}
        """The status of each school's latest answer."""
        self._path = path
        self._offset = 0

    def look(self):
        """Take in every line that is complete by now."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(lines) + len(newline)
        for line in lines.splitlines():
            self._take(Call(**json.loads(line)))

    def _take(self, call):
        self.calls.append(call)
        if (page := call.page) is None:
            return
        self.latest[page[0]] = call.status
        if call.status == 200 and page not in self.pages:
            self.pages.add(page)
            self.served[page[0]] += 1


@dataclass
class Evidence:
    """Collect what the verdict is made from.

    :param rows: lessons that the API has.
    :param calls: the API's log.
    :param kept: the site's lessons, by their id: the values that the API gives, in its order.
    :param in_hand: flags that the consumer had claimed when it was killed.
    :param outages: what the breaker told, in order.
    :param still_up: flags that are up at the end; ``dead``: those that are dead.
    """

    rows: int
    calls: list
    kept: list
    in_hand: int
    outages: list
    still_up: int
    dead: int
    seconds: float
    trouble: list = field(default_factory=list)


def most_in(window, came):
    """Return the most requests that came within so many seconds, the first counted and the last not."""
    inside, most = deque(), 0
    for moment in sorted(came):
        inside.append(moment)
        while inside[0] <= moment - window:
            inside.popleft()
        most = max(most, len(inside))
    return most


def most_at_once(calls):
    """Return the most requests that were being answered at the same time."""
    inside = most = 0
    for _, change in sorted([(call.left, -1) for call in calls] + [(call.came, 1) for call in calls]):
        inside += change
        most = max(most, inside)
    return most


def deaf(calls):
    """Return how many requests came while the API had asked everybody to wait, and that could be known."""
    told = [(call.left + HEARD, call.left + call.wait) for call in calls if call.wait]
    return sum(any(start < call.came < end for start, end in told) for call in calls)


def verdict(evidence):
    """Say of each promise whether it was kept."""
    collected = [call for call in evidence.calls if call.page]
    return [
        _kept(evidence),
        _twice(evidence),
        _again(evidence, collected),
        *_crowds([call.came for call in collected]),
        _at_most("at the same time", most_at_once(collected), AT_ONCE, "requests being answered"),
        _waits(evidence.calls),
        Line("failed", str(sum(call.status >= 500 for call in evidence.calls)), "requests that got a 500, and were made again"),
        _breaker(evidence.outages),
        _at_most("flags still up", evidence.still_up, 0, "at the end"),
        _at_most("dead flags", evidence.dead, 0, ""),
        Line("seconds", f"{evidence.seconds:.1f}"),
    ]


def _kept(evidence):
    served = [tuple(lesson(school.id, number).values()) for school in schools(evidence.rows) for number in range(school.rows)]
    same = evidence.kept == served
    remark = f"rows of {len(served):,} that the API has" + ("" if same else ", and they are not the same")
    return Line("kept", f"{len(evidence.kept):,}", remark, same)


def _twice(evidence):
    where = {row[1:5] for row in evidence.kept}  # school, day, period, form
    return _at_most("kept twice", len(evidence.kept) - len(where), 0, "lessons of one form at one time")


def _again(evidence, collected):
    """Allow for what a killed consumer had in hand: it had been served, but its cursor had not moved on."""
    served = Counter(call.page for call in collected if call.status == 200)
    again = served.total() - len(served)
    return _at_most("served again", again, evidence.in_hand, f"pages of {len(served)}: what the killed consumer had in hand")


def _crowds(came):
    for window in WINDOWS:
        allowed = f"{RATE} a second, a burst of {BURST}, and {AT_ONCE} that may have been on their way"
        yield _at_most(f"in any {window} s", most_in(window, came), longest_crowd(window), f"requests: {allowed}")


def _waits(calls):
    told, late = sum(call.status == 429 for call in calls), deaf(calls)
    remark = f"429 answers; {late} came although everybody had been asked to wait"
    return Line("sent away", str(told), remark, told > 0 and not late)


def _breaker(outages):
    """A few failures in a row may look like an outage, too: what matters is that each has ended."""
    opened = len(outages) // 2
    remark = "times it opened and closed again"
    return Line("breaker", str(opened), remark, opened > 0 and outages == ["began", "ended"] * opened)


def _at_most(what, figure, most, remark):
    return Line(what, str(figure), f"{remark} (at most {most})".strip(), figure <= most)
