"""A site that somebody breaks, and a person who mends it with what the terminal says: what to type stands there in quotes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

APP = """
import os
import smtplib
from pathlib import Path

from flagsweep import Backoff, FlagSweep

flags = FlagSweep(os.environ.get("NIGHT_DATABASE", "site.db"), lanes={{"post": 2}}, shutdown_timeout=2, {settings})
done = Path("done.txt")


def note(text):
    with done.open("a") as file:
        file.write(text + "\\n")


@flags.handler(lane="post", max_attempts=3, backoff=Backoff(first=0.1, cap="1s"))
def mail(n):
    {mail}
    note(f"mail {{n}}")


@flags.handler
def tidy():
    note("tidy")

{more}
"""


class Said:
    """What the terminal showed, and the exit code."""

    def __init__(self, command, code, text):
        self.command = command
        self.code = code
        self.text = text

    def __str__(self):
        return f"$ flagsweep {shlex.join(self.command)}   [{self.code}]\n{self.text}"

    @property
    def flat(self):
        """The text without its line breaks: how wide the terminal is decides where they are."""
        return " ".join(self.text.split())

    def commands(self):
        """Return the commands that it names, each as its arguments."""
        named = re.findall(r"-> flagsweep (.+)$", self.text, re.MULTILINE) + re.findall(r"'flagsweep ([^']+)'", self.flat)
        return [shlex.split(command) for command in named]

    def names(self, *words):
        """Fail unless it says all of these."""
        for word in words:
            assert re.search(word, self.flat, re.IGNORECASE), f"nothing about {word!r} in\n{self}"
        return self


class Night:
    """One broken site, in a folder of its own.

    :param spawn: starts a process, and ends it with the test.
    """

    def __init__(self, folder, spawn, env, until, database=None):
        self.folder = folder
        self.said = []
        self._spawn = spawn
        self._until = until
        self._env = {**env, "COLUMNS": "100", "FLAGSWEEP_APP": "work:flags"}
        if database is not None:
            self._env["NIGHT_DATABASE"] = str(database)
        folder.mkdir(exist_ok=True)

    def write(self, mail="pass", more="", settings=""):
        """Write the site's code.

        :param mail: what its handler ``mail`` does.
        """
        (self.folder / "work.py").write_text(APP.format(mail=mail, more=more, settings=settings))

    def ask(self, *command, code=None, input=None, timeout=60):
        """Type a command; return what it said."""
        run = subprocess.run(
            [sys.executable, "-m", "flagsweep", *command],
            cwd=self.folder,
            env=self._env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        said = Said(command, run.returncode, run.stdout)
        self.said.append(said)
        assert "Traceback" not in said.text, said
        assert code is None or said.code == code, said
        return said

    def do(self, said, *words):
        """Type the first command that was named and has these words in it, as the person would who reads it."""
        named = said.commands()
        chosen = next((each for each in named if all(word in each for word in words)), None)
        assert chosen is not None, f"no command with {words} is named in\n{said}"
        return self.ask(*chosen, code=0, input="y\n")

    def start(self):
        """Start the consumer; return its process, once it sweeps or has said why not."""
        child = self._spawn(sys.executable, "-m", "flagsweep", "run", cwd=self.folder, env=self._env)
        self._until(lambda: child.poll() is not None or "flagsweep sweeps" in child.log.read_text(), limit=30)
        return child

    def stop(self, child):
        """Stop the consumer as a service manager does."""
        child.send_signal(signal.SIGTERM)
        child.wait(20)

    def raise_mails(self, *numbers):
        """Have the site owe mails."""
        for n in numbers:
            self.ask("raise", "mail", json.dumps({"n": n}), code=0)

    @property
    def done(self):
        """What was done, a line each."""
        path = self.folder / "done.txt"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, *lines, limit=20):
        """Wait until these lines are there."""
        self._until(lambda: set(lines) <= set(self.done), limit=limit)

    def is_well(self):
        """Return whether a monitor would say so."""
        return self.ask("check").code == 0

    def show(self):
        """Return all that was typed and said: for people, in the log of a failed test."""
        return "\n\n".join(map(str, self.said))


def copy(path, to):
    """Copy a database with all that lies beside it, as a person would with cp -a."""
    to.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", *map(str, Path(path).parent.glob(f"{Path(path).name}*")), str(to)], check=True)


def fill(folder):
    """Fill a small disk to its last byte."""
    with open(folder / "filler", "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    os.sync()
