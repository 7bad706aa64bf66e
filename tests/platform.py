# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A running platform as tests see it: its inventory, its guests over SSH, its servers over HTTP, and runs of playbooks."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import testinfra

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "inventories" / "lab"
RECORDS = ROOT / "reports" / "runs"
Json = dict[str, Any]
T = TypeVar("T")
# What a component's actions come down to.
EFFECTS = ("created", "rolled_back", "removed", "restarted", "started", "reloaded", "staged")
_ENVIRONMENT = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
    # Molecule forces colour on what it starts; here output is read by a program.
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_NOCOLOR": "true",
}


def get(url: str, timeout: float = 20, headers: dict[str, str] | None = None, **query: str) -> Any:
    """The JSON that a GET answers."""
    if query:
        url = f"{url}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


def until(check: Callable[[], T], seconds: float = 30, pause: float = 0.25) -> T:
    """The first true value of `check()`; the last one when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(pause)
    return found


def components() -> list[str]:
    """The roles that install something."""
    roles = {path.parent.parent.name: path.read_text() for path in ROOT.glob("roles/*/vars/main.yml")}
    return sorted(name for name, text in roles.items() if f"__{name}_component:" in text)


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


class Platform:
    """The lab through inventories, given to Ansible in this order; `options` go with every command."""

    def __init__(self, *sources: Path, options: tuple[str, ...] = ()) -> None:
        self.arguments = [*(word for source in sources for word in ("-i", str(source))), *options]

    @cached_property
    def lab(self) -> Json:
        """What the lab says of itself: subnet, API, key."""
        script = subprocess.run([str(LAB / "10-instance")], capture_output=True, text=True, check=True)
        found: Json = json.loads(script.stdout)["all"]["vars"]
        return found

    def command(self, program: str, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name(program)), *self.arguments, *words]

    def _ansible(
        self,
        program: str,
        *words: str,
        environment: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program, *words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
        )

    # -- playbooks

    def playbook(self, *words: str, records: Path = RECORDS / "tests", timeout: float = 300) -> Run:
        """Runs playbooks; words are their names and options."""
        begun, start = time.time_ns(), time.monotonic()
        done = self._ansible(
            "ansible-playbook",
            *words,
            environment={"ANSIBLE_CALLBACKS_ENABLED": "recorder", "RUN_RECORDS": str(records)},
            timeout=timeout,
        )
        written = {int(file.name.partition("-")[0]): file for file in records.glob("*.json")}
        newest = max(written, default=0)
        rows = json.loads(written[newest].read_text()) if newest > begun else []
        return Run(done.returncode, done.stdout + done.stderr, rows, time.monotonic() - start)

    def run(self, *words: str) -> list[Json]:
        """The rows of a run that succeeds."""
        done = self.playbook(*words)
        assert done.code == 0, done.output
        return done.rows

    # -- inventory

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Hosts of every group, in order of name."""
        run = self._ansible("ansible-inventory", "--list")
        assert run.returncode == 0, run.stderr
        data = json.loads(run.stdout)

        def members(name: str) -> set[str]:
            entry = data.get(name, {})
            return set(entry.get("hosts", [])).union(*(members(child) for child in entry.get("children", [])))

        return {name: sorted(members(name)) for name in data if name != "_meta"}

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Every host and component that belongs to it."""
        return [(host, name) for name in components() for host in self.groups.get(name, [])]

    @lru_cache  # noqa: B019  # as long as the tests
    def values(self, *names: str) -> dict[str, Json]:
        """Variables of every host of the inventory, evaluated."""
        wanted = ", ".join(f"'{name}': {name} | default('')" for name in names)
        run = self._ansible(
            "ansible",
            "all",
            "-m",
            "ansible.builtin.debug",
            "-a",
            f"msg={{{{ {{ {wanted} }} }}}}",
            environment={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        )
        assert run.returncode == 0, run.stdout + run.stderr
        found, decoder = {}, json.JSONDecoder()
        for match in re.finditer(r"^(\S+) \| SUCCESS => ", run.stdout, re.MULTILINE):
            found[match[1]] = decoder.raw_decode(run.stdout, match.end())[0]["msg"]
        return found

    def first(self, group: str, name: str) -> Any:
        """A variable of the first host of a group."""
        return self.values(name)[self.groups[group][0]][name]

    def address(self, last: int) -> str:
        """An address of the lab by its last number."""
        return f"{self.lab['platform_subnet']}.{last}"

    # -- guests

    @lru_cache  # noqa: B019
    def at(self, address: str) -> Any:
        """A guest of the lab over SSH, as testinfra's host."""
        return testinfra.get_host(
            f"ssh://root@[{address}]" if ":" in address else f"ssh://root@{address}",
            ssh_identity_file=self.lab["ansible_ssh_private_key_file"],
            ssh_extra_args=f"{self.lab['ansible_ssh_common_args']} -o StrictHostKeyChecking=accept-new",
            controlpath=f"{self.lab['lab_state_dir']}/test-%%C",
        )

    def guest(self, host: str) -> Any:
        """A host of the inventory over SSH, as testinfra's host."""
        return self.at(self.values("ansible_host")[host]["ansible_host"])

    def on(self, address: str, script: str, check: bool = True) -> str:
        """Standard output of a shell script that root runs on a guest."""
        done = self.at(address).run(script)
        if check:
            assert done.rc == 0, f"{script}\n{done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def pids(self, address: str, names: list[str]) -> dict[str, str]:
        """Main process of each component on a guest; 0 for none."""
        units = " ".join(f"{name}.service" for name in names)
        shown = self.on(address, f"systemctl show -p MainPID --value {units}")
        return dict(zip(names, shown.split(), strict=True))

    def api(self, method: str, path: str, **values: Any) -> Any:
        """A request of somebody who works on the hypervisor by hand; an error raises HTTPError."""
        lab = self.lab
        token = f"{lab['proxmox_api_user']}!{lab['proxmox_api_token_id']}={lab['proxmox_api_token_secret']}"
        request = urllib.request.Request(
            f"https://{lab['proxmox_api_host']}:{lab['proxmox_api_port']}/api2/json/{path}",
            method=method,
            headers={"Authorization": f"PVEAPIToken={token}"},
            data=urllib.parse.urlencode(values).encode() if values else None,
        )
        context = ssl.create_default_context(cafile=lab["proxmox_ca_path"])
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.load(answer)["data"]

    def guests(self) -> list[Json]:
        """All guests: where they are and their pools as the cluster knows them, the rest as their nodes tell it now."""
        places = {row["vmid"]: row for row in self.api("GET", "cluster/resources?type=vm")}
        nodes = sorted({(row["node"], row["type"]) for row in places.values()})
        rows = [row for node, kind in nodes for row in self.api("GET", f"nodes/{node}/{kind}")]
        return [{**places[row["vmid"]], **row, "type": places[row["vmid"]]["type"]} for row in rows]

    # -- servers

    def query(self, expression: str) -> list[Json]:
        """An instant query of the first Prometheus."""
        url = self.first("prometheus", "prometheus_url")
        return list(get(f"{url}/api/v1/query", query=expression)["data"]["result"])

    def wait_for(self, expression: str, seconds: float = 60) -> list[Json]:
        """Polls an instant query until it has a result."""
        return until(lambda: self.query(expression), seconds, pause=1)

    def logs(self, selector: str, seconds: float = 60) -> list[Json]:
        """Polls the first Loki until a selector has streams."""
        url = f"{self.first('loki', 'loki_url')}/loki/api/v1/query_range"
        return until(lambda: list(get(url, since="15m", query=selector)["data"]["result"]), seconds, pause=1)
