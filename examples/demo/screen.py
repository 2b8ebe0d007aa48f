"""What a person sees: bars and events on a terminal, plain lines anywhere else."""

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

LOOKS = {"bad": "bold red", "good": "green", "plain": "default"}


def make_screen(people: int):
    """Return the screen that suits where standard output goes."""
    console = Console(highlight=False)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return Terminal(console, people)
    return Pipe()


class Pipe:
    """Print plain lines: events as they come, and how far it is every two seconds."""

    def __init__(self):
        self._began = time.monotonic()
        self._next_progress = 2.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def event(self, text: str, look: str = "plain"):
        """Tell what happened just now."""
        self._print(text)

    def progress(self, signed_up: int, delivered: int, state: str):
        """Tell how far it is, now and then."""
        elapsed = time.monotonic() - self._began
        if elapsed >= self._next_progress:
            self._next_progress = elapsed + 2
            self._print(f"signed up {signed_up}, delivered {delivered}; {state}")

    def ledger(self, lines):
        """Print the ledger, one figure a line."""
        self.say("\nLedger")
        for line in lines:
            mark = {None: "", True: "ok", False: "BROKEN"}[line.holds]
            self.say(f"  {line.what:<18}{line.figure:>6}  {mark:<7} {line.remark}".rstrip())

    def say(self, text: str, look: str = "plain"):
        """Print a line that has no time of its own."""
        print(text, flush=True)

    def _print(self, text: str):
        self.say(f"{time.monotonic() - self._began:5.1f} s  {text}")


class Terminal:
    """Keep two bars at the bottom and let the events scroll by above them."""

    def __init__(self, console: Console, people: int):
        self._console = console
        self._began = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._signed_up = self._bars.add_task("signed up", total=people, note="")
        self._delivered = self._bars.add_task("delivered", total=people, note="")

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *error):
        self._bars.stop()

    def event(self, text: str, look: str = "plain"):
        """Tell what happened just now."""
        when = f"[dim]{time.monotonic() - self._began:5.1f} s[/]"
        self._console.print(f"{when}  [{LOOKS[look]}]{escape(text)}[/]")

    def progress(self, signed_up: int, delivered: int, state: str):
        """Move the bars."""
        self._bars.update(self._signed_up, completed=signed_up)
        self._bars.update(self._delivered, completed=delivered, note=escape(state))

    def ledger(self, lines):
        """Draw the ledger in place of the bars."""
        self._bars.stop()
        table = Table(title="Ledger", title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column()
        table.add_column(justify="right", style="bold")
        table.add_column()
        table.add_column(style="dim")
        marks = {None: "", True: "[green]ok[/]", False: "[bold red]BROKEN[/]"}
        for line in lines:
            table.add_row(line.what, line.figure, marks[line.holds], escape(line.remark))
        self._console.print()
        self._console.print(table)

    def say(self, text: str, look: str = "plain"):
        """Print a line that has no time of its own."""
        self._console.print(f"[{LOOKS[look]}]{escape(text)}[/]", soft_wrap=True)
