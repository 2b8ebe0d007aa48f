"""A queue of our own on a Redis on loopback, for the peer of the latency benchmark."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hueys
from measure import Skipped

USUAL_PORT = 6379


@contextmanager
def redis_queue(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield the port of a Redis and the name of a new queue there; leave no key behind."""
    if importlib.util.find_spec("redis") is None:
        raise Skipped("the package redis is not installed")
    with _redis_port(folder) as port:
        name = f"flagsweepbench{secrets.token_hex(4)}"
        huey = hueys.redis_huey(port, name)
        try:
            yield port, name
        finally:
            huey.storage.flush_all()
            huey.storage.pool.disconnect()


@contextmanager
def _redis_port(folder: Path) -> Iterator[int]:
    """Yield the usual port if a Redis answers there, else that of one started in `folder` for the benchmark."""
    if _answers(USUAL_PORT):
        yield USUAL_PORT
        return
    program = shutil.which("redis-server")
    if program is None:
        raise Skipped(f"nothing answers at {hueys.LOOPBACK}:{USUAL_PORT} and redis-server is not installed")
    port = _free_port()
    command = [program, "--bind", hueys.LOOPBACK, "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for_answer(port)
        yield port
    finally:
        server.terminate()
        server.wait()


def _wait_for_answer(port: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not _answers(port):
        if time.monotonic() > deadline:
            raise Skipped(f"redis-server did not answer on port {port} within {seconds} s")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((hueys.LOOPBACK, port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((hueys.LOOPBACK, 0))
        return probe.getsockname()[1]
