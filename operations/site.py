"""What the answers to people's questions need of a FlagSweep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..config import Clock, Settings
from ..consumer.duties import Duties
from ..databases.connections import Connections
from ..handlers import Handler
from ..models import SiteVerbs
from ..sweep.claims import Store
from .gate_info import GateInfo


class Site(Protocol):
    """Stand for the FlagSweep that is asked; it says what each of these is."""

    clock: Clock

    @property
    def settings(self) -> Settings: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def connection(self) -> Any: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def verbs(self) -> SiteVerbs: ...
    @property
    def store(self) -> Store: ...
    @property
    def handlers(self) -> Mapping[str, Handler]: ...
    @property
    def handled(self) -> Collection[str]: ...

    def handler_of(self, kind: str) -> Handler: ...
    def lane_names(self) -> list[str]: ...
    def status(self) -> dict[str, Any]: ...
    def gates(self) -> list[GateInfo]: ...
    def _duties(self) -> Duties: ...
