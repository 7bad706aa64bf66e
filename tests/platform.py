# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A running platform as tests see it: its inventory, its guests over SSH, its servers over HTTP, and runs of playbooks."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
import urllib.parse
import urllib.request
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import testinfra

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "reports" / "runs"
_ENVIRONMENT = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
    # Molecule forces colour on what it starts; here output is read by a program.
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_NOCOLOR": "true",
}


def get(url: str) -> Any:
    """The JSON that a URL answers."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def components() -> list[str]:
    """The roles that install something."""
    return sorted(path.parent.parent.name for path in ROOT.glob("roles/*/vars/main.yml"))


class Platform:
    """One inventory, with the options that move it (extra variables)."""

    def __init__(self, environment: str, *options: str) -> None:
        self.arguments = ["-i", f"inventories/{environment}", *options]

    def _ansible(
        self, *command: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command[:1], *self.arguments, *command[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
        )

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
    def values(self, *names: str) -> dict[str, dict[str, Any]]:
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

    @lru_cache  # noqa: B019
    def guest(self, host: str) -> Any:
        """A host over SSH, as testinfra's host."""
        values = self.values(
            "ansible_host", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_common_args"
        )[host]
        return testinfra.get_host(
            f"ssh://{values['ansible_user'] or 'root'}@{values['ansible_host']}",
            ssh_identity_file=values["ansible_ssh_private_key_file"],
            ssh_extra_args=values["ansible_ssh_common_args"],
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query of the first Prometheus."""
        url = self.first("prometheus", "prometheus_url")
        return list(get(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}")["data"]["result"])

    def wait_for(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Polls an instant query until it has a result."""
        end = time.monotonic() + seconds
        while not (found := self.query(expression)) and time.monotonic() < end:
            time.sleep(1)
        return found

    def logs(self, selector: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Polls the first Loki until a selector has streams."""
        url = f"{self.first('loki', 'loki_url')}/loki/api/v1/query_range?since=15m&query={urllib.parse.quote(selector)}"
        end = time.monotonic() + seconds
        while not (streams := get(url)["data"]["result"]) and time.monotonic() < end:
            time.sleep(1)
        return list(streams)

    def run(self, playbook: str, *options: str, fails: bool = False) -> list[dict[str, Any]]:
        """Runs a playbook and returns what the recorder wrote: a row per task result."""
        folder = RECORDS / "tests"
        before = set(folder.glob("*.json"))
        run = self._ansible(
            "ansible-playbook",
            playbook,
            *options,
            environment={"ANSIBLE_CALLBACKS_ENABLED": "recorder", "RUN_RECORDS": str(folder)},
        )
        assert (run.returncode != 0) == fails, f"{shlex.join([playbook, *options])}\n{run.stdout}{run.stderr}"
        (new,) = set(folder.glob("*.json")) - before
        return list(json.loads(new.read_text()))
