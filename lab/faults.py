# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Switches that make the hypervisor misbehave the way real ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass
class _Rule:
    verb: str
    path: re.Pattern[str]
    times: int
    status: int = 0
    reason: str = ""

    def matches(self, verb: str, path: str) -> bool:
        return self.times > 0 and self.verb in ("*", verb) and self.path.search(path) is not None


class Faults:
    """Everything is off until switched on. Counters count down by one each time a fault happens.

    auth_delay      seconds before a 401 is answered (a real server: 3)
    slow_task       seconds added to every task, or to those named in slow_task_types
    task_warnings   so many next tasks end in `WARNINGS: 1`
    storage_lock    so many next allocations of a volume fail with a storage lock timeout (in the task)
    file_lock       so many next writes to a guest fail with a file lock timeout (status 500)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drops: list[_Rule] = []
        self._failures: list[_Rule] = []
        self._countdown = 0
        self._action: Callable[[], object] | None = None
        self.auth_delay: float = 0.0
        self.slow_task: float = 0.0
        self.slow_task_types: set[str] = set()
        self.task_warnings = 0
        self.storage_lock = 0
        self.file_lock = 0

    def reset(self) -> None:
        """Switch everything off, `auth_delay` apart."""
        with self._lock:
            self._drops, self._failures = [], []
            self._countdown, self._action = 0, None
            self.slow_task, self.slow_task_types = 0.0, set()
            self.task_warnings = self.storage_lock = self.file_lock = 0

    def drop_reply(self, verb: str, path: str, times: int = 1) -> None:
        """The request takes effect, then the connection is closed without an answer. `path`: regular expression."""
        with self._lock:
            self._drops.append(_Rule(verb, re.compile(path), times))

    def fail(
        self, verb: str, path: str, status: int = 596, reason: str = "Connection timed out", times: int = 1
    ) -> None:
        """The request is answered by a proxy and has no effect. `path`: regular expression."""
        with self._lock:
            self._failures.append(_Rule(verb, re.compile(path), times, status, reason))

    def after(self, requests: int, action: Callable[[], object]) -> None:
        """Call `action` when so many more requests have taken effect, before the last of them is answered."""
        with self._lock:
            self._countdown, self._action = requests, action

    def answering(self) -> None:
        """A request has taken effect and is about to be answered."""
        with self._lock:
            self._countdown -= 1
            action = self._action if self._countdown == 0 else None
        if action:
            action()

    def slow(self, seconds: float, types: Iterable[str] = ()) -> None:
        with self._lock:
            self.slow_task, self.slow_task_types = seconds, set(types)

    def take(self, name: str) -> bool:
        """Whether the counter `name` was above zero; it is one less afterwards."""
        with self._lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
            return left > 0

    def task_delay(self, kind: str) -> float:
        with self._lock:
            return self.slow_task if not self.slow_task_types or kind in self.slow_task_types else 0.0

    @staticmethod
    def _first(rules: list[_Rule], verb: str, path: str) -> _Rule | None:
        rule = next((r for r in rules if r.matches(verb, path)), None)
        if rule:
            rule.times -= 1
        return rule

    def dropped(self, verb: str, path: str) -> bool:
        with self._lock:
            return self._first(self._drops, verb, path) is not None

    def failure(self, verb: str, path: str) -> tuple[int, str] | None:
        with self._lock:
            rule = self._first(self._failures, verb, path)
            return (rule.status, rule.reason) if rule else None
