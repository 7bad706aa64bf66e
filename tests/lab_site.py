# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""For tests that act on the guests of a running lab: playbooks with their record, commands on guests, requests."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "inventories" / "lab"
Json = dict[str, Any]
# What a component's actions come down to.
EFFECTS = ("created", "rolled_back", "removed", "restarted", "started", "reloaded", "staged")


@dataclass
class Run:
    """One run of ansible-playbook: what it said and one row per task and host (tests/callbacks/recorder.py)."""

    code: int
    output: str
    rows: list[Json]
    seconds: float

    def component_rows(self) -> list[Json]:
        return [row for row in self.rows if row["action"] == "luxima.observability.component"]

    def effects(self) -> dict[tuple[str, str], str]:
        """(host, component) -> the strongest thing that was done there; only what changed."""
        return {
            (row["host"], row["component"]): next(
                (word for word in EFFECTS if word in row["actions"]), ",".join(row["actions"])
            )
            for row in self.component_rows()
            if row["changed"]
        }

    def actions(self) -> dict[tuple[str, str], list[str]]:
        return {
            (row["host"], row["component"]): row["actions"] for row in self.component_rows() if row["changed"]
        }


class LabSite:
    """The lab through an inventory. `sources` are given to Ansible in this order."""

    def __init__(self, *sources: Path) -> None:
        self.sources = sources
        script = subprocess.run([str(LAB / "10-instance")], capture_output=True, text=True, check=True)
        self.lab: Json = json.loads(script.stdout)["all"]["vars"]

    def playbook(self, *words: str, records: Path, timeout: float = 300) -> Run:
        """Runs playbooks; words are their names and options."""
        begun, start = time.time_ns(), time.monotonic()
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "RUN_RECORDS": str(records),
        }
        done = subprocess.run(
            self.command(*words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=timeout,
        )
        written = [file for file in records.glob("*.json") if int(file.name.partition("-")[0]) > begun]
        newest = max(written, default=None, key=lambda file: int(file.name.partition("-")[0]))
        rows = json.loads(newest.read_text()) if newest else []
        return Run(done.returncode, done.stdout + done.stderr, rows, time.monotonic() - start)

    def command(self, *words: str) -> list[str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, *(word for source in self.sources for word in ("-i", str(source))), *words]

    def address(self, last: int) -> str:
        return f"{self.lab['platform_subnet']}.{last}"

    def on(self, address: str, script: str, check: bool = True, timeout: float = 60) -> str:
        """Standard output of a shell script that root runs on a guest."""
        command = [
            "ssh",
            *shlex.split(self.lab["ansible_ssh_common_args"]),
            *("-i", self.lab["ansible_ssh_private_key_file"]),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
            *("-o", f"ControlPath={self.lab['lab_state_dir']}/test-%C"),
            *("-o", "StrictHostKeyChecking=accept-new"),
            f"root@{address}",
            script,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def pids(self, address: str, components: list[str]) -> dict[str, str]:
        """Main process of each component on a guest; 0 for none."""
        units = " ".join(f"{name}.service" for name in components)
        shown = self.on(address, f"systemctl show -p MainPID --value {units}")
        return dict(zip(components, shown.split(), strict=True))


def get(url: str, timeout: float = 10, headers: dict[str, str] | None = None, **query: str) -> Any:
    """The JSON that a GET answers."""
    if query:
        url = f"{url}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


def until(check: Any, seconds: float = 30, pause: float = 0.25) -> Any:
    """The first true value of `check()`; the last one when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(pause)
    return found
