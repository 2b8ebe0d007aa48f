"""A small server for monitoring: it answers GET and HEAD, reads no more than it must, and is never in the way of work."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from contextlib import closing, suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from ..errors import NotReady
from ..logs import printable
from .outlook import Answer, Outlook

log = logging.getLogger("flagsweep")

HEAD = 8192
"""Bytes of a request that are read at the most; more are refused."""

PATIENCE = 5.0
"""Seconds that a client gets for its request, and for taking the answer."""

MOST = 8
"""Requests that are answered at the same time; further ones are turned away."""

PLAIN = "text/plain; charset=utf-8"


class Listener(threading.Thread):
    """Listen on an address, and answer each request in a thread of its own.

    :raises NotReady: where the address cannot be had.
    """

    def __init__(self, address: tuple[str, int], outlook: Outlook):
        super().__init__(name="flagsweep-listen", daemon=True)
        self._outlook = outlook
        self._places = threading.BoundedSemaphore(MOST)
        self._ending = threading.Lock()
        self._closed = False
        self._socket = _bound(*address)
        self._awake, self._wake = os.pipe()
        host, self.port = self._socket.getsockname()[:2]
        self._local = ip_address(host.partition("%")[0]).is_loopback
        self.where = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def stop(self) -> None:
        """Answer nothing more. Safe from any thread, and twice."""
        with self._ending:
            if not self._closed:
                os.write(self._wake, b"x")
        if self.ident is None:
            self._close()

    def _close(self) -> None:
        with self._ending:  # Once: the number of a file that is closed may be another's at once.
            if self._closed:
                return
            self._closed = True
            self._socket.close()
            os.close(self._awake)
            os.close(self._wake)

    def run(self) -> None:
        """Take connections until stopped."""
        places: list[Any] = [self._socket, self._awake]
        try:
            while self._awake not in select.select(places, [], [])[0]:
                try:
                    client, _ = self._socket.accept()
                except OSError:  # It has gone again, or this process has no more files: those that are open end first.
                    time.sleep(0.05)
                    continue
                self._take(client)
        finally:
            self._close()

    def _take(self, client: socket.socket) -> None:
        if not self._places.acquire(blocking=False):
            client.close()
            return
        try:
            threading.Thread(target=self._serve, args=(client,), name="flagsweep-answer", daemon=True).start()
        except RuntimeError:  # No more threads are to be had.
            self._places.release()
            client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with closing(client):
                until = time.monotonic() + PATIENCE
                head = _head(client, until)
                if head is not None:
                    _send(client, self._answered(head), not head.startswith(b"HEAD "), time.monotonic() + PATIENCE)
        except Exception as error:  # Whatever a client does is no trouble of ours.
            log.debug("a request was not answered: %s", printable(str(error)))
        finally:
            self._places.release()

    def _answered(self, head: bytes) -> Answer:
        """Return what is answered to a request."""
        lines = head.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(head) > HEAD:
            return _refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            return _refused(HTTPStatus.BAD_REQUEST)
        if words[0] not in ("GET", "HEAD"):
            return _refused(HTTPStatus.METHOD_NOT_ALLOWED)
        if self._local and not _is_local(lines[1:]):
            return _refused(HTTPStatus.MISDIRECTED_REQUEST)
        return self._outlook.answer(words[1].partition("?")[0])


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_to_be_had(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(16)
        listening.setblocking(False)  # Who has gone between select() and accept() holds nobody up.
    except OSError as error:
        listening.close()
        raise _not_to_be_had(host, port, error) from error
    return listening


def _not_to_be_had(host: str, port: int, error: OSError) -> NotReady:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return NotReady(f"cannot listen on {where}: {error.strerror or error}; give --listen (or the setting listen) another address")


def _head(client: socket.socket, until: float) -> bytes | None:
    """Return a request up to its empty line, or as much as is too much; None where the client takes too long, or goes."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= HEAD:
        client.settimeout(max(0.01, until - time.monotonic()))
        try:
            more = client.recv(HEAD + 1 - len(head))
        except OSError:
            return None
        if not more or time.monotonic() > until:
            return None
        head += more
    return head


def _send(client: socket.socket, answer: Answer, with_body: bool, until: float) -> None:
    status = HTTPStatus(answer.status)
    allow = "Allow: GET, HEAD\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {answer.type}\r\nContent-Length: {len(answer.body)}\r\n{allow}"
        "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    left = memoryview(lines.encode("latin-1") + (answer.body if with_body else b""))
    while left:
        client.settimeout(max(0.01, until - time.monotonic()))
        left = left[client.send(left) :]
        if time.monotonic() > until:
            return
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        client.settimeout(0.2)
        client.recv(HEAD)  # What it still had to say: closed before, it might not see the answer.


def _is_local(fields: list[str]) -> bool:
    """Return whether a request is for an address, or ``localhost``: a page in a browser of this host may call us by its own name,
    which it has had point here, and would then read what we answer."""
    hosts = [value.strip() for name, _, value in (field.partition(":") for field in fields) if name.strip().lower() == "host"]
    name = hosts[0].rpartition("]")[0].lstrip("[") if hosts and "]" in hosts[0] else hosts[0].partition(":")[0] if hosts else ""
    if len(hosts) > 1:
        return False
    if not name or name.lower() == "localhost":
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refused(status: HTTPStatus) -> Answer:
    return Answer(status.value, PLAIN, f"{status.phrase}: this answers GET and HEAD of /healthz and /metrics\n".encode())
