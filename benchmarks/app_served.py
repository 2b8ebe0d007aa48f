"""The site that the benchmark `embedded` serves: a page that does nothing, and one that raises; `mode` is the environment's."""

from flask import Flask

from flagsweep import FlagSweep

flags = FlagSweep.from_env()
app = Flask(__name__)


@flags.handler(unique=False)
def noop(n):
    """Do nothing."""


@app.before_request
def start():
    if flags.settings.mode == "embedded":
        flags.start()


@app.get("/")
def hello():
    return "hello"


@app.get("/raise/<int:count>")
def raise_some(count):
    noop.raise_many((n,) for n in range(count))
    return "raised"


@app.get("/left")
def left():
    """Tell how many flags are up, a hundred at most."""
    return str(len(flags.find(limit=100)))


@app.get("/state")
def state():
    """Tell what this worker does, and what it takes."""
    import os
    from pathlib import Path

    status = Path("/proc/self/smaps_rollup").read_text()
    kib = {line.split()[0][:-1].lower(): int(line.split()[1]) for line in status.splitlines() if line.endswith("kB")}
    return {"pid": os.getpid(), "sweeping": flags.sweeping, **kib}
