"""A handler: the site's function for a kind, its options, and how a call of it becomes a payload and a key."""

from __future__ import annotations

import hashlib
import inspect
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import update_wrapper
from operator import itemgetter
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from .adapters.rows import OwnRows
from .config import PRIORITIES, SECOND, Backoff, Clock, Problems, Settings, check_name, seconds
from .errors import ConfigError, PayloadError, SignatureError
from .models import Raised, SiteStore

P = ParamSpec("P")
R = TypeVar("R")

KEY_LIMIT = 200
"""Characters of a key. The arguments of a raise make a longer one: then their SHA-256 takes its place."""

DEPTH = 64
"""How deep a payload may be nested."""

CHUNK = 1000
"""Raises that ``raise_many`` sends in one statement, at the most."""

CHUNK_BYTES = 262_144
"""Characters of one statement's payloads: escaped, with keys, far less than a server takes (MySQL's max_allowed_packet)."""

_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode
_SCALARS = frozenset((str, int, bool, type(None)))


class Site(Protocol):
    """What a handler needs of its FlagSweep."""

    clock: Clock

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> SiteStore: ...

    def nudge(self, lane: str) -> None: ...


@dataclass(frozen=True)
class Options:
    """How a kind is treated. ``FlagSweep.handler`` says what each means."""

    kind: str
    lane: str = "default"
    max_attempts: int = 8
    backoff: Backoff = field(default_factory=Backoff)
    priority: int = 0
    unique: bool = True
    atomic: bool = False
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    discard_on: tuple[type[BaseException], ...] = ()
    aliases: tuple[str, ...] = ()
    slow_after: float | None = None

    @classmethod
    def checked(cls, kind: str, given: Mapping[str, Any]) -> Options:
        """Return the options of one handler.

        :raises ConfigError: naming every bad one at once.
        """
        problems = Problems()
        options = dict(given)
        for name in [kind, *_tuple(options.get("aliases", ()))]:
            problems.take(check_name, name, f"the kind {name!r}")
        problems.take(check_name, options["lane"], f"the lane of {kind!r}")
        options["max_attempts"] = problems.number(options["max_attempts"], f"max_attempts of {kind!r}", 1, 1000, whole=True)
        options["backoff"] = problems.take(Backoff.of, options["backoff"])
        options["priority"] = check_priority(problems, options["priority"])
        for name in ("retry_on", "discard_on"):
            options[name] = _exceptions(problems, options[name], f"{name} of {kind!r}")
        options["aliases"] = _tuple(options["aliases"])
        if options["slow_after"] is not None:
            options["slow_after"] = problems.take(seconds, options["slow_after"], f"slow_after of {kind!r}")
        problems.raise_any()
        return cls(kind=kind, **options)


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)


def _exceptions(problems: Problems, value: Any, what: str) -> tuple[type[BaseException], ...]:
    types = _tuple(value)
    if all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
        return types
    problems.found.append(f"{what} must be exception classes, got {value!r}")
    return ()


def check_priority(problems: Problems, value: Any) -> int:
    """Return a priority: a whole number from -100 to 100, the higher the sooner."""
    return problems.number(value, "priority", PRIORITIES[0], PRIORITIES[-1], whole=True)


class Handler(Generic[P, R]):
    """Stay the function that was decorated, and raise flags for it.

    Without arguments, or with ``unique=True`` and the same arguments, a raise meets the flag that is up already.
    """

    def __init__(self, site: Site, function: Callable[P, R], options: Options, rows: OwnRows | None = None):
        self.function = function
        self.options = options
        self.kind = options.kind
        self.lane = options.lane
        self.rows = rows
        self._site = site
        self.signature, self.wants_flag = _signature(function, options.kind, rows is not None)
        parameters = self.signature.parameters.values()
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._names = frozenset(self.signature.parameters)
        self._simple = options.unique and rows is None and not self._defaults
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.kind!r} in lane {self.lane!r}>"

    def raise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put this flag up, in the transaction that is open on ``flags.database`` if there is one.

        :return: the flag's id, and ``new``, ``coalesced``, ``bumped`` or ``revived``.
        :raises SignatureError: where the handler would not accept the arguments.
        :raises PayloadError: where they are not JSON, too large or too deep.
        :raises NotReady: where the database or its tables are missing.
        :raises DatabaseAway: where it cannot be written just now. With either, nothing was raised.
        """
        return self._raise(Raise(), args, kwargs)

    def raise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up in one transaction.

        :param arguments: for each flag a dict of keyword arguments or a tuple of positional ones.
        :return: how many were new, coalesced, bumped and revived.
        :raises SignatureError, PayloadError: naming the item; then none was raised.

        On SQLite they run in the order given, where due time and priority are the same. On a server they are written in the
        order of their keys, so that two that raise the same flags never wait for each other.
        """
        return self._raise_many(Raise(), arguments)

    def using(
        self, delay: object = None, at: datetime | None = None, key: str | None = None, priority: int | None = None
    ) -> Using[P]:
        """Set options for one raise: ``send.using(delay="5m").raise_flag(17)``.

        :param delay: how long to wait before it is due: seconds, a ``timedelta`` or text such as ``"5m"``.
        :param at: instead, when: a ``datetime`` with a time zone. Past times are refused.
        :param key: what makes the flag this flag, instead of its arguments: up to 200 characters.
        :param priority: -100 to 100, the higher the sooner.
        :raises ConfigError: naming every bad option at once.
        """
        if key is not None and self.rows is not None:
            raise ConfigError(f"{self.kind} is raised for a row, and its primary key is the flag's: leave out key={_short(key)}")
        return Using(self, Raise.checked(delay, at, key, priority, self._site.clock.now()))

    def _raise(self, options: Raise, args: tuple, kwargs: dict) -> Raised:
        payload, key = self._payload(args, kwargs)
        now = self._site.clock.now()
        priority = self.options.priority if options.priority is None else options.priority
        due = options.due(now)
        raised = self._site.store.raise_(self.kind, options.key or key, payload, priority, due, now)
        if due <= now:
            self._site.nudge(self.lane)
        return raised

    def _raise_many(self, options: Raise, arguments: Iterable[Any]) -> Counter[str]:
        if options.key:
            raise ConfigError(f"key={options.key!r} names one flag: raise it with raise_flag, or leave the keys to raise_many")
        now = self._site.clock.now()
        priority = self.options.priority if options.priority is None else options.priority
        keyed: Iterable[tuple[str, str]] = self._keyed(arguments)
        if not self._site.store.dialect.one_writer:  # Two that raise the same flags in different orders would deadlock.
            keyed = sorted(keyed, key=itemgetter(0))
        items = [_element(key, payload) for key, payload in keyed]
        chunks = [chunk for start in range(0, len(items), CHUNK) for chunk in _chunks(items[start : start + CHUNK])]
        due = options.due(now)
        counts = self._site.store.raise_many(self.kind, chunks, priority, due, now)
        if due <= now:
            self._site.nudge(self.lane)
        return counts

    def _keyed(self, arguments: Iterable[Any]) -> Iterator[tuple[str, str]]:
        """Yield key and payload of each item. The common case stays in this loop: a call for each would double the time."""
        limit = min(self._site.settings.payload_limit, KEY_LIMIT)
        names, encode_json, simple = self._names, _to_json, self._simple
        for index, item in enumerate(arguments):
            if simple and type(item) is dict and item.keys() == names and _SCALARS.issuperset(map(type, item.values())):
                try:
                    payload = encode_json(item)
                except ValueError:
                    payload = ""  # A number too long for Python to write: the long way says so.
                if 0 < len(payload) <= limit:
                    yield payload, payload
                    continue
            payload, key = self._item(index, item)
            yield key, payload

    def _item(self, index: int, item: Any) -> tuple[str, str]:
        if not isinstance(item, (dict, tuple)):
            raise SignatureError(
                f"item {index} of raise_many must be a dict of keyword arguments or a tuple of positional ones, got {item!r}"
            )
        args, kwargs = ((), item) if isinstance(item, dict) else (item, {})
        try:
            return self._payload(args, kwargs)
        except PayloadError as error:
            raise type(error)(f"item {index} of raise_many: {error}") from error

    def _payload(self, args: tuple, kwargs: dict) -> tuple[str, str]:
        """Return payload and key, both as text, for one call."""
        if self.rows is not None:
            return self.rows.payload(self._bind(args, kwargs), self._site.store)
        given = kwargs if not args and kwargs.keys() == self._names else self._bind(args, kwargs)
        payload = encode(given, self.kind, self._site.settings.payload_limit)
        if not self.options.unique:
            return payload, uuid.uuid4().hex
        telling = {name: value for name, value in given.items() if name not in self._defaults or value != self._defaults[name]}
        key = payload if len(telling) == len(given) else _to_json(telling)
        return payload, key if len(key) <= KEY_LIMIT else hashlib.sha256(key.encode()).hexdigest()

    def _bind(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise SignatureError(f"{self.kind}{self.signature}: {error}") from None
        return bound


class Using(Generic[P]):
    """A handler with options for one raise."""

    def __init__(self, handler: Handler[P, Any], options: Raise):
        self._handler = handler
        self._options = options

    def raise_flag(self, *args: P.args, **kwargs: P.kwargs) -> Raised:
        """Put the flag up as ``Handler.raise_flag`` does, with these options."""
        return self._handler._raise(self._options, args, kwargs)

    def raise_many(self, arguments: Iterable[Any]) -> Counter[str]:
        """Put many flags up as ``Handler.raise_many`` does, with these options but without a key."""
        return self._handler._raise_many(self._options, arguments)


@dataclass(frozen=True)
class Raise:
    """The options of one raise. ``after`` and ``at`` are microseconds."""

    after: int = 0
    at: int | None = None
    key: str | None = None
    priority: int | None = None

    @classmethod
    def checked(cls, delay: object, at: datetime | None, key: str | None, priority: int | None, now: int) -> Raise:
        """Return the options.

        :raises ConfigError: naming every bad one at once.
        """
        problems = Problems()
        after = 0 if delay is None else int((problems.take(seconds, delay, "delay") or 0) * SECOND)
        moment = None if at is None else problems.take(_moment, at, now)
        if delay is not None and at is not None:
            problems.found.append(f"give delay or at, not both: got delay={delay!r} and at={at!r}")
        if key is not None and (
            not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT or "\0" in key or not key.isprintable()
        ):
            problems.found.append(
                f"key must be 1 to {KEY_LIMIT} printable characters, got {_short(key)}: use an id, or a hash of what you have"
            )
        if priority is not None:
            check_priority(problems, priority)
        problems.raise_any()
        return cls(after, moment, key, priority)

    def due(self, now: int) -> int:
        """Return when the flag is due, in microseconds UTC."""
        return self.at if self.at is not None else now + self.after


def _moment(at: Any, now: int) -> int:
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise ConfigError(f"at must be a datetime with a time zone, got {at!r}: use datetime.now(timezone.utc) + timedelta(...)")
    elapsed = at - datetime(1970, 1, 1, tzinfo=UTC)
    moment = (elapsed.days * 86400 + elapsed.seconds) * SECOND + elapsed.microseconds
    if moment < now - SECOND:
        raise ConfigError(f"at lies in the past: got {at.isoformat()}; leave it out for 'now'")
    seconds(max(0, moment - now) / SECOND, "at (counted from now)")
    return moment


def _signature(function: Callable[..., Any], kind: str, own_row: bool) -> tuple[inspect.Signature, bool]:
    """Return the signature that a raise must fit, without ``flag``, and whether the function asks for ``flag``.

    :raises ConfigError: where calls of it could not be told apart by name, or nobody could wait for it.
    """
    if isinstance(function, classmethod) or _is_method(function):
        raise ConfigError(
            f"the handler {kind!r} is a method of a class, and nobody would have an object to call it on: write a function "
            "of the module, or put @staticmethod between"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(f"the handler {kind!r} must be a plain function: for a coroutine write one that calls asyncio.run(...)")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the handler {kind!r} must be a function with a signature: {error}") from error
    bad = [str(p) for p in signature.parameters.values() if p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY, p.VAR_KEYWORD)]
    if bad:
        raise ConfigError(
            f"the handler {kind!r} has {', '.join(bad)}: give every parameter a name, so that its arguments can be kept by name"
        )
    kept = [p for name, p in signature.parameters.items() if name != "flag"]
    if own_row and len([p for p in kept if p.default is p.empty]) != 1:
        raise ConfigError(
            f"the handler {kind!r} gets the row alone, so it must have one parameter without a default; it has {signature}"
        )
    return signature.replace(parameters=kept), "flag" in signature.parameters


def _is_method(function: Any) -> bool:
    """Return whether a function stands in a class body and wants its object, as far as names tell."""
    owner = "" if inspect.ismethod(function) else getattr(function, "__qualname__", "").rpartition(".")[0]
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return bool(owner) and not owner.endswith("<locals>") and names[:1] in (("self",), ("cls",))


def encode(arguments: Mapping[str, Any], kind: str, limit: int) -> str:
    """Return arguments as compact JSON text, with sorted names and in ASCII, so that every database keeps it to the letter.

    :param limit: bytes.
    :raises PayloadError: naming the argument, its value and the fix.
    """
    left = iter(range(limit))
    for name, value in arguments.items():
        if type(value) not in _SCALARS:
            _check_value(value, f"{kind}: argument {name!r}", 1, left)
    try:
        payload = _to_json(arguments)
    except ValueError as error:
        raise PayloadError(f"{kind}: the arguments cannot be written as JSON: {error}; pass a huge number as text") from None
    if len(payload) > limit:
        raise PayloadError(
            f"{kind}: the payload has {len(payload):,} bytes, the limit is {limit:,}: keep the data in a table and pass its id"
        )
    return payload


def _check_value(value: Any, what: str, depth: int, left: Iterator[int]) -> None:
    """Refuse what is not JSON. ``left`` has a step for each byte: lists shared by lists can spell far more than they are."""
    if next(left, None) is None:
        raise PayloadError(f"{what} has more values than its limit has bytes: keep the data in a table and pass its id")
    if depth > DEPTH:
        raise PayloadError(f"{what} is nested deeper than {DEPTH}: keep the data in a table and pass its id")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise PayloadError(f"{what} is {value!r}, which JSON does not have: pass None or a string")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise PayloadError(f"{what} has the key {name!r}: JSON has only strings as keys, so pass str({name!r})")
            _check_value(item, f"{what}[{name!r}]", depth + 1, left)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_value(item, f"{what}[{index}]", depth + 1, left)
    elif not isinstance(value, (str, int, type(None))):
        raise PayloadError(f"{what} is {_short(value)}, which is not JSON: {_hint(value)}")


def _hint(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return "pass .isoformat() and parse it in the handler"
    if hasattr(value, "_meta") or hasattr(value, "id") or hasattr(value, "pk"):
        return "pass its .id and load it in the handler"
    return "pass str(...) of it, or the parts that the handler needs"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}... ({len(text):,} characters)"


def _chunks(items: list[str]) -> Iterator[str]:
    """Yield JSON arrays of these elements, none longer than a statement may be unless a single one is."""
    chunk = "[" + ",".join(items) + "]"
    if len(chunk) <= CHUNK_BYTES or len(items) == 1:
        yield chunk
        return
    half = len(items) // 2
    yield from _chunks(items[:half])
    yield from _chunks(items[half:])


def _element(key: str, payload: str) -> str:
    """Return one item of a chunk: a payload that is its own key stands alone, else both stand as strings, kept to the letter."""
    return payload if key is payload and "\\" not in payload else _to_json([key, payload])
