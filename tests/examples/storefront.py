"""What stands around a shop in its test: a mail server that keeps a journal, and somebody who asks over HTTP again and again."""

import hashlib
import hmac
import json
import signal
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import flagsweep

EXAMPLES = Path(flagsweep.__file__).resolve().parent / "examples"
SECRET = b"a secret of the test's"


class Shop:
    """Ask a shop over HTTP.

    :param until: waits for a condition.
    """

    def __init__(self, port, until):
        self._at = f"http://127.0.0.1:{port}"
        self._until = until

    def ask(self, path, told=None, headers=()):
        """Return status and answer. Where the server is away, or has died over it, ask again, as whoever wants something does."""
        body = None if told is None else json.dumps(told).encode()
        headers = {"Content-Type": "application/json", **dict(headers)}
        request = urllib.request.Request(f"{self._at}{path}", body, headers)
        return self._until(lambda: self._answer(request), 120, every=0.05)

    def _answer(self, request):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, body, sort = answer.status, answer.read(), answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, EOFError):
            return None
        return status, json.loads(body) if "json" in sort and body else body.decode()

    def sign_up(self, name):
        """Return the id of somebody who signed up; None for who had done so, as after an answer that was lost."""
        status, answer = self.ask("/users", {"name": name, "email": f"{name}@example.com"})
        assert status in (201, 409), status
        return answer["id"] if answer else None

    def order(self, user, cents):
        status, answer = self.ask("/orders", {"user": user, "cents": cents})
        assert status == 201, status
        return answer["id"]

    def pay(self, event, order, secret=SECRET):
        """Do as the payment provider; return the status."""
        told = {"event": event, "order": order}
        signature = hmac.new(secret, json.dumps(told).encode(), hashlib.sha256).hexdigest()
        return self.ask("/payments", told, {"X-Signature": signature})[0]

    def export(self):
        """Return the lines of a file with all orders."""
        status, answer = self.ask("/exports", {})
        assert status == 202, status
        return self._until(lambda: self._file(answer["id"]), 120)

    def _file(self, export):
        status, text = self.ask(f"/exports/{export}")
        assert status in (200, 202), status
        return text.splitlines() if status == 200 else None


class MailServer:
    """Be the demo's server, with its moods, on a port of its own; count what it has accepted."""

    def __init__(self, spawn, folder, port):
        self.port = port
        self._journal = folder / "mails.json"
        self._child = spawn(sys.executable, EXAMPLES / "demo" / "mailserver.py", self._journal, "--port", port)

    def freeze(self):
        """Answer nobody; who has called waits."""
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._child.send_signal(signal.SIGCONT)

    def accepted(self):
        """Return how often each mail has come, by its Message-ID."""
        lines = self._journal.read_text().splitlines(keepends=True) if self._journal.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return Counter(entry["id"] for entry in entries if entry["event"] == "accepted")
