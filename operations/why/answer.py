"""What is answered: a reason with its sentence, and what it takes to make one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from ...logs import printable
from ..info import moment


@dataclass(frozen=True)
class Why:
    """Tell why something does not run, or that it does. Times are in UTC; sentences say them by the clock of this process.

    :ivar code: the reason, one word as in ``docs/why-not.md``.
    :ivar what: what was asked for: ``flag 17 (mail {"n":1})``, ``kind mail``, ``lane mail``, ``schedule nightly``, ``the site``.
    :ivar text: the reason in one or two sentences.
    :ivar since: since when it is so, where that is known.
    :ivar until: when it will run, or when this ends by itself; None: nobody can say.
    :ivar last: what happened last, in words; empty where nothing is known.
    :ivar change: what would change it, in words; empty where nothing need be changed.
    :ivar command: the command that does, or that tells more; empty where there is none.
    :ivar ok: whether nothing is wrong.
    :ivar also: what else is in the way, the most urgent first.
    """

    code: str
    what: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    last: str = ""
    change: str = ""
    command: str = ""
    ok: bool = False
    also: tuple[Why, ...] = ()

    @property
    def slug(self) -> str:
        """The same as ``code``."""
        return self.code

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: times as ISO 8601 text."""
        times = {name: value.isoformat() if (value := getattr(self, name)) else None for name in ("since", "until")}
        own = {name: value for name, value in asdict(self).items() if name not in ("also", *times)}
        return {**own, **times, "also": [each.to_dict() for each in self.also]}


@dataclass(frozen=True)
class Said:
    """Hold what one reason found.

    :param values: what stands in its sentences.
    :param since: microseconds UTC, or what a hand has left there.
    :param more: sentences that are true of this case, and not of each.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    since: Any = None
    until: Any = None
    last: str = ""
    more: Sequence[str] = ()


@dataclass(frozen=True)
class Reason:
    """Be one reason why something does not run.

    :param says: its sentence; what stands in braces the case fills in.
    :param cure: what would change it.
    :param command: that does, or tells more.
    :param find: returns what it found, ``Said`` or several of them, or None: that is not the reason. Its docstring says what
        the reason is.
    :param urgency: how soon somebody should look, where the whole site is asked for; 0: nothing is wrong.
    :param alone: whether it is asked for only where no reason before it holds.
    """

    code: str
    says: str
    cure: str
    command: str
    find: Callable[..., Any]
    urgency: int = 1
    alone: bool = False

    def why(self, what: str, said: Said) -> Why:
        """Return the answer about something."""
        sentences = [self.says, *(sentence.replace("{", "{{").replace("}", "}}") for sentence in said.more)]
        text, change, command = (each.format(**said.values) for each in (" ".join(sentences), self.cure, self.command))
        shown: dict[str, Any] = {name: printable(value) for name, value in (("text", text), ("last", said.last))}
        shown |= {"change": printable(change), "command": printable(command), "what": printable(what)}
        return Why(self.code, since=moment(said.since), until=moment(said.until), ok=not self.urgency, **shown)

    @property
    def meaning(self) -> str:
        """What it is, in one sentence."""
        return " ".join((self.find.__doc__ or "").split("\n\n")[0].split())

    def template(self, name: str) -> str:
        """Return a text of it as a page shows it, where a word stands for what the case fills in."""
        shown = (lambda word: word[1].upper()) if name == "command" else (lambda word: f"*{word[1]}*")
        return re.sub(r"\{(\w+)\}", shown, getattr(self, name))
