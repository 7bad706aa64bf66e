# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs on the guest: waits for a step of the engine's work on a component, then does harm, once.

harm.py COMPONENT STEP HARM. Leaves /var/tmp/harm-done when it was done; exits with 3 when it came too late.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

name, step, harm = sys.argv[1:]
BASE = Path("/opt/luxima") / name
DONE = Path("/var/tmp/harm-done")
FULL = Path("/var/tmp/harm-full")
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


def staged() -> list[Path]:
    return [entry for entry in (BASE / "releases").iterdir() if entry.name.startswith(".stage-")]


def reached(before: set[int], history: str) -> bool:
    if step == "staging":
        return bool(staged())
    if step == "validating":
        return any((entry / "manifest.json").exists() for entry in staged())
    if step == "exchanging":
        return (BASE / "journal.json").exists()
    if step == "activating":
        return '"activating"' in text(BASE / "journal.json")
    if step == "committing":
        return text(BASE / "history.json") not in ("", history)
    # Proving: a process that was not there before.
    return bool(processes() - before)


def send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def fill_the_disk() -> None:
    """To the last block; it stays so until FULL is removed."""
    size = 1 << 30
    with FULL.open("wb") as stream:
        while size >= 4096:
            try:
                os.posix_fallocate(stream.fileno(), stream.seek(0, os.SEEK_END), size)
            except OSError:
                size //= 2


old, served = processes(), text(BASE / "history.json")
end = time.monotonic() + 60
while not reached(old, served):
    if time.monotonic() > end:
        sys.exit(f"{name} never came to {step}")
    time.sleep(0.0002)
if harm == "kill the module":
    try:
        os.kill(int(text(BASE / "lock").split()[1]), signal.SIGKILL)
    except ProcessLookupError:
        sys.exit(3)
elif harm == "cut the connection":
    send(sessions(), signal.SIGKILL)
elif harm == "freeze the server":
    # Past its start, which systemd waits for.
    time.sleep(0.3)
    send(processes() - old, signal.SIGSTOP)
elif harm == "crash the server after 3 s":
    time.sleep(3)
    send(processes() - old, signal.SIGSEGV)
elif harm == "fill the disk":
    fill_the_disk()
elif harm == "reboot":
    DONE.write_text(harm)
    os.sync()
    # At once: nothing is stopped, nobody is asked.
    subprocess.run(["systemctl", "reboot", "--force", "--force"], check=True)
elif harm.startswith("set the clock "):
    seconds = int(harm.rpartition(" ")[2])
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
if not DONE.exists():
    DONE.write_text(harm)
