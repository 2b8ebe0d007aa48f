"""Collect 100,000 rows from an API that is slow, strict, flaky and away for a while, and kill the collector midway.

Everything is real and stays on this machine: an HTTP API on 127.0.0.1 that grants so many requests a second and keeps a log, and
a site whose schedule raises a flag for each school on Mondays at six. The consumer, `flagsweep run`, has a clock that is ahead by
as much as it is to that Monday; nothing else is simulated. At moments that the seed picks the API sends everybody away (429,
`Retry-After`), the consumer is killed with -9, and the API is down. In the end the site's rows are compared with the API's, and
the log says whether it was ever asked more often than it allows.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "demo"))  # It lends its processes, its screen and its ledger.

from api import CROWDED, RATE, schools  # noqa: E402
from board import Board, Plain, View  # noqa: E402
from children import Children  # noqa: E402
from judge import Evidence, LogReader, verdict  # noqa: E402
from ledger import failures  # noqa: E402
from rich.console import Console  # noqa: E402

LIMIT = 120.0
"""Seconds for everything; whoever is not done by then has failed."""

OUTAGE = 4.0
"""Seconds without an API."""

EARLY = 1.0
"""Seconds before the week that the consumer is started."""

MOMENTS = ((0.15, 0.22, "crowd"), (0.35, 0.48, "kill"), (0.58, 0.68, "outage"))
"""What happens between which shares of the pages."""

LESSONS = "SELECT id, school_id, day, period, form, subject, room FROM lesson ORDER BY id"

SEOUL = ZoneInfo("Asia/Seoul")


class Failure(Exception):
    """The show cannot go on; the message says why."""


class Size(NamedTuple):
    """How much there is to collect: rows of all schools together, and rows in one answer."""

    rows: int
    page: int

    def pages(self, school):
        """Return how many pages a school has."""
        return -(-school.rows // self.page)


class Port:
    """Keep a port of this machine's for a server that comes and goes: nobody else gets it meanwhile."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = self._socket.getsockname()[1]

    def answers(self):
        """Return whether somebody listens on it."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.number)) == 0

    def close(self):
        """Give it back."""
        self._socket.close()


class Show:
    """Direct the processes along the plan and collect the evidence."""

    def __init__(self, seed, folder, size, children, screen):
        self.api = self.consumer = None
        self._seed = seed
        self._size = size
        self._folder = folder
        self._children = children
        self._screen = screen
        self._port = Port()
        self._log = LogReader(folder / "api-log.jsonl")
        self._schools = schools(size.rows)
        self._pages = sum(size.pages(school) for school in self._schools)
        self._in_hand = 0
        self._told = 0
        self._site = self._open_site()
        self._began = time.monotonic()

    def run(self):
        """Play the plan to its end; whatever goes wrong on the way is part of the evidence."""
        trouble, dice = [], random.Random(f"{self._seed} moments")
        try:
            self._deploy()
            self._begin_week()
            for low, high, what in MOMENTS:
                self._wait_for_pages(int(dice.uniform(low, high) * self._pages))
                {"crowd": self._crowd, "kill": self._kill, "outage": self._take_away}[what]()
            self._finish()
        except Failure as failure:
            trouble.append(str(failure))
        return self._evidence(trouble)

    def close(self):
        """Let go of the database and the port."""
        self._site.database.close()
        self._port.close()

    def _open_site(self):
        """Import the site in this process, too, to look into its database. Its settings come from the environment."""
        os.environ.update(
            TIMETABLES_DATABASE=str(self._folder / "timetables.db"), TIMETABLES_API=f"http://127.0.0.1:{self._port.number}"
        )
        import collector

        return collector

    # What happens.

    def _deploy(self):
        """Have the schedule written on the Sunday before: one that is new owes nothing of its past."""
        monday = next_monday()
        self._shift(monday - timedelta(hours=12))
        self._site.create_tables()
        self._site.flags.sweep()
        self._shift(monday - timedelta(seconds=EARLY))
        self._start_api()

    def _shift(self, to):
        """Put the site's clock to a time, in this process and in those that are started from now on."""
        shift = to.timestamp() - time.time()
        self._site.clock.shift = shift
        os.environ["TIMETABLES_SHIFT"] = repr(shift)

    def _begin_week(self):
        self._start_consumer()
        self._event(f"API on 127.0.0.1:{self._port.number}, consumer (pid {self.consumer.pid}): it is Monday, shortly before six")
        self._wait_until(self._has_begun, "the week to begin")
        self._event(f"the schedule has fired: {len(self._schools)} schools, {self._size.rows:,} rows, {RATE} requests a second")

    def _has_begun(self):
        return bool(self._log.latest)

    def _start_api(self):
        arguments = ("--port", str(self._port.number), "--rows", str(self._size.rows), "--page", str(self._size.page))
        log = str(self._folder / "api-log.jsonl")
        self.api = self._children.start("api", str(HERE / "api.py"), log, *arguments, "--seed", str(self._seed))
        self._wait_until(self._port.answers, "the API to listen")

    def _start_consumer(self):
        self.consumer = self._children.start("consumer", "-m", "flagsweep", "--app", "collector:flags", "run")

    def _wait_for_pages(self, pages):
        self._wait_until(lambda: len(self._log.pages) >= pages, f"{pages} pages to be served")

    def _crowd(self):
        os.kill(self.api.pid, signal.SIGUSR1)
        self._event(f"the API is crowded: 429 for everybody, for {CROWDED:g} s; the first holds back all others", "bad")
        self._wait_until(lambda: any(call.status == 429 for call in self._log.calls), "a 429")
        self._wait_for_pages(len(self._log.pages) + 1)
        self._event("and on it goes, as gently as before", "good")

    def _kill(self):
        pid, killed = self.consumer.pid, time.monotonic()
        self.consumer.kill()
        self.consumer = None
        self._in_hand = len(self._site.flags.find(state="claimed", kind="collect"))
        self._event(f"kill -9 of the consumer (pid {pid}), flags in hand: {self._in_hand}", "bad")
        self._start_consumer()
        self._wait_until(lambda: any(call.came > killed for call in self._log.calls), "the consumer to ask again")
        since = time.monotonic() - killed
        self._event(f"consumer back (pid {self.consumer.pid}) after {since:.1f} s: each school goes on at its cursor", "good")

    def _take_away(self):
        self.api, away = None, self.api
        away.stop()
        down = time.monotonic()
        self._event(f"the API is down for {OUTAGE:g} s: connection refused", "bad")
        self._wait_until(lambda: time.monotonic() >= down + OUTAGE, "the outage to end")
        self._start_api()
        self._event("the API is up again; the next probe will find out", "good")

    def _finish(self):
        self._wait_until(lambda: len(self._log.pages) == self._pages and self._up() == 0, "the last pages")
        consumer, self.consumer = self.consumer, None
        code = consumer.stop()
        if code != 0:
            raise Failure(f"the consumer ended with exit code {code} when it was asked to stop with SIGTERM")
        self._event("no flag is left up; the consumer stopped cleanly", "good")

    # What is to be seen of it.

    def _up(self):
        lane = self._site.flags.status()["lanes"]["api"]
        return lane["waiting"] + lane["claimed"]

    def _wait_until(self, condition, what):
        """Look at everything until the condition holds.

        :raises Failure: after the show's limit, or where a process has ended that should not.
        """
        while not condition():
            if time.monotonic() > self._began + LIMIT:
                raise Failure(f"gave up after {LIMIT:g} s, waiting for {what}")
            self._look()
            time.sleep(0.05)

    def _look(self):
        self._log.look()
        for child in (self.api, self.consumer):
            if child and child.exit_code is not None:
                raise Failure(f"the {child.name} ended by itself with exit code {child.exit_code}; see {child.log}")
        self._tell_outages()
        self._screen.progress(self._view())

    def _tell_outages(self):
        for event in self._outages()[self._told :]:
            self._told += 1
            if event == "began":
                self._event("the breaker opens: flag after flag failed alike, so all wait, and now and then one tries", "bad")
            else:
                self._event("a probe was answered: the breaker closes, and all go on", "good")

    def _outages(self):
        table = self._site.Outage
        return [row.event for row in table.select().order_by(table.id)]

    def _view(self):
        log, size = self._log, self._size
        rows = sum(min(log.served[school.id] * size.page, school.rows) for school in self._schools)
        bars = [(each.name, log.served[each.id] / size.pages(each), log.latest.get(each.id)) for each in self._schools]
        clock = datetime.fromtimestamp(self._site.clock.now() / 1e6, SEOUL).strftime("%A %H:%M:%S")
        return View(rows, size.rows, clock, self._state(), RATE, bars, [call.came for call in log.calls])

    def _state(self):
        consumer = f"consumer {self.consumer.pid}" if self.consumer else "no consumer"
        breaker = ", breaker open" if self._told % 2 else ""
        return f"{consumer}, API {'up' if self.api else 'down'}{breaker}"

    def _event(self, text, look="plain"):
        self._screen.event(text, look)

    def _evidence(self, trouble):
        self._log.look()
        return Evidence(
            rows=self._size.rows,
            calls=self._log.calls,
            kept=self._site.database.execute_sql(LESSONS).fetchall(),
            in_hand=self._in_hand,
            outages=self._outages(),
            still_up=self._up(),
            dead=self._site.flags.status()["lanes"]["api"]["dead"],
            seconds=time.monotonic() - self._began,
            trouble=trouble,
        )


def next_monday():
    """Return the next Monday at six in Seoul."""
    now = datetime.now(SEOUL)
    return (now + timedelta(days=7 - now.weekday())).replace(hour=6, minute=0, second=0, microsecond=0)


def make_screen():
    """Return the screen that suits where standard output goes."""
    console = Console(highlight=False)
    return Board(console) if sys.stdout.isatty() and not console.is_dumb_terminal else Plain()


def play(seed, folder, size):
    """Play the show in this folder; return whether every promise was kept."""
    with make_screen() as screen, Children(folder, HERE) as children:
        show = Show(seed, folder, size, children, screen)
        try:
            evidence = show.run()
        finally:
            show.close()
        lines = verdict(evidence)
        screen.ledger(lines)
        return conclude(screen, evidence.trouble + failures(lines), lines)


def conclude(screen, broken, lines):
    """Say how it ended: in one line, or one for each promise that was broken."""
    if not broken:
        figures = {line.what: line.figure for line in lines}
        screen.say(
            f"\nAll {figures['kept']} rows, each once. Pages fetched again after the kill: {figures['served again']}. "
            "The API was never asked more often than it allows.",
            "good",
        )
        return True
    for reason in broken:
        screen.say(f"FAILED: {reason}", "bad")
    return False


def main():
    """Run the show; exit with 0 only where every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="replay the moments and failures of an earlier run")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of all schools together (default: 100000)")
    parser.add_argument("--page", type=int, default=500, help="rows in one answer (default: 500)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with database, log and output")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: the children have to be ended
    folder = Path(tempfile.mkdtemp(prefix="flagsweep-timetables-"))
    print(f"flagsweep timetables, seed {seed} (replay with --seed {seed})", flush=True)
    kept = True  # unless it ends well: a failure's logs are worth reading
    try:
        good = play(seed, folder, Size(options.rows, options.page))
        kept = options.keep or not good
        return 0 if good else 1
    except KeyboardInterrupt:
        kept = options.keep
        print("\nstopped; every process of the show has ended", flush=True)
        return 130
    finally:
        if kept:
            print(f"kept: {folder} (consumer.log, api.log, api-log.jsonl, the database)", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
