"""Measure flagsweep beside its limits and its peers: `python benchmarks/bench.py [--quick] [--only NAME ...]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import answers
import as_service
import before
import embedded
import in_process
import in_request
import machine
import moving
import over
import servers
import tasks_of_django
import watching
from measure import Plan, Row, Skipped, table

import gates
import schedules

BENCHMARKS = {
    "raise": in_process.raise_one,
    "raise_many": in_process.raise_many,
    "drain": in_process.drain,
    "over": over.over,
    "in-request": in_request.in_request,
    "django-tasks": tasks_of_django.django_tasks,
    "threads": in_process.threads,
    "tasks": in_process.tasks,
    "latency": as_service.latency,
    "idle": as_service.idle,
    "claims": in_process.claims,
    "site": as_service.site_inserts,
    "startup": as_service.startup,
    "help": as_service.help_startup,
    "drain-before": before.drain_before,
    "gated-drain": gates.gated_drain,
    "closed-gates": gates.closed_gates,
    "buckets": gates.buckets,
    "gated-idle": gates.gated_idle,
    "schedules": schedules.due_at_once,
    "embedded-memory": embedded.embedded_memory,
    "embedded-requests": embedded.embedded_requests,
    "server-drain": servers.server_drain,
    "server-latency": servers.server_latency,
    "scaling": servers.scaling,
    "notify": servers.notify,
    "hot-key": servers.hot_key,
    "old-snapshot": servers.old_snapshot,
    "full-table": servers.full_table,
    "backlog": servers.backlog,
    "answers": answers.answers,
    "move": moving.move,
    "watching": watching.watching,
}
RESULTS = Path(__file__).resolve().parent.parent / "build" / "bench.json"


def main() -> int:
    """Run what was asked for; return 1 where a benchmark failed, or with --check where one missed its bound."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="flagsweep-bench-", dir=options.dir) as folder:
        plan = Plan(Path(folder), options.quick, options.before)
        facts = machine.facts(plan.folder)
        rows = [row for name in options.only or BENCHMARKS for row in _run(name, plan)]
    print(_report(facts, rows, options.quick))
    _write(options.json, {"machine": facts, "quick": options.quick, "rows": [row.to_dict() for row in rows]})
    bad = {"FAILED", "MISS"} if options.check else {"FAILED"}
    return int(any(row.verdict in bad for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: does it run at all")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go (%(default)s)")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure; default: the system's temporary one")
    parser.add_argument(
        "--before", default=before.BEFORE, metavar="REF", help="the commit that drain-before compares (%(default).7s)"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure misses what it must reach")
    return parser.parse_args()


def _run(name: str, plan: Plan) -> list[Row]:
    """Run one benchmark; one that cannot run, or fails, becomes a row that says so."""
    start = time.monotonic()
    print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
    try:
        rows = BENCHMARKS[name](plan)
    except Skipped as reason:
        rows = [Row(name, note=str(reason))]
    except Exception as error:
        rows = [Row(name, note=f"{type(error).__name__}: {error}", failed=True)]
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return rows


def _report(facts: dict[str, object], rows: list[Row], quick: bool) -> str:
    machine_line = ", ".join(f"{name} {value}" for name, value in facts.items())
    warning = "small sizes (--quick): the verdicts mean little\n" if quick else ""
    return f"\n{machine_line}\n{warning}\n{table(rows)}"


def _write(path: Path, results: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    sys.exit(main())
