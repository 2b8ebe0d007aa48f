"""The ledger: what the site's database says was owed, against what the mail server's journal says was delivered."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Line(NamedTuple):
    """Show one figure. ``holds`` is False where the promise is broken, None where nothing was promised."""

    what: str
    figure: str
    remark: str = ""
    holds: bool | None = None


@dataclass
class Evidence:
    """Collect what the ledger is made from.

    :param people: how many wanted to sign up.
    :param owed: (name, address) of everyone in the database, by the id of the mail that is owed to them.
    :param accepted: the journal's entries of accepted mails.
    :param in_hand: for each kill the ids of the mails that the consumer had claimed and not settled when it died.
    :param most_in_hand: how many handlers can run, and mails be sent but not settled yet, when a consumer dies.
    :param refused: how many mails were refused with 421.
    :param up: the ids of the mails whose flag column is up at the end: late, not lost.
    :param still_up: how many columns and flags are up at the end, dead flags aside.
    :param dead: how many flags are dead.
    """

    people: int
    owed: dict[str, tuple[str, str]]
    accepted: list[dict[str, str]]
    in_hand: list[set[str]]
    most_in_hand: int
    refused: int
    up: set[str]
    still_up: int
    dead: int
    seconds: float
    trouble: list[str] = field(default_factory=list)


def balance(evidence: Evidence) -> list[Line]:
    """Draw up the ledger."""
    times = Counter(entry["id"] for entry in evidence.accepted)
    return [
        _owed(evidence),
        Line("delivered", str(len(evidence.owed.keys() & times.keys())), "different mails that the mail server accepted"),
        _lost(evidence, times),
        _repeated(evidence, times),
        _astray(evidence, times),
        Line("refused with 421", str(evidence.refused), "and sent again later"),
        _nothing("flags still up", evidence.still_up, "columns and flags, at the end"),
        _nothing("dead flags", evidence.dead),
        Line("seconds", f"{evidence.seconds:.1f}"),
    ]


def failures(lines: list[Line]) -> list[str]:
    """Say which promises are broken."""
    return [f"{line.what}: {line.figure} ({line.remark})" for line in lines if line.holds is False]


def _owed(evidence: Evidence) -> Line:
    owed, people = len(evidence.owed), evidence.people
    return Line("owed", str(owed), f"people in the site's database, of {people} who signed up", owed == people)


def _lost(evidence: Evidence, times: Counter[str]) -> Line:
    lost = sorted(evidence.owed.keys() - times.keys() - evidence.up)
    return _nothing("lost", len(lost), "never delivered, and no flag up for it" + _examples(lost))


def _repeated(evidence: Evidence, times: Counter[str]) -> Line:
    """Allow one repeat for each mail in a killed consumer's hands: those running, and the batch not settled yet."""
    repeated = sum(times.values()) - len(times)
    allowed = sum(min(len(hand), evidence.most_in_hand) for hand in evidence.in_hand)
    kills_that_held = Counter(id for hand in evidence.in_hand for id in hand)
    unexplained = sorted(id for id, count in times.items() if count - 1 > kills_that_held[id])
    remark = f"at most {allowed}: what the killed consumers had in hand"
    if unexplained:
        remark += f"; and no kill explains those of {len(unexplained)}" + _examples(unexplained)
    return Line("repeated", str(repeated), remark, repeated <= allowed and not unexplained)


def _astray(evidence: Evidence, times: Counter[str]) -> Line:
    wrong = {e["id"] for e in evidence.accepted if evidence.owed.get(e["id"]) != (e["name"], e["to"])}
    return _nothing("astray", len(wrong), "not owed, or with another name or address" + _examples(sorted(wrong)))


def _nothing(what: str, count: int, remark: str = "") -> Line:
    return Line(what, str(count), remark or "must be 0", count == 0)


def _examples(ids: list[str]) -> str:
    return f", such as {', '.join(ids[:3])}" if ids else ""
