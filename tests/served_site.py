"""A small site that a server's workers serve, and one of them sweeps: as WSGI and ASGI, by hand.

Each effect is a line of the ledger, a file: who began or ended what, and when.
"""

import logging
import os
import threading
import time

from flagsweep import FlagSweep

logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(process)d %(message)s", datefmt="%H:%M:%S")
logging.getLogger("huey").setLevel(logging.WARNING)
LEDGER = os.environ["SITE_LEDGER"]
flags = FlagSweep(os.environ["SITE_DATABASE"], mode="embedded", threads=2, state_dir=os.environ["SITE_STATE"])


def note(what, number):
    """Add a line to the ledger, whole whoever else writes."""
    line = f"{what} {number} {os.getpid()} {time.monotonic()}\n".encode()
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line)
    os.close(ledger)


@flags.handler(max_attempts=100, backoff=0)
def effect(n, seconds=0.002):
    note("begin", n)
    time.sleep(seconds)
    note("end", n)


def answer(path):
    """Answer a request: start where this is the first, and raise what it asks for."""
    flags.start()
    if path.startswith("/raise/"):
        effect.raise_flag(int(path.removeprefix("/raise/")))
    time.sleep(0.01)  # So that requests at one time reach several workers.
    return f"{os.getpid()} {flags.sweeping} {threading.active_count()}".encode()


def wsgi(environ, start_response):
    """Be the site under WSGI."""
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """Be the site under ASGI."""
    if scope["type"] == "lifespan":
        await receive()
        flags.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        flags.stop(wait=True)
        return await send({"type": "lifespan.shutdown.complete"})
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
