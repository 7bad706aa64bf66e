# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a check is and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class NotYet(Exception):
    """Not as it should be, but it may become so: asked again until the deadline."""


class Wrong(Exception):
    """Not as it should be, and waiting changes nothing."""


@dataclass(frozen=True)
class Check:
    """One question to the platform. `run` returns the detail of a success, or raises."""

    check: str
    subject: str
    components: frozenset[str]
    run: Callable[[], str]
    hint: str
    active: bool = False
    # The server asked is another one than the component in question; when it does not answer at all and
    # nobody selected it, the question stays open instead of failing.
    server: str = ""


@dataclass(frozen=True)
class Result:
    """The answer. `ok` None: could not be asked, and that is no fault (check mode, unselected server)."""

    check: str
    subject: str
    ok: bool
    detail: str
    seconds: float
    hint: str = ""
    verified: bool = True

    def as_dict(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "check": self.check,
            "subject": self.subject,
            "ok": self.ok,
            "verified": self.verified,
            "detail": self.detail,
            "seconds": round(self.seconds, 2),
        }
        if not self.ok:
            entry["hint"] = self.hint
        return entry

    def line(self) -> str:
        word = "FAILED" if not self.ok else "ok" if self.verified else "open"
        return f"{word:<7}{self.check:<11}{self.subject:<34} {self.detail}  ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Wanted:
    """The arguments of the module, as the checks read them."""

    environment: str
    run: str
    connections: Mapping[str, list[Mapping[str, Any]]]
    minio: Mapping[str, Any]
    buckets: list[Mapping[str, Any]]
    expected_targets: list[Mapping[str, Any]]
    log_lines: Mapping[str, str]
    retention: Mapping[str, Any]
    active: bool
    # Components that were selected; empty for all.
    components: frozenset[str] = frozenset()
    # Whether each receiver gets a test message.
    receivers: bool = False
    # Address of a Grafana -> uids of its dashboards.
    dashboards: Mapping[str, list[str]] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return self.connections.get(kind, [])
