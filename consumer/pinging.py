"""The ping: a call to somebody outside, each minute in which all was well. Once it stays away, they ring the alarm."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from ..logs import Seldom, printable

log = logging.getLogger("flagsweep")

EVERY = 60.0
"""Seconds from one ping to the next."""

FIRST = 5.0
"""Seconds until the first: a consumer that starts has ticked by then."""

TIMEOUT = 10.0
"""Seconds that whoever is called gets for each step of the answer."""


class _Hourly(Seldom):
    EVERY = 3600.0


class Pinger(threading.Thread):
    """Call a URL once a minute, in a thread that nobody waits for.

    :param may: returns whether this minute was well, and nobody has called in it yet. It is asked in this thread.
    :param end: leaves nothing of this thread behind.
    """

    def __init__(self, url: str, may: Callable[[], bool], end: Callable[[], None] = lambda: None, every: float = EVERY):
        super().__init__(name="flagsweep-ping", daemon=True)
        self._url = url
        self._may = may
        self._end = end
        self._every = every
        self._done = threading.Event()
        self._seldom = _Hourly()
        self._failed = False

    def stop(self) -> None:
        """End the thread, or whatever is left of it: a call that is under way ends by itself."""
        self._done.set()

    def run(self) -> None:
        """Call until stopped."""
        wait = min(FIRST, self._every)
        while not self._done.wait(wait):
            wait = self._every
            self.run_once()
        self._end()

    def run_once(self) -> None:
        """Call, where all is well."""
        try:
            if self._may():
                call(self._url)
                if self._failed:
                    self._failed = False
                    self._seldom.begin_anew()
                    log.info("the ping to %s is answered again", redacted(self._url))
        except Exception as error:
            self._failed = True
            if self._seldom.may_tell():
                what = printable(str(error) or type(error).__name__).replace(self._url, redacted(self._url))
                log.warning("the ping to %s failed, it is tried each minute: %s", redacted(self._url), what)


def call(url: str) -> None:
    """Ask for a URL, through the proxy of the environment where there is one, and drop what is answered.

    :raises OSError: where it is not answered with success.
    """
    from urllib.request import (
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
        HTTPHandler,
        HTTPRedirectHandler,
        HTTPSHandler,
        OpenerDirector,
        ProxyHandler,
        Request,
    )

    opener = OpenerDirector()  # Not the default one, which a redirect could lead to a file, or to FTP.
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPRedirectHandler, HTTPErrorProcessor, HTTPDefaultErrorHandler):
        opener.add_handler(handler())
    answer = opener.open(Request(url, headers={"User-Agent": "flagsweep"}), timeout=TIMEOUT)
    if answer is None:
        raise OSError("it leads to something that is neither http nor https")
    answer.close()


def redacted(url: str) -> str:
    """Return a URL without what may be secret: a ping's is known by its path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}/***"
