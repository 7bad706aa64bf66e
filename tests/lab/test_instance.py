# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Names and numbers of a lab, and the inventory made of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import instance

SCRIPT = instance.CHECKOUT / "inventories" / "lab" / "10-instance"


def _checkout(path: Path) -> Path:
    """A second checkout, as far as the inventory script is concerned."""
    (path / "lab").mkdir(parents=True)
    (path / "inventories" / "lab").mkdir(parents=True)
    for name in ("__init__.py", "instance.py"):
        shutil.copy(instance.CHECKOUT / "lab" / name, path / "lab" / name)
    shutil.copy(SCRIPT, path / "inventories" / "lab" / SCRIPT.name)
    return path


def _variables(checkout: Path, cwd: Path, python: str = sys.executable) -> dict[str, object]:
    environment = {key: value for key, value in os.environ.items() if key != "LAB_STATE_DIR"}
    text = subprocess.check_output(
        [python, checkout / "inventories" / "lab" / SCRIPT.name], cwd=cwd, env=environment, text=True
    )
    document = json.loads(text)
    assert document["_meta"] == {"hostvars": {}}
    found: dict[str, object] = document["all"]["vars"]
    return found


def test_two_checkouts_never_meet(tmp_path: Path) -> None:
    labs = [instance.load(tmp_path / name / ".lab") for name in ("a", "b")]
    one, two = labs
    assert one.name != two.name
    assert not two.bridge.startswith(one.name)
    assert (one.run, one.lxc_path) != (two.run, two.lxc_path)
    assert one == instance.load(tmp_path / "a" / ".lab")


@pytest.mark.parametrize("vmid", [100, 999, 1000000])
def test_names_fit_the_kernel(tmp_path: Path, vmid: int) -> None:
    lab = instance.load(tmp_path)
    assert re.fullmatch(r"lx[0-9a-f]{6}", lab.name)
    assert len(lab.bridge) <= 15
    names = [lab.veth(vmid, index) for index in range(10)]
    assert all(len(name) <= 15 and name.startswith(lab.name) for name in names)
    assert lab.bridge not in names


def test_every_candidate_is_private_and_below_the_ports_of_clients(tmp_path: Path) -> None:
    lab = instance.load(tmp_path)
    assert all(
        re.fullmatch(r"10\.(6[4-9]|[7-9]\d|1[0-8]\d|19[01])\.\d{1,3}", subnet) for subnet in lab.subnets()
    )
    assert all(18000 <= port < 30000 for port in lab.ports())
    assert len(set(lab.subnets())) > 50


def test_what_up_has_chosen_is_kept_but_not_in_a_copy(tmp_path: Path) -> None:
    lab = instance.Instance(instance.load(tmp_path / "a").name, tmp_path / "a", "10.99.98", 18099)
    lab.save()
    assert (instance.load(tmp_path / "a").subnet, instance.load(tmp_path / "a").port) == ("10.99.98", 18099)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert instance.load(tmp_path / "b").name != lab.name
    assert instance.load(tmp_path / "b").subnet != "10.99.98"


def test_inventory_of_a_lab_that_is_down(tmp_path: Path) -> None:
    found = _variables(_checkout(tmp_path / "checkout"), tmp_path)
    assert found["proxmox_api_token_secret"] == found["proxmox_api_password"] == "lab-is-down"
    assert found["guest_ssh_public_keys"] == []
    assert found["lab_state_dir"] == str(tmp_path / "checkout" / ".lab")
    assert found["proxmox_api_host"] == "127.0.0.1"
    assert "{{" not in json.dumps(found)


def test_inventory_of_a_lab_that_is_up(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "checkout")
    state = checkout / ".lab"
    (state / "ssh").mkdir(parents=True)
    (state / "ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAA lab\n", encoding="utf-8")
    (state / "secrets.json").write_text('{"token": "s", "password": "p"}', encoding="utf-8")
    found = _variables(checkout, Path("/"))
    assert (found["proxmox_api_token_secret"], found["proxmox_api_password"]) == ("s", "p")
    assert found["guest_ssh_public_keys"] == ["ssh-ed25519 AAAA lab"]
    assert str(state / "known_hosts") in str(found["ansible_ssh_common_args"])


def test_inventory_takes_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    """Of a processor: other tests run beside this one."""
    checkout = _checkout(tmp_path / "checkout")
    best = 1.0
    for _ in range(5):
        before = os.times()
        _variables(checkout, tmp_path)
        after = os.times()
        best = min(
            best, after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert 0 < best < 0.1
