"""Let a signal end a command between two transactions, and a second one at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ..consumer.signals import Signals
from .bars import progress_bar
from .failure import Failure
from .words import plural


def end_at_once() -> None:
    """End without waiting for handlers; what they hold is free when the next consumer starts."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # The progress bar had hidden the cursor.
    os._exit(1)


class _Stopped(Exception):
    """End a verb over many flags between two of its transactions."""


def to_many(done: str, total: int, act: Callable[..., int]) -> int:
    """Do something with many flags, with a bar on a terminal; return how many. A signal ends it between two transactions.

    :param done: what they are then, such as ``discarded``.
    """
    signals: list[str] = []
    count = 0
    bar = progress_bar(done, total) if sys.stderr.isatty() else nullcontext(lambda count: None)
    with bar as show, Signals(signals.append, end_at_once):

        def report(so_far: int) -> None:
            nonlocal count
            count = so_far
            show(so_far)
            if signals:
                raise _Stopped

        try:
            return act(progress=report)
        except _Stopped:
            left = f" of {plural(total, 'flag')} are {done}" if total >= count else f" flags are {done}"
            raise Failure(f"stopped by {signals[0]}: {count:,}{left}; the same command goes on") from None


@contextmanager
def stoppable(what: str, total: int, so: str) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal for as long as something takes, and have a signal end it between two of its transactions.

    :param so: what a signal leaves behind, for people.
    :return: what is to be called with how many are done, what is done just now, and how many there are, where that changes.
    """
    signals: list[str] = []
    bar: AbstractContextManager[Callable[..., None]] = nullcontext(lambda *told: None)
    if sys.stderr.isatty():
        bar = progress_bar(what, total)
    with bar as show, Signals(signals.append, end_at_once):

        def report(done: int, remark: str = "", of: int = 0) -> None:
            show(done, remark, of)
            if signals:
                raise _Stopped

        try:
            yield report
        except _Stopped:
            raise Failure(f"stopped by {signals[0]}: {so}; the same command goes on") from None
