"""One frame of ``top``: what is known of the site, fitted to so many columns and lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..config import SECOND
from ..consumer.terms import STAYING
from ..logs import printable
from ..operations.watch import Line, Picture
from .words import plural, short_span, span

NARROW = 80
"""Columns below which a table has no words for what is shut, but a mark."""

KEYS = "q quit  j/k select  p pause/resume  r retry dead  ? help"

HELP = (
    "q         quit",
    "j, k      select the next, the previous line (and arrows)",
    "p         pause the selected lane or kind, or go on",
    "r         retry the dead flags of the selected kind",
    "?         this, and back",
    "",
    "due       flags whose time has come",
    "oldest    how long the first of them has waited",
    "run       handlers that run just now",
    "min       runs a minute, of the last five minutes",
    "fail      attempts that failed within these",
    "dead      flags that are out of attempts",
    "=         closed: by a hand, or until a time",
    "!         waits for longer than was promised",
    "",
    "What costs much is counted seldom: line 1 says when.",
)


def frame(picture: Picture | None, selected: int, note: str, helps: bool, width: int, height: int, every: float = 0) -> Group:
    """Return a frame.

    :param picture: None before the first look has ended.
    :param selected: the line that is selected; -1: none, and none can be.
    :param note: what the last line says: a question, an answer, or what is wrong with the database.
    :param height: the most lines; 0: all that there is.
    """
    if picture is None:
        return Group(Text(note or "looking ..."))
    last = Text(note or (KEYS if selected >= 0 else ""), style="bold" if note else "dim", no_wrap=True, overflow="ellipsis")
    if helps:
        return Group(*(_cut(line) for line in HELP), last)
    told = [*_wrong(picture), *_runs(picture), *_who(picture)]
    rows = _window(picture.lines, selected, height, len(told))
    table = _table(picture.lines, rows, selected, width)
    room = max(0, height - len(rows) - 5) if height else len(told)
    return Group(_head(picture, every), table, Text(), *told[:room], *([last] if last.plain else []))


def _cut(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _head(picture: Picture, every: float) -> Text:
    at = datetime.fromtimestamp(picture.at / SECOND).strftime("%H:%M:%S")
    living = [each for each in picture.hand.consumers if each["mode"] in STAYING and each["alive"] is not False]
    counted = f", counted {span(picture.counted_s)} ago" if picture.counted_s > max(10.0, 3 * every) else ""
    level = "" if picture.health is None else f"{picture.health.level.upper()}  "
    style = {"OK": "green", "WARNING": "yellow"}.get(level.strip(), "bold red")
    due = sum(line.due for line in picture.lines if line.kind is None)
    text = f"{at}  {due:,} due, {len(picture.running)} running, {plural(len(living), 'consumer')}{counted}"
    return Text.assemble((level, style), text, no_wrap=True, overflow="ellipsis")


def _window(lines: list[Line], selected: int, height: int, told: int) -> range:
    """Return which lines there is room for: the selected one among them, and below them a few lines of what is told."""
    room = len(lines) if not height else max(1, height - 5 - min(told, max(3, height // 3)))
    first = min(max(0, selected - room // 2), max(0, len(lines) - room))
    return range(first, min(len(lines), first + room))


def _table(lines: list[Line], rows: range, selected: int, width: int) -> Table:
    wide = width >= NARROW
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold", width=width, pad_edge=False)
    table.add_column("", width=1 if selected >= 0 else 0)
    table.add_column("", width=2)
    table.add_column("lane, kind", ratio=3, no_wrap=True, overflow="ellipsis")
    for title in ("due", "oldest", "run", "min", "fail", "dead"):
        table.add_column(title, justify="right", no_wrap=True)
    if wide:
        table.add_column("closed", ratio=2, no_wrap=True, overflow="ellipsis")
    for number in rows:
        line = lines[number]
        style = "bold" if line.kind is None else ""
        table.add_row(*_cells(line, number == selected, wide), style=f"reverse {style}" if number == selected else style)
    return table


def _cells(line: Line, selected: bool, wide: bool) -> Iterator[Text]:
    marks = f"{'=' if line.shut else ' '}{'!' if line.late else ' '}"
    yield Text(">" if selected else "")
    yield Text(marks, style="red" if line.late else "yellow")
    yield _cut(line.name if line.kind is None else f"  {line.kind}")
    yield Text(_short(line.due))
    yield Text("-" if line.oldest_due_s is None else _brief(line.oldest_due_s), style="red" if line.late else "")
    yield Text(_short(line.running))
    yield Text(f"{line.per_minute:.1f}" if line.per_minute < 100 else _short(int(line.per_minute)))
    yield Text(_short(line.failed), style="yellow" if line.failed else "")
    yield Text(_short(line.dead), style="red" if line.dead else "")
    if wide:
        yield _cut(line.shut, "yellow")


def _short(count: int) -> str:
    """Return a number in five columns at the most."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            scaled = count / (1000 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:.0f}{unit}"
    return str(count)


def _brief(seconds: float) -> str:
    return span(seconds).replace(" ", "").replace("min", "m")


def _wrong(picture: Picture) -> Iterator[Text]:
    """Yield what is wrong, and what mends it."""
    for point in picture.wrong:
        mark, style = ("!!", "red") if point.level == "critical" else ("! ", "yellow")
        yield _cut(f"{mark} {point.text}{f'  -> {point.fix}' if point.fix else ''}", style)
    for gate in picture.gates:
        if gate.closed and gate.sort in ("all", "schedule"):
            yield _cut(f"=  {f'{gate.sort} {gate.name}'.strip()}: {gate.why}", "yellow")


def _runs(picture: Picture) -> Iterator[Text]:
    """Yield what runs, and for how long."""
    for each in picture.running:
        took = "?" if each.running_s is None else short_span(each.running_s)
        does = "in hand" if each.started is False else "runs"
        yield _cut(f"   {each.kind} {each.key} {does} {took} (pid {each.pid} on {each.host})")


def _who(picture: Picture) -> Iterator[Text]:
    for each in picture.hand.consumers:
        lives = {True: "lives", False: "is gone", None: "cannot be seen from here"}[each["alive"]]
        since = str(each["started_at"])[:16].replace("T", " ")
        yield _cut(
            f"   consumer {each['id']} {lives} (pid {each['pid']} on {each['host']}, {each['mode']}, since {since} UTC)", "dim"
        )
