"""Watch the site, and act: ``top``."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..config import seconds
from ..errors import ConfigError
from ..logs import printable
from ..modules import described
from .failure import Failure, Misuse
from .locate import Given
from .options import AS_JSON
from .words import plural, span

if TYPE_CHECKING:
    from ..app import FlagSweep
    from ..operations.watch import Line, Picture, Watch
    from .top_terminal import Screen

KEYS = {"p": "_pause", "r": "_retry", "?": "_help"}

LATE = 3.0
"""Seconds after which it says that the database lets it wait."""

SOONEST = 0.2
"""Seconds between two frames at the least."""


@click.command()
@click.option("--every", default="2s", show_default=True, metavar="TIME", help="How long between two looks.")
@click.option("--once", is_flag=True, help="Print one frame and end, as without a terminal.")
@AS_JSON
@click.pass_obj
def top(given: Given, every: str, once: bool, as_json: bool) -> None:
    """Watch lanes and kinds, what runs, and what is wrong; pause and retry by a key.

    Keys: q quits, j and k or the arrows select, p pauses the selected lane or kind or has it go on, r retries the dead flags of
    the selected kind, ? explains. Where stdin or stdout is no terminal, it prints one frame.

    \b
    flagsweep top
    flagsweep top --every 10s
    flagsweep top --once
    """
    pace = _pace(every)
    flags = given.any_site()
    from ..operations.watch import Watch

    watch = Watch(flags)
    if as_json:
        _print_json(watch)
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", None):
        _print_once(watch)
    else:
        Top(flags, watch, pace).run()


def _pace(every: str) -> float:
    try:
        return max(SOONEST, seconds(every))
    except ConfigError as error:
        raise Misuse(f"--every must be how long, such as 2s or 1m, got {every!r}") from error


def _print_json(watch: Watch) -> None:
    from .tables import print_json

    print_json(watch.look().to_dict())
    watch.close()


def _print_once(watch: Watch) -> None:
    from .tables import console, line_width
    from .top_frame import frame

    picture = watch.look()
    watch.close()
    width = min(line_width(), 160)
    console(width=width).print(frame(picture, -1, "", False, width, 0))


class Looker(threading.Thread):
    """Look at the site from a thread of its own: a database that does not answer keeps no key waiting."""

    def __init__(self, watch: Watch, every: float, tell: Callable[[], None]):
        super().__init__(name="flagsweep-top", daemon=True)
        self._watch = watch
        self._every = every
        self._tell = tell
        self._asked: queue.SimpleQueue[Callable[[], str] | None] = queue.SimpleQueue()
        self.picture: Picture | None = None
        self.trouble = ""
        self.answer = ""
        self._begun: float | None = None

    def ask(self, act: Callable[[], str] | None) -> None:
        """Have something done by this thread, and looked at at once; None: end."""
        self._asked.put(act)

    @property
    def late(self) -> str:
        """What to say where the database lets it wait."""
        waited = 0.0 if (begun := self._begun) is None else time.monotonic() - begun
        return f"the database has not answered for {span(waited)}" if waited > max(LATE, self._every) else ""

    def run(self) -> None:
        while True:
            self._begun = time.monotonic()
            self._look()
            self._begun = None
            self._tell()
            try:
                act = self._asked.get(timeout=self._every)
            except queue.Empty:
                continue
            if act is None:
                break
            self._begun = time.monotonic()
            self._do(act)
        self._watch.close()

    def _look(self) -> None:
        try:
            self.picture, self.trouble = self._watch.look(), ""
        except Exception as error:
            self.trouble = printable(str(error) or described(error))

    def _do(self, act: Callable[[], str]) -> None:
        try:
            self.answer = act()
        except Exception as error:
            self.answer = printable(str(error) or described(error))
        self._watch.forget()


class Top:
    """Draw what the looker sees, and do what the keys say."""

    def __init__(self, flags: FlagSweep, watch: Watch, every: float):
        from .tables import console
        from .top_terminal import Screen

        self._flags = flags
        self._every = every
        self._screen: Screen = Screen(console())
        self._looker = Looker(watch, every, self._screen.wake)
        self._selected = 0
        self._chosen: tuple[str, str | None] | None = None
        """Lane and kind of the selected line, which may come to stand elsewhere."""
        self._helps = False
        self._question = ""
        self._if_yes: Callable[[], str] | None = None

    def run(self) -> None:
        """Go on until somebody quits."""
        from .top_terminal import Ended

        try:
            with self._screen.held():
                self._looker.start()
                while True:
                    self._draw()
                    key = self._screen.key(2 * self._every)  # A look wakes it, unless that takes long.
                    if key == "q" and not self._if_yes:
                        break
                    if key:
                        self._press(key)
        except Ended as ended:
            if str(ended) != "SIGINT":  # That is how one leaves a view.
                raise Failure(f"stopped by {ended}") from None
        finally:
            self._looker.ask(None)
            self._looker.join(1.0)

    def _draw(self) -> None:
        from .top_frame import frame

        picture, looker = self._looker.picture, self._looker
        self._keep_selected(picture)
        note = self._question or looker.late or looker.trouble or looker.answer
        selected, every = self._selected, self._every
        self._screen.draw(lambda width, height: frame(picture, selected, note, self._helps, width, height, every))

    def _keep_selected(self, picture: Picture | None) -> None:
        """Keep to the line that was chosen, wherever it stands now."""
        lines = [] if picture is None else picture.lines
        names = [(line.lane, line.kind) for line in lines]
        if self._chosen in names:
            self._selected = names.index(self._chosen)
        self._selected = max(0, min(self._selected, len(lines) - 1))

    def _press(self, key: str) -> None:
        self._looker.answer = ""
        if self._if_yes is not None:
            self._decide(key)
        elif key in "jk":
            self._move(1 if key == "j" else -1)
        elif key in KEYS:
            getattr(self, KEYS[key])()

    def _decide(self, key: str) -> None:
        act, self._if_yes, self._question = self._if_yes, None, ""
        if key in "yY":
            self._looker.ask(act)
        else:
            self._looker.answer = "nothing was changed"

    def _help(self) -> None:
        self._helps = not self._helps

    def _move(self, by: int) -> None:
        picture = self._looker.picture
        if picture is not None and picture.lines:
            self._selected = max(0, min(self._selected + by, len(picture.lines) - 1))
            line = picture.lines[self._selected]
            self._chosen = line.lane, line.kind

    def _line(self) -> Line | None:
        picture = self._looker.picture
        return picture.lines[self._selected] if picture is not None and picture.lines else None

    def _pause(self) -> None:
        line = self._line()
        if line is None:
            return
        what: dict[str, Any] = {"lane": line.lane} if line.kind is None else {"kind": line.kind}
        name = " ".join(next(iter(what.items())))
        if line.own:
            self._looker.ask(lambda: f"{name} goes on" if self._flags.resume(**what) else f"{name} was not paused")
        else:
            self._looker.ask(partial(self._paused, name, what))

    def _paused(self, name: str, what: dict[str, Any]) -> str:
        self._flags.pause(**what, reason="by a key of top")
        return f"{name} is paused; p has it go on"

    def _retry(self) -> None:
        line = self._line()
        if line is None or line.kind is None or not line.dead:
            self._looker.answer = "r retries the dead flags of a kind: select one that has any"
            return
        kind = line.kind
        self._question = f"retry {plural(line.dead, 'dead flag')} of {kind}? y does it, any other key does not"
        self._if_yes = lambda: f"retried {plural(self._flags.retry(kind=kind), 'flag')} of {kind}"
