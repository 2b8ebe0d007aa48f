"""The application that a FlagSweep is embedded in: what it says, and what is around all that is the site's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..sweep.perform import Surrounding
from .embedding import Embedding
from .opened import Opening


class InApplication:
    """Be embedded in an application."""

    host: Any
    _opening: Opening
    _embedding: Embedding
    _around: list[Surrounding]
    _runner: Any
    _sweeps: Sequence[Any]

    def adopt(self, host: str, settings: Mapping[str, Any], otherwise: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Take the settings of the application that this is embedded in, instead of those of an earlier one: for ``embed/``.

        :param host: of what kind it is, such as ``flask``; those of others stay.
        :param otherwise: settings that hold where nothing else says anything, not even the environment.
        :raises ConfigError: naming every bad setting at once; or where it disagrees with what was said before.
        :raises FlagSweepError: where it would change the database under a sweep.
        """
        sweeps = self._runner is not None or bool(self._sweeps) or self._embedding.serves
        self._opening.adopt(host, settings, otherwise, sweeps)

    def around(self, context: Surrounding) -> Surrounding:
        """Have each handler run within ``with context():``, such as a session that is closed after it.

        The first that was said is outermost. An error in it is the handler's; none hides that the handler has failed. Usable as
        a decorator, above ``@contextmanager``. What is there already is not taken twice.
        """
        if context not in self._around:
            self._around.append(context)
        return context

    def within(self, context: Surrounding) -> None:
        """Have all that is the site's own run within ``with context():``, the application's: for ``embed/``.

        Each handler does, within it what ``around`` says; and so does what a data layer is asked for rows that are work. The last
        that was said counts.
        """
        self._opening.within = context

    def _surroundings(self) -> tuple[Surrounding, ...]:
        """Return what each handler runs within, the outermost first."""
        within = self._opening.within
        return tuple(self._around) if within is None else (within, *self._around)
