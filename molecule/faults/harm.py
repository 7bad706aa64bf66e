# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs on the guest: waits for a step of the engine's work on a component, then does harm, once.

harm.py COMPONENT STEP HARM. Leaves /run/harm-done when it was done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

name, step, harm = sys.argv[1:]
BASE = Path("/opt/luxima") / name
# Unified, or beside the controllers of the older kind.
CGROUPS = [
    Path("/sys/fs/cgroup") / kind / "system.slice" / f"{name}.service" / "cgroup.procs"
    for kind in ("", "systemd", "unified")
]


def text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def processes() -> set[int]:
    return {int(word) for path in CGROUPS for word in text(path).split()}


def sessions() -> set[int]:
    """Server processes of logins over SSH; not the one that listens."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and text(entry / "cmdline").startswith(("sshd: root", "sshd-session: root")):
            found.add(int(entry.name))
    return found


def reached(before: set[int]) -> bool:
    if step == "staging":
        return any(entry.name.startswith(".stage-") for entry in (BASE / "releases").iterdir())
    if step == "exchanging":
        return (BASE / "journal.json").exists()
    if step == "activating":
        return '"activating"' in text(BASE / "journal.json")
    # A process that was not there before.
    return bool(processes() - before)


def send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


old = processes()
end = time.monotonic() + 60
while not reached(old):
    if time.monotonic() > end:
        sys.exit(f"{name} never came to {step}")
    time.sleep(0.0005)
if harm == "kill the module":
    send({int(text(BASE / "lock").split()[1])}, signal.SIGKILL)
elif harm == "cut the connection":
    send(sessions(), signal.SIGKILL)
elif harm == "freeze the server":
    # Past its start, which systemd waits for.
    time.sleep(0.3)
    send(processes() - old, signal.SIGSTOP)
elif harm == "crash the server after 3 s":
    time.sleep(3)
    send(processes() - old, signal.SIGSEGV)
Path("/run/harm-done").write_text(harm)
