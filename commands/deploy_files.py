"""The files that keep a consumer running, as systemd, supervisor, docker and compose want them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

Files = dict[str, tuple[str, str]]
"""By name, the one to print first: the text, and what is to be done with it."""


class Deployed(NamedTuple):
    """Say what is to be run.

    :param command: the words before ``run``.
    :param stop: seconds from the signal to the end, at the most.
    :param file: of the database; None where it is a server.
    :param server: which one, or nothing.
    :param variables: what the environment must hold; None for a value that nobody is to be shown.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    user: str
    stop: int
    file: Path | None
    server: str
    variables: Mapping[str, str | None]
    state_dir: str

    @property
    def environment_file(self) -> str:
        """Where the variables are kept on a host."""
        return f"/etc/flagsweep/{self.name}.env"


def _variables_file(
    deployed: Deployed, quoted: Callable[[str], str] = str, more: Mapping[str, str] | None = None, note: str = ""
) -> str:
    """Return the file of variables.

    :param quoted: returns a value as whoever reads the file wants it: systemd, a shell and docker each have rules of their own.
    """
    lines = ["# What the consumer finds in its environment. Secrets belong here, and nowhere else: keep this file at mode 0600."]
    lines += [f"# {note}"] if note else []
    for name, value in {**deployed.variables, **(more or {})}.items():
        lines += [f"# {name} is secret: fill it in.", f"#{name}="] if value is None else [f"{name}={quoted(value)}"]
    if "FLAGSWEEP_DATABASE" not in {**deployed.variables, **(more or {})}:
        example = quoted("postgresql://site:PASSWORD@db.internal/site?sslmode=require")
        lines += ["# Where the code does not name the database:", f"#FLAGSWEEP_DATABASE={example}"]
    return "\n".join(lines) + "\n"


# systemd

UNIT = """\
# {where}
# systemctl daemon-reload && systemctl enable --now {name}
[Unit]
Description=flagsweep: sweeps the work flags of {folder}
After=network-online.target{after}
Wants=network-online.target
# A database that is away is waited for, however long: never give up.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
EnvironmentFile=-{env}
ExecStart={command}
Restart=always
RestartSec=2
# Running handlers get shutdown_timeout; then the rest is given back, and the process ends by itself.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={stop}
{state}
# It writes its database and nothing else. What handlers write besides: add it to ReadWritePaths.
ProtectSystem=strict
ReadWritePaths={writable}
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""

CHECK_UNIT = """\
# {where}
# Fails where something is wrong: systemctl --failed shows it. OnFailure= may call whatever tells you.
[Unit]
Description=flagsweep: is the work of {folder} being done?

[Service]
Type=oneshot
User={user}
WorkingDirectory={folder}
EnvironmentFile=-{env}
ExecStart={command}
TimeoutStartSec=60
"""

TIMER = """\
# /etc/systemd/system/{name}-check.timer
# systemctl enable --now {name}-check.timer
[Unit]
Description=flagsweep: look every minute

[Timer]
OnBootSec=3min
OnUnitActiveSec=1min

[Install]
WantedBy=timers.target
"""

UNITS_OF = {"PostgreSQL": " postgresql.service", "MySQL": " mysql.service mariadb.service"}


def systemd(deployed: Deployed) -> Files:
    """Return a unit for the consumer, and one with a timer that checks it."""
    known = {
        "name": deployed.name,
        "user": deployed.user,
        "folder": _percent(str(deployed.folder)),
        "env": deployed.environment_file,
        "after": UNITS_OF.get(deployed.server, ""),
        "stop": deployed.stop,
        "state": _state_lines(deployed),
        "writable": _quoted(str(deployed.file.parent if deployed.file else deployed.folder)),
    }
    run, check = (_command_line(deployed.command, verb) for verb in ("run", "check"))
    folder = "/etc/systemd/system"
    named = {name: f"{folder}/{name}" for name in (f"{deployed.name}.service", f"{deployed.name}-check.service")}
    (unit, where), (checking, where_checked) = named.items()
    return {
        unit: (UNIT.format(**known, command=run, where=where), f"goes to {folder}/"),
        f"{deployed.name}.env": (
            _variables_file(deployed, _double_quoted, _state_variables(deployed)),
            f"goes to {deployed.environment_file}; mode 0600, of root",
        ),
        checking: (CHECK_UNIT.format(**known, command=check, where=where_checked), f"goes to {folder}/"),
        f"{deployed.name}-check.timer": (TIMER.format(**known), f"goes to {folder}/"),
    }


def _command_line(command: tuple[str, ...], verb: str) -> str:
    """Return the words as systemd reads them again, which puts variables in all but the first."""
    return " ".join(map(_quoted, (command[0], *(word.replace("$", "$$") for word in (*command[1:], verb)))))


def _state_lines(deployed: Deployed) -> str:
    """Return where it keeps notes for its next start: beside a file's database, for a server's in a folder of the service."""
    if deployed.file or deployed.state_dir:
        return f"ReadWritePaths={_quoted(deployed.state_dir)}\n" if deployed.state_dir else ""
    return f"StateDirectory={deployed.name}\nEnvironment=FLAGSWEEP_STATE_DIR=%S/{deployed.name}\n"


def _state_variables(deployed: Deployed) -> dict[str, str]:
    """Return what has a command that is typed with these variables find the same notes as the service."""
    return {} if deployed.file or deployed.state_dir else {"FLAGSWEEP_STATE_DIR": f"/var/lib/{deployed.name}"}


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word as systemd reads it again."""
    word = _percent(word)
    if re.fullmatch(r"[\w./:=@%+,$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


# supervisor

PROGRAM = """\
; /etc/supervisor/conf.d/{name}.conf
; supervisorctl update
[program:{name}]
command=/bin/sh -c {command}
directory={folder}
user={user}
autostart=true
autorestart=true
startsecs=2
startretries=1000000
; Running handlers get shutdown_timeout; then the rest is given back, and the process ends by itself.
stopsignal=TERM
stopwaitsecs={stop}
killasgroup=true
redirect_stderr=true
stdout_logfile_maxbytes=10MB
"""

CRON = """\
# /etc/cron.d/{name}-check: supervisor knows no health check. cron mails what it prints where something is wrong.
* * * * * {user} cd {folder} && {command} > /dev/null
"""


def supervisor(deployed: Deployed) -> Files:
    """Return a program for the consumer. A shell reads the variables: what stands in this file, anybody may read."""
    known = {
        "name": deployed.name,
        "user": deployed.user,
        "folder": _percent(str(deployed.folder)),
        "stop": deployed.stop,
    }
    run = _percent(_double_quoted(_in_shell(deployed, "run")))
    check = f"/bin/sh -c {shlex.quote(_in_shell(deployed, 'check'))}".replace("%", "\\%")
    cron = CRON.format(name=deployed.name, user=deployed.user, folder=shlex.quote(str(deployed.folder)), command=check)
    where = deployed.environment_file
    return {
        f"{deployed.name}.conf": (PROGRAM.format(**known, command=run), "goes to /etc/supervisor/conf.d/"),
        f"{deployed.name}.env": (_variables_file(deployed, shlex.quote), f"goes to {where}; mode 0600, of {deployed.user}"),
        f"{deployed.name}-check": (cron, "goes to /etc/cron.d/"),
    }


def _in_shell(deployed: Deployed, verb: str) -> str:
    """Return a line of a shell that reads the variables and becomes the command."""
    file = deployed.environment_file
    return f"set -a; test ! -r {file} || . {file}; exec {shlex.join((*deployed.command, verb))}"


def _double_quoted(text: str) -> str:
    """Return a word as supervisor reads it again, which splits as a shell does, and systemd."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# docker

DOCKERFILE = """\
# docker build -t {name} .
# docker run -d --name {name} --init --restart unless-stopped --stop-timeout {stop} --env-file {name}.env{volumes} {name}
FROM python:{python}-slim
WORKDIR /app
{install}
COPY . .
RUN useradd --uid 10001 --no-create-home flagsweep && mkdir -p /state /data && chown flagsweep /state /data
USER flagsweep
# What it notes for its next start outlives the container.
ENV FLAGSWEEP_STATE_DIR=/state PYTHONUNBUFFERED=1
VOLUME ["/state"{data}]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD {check}
CMD {run}
"""


def docker(deployed: Deployed) -> Files:
    """Return a Dockerfile for the consumer. The time to stop is no part of an image: its first lines say how to start it."""
    volumes = f" -v {deployed.name}-state:/state" + (" -v site-data:/data" if deployed.file else "")
    text = DOCKERFILE.format(
        name=deployed.name,
        stop=deployed.stop,
        volumes=volumes,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        install=_install(deployed),
        data=', "/data"' if deployed.file else "",
        check=json.dumps([*_inside(deployed), "check"]),
        run=json.dumps([*_inside(deployed), "run"]),
    )
    note = "Where the code names the database itself, FLAGSWEEP_DATABASE is not read: have it leave that out, or name /data."
    variables = _variables_file(deployed, str, _inside_variables(deployed), note if deployed.file else "")
    return {
        "Dockerfile": (text, "goes beside the site's code"),
        f"{deployed.name}.env": (variables, "what docker run --env-file reads; keep it out of the image"),
        ".dockerignore": (".git\n.venv\n__pycache__\n*.env\n*.db*\n*.sqlite*\n", "goes beside the Dockerfile"),
    }


def _inside(deployed: Deployed) -> list[str]:
    """Return the words before the verb as they are in a container, where the site is in /app."""
    first, *more = deployed.command
    moved = [word.replace(str(deployed.folder), "/app", 1) if word.startswith(f"{deployed.folder}/") else word for word in more]
    return [Path(first).name if Path(first).is_absolute() else first, *moved]


def _inside_variables(deployed: Deployed) -> dict[str, str]:
    return {"FLAGSWEEP_DATABASE": f"sqlite:////data/{deployed.file.name}"} if deployed.file else {}


EXTRAS = {"PostgreSQL": "[postgres]", "MySQL": "[mysql]"}


def _install(deployed: Deployed) -> str:
    """Return how the image gets its packages: as the site lists them."""
    if (deployed.folder / "requirements.txt").is_file():
        return "COPY requirements.txt .\nRUN pip install --no-cache-dir -r requirements.txt"
    return f"RUN pip install --no-cache-dir 'flagsweep{EXTRAS.get(deployed.server, '')}'"


# compose

COMPOSE = """\
# docker compose up -d --build; 'docker compose stop' gives running handlers their time.
services:
  {name}:
    build: .
    command: {run}
    # The name stays where a new container takes the place of the old one.
    hostname: {name}
    init: true
    restart: unless-stopped
    stop_signal: SIGTERM
    stop_grace_period: {stop}s
    env_file: {name}.env
    environment:
      FLAGSWEEP_STATE_DIR: /state
    volumes:
      - {name}-state:/state{mount}
    tmpfs:
      - /tmp
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    healthcheck:
      test: {check}
      interval: 60s
      timeout: 20s
      start_period: 60s
      retries: 3

volumes:
  {name}-state:
{volume}"""


SITE_DATA = """
      # The site's own service mounts the same: one host, a local disk.
      - site-data:/data"""


def compose(deployed: Deployed) -> Files:
    """Return a compose file for the consumer, and the Dockerfile that it builds."""
    text = COMPOSE.format(
        name=deployed.name,
        run=json.dumps([*_inside(deployed), "run"]),
        check=json.dumps(["CMD", *_inside(deployed), "check"]),
        stop=deployed.stop,
        mount=SITE_DATA if deployed.file else "",
        volume="  site-data:\n" if deployed.file else "",
    )
    return {"compose.yaml": (text.replace("$", "$$"), "goes beside the site's code"), **docker(deployed)}


TARGETS: dict[str, Callable[[Deployed], Files]] = {
    "systemd": systemd,
    "supervisor": supervisor,
    "docker": docker,
    "compose": compose,
}
"""What can be deployed to."""
