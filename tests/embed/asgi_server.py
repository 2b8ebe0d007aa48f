"""An ASGI server of one request: it starts an application, asks it once, and stops it, as the protocol says."""

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    status: int
    text: str


def serve(app, target="/", method="GET"):
    """Return the answer. What keeps the application from starting is raised."""
    return asyncio.run(_served(app, target, method))


async def _served(app, target, method):
    state, told, heard = {}, asyncio.Queue(), asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, told.get, heard.put))
    await told.put({"type": "lifespan.startup"})
    if (await heard.get())["type"] == "lifespan.startup.failed":
        await life
    try:
        return await _asked(app, target, method, state)
    finally:
        await told.put({"type": "lifespan.shutdown"})
        await life


async def _asked(app, target, method, state):
    parts, sent = urlsplit(target), []
    names = {"method": method, "path": parts.path, "raw_path": parts.path.encode(), "query_string": parts.query.encode()}
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "", **names}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app({**scope, "headers": [], "client": ("127.0.0.1", 1), "server": ("site", 80), "state": dict(state)}, receive, send)
    return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode())
