"""``completion``: what a shell then offers. Real shells are asked."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys

import pytest
from calling import flagsweep
from rig import plain

pytestmark = pytest.mark.long

ASK_BASH = """
eval "$(flagsweep completion bash)"
COMP_WORDS=({words}) COMP_CWORD={at}
_flagsweep_completion flagsweep
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(folder, env, shop):
    """Return an environment in which `flagsweep` is a command, and the site is named."""
    (folder / "bin").mkdir()
    (folder / "bin" / "flagsweep").write_text(f'#!/bin/sh\nexec {sys.executable} -m flagsweep "$@"\n')
    (folder / "bin" / "flagsweep").chmod(0o755)
    return {**env, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FLAGSWEEP_APP": "shop:flags"}


@pytest.fixture
def bash(folder, path):
    """Give `bash(*words)`: what bash offers for the last of them; nothing may have been told on stderr."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")

    def ask(*words, **environ):
        script = ASK_BASH.format(words=" ".join(f"'{word}'" for word in words), at=len(words) - 1)
        command = ["bash", "--norc", "-c", script]
        done = subprocess.run(command, cwd=folder, env={**path, **environ}, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


def test_bash_offers_commands_options_and_choices(bash):
    assert bash("flagsweep", "sta") == ["status"]
    assert bash("flagsweep", "schedule", "ed") == ["edit"]
    assert bash("flagsweep", "list", "--st") == ["--state"]
    assert bash("flagsweep", "list", "--state", "d") == ["dead"]


def test_bash_offers_kinds_lanes_and_schedules_of_the_site(bash, shop):
    shop.flags.schedules.add("weekly", "nightly", every="7d")
    assert bash("flagsweep", "pause", "") == ["greet", "nightly", "send"]
    assert bash("flagsweep", "list", "--kind", "s") == ["send"]
    assert bash("flagsweep", "lane", "") == ["default", "mail"]
    assert bash("flagsweep", "schedule", "edit", "w") == ["weekly"]
    assert bash("flagsweep", "--app", "shop", "raise", "ni", FLAGSWEEP_APP="") == ["nightly"]


def test_without_the_code_kinds_that_wait_are_offered_unless_a_shell_would_run_a_part_of_them(bash, shop, db_path):
    for name in ("old_mails", "x;touch$IFS$(id)", "`id`", "a:b"):
        shop.send.using(key=name).raise_flag(1)
        plain(db_path, "UPDATE flagsweep_flag SET kind = ? WHERE key = ?", name, name)
    assert bash("flagsweep", "pause", "", FLAGSWEEP_APP="", FLAGSWEEP_DATABASE=f"sqlite:///{db_path}") == ["old_mails"]


@pytest.mark.parametrize(
    "trouble",
    [
        "raise SystemExit('no')",
        "import nosuchmodule",
        "print('hello'); import os; os.write(1, b'x'); os.write(2, b'y'); input()",
        "(",
        "import time; time.sleep(60)",
    ],
    ids=["exits", "lacks a module", "prints and reads", "is no python", "hangs"],
)
def test_a_site_that_is_broken_offers_nothing_and_says_nothing(bash, folder, trouble):
    (folder / "broken.py").write_text(trouble)
    assert bash("flagsweep", "pause", "", FLAGSWEEP_APP="broken") == []
    assert bash("flagsweep", "pau", FLAGSWEEP_APP="broken") == ["pause"]


def test_without_tables_kinds_of_the_code_are_offered_and_no_file_is_made(bash, db_path):
    db_path.unlink()
    assert bash("flagsweep", "pause", "se") == ["send"]
    assert bash("flagsweep", "schedule", "edit", "") == [] and not db_path.exists()


def test_of_what_stands_beside_only_a_file_that_speaks_of_flagsweep_is_imported_for_a_key(bash, folder):
    (folder / "app.py").write_text("import pathlib; pathlib.Path('was_run').touch()")
    assert bash("flagsweep", "pause", "", FLAGSWEEP_APP="") == [] and not (folder / "was_run").exists()
    (folder / "main.py").write_text("from shop import flags")
    assert bash("flagsweep", "pause", "n", FLAGSWEEP_APP="") == []
    (folder / "main.py").write_text("import flagsweep\nfrom shop import flags")
    assert bash("flagsweep", "pause", "n", FLAGSWEEP_APP="") == ["nightly"] and not (folder / "was_run").exists()


def test_fish_offers_the_same(folder, path):
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    script = "flagsweep completion fish | source; complete -C 'flagsweep sta'; complete -C 'flagsweep pause n'"
    done = subprocess.run(["fish", "-N", "-c", script], cwd=folder, env=path, capture_output=True, text=True, timeout=60)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == ["status", "nightly"]
    assert ("Show what is up in each lane" in done.stdout, done.stderr) == (True, "")


def test_zsh_completes_at_the_key(folder, path, until):
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**path, "TERM": "dumb", "PS1": "$ "})
    shown = ""

    def shows(text):
        nonlocal shown
        while select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
        return re.search(text, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07", "", shown))

    try:
        os.write(terminal, b'autoload -U compinit; compinit -u; eval "$(flagsweep completion zsh)"; echo rea""dy\n')
        until(lambda: shows("ready"))
        os.write(terminal, b"flagsweep pause nig\t")
        until(lambda: shows("flagsweep pause nightly"))
    finally:
        os.kill(pid, 9)
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(folder, shell):
    script = flagsweep("completion", shell).stdout
    assert f"# To install it: flagsweep completion {shell} > " in script
    assert script.startswith("#compdef flagsweep\n" if shell == "zsh" else "# To install it")
    assert "Error: Invalid value for '{bash|zsh|fish}'" in flagsweep("completion", "tcsh", code=2).stderr
