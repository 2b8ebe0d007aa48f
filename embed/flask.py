"""Flask, 2.3 and newer: ``init_app(app, flags)``.

* Settings come from ``app.config``: ``FLAGSWEEP_DATABASE``, ``FLAGSWEEP_LANES`` and so on. Where nothing says which database, it
  is that of Flask-SQLAlchemy or of Peewee's FlaskDB, if the application has one by then. Raises go over ``db.session``, or over
  FlaskDB's connection, unless ``FlagSweep(connection=...)`` says another: they commit with the request's own rows.
* ``flask flagsweep ...`` has every command.
* Each handler runs in the application's context: ``db.session`` is removed after it, and FlaskDB's connection is open within.
* ``app.extensions["flagsweep"]`` is the FlagSweep.
* With ``mode="embedded"`` the first request starts the consumer, in each process that serves any; but not with ``app.testing``,
  nor a request of Flask's test client. There, and where nothing may wait for a visitor, ``flags.start()`` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from flask import Flask, request

from ..adapters.sqlalchemy_session import refuse_uncommitted, watch
from ..app import FlagSweep
from ..commands.group import hosted
from ..errors import ConfigError, FlagSweepError
from .sqlalchemy import database_of

log = logging.getLogger("flagsweep")

PREFIX = "FLAGSWEEP_"
PAUSE = 10.0
"""Seconds from one failed start of an embedded consumer to the next."""


def init_app(app: Flask, flags: FlagSweep) -> None:
    """Take flagsweep into a Flask application, after its database extension.

    :raises ConfigError: where the configuration is bad, disagrees with what the code says, or the application has another
        FlagSweep already.

    One FlagSweep may be given to one application after the other, as in tests that make one each: the last one counts, and
    what is asked of an earlier one that says another database is refused.
    """
    if app.extensions.get("flagsweep", flags) is not flags:
        raise ConfigError(f"the application {app.name!r} has another FlagSweep already: register all handlers with one")
    flags.adopt("flask", *_said_by(app))
    flags.host = app
    flags.within(_InContext(flags))
    if (alchemy := app.extensions.get("sqlalchemy")) is not None:
        watch(alchemy.session)
    if "flagsweep" not in app.extensions:
        app.extensions["flagsweep"] = flags
        here = _Here(app, flags)
        app.cli.add_command(hosted(here.found, f"the Flask application {app.name!r}"))
        app.before_request(here.before_request)


def _said_by(app: Flask) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of an application, and what holds where nothing is said: the database that it uses otherwise."""
    settings = {name.removeprefix(PREFIX).lower(): value for name, value in app.config.items() if name.startswith(PREFIX)}
    if (alchemy := app.extensions.get("sqlalchemy")) is not None:
        with app.app_context():
            return settings, {"database": _database_of(alchemy), "connection": alchemy.session}
    return settings, {"database": getattr(_flask_db(app), "database", None)}


def _database_of(alchemy: Any) -> str | None:
    """Return the database of Flask-SQLAlchemy; None for one in memory, which is nobody else's, and for what we do not know."""
    engine = getattr(alchemy, "engines", {}).get(None)
    try:
        return None if engine is None else database_of(engine)
    except ConfigError as error:
        log.warning("flagsweep does not use the database of Flask-SQLAlchemy: %s", error)
        return None


def _flask_db(app: Flask) -> Any:
    """Return Peewee's FlaskDB, if there is one. It leaves no trace but what it has called before each request."""
    owners = (getattr(function, "__self__", None) for function in app.before_request_funcs.get(None, ()))
    return next((each for each in owners if any(c.__module__ == "playhouse.flask_utils" for c in type(each).__mro__)), None)


@dataclass(frozen=True)
class _InContext:
    """Have a handler run in the context of the application, with a connection where a request would have one."""

    flags: FlagSweep

    @contextmanager
    def __call__(self) -> Iterator[None]:
        app = self.flags.host
        with app.app_context(), self._connected(app):
            yield
            if (alchemy := app.extensions.get("sqlalchemy")) is not None and alchemy.session.registry.has():
                refuse_uncommitted(alchemy.session())

    def _connected(self, app: Flask) -> AbstractContextManager[Any]:
        if (database := getattr(_flask_db(app), "database", None)) is None or _is_in_loop():
            return nullcontext()
        if getattr(database, "obj", database) is self.flags.database:
            return self.flags.connections.borrowed()  # Kept open from one handler to the next.
        return database.connection_context()


def _is_in_loop() -> bool:
    """Return whether an async handler is to run: a lane's share one thread, and the first to end would close its connection."""
    try:
        return asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


class _Here:
    """One application's end of it: what its requests and its commands see."""

    def __init__(self, app: Flask, flags: FlagSweep):
        self._app = app
        self._flags = flags
        self._process = 0
        self._tried = (0, 0.0)

    def found(self) -> FlagSweep:
        """Return the FlagSweep, for a command.

        :raises ConfigError: where it has another application now, with another database.
        """
        if self._flags.host is not self._app and _said_by(self._flags.host) != _said_by(self._app):
            raise ConfigError(
                f"the FlagSweep of {self._app.name!r} was given to another application since, with another database or other "
                "settings: make one for each, or use one application after the other"
            )
        return self._flags

    def before_request(self) -> None:
        """Start an embedded consumer, once in each process."""
        if self._flags.host is not self._app:
            self.found()
        if self._process != os.getpid() and not self._is_test():
            self._start()

    def _is_test(self) -> bool:
        return self._app.testing or request.user_agent.string.startswith("Werkzeug/")

    def _start(self) -> None:
        """Never a request's harm: what fails is logged, and tried again by a later one."""
        process, now = os.getpid(), self._flags.clock.monotonic()
        if process == self._tried[0] and now < self._tried[1] + PAUSE:
            return
        self._tried = process, now
        try:
            if self._flags.settings.mode == "embedded":
                self._flags.start()
            self._process = process
        except Exception as error:
            why = "flagsweep did not start in this process, and tries again in %.0f s: %s"
            log.error(why, PAUSE, error, exc_info=not isinstance(error, FlagSweepError))
