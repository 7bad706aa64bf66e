# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Switches that make the hypervisor misbehave the way real ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

#: Switches of a running server by name, with their values and what these are when left out.
SWITCHES: dict[str, dict[str, Any]] = {
    "slow-clone": {"seconds": 20.0},
    "slow-task": {"seconds": 20.0, "types": ""},
    "task-warnings": {"times": 1},
    "storage-lock": {"times": 1},
    "file-lock": {"times": 1},
    "quota-full": {"times": 1000},
    "volume-left": {"times": 1},
    "task-error": {"types": "", "text": "got timeout", "times": 1},
    "deaf": {"vmid": 0},
    "drop-reply": {"method": "POST", "path": ".", "times": 1},
    "no-reply": {"method": "*", "path": ".", "times": 1, "status": 596, "reason": "Connection timed out"},
    "expired-ticket": {},
    "lock-held": {"vmid": 0, "lock": "backup"},
    "dead-node": {"node": ""},
    "silent-statd": {"node": ""},
    "normalise": {"keys": "comment|description|notes-template|tags"},
}
_CLONING = ("qmclone", "vzclone", "vzcreate")


def checked(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The values of a switch, complete and of their types. ValueError says what is wrong."""
    if name not in SWITCHES:
        raise ValueError(f"there is no fault {name!r}; faults are {', '.join(sorted(SWITCHES))}")
    known = SWITCHES[name]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{name} has no value {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    try:
        values = {key: type(default)(given.get(key, default)) for key, default in known.items()}
        re.compile(str(values.get("path", "")))
        re.compile(str(values.get("keys", "")))
    except (ValueError, re.error) as error:
        raise ValueError(f"{name}: {error}") from None
    return values


@dataclass
class _Rule:
    verb: str
    path: re.Pattern[str]
    times: int
    status: int = 0
    reason: str = ""

    def matches(self, verb: str, path: str) -> bool:
        return self.times > 0 and self.verb in ("*", verb) and self.path.search(path) is not None


@dataclass
class _TaskError:
    text: str
    types: frozenset[str]
    times: int

    def __str__(self) -> str:
        return f"types={','.join(sorted(self.types))} text={self.text} times={self.times}"


class Faults:
    """Everything is off until switched on. Counters count down by one each time a fault happens.

    auth_delay      seconds before a 401 is answered (a real server: 3)
    slow_task       seconds added to every task, or to those named in slow_task_types
    task_warnings   so many next tasks end in `WARNINGS: 1`
    storage_lock    so many next allocations of a volume fail with a storage lock timeout (in the task)
    quota_full      so many next allocations of a volume find no space
    volume_left     so many next allocations find that a volume of this name was left over
    file_lock       so many next writes to a guest fail with a file lock timeout (status 500)
    deaf            ids of guests that ignore a polite shutdown
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drops: list[_Rule] = []
        self._failures: list[_Rule] = []
        self._normalised: re.Pattern[str] | None = None
        self._countdown = 0
        self._action: Callable[[], object] | None = None
        self.auth_delay: float = 0.0
        self.slow_task: float = 0.0
        self.slow_task_types: set[str] = set()
        self.task_warnings = 0
        self.storage_lock = 0
        self.quota_full = 0
        self.volume_left = 0
        self.file_lock = 0
        self.deaf: set[int] = set()
        self._task_errors: list[_TaskError] = []

    def reset(self) -> None:
        """Switch everything off, `auth_delay` apart."""
        with self._lock:
            self._drops, self._failures, self._normalised = [], [], None
            self._countdown, self._action = 0, None
            self.slow_task, self.slow_task_types = 0.0, set()
            self.task_warnings = self.storage_lock = self.file_lock = self.quota_full = self.volume_left = 0
            self.deaf, self._task_errors = set(), []

    def switch(self, name: str, values: dict[str, Any], on: bool) -> None:
        """One of SWITCHES, except those that are about something else than requests and tasks."""
        counter = name.replace("-", "_")
        if name in ("slow-clone", "slow-task"):
            kinds = _CLONING if name == "slow-clone" else str(values["types"]).split(",")
            self.slow(values["seconds"] if on else 0.0, filter(None, kinds) if on else ())
        elif name == "drop-reply":
            with self._lock:
                self._drops = [] if not on else self._drops
            if on:
                self.drop_reply(values["method"], values["path"], values["times"])
        elif name == "no-reply":
            with self._lock:
                self._failures = [] if not on else self._failures
            if on:
                self.fail(
                    values["method"], values["path"], values["status"], values["reason"], values["times"]
                )
        elif name == "task-error":
            with self._lock:
                self._task_errors = []
            if on:
                kinds = str(values["types"]).split(",")
                self.fail_task(values["text"], filter(None, kinds), values["times"])
        elif name == "deaf":
            with self._lock:
                (self.deaf.add if on else self.deaf.discard)(values["vmid"])
        elif name == "normalise":
            with self._lock:
                self._normalised = re.compile(values["keys"]) if on else None
        elif hasattr(self, counter):
            with self._lock:
                setattr(self, counter, values["times"] if on else 0)

    def active(self) -> list[str]:
        """What is switched on, in words."""
        with self._lock:
            found = [
                f"{name.replace('_', '-')} times={getattr(self, name)}"
                for name in ("task_warnings", "storage_lock", "file_lock", "quota_full", "volume_left")
                if getattr(self, name)
            ]
            found += [f"deaf vmid={vmid}" for vmid in sorted(self.deaf)]
            found += [f"task-error {error}" for error in self._task_errors if error.times > 0]
            if self.slow_task:
                found.append(
                    f"slow-task seconds={self.slow_task:g} types={','.join(sorted(self.slow_task_types))}"
                )
            if self._normalised:
                found.append(f"normalise keys={self._normalised.pattern}")
            for word, rules in (("drop-reply", self._drops), ("no-reply", self._failures)):
                found += [
                    f"{word} method={rule.verb} path={rule.path.pattern} times={rule.times}"
                    for rule in rules
                    if rule.times > 0
                ]
            return found

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

    def fail_task(self, text: str, types: Iterable[str] = (), times: int = 1) -> None:
        """So many next tasks of these types, or of any, end with this error and do nothing."""
        with self._lock:
            self._task_errors.append(_TaskError(text, frozenset(types), times))

    def task_error(self, kind: str) -> str:
        """The error that a task of this type ends with; empty: none."""
        with self._lock:
            for error in self._task_errors:
                if error.times > 0 and (not error.types or kind in error.types):
                    error.times -= 1
                    return error.text
        return ""

    def kept(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values as they will be kept: with `normalise` on, of some texts all but the last character."""
        with self._lock:
            keys = self._normalised
        if keys is None:
            return values
        return {
            key: value[:-1] if isinstance(value, str) and keys.fullmatch(key) else value
            for key, value in values.items()
        }

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
