"""The page of all reasons: ``python -m flagsweep.operations.why.page`` writes ``docs/why-not.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .answer import Reason
from .reasons import TABLE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "why-not.md"

ABOUT = """\
# Why not?

`flagsweep why` says why something does not run, since when, when it will, what happened last, and what would change it:

```
$ flagsweep why 17                    # a flag, by its id
$ flagsweep why send '{"user_id": 1}' # a flag, by its kind and its key
$ flagsweep why send                  # a kind, or a lane or a schedule where no kind has that name (--lane, --schedule)
$ flagsweep why                       # the site as a whole: the most urgent first
```

`--json` prints the same as data, and `flags.why(17)` returns it: `code`, `text`, `since`, `until`, `last`, `change`, `command`,
`ok`, and `also`, the other reasons that hold. The reasons are asked for in the order of these tables, and the first that holds is
the answer. Where a whole kind or lane is asked for, it is that of its first due flag. Times are those of the viewer's clock.

This page is made of the list in `operations/why/reasons.py` by `make docs`; words in *italics* the case fills in.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([ABOUT, *(line for about, asked in TABLE.items() for line in _table(about, asked))])


def _table(about: str, asked: tuple[Reason, ...]) -> Iterator[str]:
    yield from (f"## {about}", "", "| code | what it is | it says | what helps | command |", "|---|---|---|---|---|")
    for reason in asked:
        texts = [reason.meaning, *(reason.template(name) for name in ("says", "cure", "command"))]
        *told, command = (text.replace("|", "\\|").replace("``", "`") for text in texts)
        yield f"| `{reason.code}` | {' | '.join(told)} | {f'`{command}`' if command else ''} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
