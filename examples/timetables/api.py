"""The timetables that the collector asks for: an HTTP API on 127.0.0.1 that is slow, flaky and strict, and keeps a log.

`GET /schools` is the list of schools, `GET /lessons?school=3&after=500` a page of one's lessons and where the next begins.
Every answer takes its time, and the seed says which fail with a 500. Whoever asks too often, or for too much at once, gets a
429 with `Retry-After`; after SIGUSR1 everybody does for `CROWDED` seconds. SIGTERM finishes what was begun and closes the port.

The log has one JSON object for each request: when it came and left (seconds of the machine's monotonic clock), its path, and
the status of the answer.
"""

import argparse
import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

RATE, BURST, AT_ONCE = 15, 2, 4
"""What it grants: requests a second, so many more in a burst, and so many at the same time."""

TAKES = (0.04, 0.2)
"""An answer takes between these, in seconds."""

FLAKY = 0.04
"""The share of answers that are a 500."""

CROWDED = 2.0
"""Seconds for which it sends everybody away, once it is told to."""

NAMES = (
    *("Arbour", "Beacon", "Cedar", "Dunes", "Elm Park", "Fairway", "Granite", "Harbour", "Ivy Lane", "Juniper"),
    *("Kingfield", "Lakeside", "Meadow", "Northgate", "Orchard", "Pine Hill", "Quarry", "Riverside", "Saltmarsh", "Tower"),
)

SUBJECTS = ("Art", "Biology", "Chemistry", "English", "Geography", "History", "Korean", "Mathematics", "Music", "Physics")


class School(NamedTuple):
    """One school, and how many lessons it has in a week."""

    id: int
    name: str
    rows: int


def schools(rows):
    """Share so many lessons out among the schools, to each as many or one more."""
    return [School(n + 1, name, rows // len(NAMES) + (n < rows % len(NAMES))) for n, name in enumerate(NAMES)]


def lesson(school, number):
    """Return a school's lesson, counted from 0: the same whenever it is asked for."""
    day, period = divmod(number % 35, 7)
    return {
        "id": school * 1_000_000 + number,
        "school": school,
        "day": day + 1,
        "period": period + 1,
        "form": f"{1 + number // 35 % 6}-{1 + number // 210}",
        "subject": SUBJECTS[(school * 31 + number * 7) % len(SUBJECTS)],
        "room": 100 + (school * 17 + number * 13) % 300,
    }


def longest_crowd(window):
    """Return how many requests may come within so many seconds.

    What was begun in time may come late: the burst and what the rate brings, and what was under way when the window began.
    """
    return math.floor(RATE * window) + BURST + AT_ONCE


class Busy(Exception):
    """Come back later, in so many seconds."""


class Door:
    """Let requests in, and keep the log of them."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._came = deque()
        self._inside = 0
        self._crowded_until = 0.0

    def crowd(self):
        """Send everybody away for a while."""
        self._crowded_until = time.monotonic() + CROWDED

    def enter(self):
        """Count a request that comes; return when it did, and the seconds for which it is sent away, or None."""
        with self._lock:
            now = time.monotonic()
            while self._came and self._came[0] <= now - 1:
                self._came.popleft()
            self._came.append(now)
            self._inside += 1
            if now < self._crowded_until:
                return now, math.ceil(self._crowded_until - now)
            too_many = len(self._came) > longest_crowd(1) or self._inside > AT_ONCE
            return now, 1 if too_many else None

    def leave(self, came, path, status, wait):
        """Count a request that has its answer: that is under way already, so it ends here."""
        entry = {"came": came, "left": time.monotonic(), "path": path, "status": status, "wait": wait}
        with self._lock:
            self._inside -= 1
            os.write(self._file, json.dumps(entry).encode() + b"\n")


class Timetables:
    """Answer what is asked.

    :param rows: lessons of all schools together.
    :param page: lessons in one answer.
    """

    def __init__(self, rows, page, seed):
        self._schools = {school.id: school for school in schools(rows)}
        self._page = page
        self._seed = seed
        self._asked = Counter()

    def answer(self, url):
        """Return status and content, after a while."""
        self._asked[url] += 1
        dice = random.Random(f"{self._seed} {url} {self._asked[url]}")
        time.sleep(dice.uniform(*TAKES))
        if dice.random() < FLAKY:
            return 500, {"error": "try again"}
        path, query = urlsplit(url).path, dict(parse_qsl(urlsplit(url).query))
        if path == "/schools":
            return 200, [school._asdict() for school in self._schools.values()]
        if path == "/lessons":
            return 200, self._lessons(self._schools[int(query["school"])], int(query["after"]))
        return 404, {"error": "no such thing"}

    def _lessons(self, school, after):
        end = min(after + self._page, school.rows)
        rows = [lesson(school.id, number) for number in range(after, end)]
        return {"lessons": rows, "next": end if end < school.rows else None}


class Server(ThreadingHTTPServer):
    """Listen on a port that others may have reserved, and have a thread for each request."""

    allow_reuse_port = True
    daemon_threads = False  # What was begun gets its answer.
    request_queue_size = 64

    def __init__(self, port, door, timetables):
        self.door = door
        self.timetables = timetables
        super().__init__(("127.0.0.1", port), Request)

    def server_bind(self):
        TCPServer.server_bind(self)  # HTTPServer would ask the resolver for a name.
        self.server_name, self.server_port = self.server_address[:2]


class Request(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        """Answer it, and have it in the log before the answer is out: whoever has that may look."""
        came, wait = self.server.door.enter()
        status, content = (429, {"error": "too many"}) if wait else self.server.timetables.answer(self.path)
        self.server.door.leave(came, self.path, status, wait)
        self._send(status, json.dumps(content).encode(), wait)

    def log_message(self, *_):
        """Say nothing: there is a log."""

    def _send(self, status, body, wait):
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if wait:
                self.send_header("Retry-After", str(wait))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # Whoever asked was killed.


def main():
    """Serve timetables on 127.0.0.1 until SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("log")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--page", type=int, default=500)
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    stop = threading.Event()
    door = Door(options.log)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, lambda *_: door.crowd())
    with Server(options.port, door, Timetables(options.rows, options.page, options.seed)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        print(f"listens on 127.0.0.1:{server.server_port}", flush=True)
        stop.wait()
        server.shutdown()


if __name__ == "__main__":
    main()
