"""A mail server and a web hook on 127.0.0.1, as real as the test needs them."""

import json
import socket
import threading
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Box:
    """Keep the mails that came; with ``refuse`` take none."""

    def __init__(self):
        self.mails = []
        self.logins = []
        self.refuse = False

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            return "451 try again later"
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 taken"

    def login(self, server, session, envelope, mechanism, data):
        self.logins.append((data.login.decode(), data.password.decode()))
        right = data.password == b"pa/ss:w@rd"
        return AuthResult(success=right, handled=right)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def mail_server(login=False):
    """Serve mail; the box has its ``url``."""
    box = Box()
    port = free_port()
    more = {"authenticator": box.login, "auth_required": True, "auth_require_tls": False} if login else {}
    controller = Controller(box, hostname="127.0.0.1", port=port, **more)
    controller.start()
    box.url = f"smtp://{'me:pa%2Fss%3Aw%40rd@' if login else ''}127.0.0.1:{port}"
    try:
        yield box
    finally:
        controller.stop()


@contextmanager
def hook(status=200):
    """Serve what apprise posts as JSON; the list has what came, and ``url`` where to."""
    got = type("Got", (list,), {})()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append({"path": self.path, **json.loads(body)})
            self.send_response(got.status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    got.status = status
    got.url = f"json://me:t0psecret@127.0.0.1:{server.server_port}/room"
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
