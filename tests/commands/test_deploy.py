"""``deploy``: what systemd, supervisor and docker read of it, and whether what they would start really runs and stops."""

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from calling import flagsweep

TARGETS = ("systemd", "supervisor", "docker", "compose")
MARGIN = 10


@pytest.fixture
def deployed(shop, folder, monkeypatch):
    """Give `deployed(target)`: the files, by name, for the site in this folder."""

    def deploy(target, *more):
        out = folder / target
        flagsweep("deploy", target, "--out", out, "--user", getpass.getuser(), "--yes", *more)
        return {path.name: path.read_text() for path in out.iterdir()}

    return deploy


def value_of(text, name):
    return re.search(rf"^{name}=(.*)$", text, re.MULTILINE)[1]


@pytest.mark.parametrize("target", TARGETS)
def test_without_out_the_first_file_is_printed_and_the_others_are_named(shop, folder, target):
    result = flagsweep("deploy", target)
    first, *others = (path.strip() for path in re.split(r"; with --out FOLDER also|,", line_of(result).removeprefix("this is ")))
    flagsweep("deploy", target, "--out", folder / "out")
    assert (folder / "out" / first).read_text() == result.stdout
    assert {first, *others} == {path.name for path in (folder / "out").iterdir()}


def line_of(result):
    return next(line for line in result.stderr.splitlines() if line.startswith("this is "))


@pytest.mark.parametrize("target", TARGETS)
def test_no_file_is_written_over_and_no_secret_shown(shop, folder, monkeypatch, target):
    for name, value in (
        ("FLAGSWEEP_QUEUE", "redis://:hunter2@queue.internal/0"),
        ("FLAGSWEEP_QUEUE_KEY", "hunter2" * 4),
        ("FLAGSWEEP_TIMEZONE", "Asia/Seoul"),
    ):
        monkeypatch.setenv(name, value)
    flagsweep("deploy", target, "--out", folder / "out")
    texts = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    assert "hunter2" not in "".join(texts.values())
    (variables,) = (name for name in texts if name.endswith(".env"))
    assert (folder / "out" / variables).stat().st_mode & 0o777 == 0o600
    assert re.search(r"^FLAGSWEEP_TIMEZONE=.?Asia/Seoul", texts[variables], re.MULTILINE)
    assert re.search("^#FLAGSWEEP_QUEUE=$", texts[variables], re.MULTILINE)
    assert "would be written over; --yes does it" in flagsweep("deploy", target, "--out", folder / "out", code=1).stderr
    assert texts == {path.name: path.read_text() for path in (folder / "out").iterdir()}


def test_the_time_to_stop_is_that_of_the_handlers_and_a_margin(deployed, shop):
    object.__setattr__(shop.flags.settings, "shutdown_timeout", 30.0)
    stop = 30 + MARGIN
    assert value_of(deployed("systemd")["flagsweep.service"], "TimeoutStopSec") == str(stop)
    assert value_of(deployed("supervisor")["flagsweep.conf"], "stopwaitsecs") == str(stop)
    assert f"--stop-timeout {stop} " in deployed("docker")["Dockerfile"]
    assert f"stop_grace_period: {stop}s" in deployed("compose")["compose.yaml"]


def test_a_name_that_is_none_is_refused(shop):
    assert "--name must be letters" in flagsweep("deploy", "systemd", "--name", "a b", code=2).stderr


@pytest.mark.long
def test_systemd_takes_the_units(deployed, folder):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    assert {"flagsweep.service", "flagsweep-check.service", "flagsweep-check.timer"} <= set(deployed("systemd"))
    units = [folder / "systemd" / name for name in ("flagsweep.service", "flagsweep-check.service", "flagsweep-check.timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "flagsweep" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.long
def test_what_systemd_would_start_runs_and_ends_in_its_time_by_its_signal(deployed, shop, env, spawn, until):
    unit = deployed("systemd")["flagsweep.service"]
    command = shlex.split(value_of(unit, "ExecStart"))
    child = spawn(*command, cwd=value_of(unit, "WorkingDirectory"), env=env)
    shop.send.raise_flag(1)
    until(lambda: not shop.flags.find())
    child.send_signal(getattr(signal, value_of(unit, "KillSignal")))
    assert child.wait(float(value_of(unit, "TimeoutStopSec"))) == 0
    assert [c["alive"] for c in shop.flags.status()["consumers"]] == []


@pytest.mark.long
def test_a_folder_with_spaces_and_percents_is_quoted_as_each_wants_it(folder, tmp_path):
    from flagsweep.commands.deploy_files import Deployed, supervisor, systemd

    odd = tmp_path / "a b%20"
    odd.mkdir()
    (odd / "run").write_text("#!/bin/sh\n")
    (odd / "run").chmod(0o755)
    what = Deployed("odd", (str(odd / "run"), "--app", "x$y"), odd, getpass.getuser(), 18, odd / "site.db", "", {}, "")
    for name, (text, _) in {**systemd(what), **supervisor(what)}.items():
        (tmp_path / name).write_text(text)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", tmp_path / "odd.service"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, [line for line in done.stderr.splitlines() if "odd" in line]) == (0, [])
    assert shlex.split(program_of(tmp_path / "odd.conf").command)[2].endswith(f"exec {shlex.join([*what.command, 'run'])}")


def program_of(path):
    """Return the program in a file as supervisor itself reads it."""
    from supervisor.options import ServerOptions

    whole = path.with_name("supervisord.conf")
    whole.write_text(f"[supervisord]\nlogfile={path.parent}/log\npidfile={path.parent}/pid\n[include]\nfiles={path}\n")
    options = ServerOptions()
    options.realize(["-c", str(whole)])
    ((program,),) = [group.process_configs for group in options.process_group_configs]
    return program


@pytest.mark.long
def test_supervisor_reads_the_program(deployed, folder):
    deployed("supervisor")
    program = program_of(folder / "supervisor" / "flagsweep.conf")
    assert (program.stopsignal, program.stopwaitsecs) == (signal.SIGTERM, 1 + MARGIN)  # 0.3 s of the shop's, rounded up.
    assert program.directory == str(folder) and program.autorestart is not False


@pytest.mark.long
def test_supervisor_keeps_a_consumer_whose_variables_only_a_file_has_and_stops_it_well(deployed, folder, shop, env, spawn, until):
    files = deployed("supervisor")
    (folder / "secret.env").write_text("FLAGSWEEP_DATABASE='sqlite:///site.db?a=1&b'\nMARKED='x & y'\n")
    program = folder / "flagsweep.conf"
    program.write_text(files["flagsweep.conf"].replace("/etc/flagsweep/flagsweep.env", str(folder / "secret.env")))
    whole = folder / "supervisord.conf"
    whole.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n[include]\nfiles={program}\n"
    )
    child = spawn(sys.executable, "-m", "supervisor.supervisord", "-c", str(whole), cwd=folder, env=env)
    shop.send.raise_flag(1)
    until(lambda: not shop.flags.find())
    (consumer,) = shop.flags.status()["consumers"]
    with open(f"/proc/{consumer['pid']}/environ") as environ, open(f"/proc/{consumer['pid']}/cmdline") as words:
        assert "MARKED=x & y" in environ.read().split("\0") and "MARKED" not in words.read()
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
    assert shop.flags.status()["consumers"] == []


def test_compose_reads_the_file(deployed):
    yaml = pytest.importorskip("yaml")
    files = deployed("compose")
    read = yaml.safe_load(files["compose.yaml"])
    service = read["services"]["flagsweep"]
    assert service["command"] == ["flagsweep", "--app", "shop:flags", "run"]
    assert service["healthcheck"]["test"] == ["CMD", "flagsweep", "--app", "shop:flags", "check"]
    assert (service["stop_signal"], service["stop_grace_period"]) == ("SIGTERM", f"{1 + MARGIN}s")
    assert {volume.partition(":")[0] for volume in service["volumes"]} == set(read["volumes"]) == {"flagsweep-state", "site-data"}
    assert service["environment"] == {"FLAGSWEEP_STATE_DIR": "/state"}
    assert "FLAGSWEEP_DATABASE=sqlite:////data/site.db\n" in files["flagsweep.env"]
    dockerfile = files["Dockerfile"]
    assert json.loads(re.search("^CMD (.*)", dockerfile, re.MULTILINE)[1]) == service["command"]
    assert "STOPSIGNAL SIGTERM\n" in dockerfile and 'VOLUME ["/state", "/data"]' in dockerfile


def test_for_a_server_notes_go_to_a_folder_of_the_service(shop, folder, monkeypatch):
    (folder / "shop_on_a_server.py").write_text(
        "from flagsweep import FlagSweep\nflags = FlagSweep('postgresql://site@db.internal/site')"
    )
    unit = flagsweep("--app", "shop_on_a_server", "deploy", "systemd").stdout
    assert value_of(unit, "StateDirectory") == "flagsweep" and "postgresql.service" in value_of(unit, "After")
    assert value_of(unit, "Environment") == "FLAGSWEEP_STATE_DIR=%S/flagsweep"


def test_a_host_is_called_as_it_was_called_here(shop, monkeypatch):
    from click.testing import CliRunner

    from flagsweep.commands.group import hosted

    monkeypatch.setattr(sys, "argv", ["manage.py", "flagsweep", "deploy", "systemd"])
    group = hosted(lambda: shop.flags, "the project")
    unit = CliRunner().invoke(group, ["deploy", "systemd"], prog_name="manage.py flagsweep").stdout
    assert value_of(unit, "ExecStart") == f"{sys.executable} {os.path.abspath('manage.py')} flagsweep run"
