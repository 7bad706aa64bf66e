# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The machine below: commands, mounts, processes, links. Everything is found by exact name or path."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError

INOTIFY_INSTANCES = 1024
_ENVIRONMENT = {
    **os.environ,
    "LC_ALL": "C",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


def run(*command: str | Path, timeout: float = 600, check: bool = True, stdin: str | None = None) -> str:
    """Output of a command; its last words when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=_ENVIRONMENT,
        check=False,
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {' | '.join(said[-3:])}")
    return done.stdout


def move(source: Path, target: Path) -> None:
    """Give a file another place below the same state folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab runs real containers and needs root: run this command with sudo")


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """One process at a time; the lock ends with the process. Without `wait`: whether it was free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


# -- mounts and loop devices


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below a directory, deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
        if point == str(directory) or point.startswith(f"{directory}/"):
            found.append(Path(point))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def loops_below(directory: Path) -> dict[str, str]:
    """Loop devices whose image lies below a directory."""
    found = {}
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            image = backing.read_text(encoding="utf-8").strip().removesuffix(" (deleted)")
            if image.startswith(f"{directory}/"):
                found[f"/dev/{backing.parts[3]}"] = image
    return found


# -- processes


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = command_line(int(entry.name))
            if words and words != [""]:
                yield int(entry.name), words


def alive(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rsplit(")", 1)[1]
            .split()[0]
            != "Z"
        )
    except (OSError, IndexError):
        return False


def end(pid: int, seconds: float = 10) -> None:
    """Ask a process to end, then make it."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not alive(pid):
                return
            time.sleep(0.02)


# -- network


def links(prefix: str) -> list[str]:
    return sorted(entry.name for entry in Path("/sys/class/net").iterdir() if entry.name.startswith(prefix))


def routed(subnet: str) -> bool:
    """Whether a /24 overlaps with what this machine already knows how to reach."""
    import ipaddress

    wanted = ipaddress.ip_network(f"{subnet}.0/24")
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all") or "[]"):
        destination = route.get("dst", "default")
        if destination != "default" and wanted.overlaps(ipaddress.ip_network(destination, strict=False)):
            return True
    return False


# -- user namespaces


def allow_inotify() -> bool:
    """Let many guests watch files: mapped users share one limit. Whether it had to be raised.

    The number is that of Debian's LXC, which a machine whose init applies no sysctl.d never gets.
    """
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text(encoding="ascii")) >= INOTIFY_INSTANCES:
        return False
    limit.write_text(f"{INOTIFY_INSTANCES}\n", encoding="ascii")
    return True


def allow_idmap(start: int, size: int) -> bool:
    """Let root map the range that unprivileged guests use; whether a line had to be added."""
    added = False
    with locked(Path("/run/lock/lab-idmap.lock")):
        for path in (Path("/etc/subuid"), Path("/etc/subgid")):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            ranges = [line.split(":") for line in text.splitlines() if line.startswith("root:")]
            if any(int(low) <= start and start + size <= int(low) + int(count) for _, low, count in ranges):
                continue
            with path.open("a", encoding="utf-8") as stream:
                stream.write(f"root:{start}:{size}\n")
            added = True
    return added
