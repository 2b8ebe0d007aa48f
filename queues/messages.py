"""What a nudge says, and who may say it: messages are signed, and nothing that is not is read."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence

from ..config import SECOND

LARGEST = 4096
"""Bytes of the largest message that is looked at."""
LIFE = 60
"""Seconds after which a nudge says nothing any more: the minute's sweep has come."""


class Refused(Exception):
    """Say why a message of the queue was dropped."""


class Seal:
    """Sign nudges, and accept those alone that somebody with one of the keys has signed, for this database.

    :param keys: the first signs.
    :param scope: the queue's name: a message for another database is none for this one.
    """

    def __init__(self, keys: Sequence[bytes], scope: str):
        self._keys = keys
        self._scope = scope.encode() + b"\0"

    def close(self, lane: str, now: int) -> bytes:
        """Return the message that asks for a sweep of a lane, at ``now``, in microseconds UTC."""
        body = json.dumps({"sweep": lane, "until": now // SECOND + LIFE}).encode()
        return self._sign(self._keys[0], body) + b" " + body

    def open(self, message: bytes, now: int) -> str:
        """Return the lane that a message asks for.

        :raises Refused: where it is too large, not signed by us, or too old. Nothing of it is parsed before the signature holds.
        """
        if len(message) > LARGEST:
            raise Refused("too large")
        signature, _, body = message.partition(b" ")
        if not any(hmac.compare_digest(signature, self._sign(key, body)) for key in self._keys):
            raise Refused("not signed with our key")
        try:
            content = json.loads(body)
            lane, until = str(content["sweep"]), int(content["until"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused("signed with our key, but no nudge") from error
        if until < now // SECOND:
            raise Refused("too old")
        return lane

    def _sign(self, key: bytes, body: bytes) -> bytes:
        return hmac.new(key, self._scope + body, hashlib.sha256).hexdigest().encode()
