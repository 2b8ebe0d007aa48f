"""What can be said of a kind, and of one raise: options, each with its check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from ..config import LONGEST, PRIORITIES, SECOND, Backoff, Problems, check_name, did_you_mean, microseconds, seconds
from ..databases.raising import Terms
from ..errors import ConfigError
from ..gates.budgets import Budget
from ..gates.quiet import Quiet
from ..gates.rates import Rate
from ..payloads import KEY_LIMIT, short


def _as(check: Callable[[Problems, Any, str], Any]) -> dict[str, Any]:
    """Return what a field of ``Options`` says of how it is checked.

    :param check: returns a value that was given as it is kept, or takes note of what is wrong with it; it gets the kind, too.
    """
    return {"check": check}


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)


def _exceptions(problems: Problems, value: Any, what: str) -> tuple[type[BaseException], ...]:
    types = _tuple(value)
    if all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
        return types
    problems.found.append(f"{what} must be exception classes, got {value!r}")
    return ()


def _positive(problems: Problems, value: Any, name: str, kind: str) -> float | None:
    amount = None if value is None else problems.take(seconds, value, f"{name} of {kind!r}")
    if amount == 0:
        problems.found.append(f"{name} of {kind!r} must be longer than 0 seconds: leave it out")
    return amount


def _parsed(parse: Callable[[Any, str], Any], name: str) -> dict[str, Any]:
    return _as(lambda problems, given, kind: None if given is None else problems.take(parse, given, f"{name} of {kind!r}"))


def _whole(name: str, most: int) -> dict[str, Any]:
    def check(problems: Problems, value: Any, kind: str) -> Any:
        return None if value is None else problems.number(value, f"{name} of {kind!r}", 1, most, whole=True)

    return _as(check)


def _duration(name: str) -> dict[str, Any]:
    return _as(lambda problems, given, kind: _positive(problems, given, name, kind))


def shaping_problems(debounce: float | None, longest: float | None, of: str = "") -> list[str]:
    """Return what is wrong with a debounce and how long it may put a flag off."""
    if longest is not None and debounce is None:
        return [f"longest{of} bounds a debounce: give debounce, too, or leave it out"]
    if longest is not None and debounce is not None and longest < debounce:
        return [f"longest{of} must be at least the debounce of {debounce:g} s, got {longest:g} s"]
    return []


@dataclass(frozen=True)
class Options:
    """How a kind is treated. ``Registry.handler`` says how each may be given."""

    kind: str
    lane: str = field(
        default="default", metadata=_as(lambda problems, lane, kind: problems.take(check_name, lane, f"the lane of {kind!r}"))
    )
    """Flags of one lane are swept together and share its threads."""
    max_attempts: int = field(
        default=8,
        metadata=_as(lambda problems, most, kind: problems.number(most, f"max_attempts of {kind!r}", 1, 1000, whole=True)),
    )
    """After that many failed attempts the flag is dead."""
    backoff: Backoff = field(
        default=Backoff(),
        metadata=_as(lambda problems, given, _: Backoff() if given is None else problems.take(Backoff.of, given)),
    )
    """The wait before the next attempt."""
    priority: int = field(default=0, metadata=_as(lambda problems, priority, _: check_priority(problems, priority)))
    """-100 to 100, the higher the sooner."""
    unique: bool = True
    """Raised again with the same arguments, it is the same flag."""
    atomic: bool = False
    """The handler and the lowering commit together."""
    retry_on: tuple[type[BaseException], ...] = field(
        default=(BaseException,),
        metadata=_as(lambda problems, types, kind: _exceptions(problems, types, f"retry_on of {kind!r}")),
    )
    """What is tried again; any other exception buries the flag at once."""
    discard_on: tuple[type[BaseException], ...] = field(
        default=(), metadata=_as(lambda problems, types, kind: _exceptions(problems, types, f"discard_on of {kind!r}"))
    )
    """Exceptions that lower the flag, with a line of history."""
    aliases: tuple[str, ...] = field(default=(), metadata=_as(lambda problems, names, kind: _tuple(names)))
    """Former kinds, whose flags this handler takes over. Each is checked beside the kind, as a kind."""
    slow_after: float | None = field(
        default=None,
        metadata=_as(
            lambda problems, after, kind: None if after is None else problems.take(seconds, after, f"slow_after of {kind!r}")
        ),
    )
    """Seconds after which a handler that still runs is reported, once a minute."""

    history: bool = False
    """Keep a line of history of each success, too."""
    result: bool = False
    """Keep what the handler returns with that line."""
    expires: float | None = field(default=None, metadata=_duration("expires"))
    """Seconds after it was due from which on the work is not worth doing any more."""
    debounce: float | None = field(default=None, metadata=_duration("debounce"))
    """Seconds without another raise after which the flag is due."""
    longest: float | None = field(default=None, metadata=_duration("longest"))
    """Seconds after the first raise, from which on no other puts a debounced flag off any further."""
    replace: bool = True
    """The latest raise's payload and expiry hold; False: those of the first."""
    rate: Rate | None = field(default=None, metadata=_parsed(Rate.parse, "rate"))
    """How many may start in a time, whoever runs them."""
    budget: Budget | None = field(default=None, metadata=_parsed(Budget.parse, "budget"))
    """How many may start in a calendar day."""
    limit: int | None = field(
        default=None,
        metadata=_whole("limit", 10_000),
    )
    """How many may run at the same time, whoever runs them."""
    quiet: Quiet | None = field(default=None, metadata=_parsed(Quiet.parse, "quiet"))
    """Hours of the day in which none starts."""
    breaker: int | None = field(
        default=5,
        metadata=_whole("breaker", 1000),
    )
    """After so many different flags that failed alike, with no success between, the kind waits; None: it never does."""
    per: str | None = None
    """The argument by whose values flags take turns, and for each of which limits hold."""

    @classmethod
    def checked(cls, kind: str, given: Mapping[str, Any]) -> Options:
        """Return the options of one handler; what is not given is as above.

        :raises ConfigError: naming every bad one at once.
        """
        problems = Problems()
        for name in [kind, *_tuple(given.get("aliases", ()))]:
            problems.take(check_name, name, f"the kind {name!r}")
        options = {}
        for name, metadata in ((each.name, each.metadata) for each in fields(cls) if each.name in given):
            options[name] = metadata["check"](problems, given[name], kind) if metadata else given[name]
        problems.found += shaping_problems(options.get("debounce"), options.get("longest"), f" of {kind!r}")
        problems.raise_any()
        return cls(kind=kind, **options)

    @classmethod
    def overridden(
        cls, kind: str, given: Mapping[str, Any], table: Mapping[str, Any], where: str, fixed: Collection[str]
    ) -> Options:
        """Return the options of one handler where settings say some of them instead of the code.

        :param given: what the code says.
        :param table: what the settings say; the text ``none`` stands for None, which TOML does not have.
        :param where: where that stands, for the errors.
        :param fixed: those that the code alone says.
        :raises ConfigError: naming the kind, the option and where it stands, for every bad one at once.
        """
        known = [name for name in cls.names() if name not in fixed]
        problems = [_not_of_settings(name, fixed, known) for name in table if name not in known]
        problems += [
            f"{name} must be true or false, got {table[name]!r}"
            for name, default in ((each.name, each.default) for each in fields(cls) if each.name in table)
            if isinstance(default, bool) and not isinstance(table[name], bool) and name in known
        ]
        options = None
        try:
            values = {name: _as_in_code(name, value) for name, value in table.items() if name in known}
            options = cls.checked(kind, {**given, **values})
        except ConfigError as error:
            problems += error.problems
        if problems or options is None:
            raise ConfigError([f"[kinds.{kind}] of {where}: {problem}" for problem in problems])
        return options

    @classmethod
    def names(cls) -> list[str]:
        """Return what may be given besides the kind."""
        return [each.name for each in fields(cls) if each.name != "kind"]


def _not_of_settings(name: str, fixed: Collection[str], known: Sequence[str]) -> str:
    if name in fixed:
        return f"{name} is a part of the handler's code: say it there"
    return f"there is no option {name!r}; {did_you_mean(name, known, 'there are')}"


def _as_in_code(name: str, value: Any) -> Any:
    """Return a value of the settings as code would give it."""
    if value == "none" and name != "lane":
        return None
    if name == "backoff" and isinstance(value, Mapping):
        try:
            return Backoff(**value)
        except TypeError as error:
            raise ConfigError(f"backoff has first, factor, cap and jitter: {error}") from None
    return value


@dataclass(frozen=True)
class Raise:
    """The options of one raise: where one is None, that of the kind holds. ``after`` and ``at`` are microseconds."""

    after: int | None = None
    at: int | None = None
    key: str | None = None
    priority: int | None = None
    expires: float | None = None
    """Seconds after it is due."""
    expires_at: int | None = None
    """Instead, when: microseconds UTC."""
    debounce: float | None = None
    longest: float | None = None
    replace: bool | None = None
    connection: Any = None
    """The site's own, over which it is raised; None: that of the FlagSweep."""

    @classmethod
    def checked(cls, given: Mapping[str, Any], options: Options, now: int) -> Raise:
        """Return the options of one raise of a kind; None counts as not given.

        :raises ConfigError: naming every bad one at once.
        """
        problems, said = Problems(), {name: value for name, value in given.items() if value is not None}
        checks: dict[str, Callable[[Any], Any]] = {
            "delay": lambda value: problems.take(seconds, value, "delay"),
            "at": lambda value: problems.take(_moment, value, "at", now),
            "key": lambda value: _checked_key(problems, value),
            "priority": lambda value: check_priority(problems, value),
            "debounce": lambda value: _positive(problems, value, "debounce", options.kind),
            "longest": lambda value: _positive(problems, value, "longest", options.kind),
            "replace": bool,
            "connection": lambda value: value,
        }
        kept = {name: checks[name](said[name]) for name in said if name in checks}
        kept.update(_expiry(problems, said, options, now))
        debounce = kept.get("debounce", options.debounce)
        problems.found += shaping_problems(debounce, kept.get("longest"))
        problems.found += _two_times(said, debounce)
        problems.raise_any()
        delay = kept.pop("delay", None)
        return cls(after=None if delay is None else int(delay * SECOND), **kept)

    def terms(self, options: Options, now: int) -> Terms:
        """Return how flags of a kind are raised by this.

        :param now: microseconds UTC.
        """
        moved = self.at is not None or self.after is not None
        debounce = None if moved else options.debounce if self.debounce is None else self.debounce
        wait = int(debounce * SECOND) if debounce is not None else self.after or 0
        due = now + wait if self.at is None else self.at
        longest = options.longest if self.longest is None else self.longest
        expires = options.expires if self.expires is None else self.expires
        return Terms(
            priority=options.priority if self.priority is None else self.priority,
            due_at=due,
            now=now,
            expires_at=self.expires_at or (None if expires is None else due + int(expires * SECOND)),
            longest=None if debounce is None else int((LONGEST if longest is None else max(longest, debounce)) * SECOND),
            keeps=not (options.replace if self.replace is None else self.replace),
        )


OF_CODE = ("atomic", "unique", "aliases", "retry_on", "discard_on", "result")
"""Options that are a part of a handler's code: no setting says them."""

AS_EVER = Raise()
"""A raise without options of its own."""


def _expiry(problems: Problems, said: Mapping[str, Any], options: Options, now: int) -> dict[str, Any]:
    expires = said.get("expires")
    if isinstance(expires, datetime):
        return {"expires_at": problems.take(_moment, expires, "expires", now)}
    return {} if expires is None else {"expires": _positive(problems, expires, "expires", options.kind)}


def _two_times(said: Mapping[str, Any], debounce: float | None) -> list[str]:
    """Return what is wrong where a raise says in more than one way when its flag is due."""
    times = [f"{name}={said[name]!r}" for name in ("delay", "at") if name in said]
    if len(times) > 1:
        return [f"give delay or at, not both: got {' and '.join(times)}"]
    if times and debounce is not None:
        return [f"a flag that is debounced is due {debounce:g} s after its latest raise: leave out {times[0]}"]
    return []


def _checked_key(problems: Problems, key: Any) -> Any:
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT or "\0" in key or not key.isprintable():
        problems.found.append(
            f"key must be 1 to {KEY_LIMIT} printable characters, got {short(key)}: use an id, or a hash of what you have"
        )
    return key


def _moment(at: Any, what: str, now: int) -> int:
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise ConfigError(
            f"{what} must be a datetime with a time zone, got {at!r}: use datetime.now(timezone.utc) + timedelta(...)"
        )
    moment = microseconds(at)
    if moment < now - SECOND:
        raise ConfigError(f"{what} lies in the past: got {at.isoformat()}; leave it out for 'now'")
    seconds(max(0, moment - now) / SECOND, f"{what} (counted from now)")
    return moment


def check_priority(problems: Problems, value: Any) -> int:
    """Return a priority: a whole number from -100 to 100, the higher the sooner."""
    return problems.number(value, "priority", PRIORITIES[0], PRIORITIES[-1], whole=True)
