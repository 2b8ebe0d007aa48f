"""The tutorial, typed from its first line to its last."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import flagsweep

TUTORIAL = (Path(flagsweep.__file__).resolve().parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$|^<!-- the test: (.*?) -->$", re.DOTALL | re.MULTILINE)
AS_SHOWN = "[exit code "

pytestmark = pytest.mark.long


class Reader:
    """Somebody with two terminals who types what stands there."""

    def __init__(self, folder, spawn, env, until):
        self.folder = folder
        self.second = None
        self._spawn = spawn
        self._until = until
        bin_folder = Path(sys.executable).parent
        self._env = {**env, "PATH": f"{bin_folder}{os.pathsep}{env['PATH']}", "COLUMNS": "100"}

    def read(self, text):
        for language, where, content, aside in BLOCK.findall(text):
            if aside:
                self._do(aside)
            elif language == "python":
                self._write(content)
            elif language == "console":
                for command, shown in _typed(content):
                    (self._type_in_second if where else self._type)(command, shown)

    def _write(self, content):
        title, _, code = content.partition("\n")
        name, at_end = re.fullmatch(r"# (\S+?)(, at its end)?", title).groups()
        with (self.folder / name).open("a" if at_end else "w", encoding="utf-8") as file:
            file.write(f"\n\n{code}" if at_end else content)

    def _type(self, command, shown):
        """Type a command until it shows what it should: a person looks again, too, where something takes a moment."""
        if command.startswith("export "):
            self._env.update([command.removeprefix("export ").split("=")])
            return
        said = []

        def is_so():
            run = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            end = f"{AS_SHOWN}{run.returncode}]\n" if run.returncode else ""
            said.append(run.stdout + end)
            return _matches(shown, said[-1])

        looks = command.split()[0] in ("cat", "tail") or command.startswith("flagsweep check")
        try:
            self._until(is_so, limit=10, every=0.25) if looks else is_so()
        finally:
            assert _matches(shown, said[-1]), f"$ {command}\n{said[-1]}\ninstead of\n{shown}"

    def _type_in_second(self, command, shown):
        self.second = self._spawn("bash", "-c", f"exec {command}", cwd=self.folder, env=self._env)
        first = shown.splitlines()[0].replace("...", "")
        self._until(lambda: self.second.poll() is not None or first.split()[0] in self.second.log.read_text(), limit=20)
        assert _matches(f"...{shown.strip()}...", self.second.log.read_text())

    def _do(self, aside):
        for what in aside.split("; "):
            if what == "kill second":
                self.second.kill()
                self.second.wait(10)
            elif what == "stop second":
                self.second.send_signal(signal.SIGINT)
                self.second.wait(20)
            elif what == "wait for 1 dead":
                self._until(lambda: '"dead": 1' in self._output("flagsweep status --json"), limit=20)
            elif change := re.fullmatch(r"in (\S+) (\S+) becomes (\S+)", what):
                path = self.folder / change[1]
                code = path.read_text()
                assert change[2] in code
                path.write_text(code.replace(change[2], change[3]))
            else:
                assert what == "add to work.py", what

    def _output(self, command):
        return subprocess.run(["bash", "-c", command], cwd=self.folder, env=self._env, capture_output=True, text=True).stdout


def _typed(content):
    """Yield each command of a block with what is shown below it."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def _matches(shown, said):
    """Return whether something was said as it is shown: `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern.replace(r"\ ", " "), said.strip(), re.DOTALL) is not None


def test_the_tutorial_does_what_it_says(tmp_path, spawn, env, until):
    Reader(tmp_path, spawn, env, until).read(TUTORIAL)
