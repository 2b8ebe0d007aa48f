"""What may leave the site: never a payload, and no key that is one."""

from __future__ import annotations

import hashlib
import json

from ..logs import printable


def discreet(key: str) -> str:
    """Return a flag's key as it may be shown to others.

    That of a raise without ``key=`` is its arguments, as JSON: of these a hash is shown, by which flags are told apart.
    """
    try:
        told = not isinstance(json.loads(key), (dict, list))
    except (ValueError, RecursionError, TypeError):
        told = not str(key).lstrip().startswith(("{", "["))
    return printable(str(key)) if told else f"sha256:{hashlib.sha256(str(key).encode('utf-8', 'replace')).hexdigest()[:12]}"


def digest_of(*parts: str) -> str:
    """Return a short name for some texts together."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:20]
