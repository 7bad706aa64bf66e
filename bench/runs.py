# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Commands that are timed and counted."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What else is measured, installed by `make bench`.
OTHERS = ROOT / ".cache" / "bench"
# The lab without its virtual machine: emulated, it would be all that is measured.
LAB = [
    word
    for name in ("00-platform.yml", "10-instance", "hosts.yml")
    for word in ("-i", f"inventories/lab/{name}")
]
Json = dict[str, Any]


class Failed(Exception):
    """A command that must succeed did not."""


@dataclass
class Case:
    """One command that finds nothing to change. Ratios are formed among cases with the same `hosts`."""

    hosts: str
    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    # Of the usual ways, which are slow, fewer runs.
    slow: bool = False
    seconds: list[float] = field(default_factory=list)
    counts: Json = field(default_factory=dict)
    # Why it did not run to its end; then it is left out from there on.
    failed: str = ""


def say(text: str) -> None:
    """Progress, one line that is written over at a terminal."""
    end = "" if sys.stderr.isatty() else "\n"
    print(f"\r\x1b[K{text}" if not end else text, end=end, file=sys.stderr, flush=True)


def program(name: str, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name(name)), *words]


def playbook(*words: str) -> list[str]:
    return program("ansible-playbook", *words)


def environment(**more: str) -> dict[str, str]:
    """Without colours and without anybody's own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {**kept, "ANSIBLE_NOCOLOR": "true", **more}


def execute(command: list[str], **more: str) -> tuple[float, str]:
    """Seconds and what was said; Failed with its last words."""
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{done.stdout[-2500:]}{done.stderr[-2500:]}")
    return seconds, done.stdout


def run(case: Case, scratch: Path) -> None:
    """Runs the case once; keeps its time and counts, or why it failed."""
    try:
        _run(case, scratch)
    except Failed as error:
        case.failed = str(error)
        print(f"\n{case.hosts}, {case.name}: {error}", file=sys.stderr)


def _run(case: Case, scratch: Path) -> None:
    counts = scratch / "counts.json"
    counts.unlink(missing_ok=True)
    seconds, _ = execute(
        case.command,
        ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "bench" / "callbacks"),
        ANSIBLE_CALLBACKS_ENABLED="counter",
        BENCH_COUNTS=str(counts),
        **case.environment,
    )
    case.seconds.append(seconds)
    if counts.exists():
        case.counts = json.loads(counts.read_text())


@dataclass(frozen=True)
class Traffic:
    """What one run sent, as ansible-playbook's own log (-vvv) and the programs it calls tell it.

    requests: commands over SSH, each one round trip; modules: those that carried a module; files: files copied;
    payload: bytes of those files; questions: bytes that went to the standard input of requests.
    """

    requests: int
    modules: int
    files: int
    payload: int
    questions: int
    hosts: int


def traffic(case: Case, scratch: Path) -> Traffic:
    """Counts one more run. Stand-ins for ssh and sftp count bytes and hand everything through."""
    log = scratch / "bytes"
    log.write_text("")
    counter = str(ROOT / "bench" / "pass_through.py")
    _, told = execute(
        [*case.command, "-vvv"],
        ANSIBLE_SSH_EXECUTABLE=counter,
        ANSIBLE_SFTP_EXECUTABLE=counter,
        ANSIBLE_SSH_TRANSFER_METHOD="sftp",
        BENCH_BYTES=str(log),
        **case.environment,
    )
    rows = [line.split() for line in log.read_text().splitlines()]
    executed = re.findall(r"^<(\S+)> SSH: EXEC", told, re.MULTILINE)
    remote = re.findall(r"^<(\S+)> PUT ", told, re.MULTILINE)
    return Traffic(
        requests=len(executed),
        # A module call over a pipelined connection is one request.
        modules=sum(1 for kind, size in rows if kind == "ssh" and int(size) > MODULE),
        files=len(remote),
        payload=sum(int(size) for kind, size in rows if kind == "sftp"),
        questions=sum(int(size) for kind, size in rows if kind == "ssh"),
        hosts=len(set(executed)),
    )


# A packed module is larger than this; the script that asks for a host's state is smaller.
MODULE = 40_000


def spread(values: list[float]) -> Json:
    """Minimum and median, in seconds."""
    return {
        "minimum": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "runs": len(values),
    }
