"""What a fork does to what this process holds: the one hook, with which everybody registers who holds something."""

from __future__ import annotations

import os
from collections.abc import Callable


def _nothing() -> None: ...


def at_fork(
    before: Callable[[], None] = _nothing,
    in_parent: Callable[[], None] = _nothing,
    in_child: Callable[[], None] = _nothing,
) -> None:
    """Have these called at every fork of this process from now on; one that fails keeps no other from being called.

    :param before: called in the parent, the last registered first.
    :param in_parent: called in the parent once it has forked, the first registered first.
    :param in_child: called in the child, the first registered first: nothing but its own thread lives there.
    """
    if hasattr(os, "register_at_fork"):  # Windows has no fork.
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
