"""Payloads: how a call becomes the payload of its flag, and the key that tells it from others."""

from __future__ import annotations

import hashlib
import inspect
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .errors import ConfigError, PayloadError, SignatureError

RESULT_LIMIT = 32_768
"""Bytes of JSON that a handler may return where its result is kept."""

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


class Item(NamedTuple):
    """Hold what is each flag's own.

    :param bucket: the value of the argument that ``per`` names.
    """

    key: str
    payload: str
    bucket: str | None = None


class Calls:
    """Turn calls of one function into payloads and keys.

    :param own_row: it gets a row of the site's, and no other argument must be given.
    :param unique: calls with the same arguments are the same flag.
    :param per: the argument whose value is a flag's bucket.
    :raises ConfigError: where calls of it could not be told apart by name, or nobody could wait for it.
    """

    def __init__(self, kind: str, function: Callable[..., Any], own_row: bool, unique: bool, per: str | None = None):
        self.signature, self.wants_flag = signature_of(function, kind, own_row)
        self._kind = kind
        self._unique = unique
        self._per = per
        parameters = self.signature.parameters.values()
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._names = frozenset(self.signature.parameters)
        if per is not None and per not in self._names:
            raise ConfigError(f"per of {kind!r} must name one of its arguments ({', '.join(self._names) or 'none'}), got {per!r}")

    def bind(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name.

        :raises SignatureError: where the function would not accept them.
        """
        try:
            return self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise SignatureError(f"{self._kind}{self.signature}: {error}") from None

    def written(self, args: tuple, kwargs: dict[str, Any], limit: int) -> Item:
        """Return key, payload and bucket of a call, all as text.

        :param limit: bytes of the payload.
        :raises SignatureError, PayloadError: where it is no call of this function, or not JSON, too large or too deep.
        """
        given = kwargs if not args and kwargs.keys() == self._names else self.bind(args, kwargs)
        payload = encode(given, self._kind, limit)
        bucket = None if self._per is None else _shortened(_bucket(given.get(self._per, self._defaults.get(self._per))))
        if not self._unique:
            return Item(uuid.uuid4().hex, payload, bucket)
        return Item(_shortened(self._key(given, payload) if self._defaults else payload), payload, bucket)

    def bucket_of(self, payload: str) -> str | None:
        """Return the bucket of a payload that is written already; of one that was damaged by hand None."""
        if self._per is None:
            return None
        try:
            given = json.loads(payload)
            return _shortened(_bucket(given.get(self._per, self._defaults.get(self._per))))
        except (ValueError, AttributeError, RecursionError):
            return None

    def _key(self, given: Mapping[str, Any], payload: str) -> str:
        """Return the arguments that differ from their defaults: what is added to a function later changes no key."""
        telling = {name: value for name, value in given.items() if name not in self._defaults or value != self._defaults[name]}
        return payload if len(telling) == len(given) else _to_json(telling)

    def keyed(
        self, arguments: Iterable[Any], limit: int, long_way: Callable[[int, Any], Item]
    ) -> Iterator[tuple[str, str, str | None]]:
        """Yield key, payload and bucket of each item. The common case stays in this loop: a call for each would double the time.

        :param long_way: gives those of the item with this number.
        """
        limit = min(limit, KEY_LIMIT)
        names, encode_json, simple = self._names, _to_json, self._unique and not self._defaults and self._per is None
        for index, item in enumerate(arguments):
            if simple and type(item) is dict and item.keys() == names and _SCALARS.issuperset(map(type, item.values())):
                try:
                    payload = encode_json(item)
                except ValueError:
                    payload = ""  # A number too long for Python to write: the long way says so.
                if 0 < len(payload) <= limit:
                    yield payload, payload, None
                    continue
            yield long_way(index, item)


def unchecked(arguments: Mapping[str, Any], kind: str, limit: int) -> Item:
    """Return key and payload of arguments by name that no function is known for: the key is that of one without defaults.

    :raises PayloadError: where they are no JSON, too large or too deep.
    """
    payload = encode(arguments, kind, limit)
    return Item(_shortened(payload), payload)


def _shortened(text: str) -> str:
    return text if len(text) <= KEY_LIMIT else hashlib.sha256(text.encode()).hexdigest()


def _bucket(value: Any) -> str:
    """Return a value as the name of a bucket: text as it is, anything else as JSON."""
    return value if isinstance(value, str) and value.isprintable() else _to_json(value)


def signature_of(function: Callable[..., Any], kind: str, own_row: bool) -> tuple[inspect.Signature, bool]:
    """Return the signature that a raise must fit, without ``flag``, and whether the function asks for ``flag``.

    :raises ConfigError: where calls of it could not be told apart by name, or nobody could wait for it.
    """
    if isinstance(function, classmethod) or _is_method(function):
        raise ConfigError(
            f"the handler {kind!r} is a method of a class, and nobody would have an object to call it on: write a function "
            "of the module, or put @staticmethod between"
        )
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(f"the handler {kind!r} yields, and nobody would ask it to go on: write a function, or an 'async def'")
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


def encode_result(value: Any, kind: str, limit: int) -> str:
    """Return what a handler returned as compact JSON text in ASCII.

    :param limit: bytes.
    :raises PayloadError: saying what may be returned, what was, and the fix.
    """
    what = f"the result of {kind}"
    if type(value) not in _SCALARS:
        _check_value(value, what, 1, iter(range(limit)), "return", "where it is read")
    try:
        text = _to_json(value)
    except ValueError as error:
        raise PayloadError(f"{what} cannot be written as JSON: {error}; return a huge number as text, and None for NaN") from None
    if len(text) > limit:
        raise PayloadError(f"{what} has {len(text):,} bytes, the limit is {limit:,}: keep it in a table and return its id")
    return text


def _check_value(
    value: Any, what: str, depth: int, left: Iterator[int], say: str = "pass", where: str = "in the handler"
) -> None:
    """Refuse what is not JSON. ``left`` has a step for each byte: lists shared by lists can spell far more than they are.

    :param say: what whoever wrote it does with it instead.
    :param where: where that becomes again what it was.
    """
    more = (depth + 1, left, say, where)
    if next(left, None) is None:
        raise PayloadError(f"{what} has more values than its limit has bytes: keep the data in a table and {say} its id")
    if depth > DEPTH:
        raise PayloadError(f"{what} is nested deeper than {DEPTH}: keep the data in a table and {say} its id")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise PayloadError(f"{what} is {value!r}, which JSON does not have: {say} None or a string")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise PayloadError(f"{what} has the key {name!r}: JSON has only strings as keys, so {say} str({name!r})")
            _check_value(item, f"{what}[{name!r}]", *more)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_value(item, f"{what}[{index}]", *more)
    elif not isinstance(value, (str, int, type(None))):
        raise PayloadError(f"{what} is {short(value)}, which is not JSON: {say} {_hint(value, where)}")


def _hint(value: Any, where: str) -> str:
    if hasattr(value, "isoformat"):
        return f".isoformat() and parse it {where}"
    if hasattr(value, "_meta") or hasattr(value, "id") or hasattr(value, "pk"):
        return f"its .id and load it {where}"
    return f"str(...) of it, or the parts that are needed {where}"


def short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}... ({len(text):,} characters)"


def chunks_of(items: list[str]) -> Iterator[str]:
    """Yield JSON arrays of these elements, none longer than a statement may be unless a single one is."""
    chunk = "[" + ",".join(items) + "]"
    if len(chunk) <= CHUNK_BYTES or len(items) == 1:
        yield chunk
        return
    half = len(items) // 2
    yield from chunks_of(items[:half])
    yield from chunks_of(items[half:])


def element(key: str, payload: str, bucket: str | None) -> str:
    """Return one item of a chunk: a payload that is its own key stands alone, else all stand as strings, kept to the letter."""
    return payload if key is payload and bucket is None and "\\" not in payload else _to_json([key, payload, bucket])
