# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One changed value: when the server runs with it, and for how long nobody answered."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import re
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.rest import GUESTS, SERVER, facts
from bench.runs import LAB, ROOT, Failed, Json, environment, execute, playbook, program, say, spread

# Seconds between two questions of the prober.
STEP = 0.02
# Seconds until a server counts as gone.
PATIENCE = 60
_numbers = itertools.count(int(time.time()))


def text(url: str, timeout: float = 1) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        # Ended in the middle of its answer, too.
        return None


class Prober:
    """Asks a URL every 20 ms while the block runs; `longest` is the longest time without an answer, in seconds."""

    def __init__(self, url: str) -> None:
        self.url, self.longest, self.refused = url, 0.0, 0
        self._ended = math.inf
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        last = time.monotonic()
        following = last
        # The silence that lasts until after the block counts too.
        while not (self._end.is_set() and last > self._ended) and time.monotonic() < self._ended + PATIENCE:
            if text(self.url, 5) is None:
                self.refused += 1
            else:
                # The time between two answers, less the pause that lies between them anyway.
                now = time.monotonic()
                self.longest = max(self.longest, now - last - STEP)
                last = now
            following = max(following + STEP, time.monotonic())
            time.sleep(max(0.0, following - time.monotonic()))

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._end.set()
        self._thread.join()


@dataclass(frozen=True)
class Change:
    """A change of one component. `variables` makes another one each time.

    `seen` says whether an answer shows it: the answer, the mark, and what the same page said before.
    """

    name: str
    component: str
    port: int
    ready: str
    page: str
    variables: Callable[[str], dict[str, Any]]
    seen: Callable[[str, str, str], bool]
    restarts: bool


def _start(page: str) -> str:
    # Counted from a boot time in whole seconds, so it says which process this is but not when it began.
    found = re.search(r"^process_start_time_seconds (\S+)", page, re.MULTILINE)
    return found[1] if found else ""


def _started(answer: str, _mark: str, before: str) -> bool:
    return _start(answer) not in ("", _start(before))


CHANGES = [
    Change(
        "Prometheus, a label (reload)",
        "prometheus",
        9090,
        "/-/ready",
        "/api/v1/status/config",
        lambda mark: {"prometheus_config": {"global": {"external_labels": {"bench": mark}}}},
        lambda answer, mark, _before: mark in answer,
        restarts=False,
    ),
    Change(
        "Alertmanager, a time-out (reload)",
        "alertmanager",
        9093,
        "/-/ready",
        "/api/v2/status",
        lambda mark: {"alertmanager_config": {"global": {"resolve_timeout": f"{int(mark[-5:]) + 1}s"}}},
        lambda answer, mark, _before: f"resolve_timeout: {duration(int(mark[-5:]) + 1)}\\n" in answer,
        restarts=False,
    ),
    Change(
        "Prometheus, its environment (restart)",
        "prometheus",
        9090,
        "/-/ready",
        "/metrics",
        lambda mark: {"prometheus_environment": {"BENCH": mark}},
        _started,
        restarts=True,
    ),
    Change(
        "node exporter, its environment (restart)",
        "node_exporter",
        9100,
        "/",
        "/metrics",
        lambda mark: {"node_exporter_environment": {"BENCH": mark}},
        _started,
        restarts=True,
    ),
]
QUICK = CHANGES[:1]


def duration(seconds: int) -> str:
    """As Prometheus' family writes it: 1d2h3m4s."""
    hours, rest = divmod(seconds, 3600)
    days, hours = divmod(hours, 24)
    minutes, seconds = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{n}{unit}" for n, unit in parts if n)


def address() -> str:
    return f"{facts()['platform_subnet']}.{GUESTS[SERVER]}"


def deploy(component: str, variables: Json) -> list[str]:
    words = ("playbooks/deploy.yml", "--tags", component, "--limit", f"localhost,{SERVER}")
    return playbook(*LAB, *words, "-e", json.dumps(variables))


def ping() -> float:
    seconds, _ = execute(program("ansible", *LAB, SERVER, "-m", "ansible.builtin.ping"))
    return seconds


def effect(change: Change, kept: dict[str, Json]) -> Json:
    """Makes the change; seconds until the server shows it, and the longest silence meanwhile.

    `kept` has the variables of earlier changes by component: only this one is made.
    """
    mark, base = str(next(_numbers)), f"http://{address()}:{change.port}"
    variables = kept.setdefault(change.component, {})
    variables.update(change.variables(mark))
    command = deploy(change.component, variables)
    with Prober(base + change.ready) as prober:
        before = text(base + change.page) or ""
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.extend(process.stdout or []))
        reader.start()
        shown = None
        while shown is None and (process.poll() is None or time.monotonic() - start < PATIENCE):
            answer = text(base + change.page)
            if answer is not None and change.seen(answer, mark, before):
                shown = time.monotonic() - start
            time.sleep(STEP)
        process.wait()
        reader.join()
    if process.returncode != 0 or shown is None:
        raise Failed(f"{change.name}: the change never showed\n{''.join(told)[-2500:]}")
    return {
        "effect": shown,
        "run": time.monotonic() - start,
        "silence": prober.longest,
        "refused": prober.refused,
    }


def on_server(script: str) -> list[str]:
    """The floor: one command over a kept connection."""
    told = facts()
    return [
        "ssh",
        *shlex.split(told["ansible_ssh_common_args"]),
        *("-i", told["ansible_ssh_private_key_file"]),
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
        *("-o", f"ControlPath={told['lab_state_dir']}/bench-%C"),
        *("-o", "StrictHostKeyChecking=accept-new"),
        f"root@{address()}",
        script,
    ]


def bare_restart(change: Change) -> Json:
    """systemctl restart by hand: seconds until it answers again, and its silence."""
    url = f"http://{address()}:{change.port}{change.ready}"
    page = f"http://{address()}:{change.port}{change.page}"
    with Prober(url) as prober:
        before = text(page) or ""
        start = time.monotonic()
        subprocess.run(on_server(f"systemctl restart {change.component}"), check=True, capture_output=True)
        while not _started(text(page) or "", "", before):
            if time.monotonic() - start > PATIENCE:
                raise Failed(f"{change.name}: not back a minute after `systemctl restart`")
            time.sleep(STEP)
        seconds = time.monotonic() - start
    return {"effect": seconds, "silence": prober.longest}


def revert(kept: dict[str, Json]) -> Json:
    """A release that answers, but not with what it is for: taken back. Two restarts, and the longest silence of them."""
    variables = {"node_exporter_disabled_collectors": ["meminfo"], "node_exporter_ready_timeout": 2}
    variables.update(kept.get("node_exporter", {}))
    with Prober(f"http://{address()}:9100/") as prober:
        start = time.monotonic()
        done = subprocess.run(
            deploy("node_exporter", variables),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
    if done.returncode == 0 or "reverted" not in done.stdout + done.stderr:
        raise Failed(f"the release that lacks its metrics was not reverted\n{done.stdout[-2500:]}")
    return {"run": seconds, "silence": prober.longest}


def measure(runs: int, changes: list[Change], taken_back: bool = True) -> Json:
    """Every change `runs` times beside its floors, in turns; the inventory's own state at the end."""
    pings: list[float] = []
    rows: dict[str, list[Json]] = {change.name: [] for change in changes}
    floors: dict[str, list[Json]] = {change.name: [] for change in changes if change.restarts}
    reverts: list[Json] = []
    kept: dict[str, Json] = {}
    for change in changes:
        # The first one also adds what the marks replace.
        effect(change, kept)
    for turn in range(runs):
        pings.append(ping())
        for change in changes:
            say(f"turn {turn + 1} of {runs}: {change.name}")
            if change.restarts:
                floors[change.name].append(bare_restart(change))
            rows[change.name].append(effect(change, kept))
        if taken_back:
            say(f"turn {turn + 1} of {runs}: a change that is taken back")
            reverts.append(revert(kept))
    for component in sorted({change.component for change in changes}):
        execute(deploy(component, {}))
    found: list[Json] = []
    for change in changes:
        mine = rows[change.name]
        row: Json = {
            "change": change.name,
            "until it shows": spread([one["effect"] for one in mine]),
            "whole run": spread([one["run"] for one in mine]),
            "longest silence": spread([one["silence"] for one in mine]),
            "unanswered": sum(one["refused"] for one in mine),
        }
        if change.restarts:
            row["bare restart"] = spread([one["effect"] for one in floors[change.name]])
            row["its silence"] = spread([one["silence"] for one in floors[change.name]])
        found.append(row)
    answer: Json = {"ping": spread(pings), "changes": found}
    if reverts:
        answer["revert"] = {
            "whole run": spread([one["run"] for one in reverts]),
            "longest silence": spread([one["silence"] for one in reverts]),
        }
    return answer
