# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Times a run that changes nothing on the lab, beside the floor, in one sitting; a table and reports/bench.json."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
CASES = {
    "ping of every guest": ("bench/ping.yml",),
    "deploy, nothing to change": ("playbooks/deploy.yml",),
    "site, nothing to change": ("site.yml",),
}


def once(arguments: tuple[str, ...], records: Path) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of one run on the lab, and what the recorder wrote of it."""
    for old in records.glob("*.json"):
        old.unlink()
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "RUN_RECORDS": str(records),
    }
    start = time.monotonic()
    run = subprocess.run(
        ["ansible-playbook", "-i", "inventories/lab", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if run.returncode != 0:
        sys.exit(
            f"{' '.join(arguments)} failed; is the lab up (`make demo`)?\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
        )
    (record,) = records.glob("*.json")
    return seconds, json.loads(record.read_text())


def main() -> None:
    """Runs every case in turn, five times, so that other work on the machine meets all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(RUNS):
            for name, arguments in CASES.items():
                print(f"\rrun {turn + 1} of {RUNS}: {name:<40}", end="", file=sys.stderr, flush=True)
                taken, rows[name] = once(arguments, Path(scratch))
                seconds[name].append(taken)
    print(file=sys.stderr)
    changed = [row["task"] for recorded in rows.values() for row in recorded if row["changed"]]
    if changed:
        sys.exit(f"the lab was not at rest, a run changed something: {', '.join(sorted(set(changed)))}")
    floor = min(seconds["ping of every guest"])
    table = [
        {
            "case": name,
            "minimum": round(min(taken), 2),
            "median": round(statistics.median(taken), 2),
            "ratio": round(min(taken) / floor, 2),
            "tasks": len({(row["play"], row["task"]) for row in rows[name]}),
            "results": len(rows[name]),
        }
        for name, taken in seconds.items()
    ]
    report = ROOT / "reports" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(table, indent=2))
    print(f"{'':<28}{'min s':>8}{'median s':>10}{'x ping':>8}{'tasks':>7}{'results':>9}")
    for row in table:
        print("{case:<28}{minimum:>8}{median:>10}{ratio:>8}{tasks:>7}{results:>9}".format(**row))


if __name__ == "__main__":
    main()
