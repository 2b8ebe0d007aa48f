"""Every setting with its default and bounds, and where it is read from. ``durations.py`` has what settings are made of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .durations import EPOCH, LATEST, LONGEST, SECOND, Backoff, Clock, Problems, microseconds, seconds, utc
from .errors import ConfigError

__all__ = [
    "EPOCH",
    "EVENTS",
    "EVERY_LANE",
    "LATEST",
    "LONGEST",
    "MAKE_KEY",
    "PRIORITIES",
    "REMOTE",
    "SECOND",
    "SHORTEST_KEY",
    "TASKS",
    "Backoff",
    "Clock",
    "Overrides",
    "Problems",
    "Settings",
    "address",
    "check_name",
    "did_you_mean",
    "hidden",
    "microseconds",
    "seconds",
    "utc",
    "without_driver",
]

PRIORITIES = range(-100, 101)
"""What a priority may be. Bounded, since a claim asks once for each priority in use."""

EVENTS = ("failed", "dead", "succeeded", "discarded", "expired", "skipped", "lowered by hand")
"""What history tells of."""

REMOTE = tuple(f"{scheme}://" for scheme in ("redis", "rediss", "valkey", "valkeys", "postgresql", "postgres"))
"""What the URL of a queue begins with that other hosts can reach."""

TASKS = 100
"""Flags of async handlers that run at the same time in a lane of which no setting says anything else."""

EVERY_LANE = "*"
"""What ``promise`` calls the lanes that it does not name."""

SHORTEST_KEY = 16
MAKE_KEY = (
    "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one, for FLAGSWEEP_QUEUE_KEY or a file of mode 0600"
)


class Overrides(dict[str, Mapping[str, Any]]):
    """Hold options by kind that settings give instead of the code.

    :param where: where they stand, for errors.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), where: str = "FlagSweep(kinds=...)"):
        super().__init__(tables)
        self.where = where


@dataclass(frozen=True)
class Settings:
    """Hold every setting. Durations are seconds once loaded."""

    database: Any = field(default=None, repr=False)
    """A URL (``sqlite:///site.db``), a path, or the site's own Peewee ``Database``."""
    driver: str = "sqlite3"
    """Which SQLite library opens a file that a URL or path names: ``sqlite3``, which is Python's own, or ``apsw``.
    Then nothing else in the process may open that file through ``sqlite3``: the two drop each other's locks."""
    mode: str = "external"
    """Who sweeps what this process raises: ``external`` (a consumer of its own), ``embedded`` (this process or another worker of
    the site, once ``flags.start()`` was called), or ``inline`` (the thread that raises, after its commit: for development)."""
    queue: str = field(default="memory", repr=False)
    """Where consumers and the site share nudges and locks; ``memory`` shares nothing, and needs no file and no server."""
    queue_key: Sequence[str] = field(default=(), repr=False)
    """What signs the messages of a shared queue: secret text, or ``file:/path`` of a file that has it. Of several, the first
    signs and all are accepted, so that a key can be changed while both sides run."""
    nudge: str = "auto"
    """Whether a raise nudges the consumers through the shared queue once it has committed: ``auto`` (where the database cannot
    tell them), ``on`` or ``off``."""
    lanes: Mapping[str, int] = field(default_factory=dict)
    """Threads of each lane by name; a lane that a handler names and this does not gets ``threads``."""
    threads: int = 4
    """Threads of a lane that ``lanes`` does not name."""
    tasks: int | Mapping[str, int] = TASKS
    """Flags of ``async def`` handlers that run at the same time in a lane; by lane as ``{"mail": 20}``, all others have 100."""
    shutdown_timeout: float = 8.0
    """Seconds that running handlers get after SIGTERM. Docker and supervisord kill after 10."""
    payload_limit: int = 32_768
    """The largest payload in bytes of JSON."""
    batch: int = 1000
    """The most flags of one claim."""
    writer_share: float = 0.35
    """The largest share of time in which ``run`` holds SQLite's only writer; the rest is the site's."""
    watch: str = "auto"
    """How commits are seen: ``auto``, ``poll``, or ``off`` (then only the minute's sweep finds work)."""
    poll_every: float = 0.005
    """Seconds between two looks where commits are seen by polling."""
    keep_history: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(EVENTS, 30 * 86400.0))
    """Seconds for which history is kept, by event, as ``{"failed": "7d"}``; a single duration is that of all events."""
    history_rows: int = 100_000
    """The most lines of history: the oldest go first."""
    keep_counts: float = 14 * 86400.0
    """Seconds for which counts are kept: by the minute for two days, then by the hour."""
    stuck_after: float | None = None
    """Seconds after which a consumer ends, to be started again, where a lane's handlers all hang; None: it waits for them."""
    sweepers: int = 1
    """How many consumers may sweep a lane at the same time, on a database server. Further ones stand by."""
    notify: str = "raise"
    """Who tells PostgreSQL's listeners of a flag: ``raise``, ``trigger`` (installed by ``init``: for flags that other programs
    write, too), or ``off`` (then flags are seen once a second). Commits that tell wait for each other."""
    timezone: str = "UTC"
    """The zone of schedules, budgets and quiet hours that name none: an IANA name."""
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=Overrides)
    """Options of kinds that hold instead of what the code says, as ``{"send_mail": {"rate": "10/m", "lane": "slow"}}``."""
    promise: Mapping[str, float] = field(default_factory=dict)
    """Seconds that a due flag waits at the longest, by lane, as ``{"mail": "1m"}``; ``*`` stands for all other lanes, and
    a single duration for all. ``flags.check()`` says where it is broken; nothing is done sooner for it."""
    listen: tuple[str, int] | None = None
    """The address at which ``run`` answers monitoring, as ``127.0.0.1:9108``: ``/healthz`` and ``/metrics``; None: at none."""
    ping: str | None = field(default=None, repr=False)
    """A URL that is called once a minute while all is well, so that whoever waits for it rings the alarm once it stays away."""
    log: str = "text"
    """How ``run`` and ``sweep`` write their log to stderr: ``text``, or ``json``, with an event for each verb, a line each."""
    smtp: str = field(default="smtp://localhost", repr=False)
    """The server that sends mail: ``smtp://user:password@host:587`` (encrypted where it can be) or ``smtps://...:465``."""
    mail_from: str = ""
    """Whom mail is from; by default ``flagsweep@`` this host."""
    digest: Mapping[str, str] = field(default_factory=dict)
    """A page by mail each day, as ``{"to": "owner@example.org", "at": "07:30"}``; without ``to`` to whom ``tell`` names."""
    tell: Sequence[str] = field(default=(), repr=False)
    """Who hears of deaths and broken promises: addresses, and URLs of apprise such as ``tgram://...``, with spaces between."""
    sentry: bool | str = True
    """What Sentry is told of failures, where the site has set up ``sentry_sdk``: ``True`` (first failed attempts and deaths, one
    event for each cause and hour), ``"final"`` (deaths alone) or ``False``."""
    restore_check: bool = True
    """Whether who sweeps looks for signs that the database is a backup or a copy of the one that was swept before, and pauses all
    until ``flagsweep confirm``."""
    state_dir: str = ""
    """Folder for what a consumer notes on its own host: where the database is a server, and how far any had come; by default
    below the user's home."""

    @classmethod
    def load(cls, arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
        """Put the settings together: an argument wins over the environment, that over the TOML file, that over the default.

        :param arguments: by name; None counts as not given.
        :param environ: ``FLAGSWEEP_<NAME>`` for each setting, and ``FLAGSWEEP_CONFIG``: the path of a TOML file.
        :raises ConfigError: naming every unknown or bad setting at once, and the variable or the file that gave it.
        """
        given = {**_from_toml(environ.get("FLAGSWEEP_CONFIG")), **_from_environment(environ)}
        given.update({name: value for name, value in arguments.items() if value is not None})
        if "kinds" in given and arguments.get("kinds") is None:
            from_file = "FLAGSWEEP_KINDS" not in environ
            given["kinds"] = _told(given["kinds"], environ.get("FLAGSWEEP_CONFIG", "") if from_file else "FLAGSWEEP_KINDS")
        problems = Problems()
        known = {f.name for f in fields(cls)}
        for name in sorted(set(given) - known):
            problems.found.append(f"unknown setting {name!r}; {did_you_mean(name, sorted(known), 'known are')}")
        checked = {}
        for name in (name for name in given if name in known):
            before = len(problems.found)
            checked[name] = _check(problems, name, given[name])
            if arguments.get(name) is None:
                where = variable if (variable := _variable(name)) in environ else environ.get("FLAGSWEEP_CONFIG")
                problems.found[before:] = [f"{where}: {problem}" for problem in problems.found[before:]]
        if checked.get("queue", "memory").startswith(REMOTE) and not given.get("queue_key"):
            problems.found.append(
                f"the queue {hidden(checked['queue'])} needs a queue_key, the same for the site and its consumers: {MAKE_KEY}"
            )
        problems.raise_any()
        return cls(**checked)


def did_you_mean(name: str, known: Collection[str], all_are: str) -> str:
    """Return the name that was probably meant, as a question; where none is near, all of them.

    :param all_are: what stands before all of them, such as ``there are``.
    """
    from difflib import get_close_matches  # Who spells right needs none of it.

    near = get_close_matches(name, known, 1, 0.6)
    return f"did you mean {near[0]!r}?" if near else f"{all_are} {', '.join(known)}"


def _told(tables: Any, where: str) -> Any:
    """Return the options of kinds with where they stand; what is no table stays as it is, and is told of later."""
    if isinstance(tables, str):
        try:
            tables = json.loads(tables)
        except (ValueError, RecursionError):
            return tables
    return Overrides(tables, where) if isinstance(tables, Mapping) else tables


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {f.name: environ[variable] for f in fields(Settings) if (variable := _variable(f.name)) in environ}


def _variable(setting: str) -> str:
    return f"FLAGSWEEP_{setting.upper()}"


def _from_toml(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    import tomllib

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"FLAGSWEEP_CONFIG names {path!r}, which cannot be read as TOML: {error}") from error


_WHOLE = {
    "threads": (1, 1000),
    "payload_limit": (64, 1_048_576),
    "batch": (1, 10_000),
    "sweepers": (1, 100),
    "history_rows": (0, 1_000_000_000),
}
"""Settings that are whole numbers, and what they may be."""


def _check(problems: Problems, name: str, value: Any) -> Any:
    if name == "keep_history":
        return _keep(problems, value)
    if name in ("shutdown_timeout", "poll_every", "keep_counts", "stuck_after"):
        amount = problems.take(seconds, value, name)
        if name == "stuck_after" and amount is not None and amount < 2:
            problems.found.append(f"stuck_after must be at least 2s, got {value!r}: it is looked for once a second")
        if name == "poll_every" and amount is not None and amount < 0.001:
            problems.found.append(f"poll_every must be at least 1ms, got {value!r}: looking without a pause fills a processor")
        return amount
    if name in _WHOLE:
        low, high = _WHOLE[name]
        return problems.number(_number(value), name, low, high, whole=True)
    if name == "writer_share":
        return problems.number(_number(value), name, 0.01, 1)
    if name == "lanes":
        return _lanes(problems, value)
    if name == "listen":
        return problems.take(address, value)
    if name == "ping":
        return problems.take(_ping, value)
    if name == "promise":
        return _promise(problems, value)
    if name == "tasks":
        return _tasks(problems, value)
    if name == "kinds":
        return _kinds(problems, value)
    if name == "watch" and value not in ("auto", "poll", "off"):
        problems.found.append(f"watch must be 'auto', 'poll' or 'off', got {value!r}")
    if name == "log" and value not in ("text", "json"):
        problems.found.append(f"log must be 'text' or 'json', got {value!r}")
    if name == "driver" and value not in ("sqlite3", "apsw"):
        problems.found.append(f"driver must be 'sqlite3' or 'apsw', got {value!r}")
    if name == "mode" and value not in ("external", "embedded", "inline"):
        problems.found.append(f"mode must be 'external', 'embedded' or 'inline', got {value!r}")
    if name == "nudge" and value not in ("auto", "on", "off"):
        problems.found.append(f"nudge must be 'auto', 'on' or 'off', got {value!r}")
    if name == "notify" and value not in ("raise", "trigger", "off"):
        problems.found.append(f"notify must be 'raise', 'trigger' or 'off', got {value!r}")
    if name in ("smtp", "mail_from"):
        return _text(problems, value, name)
    if name == "digest":
        return _digest(problems, value)
    if name == "tell":
        return _targets(problems, value)
    if name == "sentry":
        return _sentry(problems, value)
    if name == "timezone":
        return problems.take(_zone, value) or "UTC"
    if name == "restore_check":
        return problems.take(_truth, value)
    if name == "state_dir" and not isinstance(value, (str, os.PathLike)):
        problems.found.append(f"state_dir must be the path of a folder, got {value!r}")
    if name == "queue":
        return _queue(problems, value)
    if name == "queue_key":
        return _keys(problems, value)
    return value


def _text(problems: Problems, value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        problems.found.append(f"{name} must be printable text")  # It may hold a password.
        return ""
    if name == "smtp" and not re.match(r"smtps?://[^/]", value):
        problems.found.append(f"smtp must be 'smtp://user:pw@host:587' or 'smtps://user:pw@host:465', got {hidden(value)!r}")
    return value


def _digest(problems: Problems, value: Any) -> dict[str, str]:
    """Return to whom a digest goes, and when: of text such as ``owner@example.org 07:30``, too."""
    if isinstance(value, str):
        to, _, at = value.strip().rpartition(" ")
        value = {"to": to, "at": at} if ":" in at else {"to": value.strip()}
    value = {"at": "07:30", "to": "", **value} if isinstance(value, Mapping) else {}
    if set(value) != {"at", "to"} or not all(isinstance(each, str) and each.isprintable() for each in value.values()):
        problems.found.append("digest must be as {'to': 'owner@example.org', 'at': '07:30'}")
    elif not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value["at"]):
        problems.found.append(f"digest: at must be a time of day such as '07:30', got {value['at']!r}")
    return dict(value)


def _targets(problems: Problems, value: Any) -> tuple[str, ...]:
    """Return whom to tell. No message shows a URL: it holds a secret."""
    given = value.split() if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        problems.found.append("tell must be a list of addresses and URLs, such as ['owner@example.org', 'tgram://...']")
        return ()
    if not all(each.isprintable() and ("://" in each or "@" in each) for each in given):
        problems.found.append("tell must name addresses (owner@example.org) and URLs of apprise (tgram://...): one is neither")
    return tuple(given)


def _sentry(problems: Problems, value: Any) -> bool | str:
    told: dict[str, bool | str] = {"false": False, "off": False, "0": False, "": False, "final": "final"}
    told |= {"true": True, "on": True, "1": True}
    if (said := str(value).lower()) not in told:
        problems.found.append(f"sentry must be True, False or 'final', got {value!r}")
    return told.get(said, True)


def without_driver(url: str) -> str:
    """Return a URL without the driver's name, as in ``postgresql+psycopg://``: that is meant for another layer."""
    return re.sub(r"^([A-Za-z]\w*)\+\w+://", r"\1://", url)


def _queue(problems: Problems, value: Any) -> str:
    value = without_driver(value) if isinstance(value, str) else value
    if value in ("memory", "memory://"):
        return "memory"
    if isinstance(value, str) and value.startswith(("sqlite:///", *REMOTE)) and len(value.partition("://")[2]) > 1:
        return value
    got = hidden(value) if isinstance(value, str) else value
    problems.found.append(
        f"queue must be 'memory', 'sqlite:///queue.db', 'redis://host:6379/0' or 'postgresql://user@host/name', got {got!r}"
    )
    return "memory"


def _keys(problems: Problems, value: Any) -> tuple[str, ...]:
    """Return the keys, of which none may be short enough to be guessed. No message shows one."""
    if isinstance(value, str):
        value = [key.strip() for key in value.split(",") if key.strip()]
    if not isinstance(value, Sequence) or not all(isinstance(key, str) for key in value):
        problems.found.append("queue_key must be secret text, 'file:/path', or a list of these")
        return ()
    if any(len(key) < SHORTEST_KEY and not key.startswith("file:") for key in value):
        problems.found.append(f"queue_key must have at least {SHORTEST_KEY} characters: {MAKE_KEY}")
    return tuple(value)


def hidden(url: str) -> str:
    """Return a URL without what may be its password: that may hold any character, so nothing is parsed here."""
    scheme, mark, rest = url.partition("://")
    if "@" in rest:
        return f"{scheme}{mark}***@{rest.rpartition('@')[2]}" if "?" not in rest else f"{scheme}{mark}***"
    return f"{url.partition('?')[0]}?***" if "?" in rest else url


def _number(value: Any) -> Any:
    """Return the number that a text from the environment spells, anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value) if "." in value else int(value)
        except ValueError:
            pass
    return value


def _truth(value: Any) -> bool:
    said = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
    found = value if isinstance(value, bool) else said.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ConfigError(f"restore_check must be True or False, got {value!r}")
    return found


def _zone(value: Any) -> str:
    try:
        return ZoneInfo(value).key
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError):
        raise ConfigError(f"timezone must be an IANA name such as 'Europe/Berlin' or 'UTC', got {value!r}") from None


def _keep(problems: Problems, value: Any) -> dict[str, float]:
    """Return how long each event of history is kept; those that are not named, for 30 days."""
    if isinstance(value, str) and "=" in value:
        value = _parted(value)
    if not isinstance(value, Mapping):
        amount = problems.take(seconds, value, "keep_history")
        return dict.fromkeys(EVENTS, 0.0 if amount is None else amount)
    if unknown := sorted(set(value) - set(EVENTS)):
        problems.found.append(f"keep_history knows no {', '.join(map(repr, unknown))}: events are {', '.join(EVENTS)}")
    kept = {name: problems.take(seconds, value[name], f"keep_history of {name!r}") for name in EVENTS if name in value}
    return {name: 30 * 86400.0 if kept.get(name) is None else kept[name] for name in EVENTS}


def _lanes(problems: Problems, value: Any, what: str = "threads") -> dict[str, int]:
    """Return how many of something each lane has."""
    if isinstance(value, str):
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        value = {name.strip(): _number(count.strip()) for name, _, count in pairs}
    if not isinstance(value, Mapping):
        problems.found.append(f"lanes must map names to threads, as {{'mail': 4}} or 'mail=4,slow=1', got {value!r}")
        return {}
    for name in value:
        problems.take(check_name, name, "a lane's name")
    return {name: problems.number(count, f"{what} of lane {name!r}", 1, 1000, whole=True) for name, count in value.items()}


def address(value: Any) -> tuple[str, int]:
    """Return host and port that a text names; a port alone is one of this host's own.

    :raises ConfigError: where it names none.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = f"[{value[0]}]:{value[1]}" if ":" in str(value[0]) else f"{value[0]}:{value[1]}"
    host, _, port = str(value).strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_host = (":" not in bare or bare is not host) and bare.isprintable() and " " not in bare and "/" not in bare
    if not is_host or (not host and ":" in str(value)) or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(
            f"listen must be an address such as '127.0.0.1:9108', '0.0.0.0:9108', '[::1]:9108' or '9108', got {value!r}"
        )
    return bare or "127.0.0.1", int(port)


def _ping(value: Any) -> str:
    """Return the URL to call. No message shows it: whoever knows it can call it, too."""
    try:
        parts = urlsplit(value)
        if parts.scheme in ("http", "https") and parts.hostname and value.isprintable() and " " not in value and parts.port != 0:
            return value
    except (ValueError, AttributeError, TypeError):
        pass
    raise ConfigError("ping must be the URL of a check, such as 'https://hc-ping.com/...': http or https, with a host")


def _promise(problems: Problems, value: Any) -> dict[str, float]:
    """Return how long a due flag of each lane waits at the longest."""
    if isinstance(value, str) and "=" in value:
        value = _parted(value)
    if not isinstance(value, Mapping):
        value = {EVERY_LANE: value}
    promised = {}
    for lane, given in value.items():
        problems.take(check_name, lane, "promise: a lane's name")
        amount = problems.take(seconds, given, f"promise of lane {lane!r}")
        if amount is not None and amount < 1:
            problems.found.append(f"promise of lane {lane!r} must be at least 1s, got {given!r}")
        promised[lane] = amount or 0.0
    return promised


def _parted(text: str) -> dict[str, str]:
    """Return what stands behind each name, of ``mail=1m,slow=1h``."""
    return {name.strip(): given.strip() for name, _, given in (part.partition("=") for part in text.split(",") if part.strip())}


def _tasks(problems: Problems, value: Any) -> int | dict[str, int]:
    """Return how many tasks each lane has, or those of some."""
    value = _number(value)
    if isinstance(value, Mapping) or (isinstance(value, str) and "=" in value):
        return _lanes(problems, value, "tasks")
    return problems.number(value, "tasks (a number, or as {'mail': 20} or 'mail=20,slow=5')", 1, 1000, whole=True)


def _kinds(problems: Problems, value: Any) -> Overrides:
    """Return options by kind: what they may be, each handler says."""
    if not isinstance(value, Mapping):
        example = '{"send_mail": {"rate": "10/m"}}'
        problems.found.append(f"kinds must be options by kind, as [kinds.send_mail] in TOML or {example} in JSON, got {value!r}")
        return Overrides()
    tables = value if isinstance(value, Overrides) else Overrides(value)
    for kind, table in tables.items():
        problems.take(check_name, kind, f"kinds in {tables.where}: a kind")
        if not isinstance(table, Mapping):
            problems.found.append(f"kinds in {tables.where}: {kind!r} must be options such as rate = '10/m', got {table!r}")
    return tables


def check_name(value: object, what: str) -> str:
    """Return a kind's or lane's name.

    :raises ConfigError: when it is not 1 to 100 printable characters without white space.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not value.isprintable() or " " in value or value == "-":
        raise ConfigError(f"{what} must be 1 to 100 printable characters without spaces (and not '-'), got {value!r}")
    return value
