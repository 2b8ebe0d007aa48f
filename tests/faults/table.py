"""Render the table of the fault suite from the results of its last run: ``python tests/faults/table.py RESULTS TABLE``."""

import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pace

ROWS = {
    1: ("kill -9 at random times", "200 / 2,000 kills: lost 0, exactly-once difference 0, repeats within the bound, p99 <= 2 s"),
    2: ("kill -9 at named points", "at least 25 points x 5 / 20 seeds: each reached, lost 0"),
    3: ("TERM, INT, HUP, double signals, hung handler", "50 / 500 cycles: lost 0, a clean drain repeats 0, ends in time"),
    4: ("power loss", "FULL: 2,000 / 50,000 cuts: acknowledged lost 0, malformed 0; NORMAL must lose"),
    5: ("I/O errors", "lost 0, file sound in all; recovers or ends within 5 s"),
    6: ("disk full for 60 s", "20 / 200 rounds: lowered without effect 0; works within 5 s of space"),
    7: ("database locked for 1, 10, 60 s", "raise ends by the busy timeout + 0.5 s; first job <= 2 s after; CPU < 5 %"),
    8: ("long reader, no checkpoint", "WAL back to <= 4 MB within 60 s of the release"),
    9: ("queue wiped", "lost 0; two runs of one flag at once 0; delay <= sweep interval + 2 s"),
    10: ("queue unusable", "raises failing 0; added p99 <= 50 ms; work goes on"),
    11: ("Redis restarts, or is frozen for 60 s", "20 / 100 restarts: lost 0; one request delayed <= 0.3 s"),
    12: ("PostgreSQL restarts at once", "lost 0, exactly-once difference 0, back <= 2 s after it is ready"),
    13: ("connections killed, the lease's too", "200 / 5,000 kills: lost 0, two owners 0, fenced <= 2 s"),
    14: ("answer to COMMIT lost", "200 / 2,000: exactly-once difference 0"),
    15: ("server read-only, server's disk full", "lost 0"),
    16: ("two consumers by mistake", "2 to 5 at once, 50 / 500 times: overlaps 0, the others say who runs"),
    17: ("zombie consumer", "completions accepted from a zombie 0"),
    18: ("suspend and resume", "slots fired twice 0"),
    19: ("clock set, stepped, daylight saving", "100 / 10,000 simulated days: missed 0, doubled 0, stuck 0"),
    20: ("handler always raises", "attempts as asked in 100 %; healthy throughput >= 90 %"),
    21: (
        "segfault, abort, os._exit, out of memory, stack overflow",
        "culprit parked after <= 3 crashes; innocents all done, none blamed",
    ),
    22: ("SystemExit, KeyboardInterrupt, GeneratorExit, own BaseException", "worker threads lost 0, failures recorded"),
    23: ("hung handlers", "reported <= limit + 5 s, others go on; all stuck: recycled <= 30 s; two owners 0, lost 0"),
    24: ("handler forks and leaves children", "take-over <= 2 s"),
    25: ("big payloads, a million flags waiting", "RSS growth <= 50 MB; claim p99 <= 100 ms"),
    26: ("bad text in errors and payloads", "recorded in 100 %"),
    27: ("damaged rows", "only that row is parked; others unaffected 100 %"),
    28: ("garbage and pickle bombs in the queue", "10,000 drained <= 10 s; code executed 0"),
    29: ("kick storm", "queued sweeps <= 1 + 1 running; after a start <= 2 sweeps"),
    30: ("migrations at once, killed, old code on a new schema", "20 / 200 races: errors 0"),
    31: ("fork after the database was used", "100 / 1,000 forks: corruption 0, lost 0"),
    32: ("descriptors, threads, memory exhausted", "recovers or ends cleanly; lost 0"),
    33: ("database file replaced or deleted", "detected <= 5 s, writes into the old file 0"),
    34: ("handler misuses the transaction", "flags lowered without effect 0; commits lost 0"),
    35: ("hostile dashboard", "refused in 100 % of at least 150 requests"),
    36: ("model-based simulation", "10,000 / 1,000,000 steps: invariants hold, replays by seed"),
    37: ("soak: faults mixed", "lost 0; RSS slope < 1 MB/h; descriptor slope 0"),
    38: ("two consumers claim of limited kinds at once", "20 / 60 s: no window has more than burst + rate + 1; >= 90 % used"),
    39: ("consumers of limited kinds killed", "20 / 60 s: no window has too many, none beyond its limit; rate used >= 80 %"),
    40: (
        "provider away, and poison flags",
        "10 / 60 s: another kind waits <= 3 times as long; one claim burnt; one probe at a time; healthy >= 90 % beside poison",
    ),
    41: ("random interleavings of gates", "5,000 / 100,000 steps: exceeded 0, doubled notes 0, all flags end"),
}
"""Every row of the fault matrix: the fault, and what is asked for (CI / nightly)."""

CONTROLS = 98
"""The line of the positive controls, which say whether the suite can find anything."""
ROWS[CONTROLS] = ("a bug is planted in flagsweep", "12 of 12 caught by the check of a row, none found without the bug")

UNBUILT = {35: "there is no dashboard yet"}

HEAD = """# Faults: what was done to it, and what came of it

Made by `make {target}` on {date}; the seed was {seed}, and `FLAGSWEEP_SEED={seed} make {target}` has the same chances again.
Used: {versions}. {cores} cores, {system}.

{summary}

A promise holds where its line says *met*. Figures in seconds are of this machine and of what else it did meanwhile. {bounds}

| row | fault | on | how | asked for (CI / nightly) | figure | s | |
|---|---|---|---|---|---|---|---|
"""


def main(results, target):
    """Write the table; return 1 where a line says that something was not met."""
    file = Path(results) / "results.jsonl"
    text, met = render([json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else [])
    Path(target).write_text(text, encoding="utf-8")
    return 0 if met else 1


def render(lines):
    """Return the document, and whether all that ran was met."""
    figures, ends = defaultdict(dict), {}
    for line in lines:
        if "figure" in line:
            figures[number(line["row"]), line["backend"]][line["what"]] = line
        else:
            ends[line["test"]] = worse(ends.get(line["test"]), line)
    told = {line["test"]: line["ok"] for found in figures.values() for line in found.values()}
    silent = defaultdict(list)
    for end in ends.values():
        unsaid = end["test"] not in told and end["outcome"] != "passed"
        if unsaid or (end["outcome"] == "failed" and told.get(end["test"])):  # Failed behind a figure that was good.
            silent[number(end["row"])].append(end)
    rows = []
    for row in sorted({*ROWS, *(row for row, _ in figures), *silent}):
        fresh = [entry(row, backend, found, ends) for (n, backend), found in sorted(figures.items()) if n == row]
        fresh += [silence(row, end) for end in silent[row]]
        rows += fresh or [cells(row, "", "", "", UNBUILT.get(row, "no test ran"), "", "not run")]
    return head(summary(figures, rows)) + "\n".join(rows) + "\n", not any("**" in row for row in rows)


DONE = {
    1: ("kills at random times", "what", r"(\d+) times"),
    2: ("kills at named points", "figure", r"(\d+) deaths at a point"),
    4: ("power cuts", "figure", r"(\d+) cuts"),
    5: ("I/O errors", "figure", r"(\d+) of \d+ runs met it"),
    6: ("full disks", "figure", r"(\d+) rounds"),
    12: ("crashes of a server", "what", r"(\d+) times"),
    13: ("connections killed", "what", r"(\d+) connections killed"),
    14: ("answers to COMMIT lost", "figure", r"(\d+) commits of atomic"),
    17: ("completions of zombies", "figure", r"(\d+) completions"),
}
"""What was done, by row: its name, the field that counts it, and how it does."""

CAME = {
    "lost": r"(?<!seen )\blost (\d+)",
    "exactly-once difference": r"exactly-once difference (\d+)",
    "two owners at once": r"two owners(?: at once| or repeats without a cause)? (\d+)|overlaps (\d+)",
    "repeats without a cause": r"repeats without a cause (\d+)|without a cause (\d+)",
    "lowered without effect": r"lowered without effect (\d+)",
    "malformed files": r"malformed (\d+)",
}
"""What may have come of it, and must be 0 in every line that speaks of it."""

BACK = {1: r"recoveries ([\d.]+) s", 12: r"longest ([\d.]+) s", 24: r"take-over ([\d.]+) s", 33: r"ended ([\d.]+) s"}
"""How soon it went on, or saw what had happened, by row."""


def summary(figures, rows):
    """Return ten lines that say what was done, and what came of it."""
    lines = {n: [line for (row, _), found in figures.items() if row == n for line in found.values()] for n in ROWS}
    lines[4] = [line for line in lines[4] if not line["what"].startswith("control")]  # Those have to lose something.
    judged = [n for n in lines if n != CONTROLS]  # A control must find something.
    told = {verdict: sum(row.endswith(f"| {verdict} |") for row in rows) for verdict in ("met", "not run")}
    bad = [row.split("|")[1].strip() for row in rows if "**" in row]
    done = [(name, total(lines[n], field, sign)) for n, (name, field, sign) in DONE.items()]
    back = {n: max(numbers(lines[n], "figure", sign), default=None) for n, sign in BACK.items()}
    missing = sorted({row.split("|")[1].strip() for row in rows if row.endswith("| not run |")})
    came = [
        f"- {what}: {sum(found):,.0f}, in {len(found)} figures"
        for what, sign in CAME.items()
        if (found := numbers([line for n in judged for line in lines[n]], "figure", sign))
    ]
    went = ", ".join(f"{most:g} s (F{n})" for n, most in back.items() if most is not None)
    caught = sum(line["ok"] for line in lines[CONTROLS])
    first = (
        f"- Of {len(rows)} lines {told['met']} are met; not met: {', '.join(bad) or 'none'}; "
        f"not run: {', '.join(missing) or 'none'}.",
        f"- Done to it: {', '.join(f'{count:,.0f} {name}' for name, count in done if count)}.",
    )
    last = (f"- It went on within: {went}.", f"- Planted bugs that the suite found: {caught} of {len(lines[CONTROLS])}.")
    return "\n".join([*first, *came, *last])


def numbers(lines, field, sign):
    """Return every number that a sign finds in a field of some lines."""
    return [float(next(filter(None, found.groups()))) for line in lines for found in re.finditer(sign, line[field])]


def total(lines, field, sign):
    return sum(numbers(lines, field, sign))


def bounds():
    """Say by how much the bounds in seconds are longer than the table has them."""
    seconds = float(os.environ.get("FLAGSWEEP_FAULTS_PACE") or pace.REFERENCE)
    return (
        f"Bounds in seconds are for a machine on which an undisturbed consumer has its first job {pace.REFERENCE:g} s after its "
        f"start; here that took {seconds:.2f} s, so they were {pace.slower(seconds):.1f} times as long."
    )


def number(row):
    if row == "controls":
        return CONTROLS
    found = re.search(r"\d+", row or "")
    return int(found[0]) if found else 99


def worse(before, end):
    order = ("passed", "skipped", "failed")
    return end if before is None or order.index(end["outcome"]) >= order.index(before["outcome"]) else before


def entry(row, backend, found, ends):
    """Return the line of one row on one backend."""
    lines = list(found.values())
    figure = "; ".join(f"{line['what']}: {line['figure']}" if len(lines) > 1 else line["figure"] for line in lines)
    why = "; ".join(line["why"] for line in lines if line["why"])
    how = lines[0]["what"] if len(lines) == 1 else f"{len(lines)} ways"
    criterion = next((line["criterion"] for line in lines if line["criterion"]), "")
    spent = sum(ends[test]["seconds"] for test in {line["test"] for line in lines} if test in ends)
    verdict = "met" if all(line["ok"] for line in lines) else "**not met**"
    return cells(row, backend, how, criterion, f"{figure} ({why})" if why else figure, f"{spent:.0f}", verdict)


def silence(row, end):
    """Return the line of a test that failed, or did not run."""
    failed = end["outcome"] == "failed"
    name = end["test"].rpartition("::")[2]
    text = f"{'failed' if failed else 'not run'}: {end['why']} ({name})"
    return cells(row, end["backend"] or "", "", "", text, f"{end['seconds']:.0f}", "**failed**" if failed else "not run")


def cells(row, backend, how, criterion, figure, spent, verdict):
    fault, asked = ROWS.get(row, ("", ""))
    name = "controls" if row == CONTROLS else f"F{row}" if row in ROWS else "-"
    return (
        "| " + " | ".join(plain(cell) for cell in (name, fault, backend, how, criterion or asked, figure, spent, verdict)) + " |"
    )


def plain(text):
    """Return text that stays within its cell."""
    return " ".join(str(text).replace("|", "\\|").split())


def head(summary):
    size = os.environ.get("FLAGSWEEP_FAULTS") or "ci"
    return HEAD.format(
        summary=summary,
        bounds=bounds(),
        target="faults-nightly" if size == "nightly" else "faults",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seed=os.environ.get("FLAGSWEEP_SEED", "?"),
        versions=", ".join(versions()),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
    )


def versions():
    """Yield what the run stood on, as far as it is there."""
    yield f"Python {platform.python_version()}"
    yield f"SQLite {sqlite3.sqlite_version}"
    for name, program in (("PostgreSQL", "postgres"), ("MariaDB", "mariadbd"), ("Redis", "redis-server")):
        yield f"{name} {said(program) or 'not here'}"
    for name in ("huey", "peewee"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not here"


def said(program):
    """Return the version that a server's program tells, or nothing."""
    found = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))
    path = (
        shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin") or (found[-1] if found else None)
    )
    if path is None:
        return ""
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+\.\d+(\.\d+)?", text)
    return match[0] if match else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
