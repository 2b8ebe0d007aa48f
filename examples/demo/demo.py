"""Sign up 500 people, kill the consumer three times, take the mail server away, and count the mails.

Everything is real and stays on this machine: a site that signs people up in SQLite, an SMTP server on 127.0.0.1 that
refuses some mails and is down for two seconds, and between them the consumer, `flagsweep run`. Each is a process.
The demo kills the consumer with -9 at moments that the seed picks; its queue is in memory and dies with it. In the end
the site's database is compared with the mail server's journal: no mail lost, none repeated but those in hand at a kill.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from children import HERE, Children
from ledger import Evidence, balance, failures
from mailserver import TAKES, JournalReader
from screen import make_screen

LIMIT = 60.0
"""Seconds for everything; whoever is not done by then has failed."""

OUTAGE = 2.0
"""Seconds without a mail server."""

PEOPLE = HERE / "people.csv"

MOMENTS = ((0.08, 0.28, "kill"), (0.36, 0.48, "kill"), (0.52, 0.60, "outage"), (0.66, 0.88, "kill"))
"""What happens between which shares of the mails."""


class Failure(Exception):
    """The demo cannot go on; the message says why."""


class Step(NamedTuple):
    """Do something `pause` seconds after the mail server has accepted `mails`."""

    mails: int
    pause: float
    what: str


def plan(seed: int, people: int) -> list[Step]:
    """Pick the moments."""
    dice = random.Random(f"{seed} moments")
    return [Step(int(dice.uniform(low, high) * people), dice.uniform(0, 0.25), what) for low, high, what in MOMENTS]


class Demo:
    """Direct the processes along the plan and collect the evidence."""

    def __init__(self, seed: int, folder: Path, people: int, children: Children, screen):
        self.seed = seed
        self.people = people
        self.site = self.mail_server = self.consumer = None
        self._folder = folder
        self._children = children
        self._screen = screen
        self._port = free_port()
        self._journal = JournalReader(folder / "mail-journal.jsonl")
        self._in_hand: list[set[str]] = []
        self._signup = self._open_site()
        self._began = time.monotonic()

    def run(self) -> Evidence:
        """Play the plan to its end; whatever goes wrong on the way is part of the evidence."""
        trouble = []
        try:
            self._start()
            for step in plan(self.seed, self.people):
                self._take(step)
            self._finish()
        except Failure as failure:
            trouble.append(str(failure))
        return self._evidence(trouble)

    def close(self):
        """Let go of the database."""
        self._signup.database.close()

    def _open_site(self):
        """Import the site in this process, too, to look into its database. Its settings come from the environment."""
        os.environ.update(SIGNUP_DATABASE=str(self._folder / "signup.db"), SIGNUP_MAIL_PORT=str(self._port))
        import signup

        return signup

    def _start(self):
        self._signup.create_tables()
        self._signup.database.connect(reuse_if_open=True)
        self._start_mail_server()
        self._start_consumer()
        self._screen.event(f"mail server on 127.0.0.1:{self._port}, consumer (pid {self.consumer.pid}): ready")
        self.site = self._children.start("site", "signup.py", str(PEOPLE), "--seed", str(self.seed))
        self._screen.event(f"the site opens: {self.people} people sign up, and each is owed a welcome mail")

    def _start_mail_server(self):
        arguments = ("mailserver.py", str(self._folder / "mail-journal.jsonl"), "--port", str(self._port))
        self.mail_server = self._children.start("mail-server", *arguments, "--seed", str(self.seed))
        self._wait_until(lambda: listens(self._port), "the mail server to listen")

    def _start_consumer(self):
        self.consumer = self._children.start("consumer", "-m", "flagsweep", "--app", "signup:flags", "run")

    def _take(self, step: Step):
        self._wait_until(lambda: self._sent(step.mails), f"{step.mails} mails to be delivered")
        moment = time.monotonic() + step.pause
        self._wait_until(lambda: time.monotonic() >= moment, "the next moment")
        {"kill": self._kill_consumer, "outage": self._take_mail_server_away}[step.what]()

    def _sent(self, mails: int) -> bool:
        sent = len(self._journal.accepted)
        if sent < mails and self.site.exit_code == 0 and self._up() == 0:
            raise Failure(f"no flag is up any more, but only {sent} mails were delivered")
        return sent >= mails

    def _kill_consumer(self):
        pid = self.consumer.pid
        self.consumer.kill()
        self.consumer, killed = None, time.monotonic()
        self._in_hand.append(self._claimed())
        in_hand = f"flags in hand: {len(self._in_hand[-1])}"
        self._screen.event(f"kill -9 of the consumer (pid {pid}), {in_hand}; its queue, in memory, is gone too", "bad")
        self._journal.look()
        before = len(self._journal.accepted)
        self._start_consumer()
        self._wait_until(lambda: len(self._journal.accepted) > before, "the consumer to send mails again")
        self._screen.event(f"consumer back (pid {self.consumer.pid}): first mail {self._since(killed)} later", "good")

    def _claimed(self) -> set[str]:
        flags = self._signup.flags.find(state="claimed", limit=10_000)
        return {self._signup.message_id(int(flag.key)) for flag in flags}

    def _take_mail_server_away(self):
        self.mail_server, away = None, self.mail_server
        away.stop()
        down = time.monotonic()
        self._screen.event(f"mail server down for {OUTAGE:g} s: its port is closed, every mail fails", "bad")
        self._wait_until(lambda: time.monotonic() >= down + OUTAGE, "the outage to end")
        self._start_mail_server()
        self._screen.event(f"mail server up again after {self._since(down)}", "good")

    def _finish(self):
        self._wait_until(lambda: self.site.exit_code == 0, "everybody to sign up")
        self._screen.event("everybody has signed up; the last mails go out")
        self._wait_until(lambda: self._up() == 0, "every flag to come down")
        consumer, self.consumer = self.consumer, None
        asked = time.monotonic()
        code = consumer.stop()
        if code != 0:
            raise Failure(f"the consumer ended with exit code {code} when it was asked to stop with SIGTERM")
        self._screen.event(f"no flag is left up; SIGTERM: consumer stopped cleanly after {self._since(asked)}", "good")

    def _up(self) -> int:
        """Count the columns and flags that are up, dead flags (and their columns) aside."""
        waiting, claimed, dead = self._flags()
        columns = self._signup.User.select().where(self._signup.User.needs_welcome_email).count()
        return max(waiting + claimed, columns - dead)

    def _flags(self) -> tuple[int, int, int]:
        lanes = self._signup.flags.status()["lanes"].values()
        return tuple(sum(lane[state] for lane in lanes) for state in ("waiting", "claimed", "dead"))

    def _wait_until(self, condition, what: str):
        """Look at everything until the condition holds.

        :raises Failure: after the demo's limit, or where a process has ended that should not.
        """
        while not condition():
            if time.monotonic() > self._began + LIMIT:
                raise Failure(f"gave up after {LIMIT:g} s, waiting for {what}")
            self._look()
            time.sleep(0.03)

    def _look(self):
        self._journal.look()
        for child in (self.site, self.mail_server, self.consumer):
            if child and child.exit_code is not None and (child is not self.site or child.exit_code != 0):
                raise Failure(f"the {child.name} ended by itself with exit code {child.exit_code}; see {child.log}")
        delivered = len({entry["id"] for entry in self._journal.accepted})
        self._screen.progress(self._signup.User.select().count(), delivered, self._state())

    def _state(self) -> str:
        consumer = f"consumer {self.consumer.pid}" if self.consumer else "no consumer"
        mail_server = "mail server up" if self.mail_server else "mail server down"
        return f"{consumer}, {mail_server}"

    def _since(self, moment: float) -> str:
        return f"{time.monotonic() - moment:.1f} s"

    def _evidence(self, trouble: list[str]) -> Evidence:
        self._journal.look()
        mails = {self._signup.message_id(user.id): user for user in self._signup.User.select()}
        # As many as run at once, and what they finish in 0.1 s: outcomes are settled after 50 ms at the latest.
        most_in_hand = self._signup.THREADS * (1 + round(0.1 / TAKES[0]))
        return Evidence(
            people=self.people,
            owed={id: (user.name, user.email) for id, user in mails.items()},
            accepted=self._journal.accepted,
            in_hand=self._in_hand,
            most_in_hand=most_in_hand,
            refused=self._journal.refused.total(),
            up={id for id, user in mails.items() if user.needs_welcome_email},
            still_up=self._up(),
            dead=self._flags()[2],
            seconds=time.monotonic() - self._began,
            trouble=trouble,
        )


def free_port() -> int:
    """Find a port that nobody has, and none that the system hands out to clients: it will be closed for a while."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise Failure("no free port on 127.0.0.1 between 20000 and 32000")


def listens(port: int) -> bool:
    """Return whether somebody answers on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def play(seed: int, folder: Path) -> bool:
    """Play the demo in this folder; return whether every promise was kept."""
    with open(PEOPLE, encoding="utf-8", newline="") as file:
        people = sum(1 for _ in csv.DictReader(file))
    with make_screen(people) as screen, Children(folder) as children:
        demo = Demo(seed, folder, people, children, screen)
        try:
            evidence = demo.run()
        finally:
            demo.close()
        lines = balance(evidence)
        screen.ledger(lines)
        return verdict(screen, evidence.trouble + failures(lines), lines)


def verdict(screen, broken: list[str], lines) -> bool:
    """Say how it ended: in one line, or one for each promise that was broken."""
    figures = {line.what: line.figure for line in lines}
    if not broken:
        mails = f"All {figures['owed']} mails were delivered, {figures['repeated']} of them once more than needed"
        screen.say(f"\nThree kills, and nothing was lost. {mails}.", "good")
        return True
    for reason in broken:
        screen.say(f"FAILED: {reason}", "bad")
    return False


def main() -> int:
    """Run the demo; exit with 0 only where every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="replay the moments, refusals and pauses of an earlier run")
    parser.add_argument("--keep", action="store_true", help="keep the folder with database, journal and logs")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: the children have to be ended
    folder = Path(tempfile.mkdtemp(prefix="flagsweep-demo-"))
    print(f"flagsweep demo, seed {seed} (replay with --seed {seed})", flush=True)
    kept = True  # unless it ends well: a failure's logs are worth reading
    try:
        good = play(seed, folder)
        kept = options.keep or not good
        return 0 if good else 1
    except KeyboardInterrupt:
        kept = options.keep
        print("\nstopped; every process of the demo has ended", flush=True)
        return 130
    finally:
        if kept:
            print(f"kept: {folder} (consumer.log, site.log, mail-server.log, the database, the journal)", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
