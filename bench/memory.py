# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How much memory a fork of ansible-playbook costs."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from pathlib import Path

from bench.runs import ROOT, Case, Json, environment


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(word) for word in words]
    return []


def shares(pid: int) -> tuple[int, int] | None:
    """Proportional and private memory of a process in KiB; None when it is gone."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    values = {row.split(":")[0]: int(row.split()[1]) for row in rows}
    if not values.get("Pss"):
        return None
    return values["Pss"], values["Private_Clean"] + values["Private_Dirty"]


def forks(case: Case) -> Json:
    """The most that each fork had at once during one more run, in MiB, as medians over the forks."""
    seen: dict[int, tuple[int, int]] = {}
    most = 0
    process = subprocess.Popen(
        case.command,
        cwd=ROOT,
        env=environment(**case.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    mine = Path(f"/proc/{process.pid}/cmdline")
    while process.poll() is None:
        alive = 0
        for pid in children(process.pid):
            with contextlib.suppress(OSError):
                # Forks have the words of their parent; ssh and others have their own.
                if Path(f"/proc/{pid}/cmdline").read_bytes() != mine.read_bytes():
                    continue
                found = shares(pid)
                if found:
                    alive += 1
                    old = seen.get(pid, (0, 0))
                    seen[pid] = (max(old[0], found[0]), max(old[1], found[1]))
        most = max(most, alive)
        time.sleep(0.02)
    values = list(seen.values()) or [(0, 0)]
    return {
        "hosts": case.hosts,
        "forks at once": most,
        "proportional MiB": round(statistics.median(pss for pss, _ in values) / 1024, 1),
        "private MiB": round(statistics.median(private for _, private in values) / 1024, 1),
    }
