"""Raises over the site's own connections, in tests: written to the fresh database, and taken back with their transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapters.connection import SiteConnection
from ..adapters.layers import awaited, connection_of
from ..consumer.opened import Opened
from ..databases.raising import Terms
from ..models import Raised, SiteVerbs
from ..payloads import Item


@dataclass(eq=False)
class _Raise:
    """Flags that are there as long as a transaction of the site's is not rolled back."""

    connection: SiteConnection
    ids: set[int]
    committed: bool = False

    def __call__(self) -> None:
        self.committed = True


@dataclass(frozen=True)
class Following(Opened):
    """Hold what is made of the settings of a fresh database, which the site's other connections do not go to.

    A test often is within a transaction that never commits, as Django's ``TestCase`` has it: so a raise over such a connection
    is seen at once, and what that transaction, or a savepoint of it, rolls back is taken back before anybody looks.
    """

    raises: list[_Raise] = field(default_factory=list)

    def verbs_over(self, connection: Any) -> Any:
        given = self.over.usual if connection is None else connection
        return self.verbs if given is None or given is self.connections.site else _Verbs(self, connection_of(given))

    async def awaited(self, connection: Any, do: Callable[[Any], Any]) -> Any:
        given = self.over.usual if connection is None else connection
        if given is None or given is self.connections.site:
            return do(self.verbs)
        return await awaited(given, lambda found: do(_Verbs(self, found)))

    def tell(self, commits: Any, lane: str, kind: str, priority: int) -> None:
        """Tell nobody: the test sweeps."""

    def check(self) -> None:
        super().check()
        for each in [each for each in self.raises if each.committed or each.connection.is_rolled_back(each)]:
            self.raises.remove(each)
            if not each.committed and each.ids:
                with self.connections.borrowed() as db:
                    db.execute_sql(f"DELETE FROM flagsweep_flag WHERE id IN ({', '.join(map(str, each.ids))})")


class _Verbs:
    """Raise on the fresh database what is to follow a connection of the site's.

    :param commits: that connection.
    """

    def __init__(self, opened: Following, commits: SiteConnection):
        self.commits = commits
        self._opened = opened
        self._verbs: SiteVerbs = opened.verbs
        self.dialect = self._verbs.dialect

    def raise_(self, kind: str, item: Item, terms: Terms) -> Raised:
        """Put a flag up."""
        return self._following(kind, lambda: self._verbs.raise_(kind, item, terms))

    def raise_many(self, kind: str, chunks: Sequence[str], terms: Terms) -> Counter[str]:
        """Put many flags up."""
        return self._following(kind, lambda: self._verbs.raise_many(kind, chunks, terms))

    def _following(self, kind: str, do: Callable[[], Any]) -> Any:
        before = self._ids(kind)
        result = do()
        raised = _Raise(self.commits, self._ids(kind) - before)
        self.commits.after_commit(raised)
        if not raised.committed:
            self._opened.raises.append(raised)
        return result

    def _ids(self, kind: str) -> set[int]:
        with self._opened.connections.borrowed() as db:
            mark = self.dialect.mark
            return {id for (id,) in db.execute_sql(f"SELECT id FROM flagsweep_flag WHERE kind = {mark}", (kind,)).fetchall()}
