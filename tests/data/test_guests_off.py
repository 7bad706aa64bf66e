# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A guest that shall not run is provisioned and otherwise unknown, in every shipped inventory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: One that is only watched, of each inventory; the lab's addresses are those of the checkout.
WATCHED = {"lab": "agent1", "development": "dev-app1", "staging": "stg-app1", "production": "prod-web1"}
RECORDS = "{{ (groups.guests + groups.guests_off) | map('extract', hostvars, 'platform_guest') }}"


def ansible(program: str, *words: str | Path) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *map(str, words)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(environment: str, folder: Path, state: str) -> Path:
    inventory = folder / environment
    shutil.copytree(PROJECT / "inventories" / environment, inventory)
    script = inventory / "10-instance"
    if script.exists():
        # Finds its checkout by its own place.
        script.write_text(f'#!/bin/sh\nexec {PROJECT / "inventories" / environment / "10-instance"} "$@"\n')
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars" / f"{WATCHED[environment]}.yml").write_text(f"guest_state: {state}\n")
    return inventory


def evaluated(inventory: Path, expression: str) -> Any:
    """The value of a template on the controller."""
    arguments = json.dumps({"msg": expression})
    said = ansible("ansible", "localhost", "-i", inventory, "-m", "ansible.builtin.debug", "-a", arguments)
    return json.loads(said.partition("=>")[2])["msg"]


def record(inventory: Path, host: str) -> dict[str, Any]:
    (found,) = [one for one in evaluated(inventory, RECORDS) if one["name"] == host]
    return dict(found)


@pytest.mark.parametrize("state", ["absent", "stopped"])
@pytest.mark.parametrize("environment", WATCHED)
def test_it_leaves_every_group_and_keeps_what_the_groups_gave_it(
    environment: str, state: str, tmp_path: Path
) -> None:
    host, inventory = WATCHED[environment], copied(environment, tmp_path, state)
    groups = json.loads(ansible("ansible-inventory", "-i", inventory, "--list"))
    assert [name for name, entry in groups.items() if host in entry.get("hosts", [])] == ["guests_off"]
    before = record(PROJECT / "inventories" / environment, host)
    after = record(inventory, host)
    assert after == before | {"state": state}


@pytest.mark.parametrize("environment", WATCHED)
def test_nothing_that_is_deployed_knows_it(environment: str, tmp_path: Path) -> None:
    host = WATCHED[environment]

    def mentions(inventory: Path, target: Path) -> list[str]:
        ansible(
            "ansible-playbook", "playbooks/render.yml", "-i", inventory, "-e", f"platform_render_dir={target}"
        )
        word = re.compile(rf"\b{re.escape(host)}\b")
        files = [path for path in target.rglob("*") if path.is_file()]
        assert files
        return [str(path.relative_to(target)) for path in files if word.search(str(path) + path.read_text())]

    assert mentions(PROJECT / "inventories" / environment, tmp_path / "before")
    inventory = copied(environment, tmp_path, "absent")
    assert mentions(inventory, tmp_path / "after") == []
    # No fault: it would end with a failure. A protected environment refuses the secrets that it is shipped with.
    ansible("ansible-playbook", "playbooks/validate.yml", "-i", inventory, "-e", "platform_protected=false")


def test_without_the_last_source_validation_names_it(tmp_path: Path) -> None:
    inventory = copied("staging", tmp_path, "absent")
    (inventory / "zz-running.yml").unlink()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "playbooks/validate.yml",
            "-i",
            str(inventory),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    words = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert "guest_state of host stg-app1" in words
    assert (
        "in groups node_exporter, cadvisor, promtail, which expect it to run; add the file zz-running.yml"
        in words
    )


def test_values_of_groups_files_and_templates_decide_as_ever(tmp_path: Path) -> None:
    """A group's variable in hosts.yml, one in a file, one at the host; a state that is a template."""
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    shutil.copy(PROJECT / "inventories/staging/00-platform.yml", inventory)
    shutil.copy(PROJECT / "inventories/staging/zz-running.yml", inventory)
    (inventory / "group_vars" / "all.yml").write_text("guest_cores: 3\nguest_pool: all\n")
    (inventory / "group_vars" / "guests.yml").write_text("guest_pool: guests\nguest_user: somebody\n")
    (inventory / "hosts.yml").write_text(
        "guests: {hosts: {a: {guest_vmid: 7, leaving: true}, b: {}}, vars: {guest_cores: 5, guest_swap_mb: 9,"
        " guest_state: \"{{ 'stopped' if leaving | default(false) else 'started' }}\"}}\n"
        "loki: {children: {guests: {}}, vars: {guest_swap_mb: 8, guest_disk_gb: 77}}\n"
    )
    assert evaluated(inventory, "{{ [groups.guests, groups.loki, groups.guests_off] }}") == [
        ["b"],
        ["b"],
        ["a"],
    ]
    there, off = record(inventory, "b"), record(inventory, "a")
    assert off == there | {"name": "a", "state": "stopped", "vmid": 7}
    assert (off["cores"], off["pool"], off["user"], off["swap_mb"]) == (3, "guests", "somebody", 9)
