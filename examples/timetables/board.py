"""What a person sees: each school's bar, the requests of each second, and what happened; elsewhere plain lines."""

import time
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from screen import Pipe, Terminal

BAR = 8
"""Characters of a school's bar."""

BACK = 45
"""Seconds of requests that are shown."""

BLOCKS = " ▁▂▃▄▅▆▇█"

STATUS = {200: "cyan", 429: "yellow", 500: "red"}
"""What a school's bar looks like, by the answer that it got last."""


@dataclass
class View:
    """What is to be seen.

    :param rows: lessons served so far; ``total``: lessons there are.
    :param schools: name, share of its pages that was served, and the status of its latest answer.
    :param came: when requests came; ``allowed``: as many a second as are granted.
    """

    rows: int
    total: int
    clock: str
    state: str
    allowed: int
    schools: list = field(default_factory=list)
    came: list = field(default_factory=list)


class Plain(Pipe):
    """Print plain lines."""

    def progress(self, view):
        """Tell how far it is, every two seconds."""
        elapsed = time.monotonic() - self._began
        if elapsed >= self._next_progress:
            self._next_progress = elapsed + 2
            self._print(f"{view.clock}  {view.rows:,} of {view.total:,} rows, {len(view.came)} requests; {view.state}")


class Board(Terminal):
    """Keep the schools at the bottom, and let the events scroll by above them."""

    def __init__(self, console):
        super().__init__(console, 0)
        self._bars = Live(console=console, transient=True, refresh_per_second=10)

    def progress(self, view):
        """Draw all anew."""
        self._bars.update(Group("", head(view), Text(view.state, "dim"), "", grid(view.schools), "", pulse(view)))


def head(view):
    """Return the line with the clock and the rows."""
    share = view.rows / max(view.total, 1)
    return Text.assemble((f"{view.clock}  ", "bold"), (bar(share, 30), "green"), f" {view.rows:>7,}/{view.total:,} rows")


def grid(schools):
    """Return the schools in four columns."""
    table = Table.grid(padding=(0, 2))
    cells = [
        Text.assemble(f"{name:<10}", (bar(share, BAR), "green" if share == 1 else STATUS.get(status, "dim")))
        for name, share, status in schools
    ]
    lines = -(-len(cells) // 4)
    for line in range(lines):
        table.add_row(*cells[line::lines])
    return table


def pulse(view):
    """Return the requests of each second up to now, beside what is granted."""
    now = time.monotonic()
    counts = Counter(int(now - came) for came in view.came if now - came < BACK)
    text = "".join(BLOCKS[min(-(-8 * counts[ago] // view.allowed), 8)] for ago in reversed(range(BACK)))
    return Text.assemble(("requests a second  ", "dim"), (text, "cyan"), (f"  {counts[0]:>2} of {view.allowed}", "dim"))


def bar(share, width):
    """Return a bar of text."""
    full = int(share * width)
    return "█" * full + "·" * (width - full)
