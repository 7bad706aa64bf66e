# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Asynchronous work: a thread per task, known by its UPID."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import ApiError, ParameterError
from lab.faults import Faults

UPID = re.compile(
    r"UPID:(?P<node>[^:]+):(?P<pid>[0-9A-F]{8}):(?P<pstart>[0-9A-F]{8,9}):(?P<start>[0-9A-F]{8}):"
    r"(?P<type>[^:\s/]+):(?P<id>[^:\s/]*):(?P<user>[^:\s/]+):"
)
_ENDED = re.compile(r"TASK (OK|ERROR: (?P<error>.*)|(?P<warnings>WARNINGS: \d+))$")


class Aborted(Exception):
    """The task was cancelled."""


def _thread_start(tid: int) -> int:
    """Start of this process' thread in clock ticks since boot; 0 when the kernel does not say."""
    try:
        text = Path(f"/proc/self/task/{tid}/stat").read_text(encoding="ascii")
        return int(text.rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


class Task:
    """One piece of work and its log."""

    def __init__(self, upid: str, directory: Path | None) -> None:
        match = UPID.fullmatch(upid)
        if match is None:
            raise ParameterError({"upid": "unable to parse worker upid"})
        self.upid = upid
        self.fields = match.groupdict()
        self.start = int(match["start"], 16)
        self.end: int | None = None
        self.exitstatus: str | None = None
        self.lines: list[str] = []
        self.warnings = 0
        self.cancelled = threading.Event()
        self.done = threading.Event()
        self._path = directory / upid if directory else None

    @property
    def owner(self) -> str:
        return self.fields["user"]

    def log(self, text: str) -> None:
        for line in str(text).splitlines() or [""]:
            self.lines.append(line)
            if self._path:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")

    def warn(self, text: str) -> None:
        self.warnings += 1
        self.log(f"WARN: {text}")

    def sleep(self, seconds: float) -> None:
        """Wait; raises Aborted as soon as the task is cancelled."""
        if self.cancelled.wait(seconds):
            raise Aborted

    def run(self, work: Callable[[Task], None]) -> None:
        try:
            work(self)
            self.exitstatus = f"WARNINGS: {self.warnings}" if self.warnings else "OK"
            self.log(f"TASK {self.exitstatus}")
        except Aborted:
            self.exitstatus = "interrupted by signal"
            self.log("TASK ERROR: interrupted by signal")
        except Exception as error:
            text = (str(error) or type(error).__name__).strip().splitlines()[0]
            if not isinstance(error, (ApiError, RuntimeError, OSError)):
                traceback.print_exc()
            self.exitstatus = text
            self.log(f"TASK ERROR: {text}")
        finally:
            self.end = int(time.time())
            self.done.set()

    def summary(self) -> dict[str, Any]:
        """The task as lists of tasks show it."""
        user, _, token = self.owner.partition("!")
        entry: dict[str, Any] = {
            "upid": self.upid,
            "node": self.fields["node"],
            "pid": int(self.fields["pid"], 16),
            "pstart": int(self.fields["pstart"], 16),
            "starttime": self.start,
            "type": self.fields["type"],
            "id": self.fields["id"],
            "user": user,
        }
        if token:
            entry["tokenid"] = token
        return entry

    def status(self) -> dict[str, Any]:
        entry = self.summary()
        entry["status"] = "stopped" if self.done.is_set() else "running"
        if self.done.is_set():
            entry["exitstatus"] = self.exitstatus
        return entry

    @classmethod
    def read(cls, path: Path) -> Task:
        """A task of an earlier life of the server; one whose log was cut off says so."""
        task = cls(path.name, None)
        task.lines = path.read_text(encoding="utf-8").splitlines()
        ended = _ENDED.match(task.lines[-1]) if task.lines else None
        if ended is None:
            task.exitstatus = "unexpected status"
        else:
            task.exitstatus = ended["error"] or ended["warnings"] or "OK"
        task.end = int(path.stat().st_mtime)
        task.done.set()
        return task


class Tasks:
    """All tasks of the cluster."""

    def __init__(self, faults: Faults, directory: Path | None = None) -> None:
        self._faults = faults
        self._directory = directory
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        if directory:
            directory.mkdir(parents=True, exist_ok=True)
            for path in sorted(directory.iterdir()):
                if UPID.fullmatch(path.name):
                    self._tasks[path.name] = Task.read(path)

    def spawn(self, node: str, kind: str, identifier: str, owner: str, work: Callable[[Task], None]) -> str:
        """Start a worker; its UPID carries the real thread's id and start time."""
        ready = threading.Event()
        holder: list[str] = []

        def body() -> None:
            tid = threading.get_native_id()
            upid = f"UPID:{node}:{tid:08X}:{_thread_start(tid):08X}:{int(time.time()):08X}:{kind}:{identifier}:{owner}:"
            with self._lock:
                while upid in self._tasks:
                    # A thread id was given again within the same second.
                    match = UPID.fullmatch(upid)
                    start = int(match["pstart"], 16) + 1 if match else 0
                    upid = f"UPID:{node}:{tid:08X}:{start:08X}:{int(time.time()):08X}:{kind}:{identifier}:{owner}:"
                task = self._tasks[upid] = Task(upid, self._directory)
            holder.append(upid)
            ready.set()
            task.run(lambda t: self._with_faults(t, kind, work))

        threading.Thread(target=body, name=f"{kind}-{identifier}", daemon=True).start()
        ready.wait()
        return holder[0]

    def _with_faults(self, task: Task, kind: str, work: Callable[[Task], None]) -> None:
        delay = self._faults.task_delay(kind)
        if delay:
            task.sleep(delay)
        error = self._faults.task_error(kind)
        if error:
            raise RuntimeError(error)
        work(task)
        if self._faults.take("task_warnings"):
            task.warn("something deserves a look")

    def get(self, upid: str) -> Task:
        task = self._tasks.get(upid)
        if task is None:
            raise ParameterError({"upid": "no such task"})
        return task

    def all(self) -> list[Task]:
        with self._lock:
            return sorted(self._tasks.values(), key=lambda task: task.start, reverse=True)

    def wait_idle(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for task in self.all():
            task.done.wait(max(0.0, deadline - time.monotonic()))
