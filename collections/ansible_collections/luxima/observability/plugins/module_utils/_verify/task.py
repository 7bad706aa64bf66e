# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From the arguments of the module to its result."""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import grafana, logs, metrics, receivers, retention, storage, traces
from .model import Check, Result, Wanted
from .names import NAMES
from .runner import Run

SERVERS = ("prometheus", "alertmanager", "loki", "tempo", "grafana")
COLD = "not verified: nothing deployed yet, no server of the platform answers as it should"


def plan(wanted: Wanted, names: list[str], components: frozenset[str]) -> list[Check]:
    """The checks that are asked for."""
    every = [
        check
        for part in (metrics, receivers, logs, traces, grafana, storage, retention)
        for check in part.checks(wanted)
    ]
    return [
        check
        for check in every
        if check.check in names
        and (wanted.active or not check.active)
        and (not components or check.components & components)
    ]


def verify(
    arguments: Mapping[str, Any], check_mode: bool, progress: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """The result of the module and its warnings. `failed` and `msg` are in it when a check does not hold."""
    started = time.time()
    components = frozenset(arguments["components"])
    wanted = Wanted(
        environment=arguments["environment"],
        run=uuid.uuid4().hex[:16],
        connections={kind: arguments[kind] for kind in SERVERS},
        minio=arguments["minio"] or {},
        buckets=arguments["buckets"],
        expected_targets=arguments["expected_targets"],
        log_lines=arguments["log_lines"],
        retention=arguments["retention"] or {},
        active=arguments["active"] and not check_mode,
        components=components,
        receivers=arguments["receivers"],
        dashboards=arguments["dashboards"],
        started=started,
    )
    checks = plan(wanted, arguments["checks"] or list(NAMES), components)
    # In check mode nothing is being deployed, so asking twice brings nothing.
    deadline = 0.0 if check_mode else float(arguments["deadline"])
    results = Run(deadline, components, progress).all(checks)
    failures = [result for result in results if not result.ok]
    report = {
        "environment": wanted.environment,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "active": wanted.active,
        "components": sorted(components),
        "ok": not failures,
        "results": [result.as_dict() for result in results],
    }
    outcome: dict[str, Any] = {"changed": False, **report, "summary": [result.line() for result in results]}
    if check_mode:
        message = _check_mode_message(results)
        if message == COLD:
            outcome["summary"] = []
        return outcome | {"msg": message}, _check_mode_warnings(results)
    if arguments["report"]:
        write_report(Path(arguments["report"]).expanduser(), report)
        outcome["report"] = arguments["report"]
    if not checks:
        # Saying "passed" about nothing would be a lie.
        return outcome | {"msg": "nothing to verify: no server is known, or none is selected"}, []
    if failures:
        return outcome | {"failed": True, "msg": failure_message(failures, len(results), outcome)}, []
    return outcome | {"msg": f"{len(results)} checks passed in {report['seconds']:.1f} s"}, []


def failure_message(failures: list[Result], total: int, outcome: Mapping[str, Any]) -> str:
    """Only what is wrong, and the way out of each."""
    lines = [f"{len(failures)} of {total} checks failed in environment {outcome['environment']}:"]
    for failure in failures:
        lines += [f"- {failure.check} {failure.subject}: {failure.detail}", f"    {failure.hint}"]
    if outcome.get("report"):
        lines.append(f"All results: {outcome['report']}")
    return "\n".join(lines)


def _check_mode_message(results: list[Result]) -> str:
    if not any(result.ok and result.verified for result in results):
        return COLD
    good = sum(result.ok for result in results)
    return f"{good} of {len(results)} passive checks hold now"


def _check_mode_warnings(results: list[Result]) -> list[str]:
    """What is not so now may be so after the run that check mode predicts: said, and no failure."""
    if _check_mode_message(results) == COLD:
        return []
    return [f"now: {result.check} {result.subject}: {result.detail}" for result in results if not result.ok]


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Replaces the report in one rename, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
