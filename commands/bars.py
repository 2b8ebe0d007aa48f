"""Show on stderr how far something is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .tables import console


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr for as long as something takes; give what is to be called with how many are done, and a remark."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, remark="", of=0: bar.update(task, completed=done, total=max(of or total, done), description=remark)


@contextmanager
def sweep_bar(due: int) -> Iterator[Callable[[Counter[str]], None]]:
    """Show a bar for as long as a sweep takes; give what is to be called with its counts."""
    with progress_bar("sweeping", due) as bar:

        def report(counts: Counter[str]) -> None:
            failed = counts["again"] + counts["dead"]
            bar(counts.total(), f"{failed} failed" if failed else "")

        yield report
