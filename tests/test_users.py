"""Several users on one machine: root and the site's own, and one without a home."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flagsweep import FlagSweep

pytestmark = pytest.mark.long

OTHER = 65534
AS_ANOTHER = """
import os, sys
import flagsweep.cli, flagsweep.operations.doctor.examine, flagsweep.consumer.runner, flagsweep.queues.client
import rich.table, rich.console, rich.progress
b"x".decode("unicode_escape"), "x".encode("idna")
os.setgroups([]); os.setgid(%d); os.setuid(%d)
sys.argv = ["flagsweep", *sys.argv[1:]]
flagsweep.cli.main()
"""  # The modules first: this interpreter may lie where the other user cannot read.
SHOP = """
import os
from flagsweep import FlagSweep
flags = FlagSweep(os.environ["FLAGSWEEP_DATABASE"])
@flags.handler
def work(n): ...
"""


@pytest.fixture
def folder(missing):
    """Return a folder of the other user's, which everybody can reach."""
    if os.geteuid() != 0:
        missing("only root can be somebody else")
    folder = Path(tempfile.mkdtemp(prefix="flagsweep-users-"))
    os.chown(folder, OTHER, OTHER)
    folder.chmod(0o755)
    (folder / "shop.py").write_text(SHOP)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def command(folder, env):
    """Give `command(*words, uid=OTHER)`: run a command as a user, in the folder; return what came of it."""

    def command(*words, uid=OTHER, database=folder / "site.db", **environ):
        program = ["-c", AS_ANOTHER % (uid, uid)] if uid else ["-m", "flagsweep"]
        given = {**env, "FLAGSWEEP_DATABASE": str(database), "FLAGSWEEP_APP": "shop:flags", **environ}
        given = {name: value for name, value in given.items() if value is not None}
        return subprocess.run(
            [sys.executable, *program, *words], cwd=folder, env=given, capture_output=True, text=True, timeout=30
        )

    return command


def owners(folder):
    return {path.stat().st_uid for path in [folder, *folder.rglob("*")] if path.name not in ("shop.py", "__pycache__")}


def test_what_root_sweeps_for_another_user_stays_that_users(folder, command):
    assert command("init").returncode == 0
    assert command("raise", "work", "[1]").returncode == 0
    swept = command("sweep", uid=0)
    assert (swept.returncode, swept.stdout) == (0, "swept 1 flag: 1 lowered\n"), swept.stderr
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    assert owners(folder) == {OTHER}
    assert command("raise", "work", "[2]").returncode == 0
    assert command("sweep").stdout == "swept 1 flag: 1 lowered\n"


def test_a_lease_folder_of_roots_hinders_nobody_from_looking_and_says_what_mends_it(folder, command):
    assert command("init").returncode == 0
    assert command("sweep", uid=0).returncode == 0
    lease = folder / "site.db.flagsweep"
    for path in (lease, *lease.iterdir()):  # As it was made before files were given to their user.
        os.chown(path, 0, 0)
    command("raise", "work", "[1]")
    for words in (["status"], ["list"], ["doctor"]):
        looked = command(*words)
        assert (looked.returncode, looked.stderr) == (0, ""), (words, looked.stdout)
    refused = command("sweep")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert f"it belongs to root, and the database to nobody: 'chown -R nobody {lease}' mends it" in refused.stderr
    subprocess.run(["chown", "-R", "nobody", str(lease)], check=True)
    assert command("sweep").stdout == "swept 1 flag: 1 lowered\n"


def test_no_link_in_the_place_of_a_lease_is_followed(folder, command):
    """Root sweeps in a folder that another user may write to."""
    assert command("init").returncode == 0
    (folder / "victim").write_text("precious")
    (folder / "site.db.flagsweep").mkdir()
    for name in ("lease", "box-1", "box-2"):
        (folder / "site.db.flagsweep" / name).symlink_to(folder / "victim")
    assert command("sweep", uid=0).returncode == 1
    assert (folder / "victim").read_text() == "precious"


@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_a_user_without_a_home_is_told_of_state_dir(folder, command, postgres_url, home):
    flags = FlagSweep(postgres_url)
    flags.init()
    flags.connections.close_thread()
    where = {"database": postgres_url, "HOME": home, "XDG_STATE_HOME": None, "uid": 12345}
    for words in (["status"], ["list"], ["doctor"]):
        looked = command(*words, **where)
        assert looked.returncode == 0 and "unexpected" not in looked.stderr, looked.stderr
    refused = command("sweep", **where)
    assert refused.returncode == 1
    assert "set state_dir (FLAGSWEEP_STATE_DIR) to a folder of its user" in refused.stderr
    own = folder / "state"
    own.mkdir()
    os.chown(own, 12345, 12345)
    assert command("sweep", **where, FLAGSWEEP_STATE_DIR=str(own)).returncode == 0
