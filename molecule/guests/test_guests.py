"""Guests made from nothing: reachable, sized as asked, unchanged by a second run, repaired after edits by hand."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any

import testinfra

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "inventories/lab/00-platform.yml",
    "inventories/lab/10-instance",
    "molecule/guests/inventory/hosts.yml",
)
RECORDS = ROOT / "reports" / "runs" / "guests"


@lru_cache
def variables() -> dict[str, Any]:
    script = subprocess.check_output([ROOT / "inventories/lab/10-instance"], cwd=ROOT)
    found: dict[str, Any] = json.loads(script)["all"]["vars"]
    return found


def api(method: str, path: str, **values: Any) -> Any:
    """A request of somebody who works on the hypervisor by hand."""
    lab = variables()
    token = f"PVEAPIToken={lab['proxmox_api_user']}!{lab['proxmox_api_token_id']}={lab['proxmox_api_token_secret']}"
    request = urllib.request.Request(
        f"https://127.0.0.1:{lab['proxmox_api_port']}/api2/json/{path}",
        method=method,
        headers={"Authorization": token},
        data=urllib.parse.urlencode(values).encode() if values else None,
    )
    context = ssl.create_default_context(cafile=lab["proxmox_ca_path"])
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return json.load(answer)["data"]


def base(name: str) -> str:
    row = next(row for row in api("GET", "cluster/resources?type=vm") if row["name"] == name)
    return f"nodes/{row['node']}/{row['type']}/{row['vmid']}"


@lru_cache
def guest(name: str) -> Any:
    lab = variables()
    ssh = f"{lab['ansible_ssh_common_args']} -o StrictHostKeyChecking=accept-new"
    last = {"vm1": 41, "ct1": 42, "ct2": 43}[name]
    return testinfra.get_host(
        f"ssh://root@{lab['platform_subnet']}.{last}",
        ssh_identity_file=lab["ansible_ssh_private_key_file"],
        ssh_extra_args=ssh,
    )


def provision(*options: str) -> tuple[dict[str, Any], float]:
    """One run of provision.yml: what the module returned for each guest, and its seconds."""
    sources = [word for source in SOURCES for word in ("-i", source)]
    begun = time.monotonic()
    run = subprocess.run(
        ["ansible-playbook", "playbooks/provision.yml", *sources, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
            "ANSIBLE_CALLBACKS_ENABLED": "luxima.observability.phases",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
        },
    )
    seconds = time.monotonic() - begun
    assert run.returncode == 0, run.stdout + run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("localhost | "))
    return json.loads(line[line.index("=>") + 2 :])["guests"], seconds


def test_check_mode_on_nothing_predicted_what_the_run_did() -> None:
    def changes(mode: str) -> list[tuple[str, str, bool, list[str]]]:
        runs = [json.loads(path.read_text()) for path in sorted(RECORDS.glob(f"*-{mode}.json"))]
        # The playbook that started the lab left a record, too.
        first = next(rows for rows in runs if any(row["play"] == "Guests" for row in rows))
        return sorted((row["task"], row["host"], row["changed"], row["actions"]) for row in first)

    assert changes("check") == changes("run")


def test_kernels_of_their_own() -> None:
    kernel = os.uname().release
    assert guest("vm1").check_output("uname -r") != kernel
    assert guest("ct1").check_output("uname -r") == kernel


def test_virtual_machine_is_what_its_record_says() -> None:
    machine = guest("vm1")
    assert machine.check_output("hostname") == "vm1"
    assert int(machine.check_output("awk '/MemTotal/ {print $2}' /proc/meminfo")) < 512 * 1024
    # A file system of 3 GiB in the template, grown with its disk to 4 GiB.
    assert int(machine.check_output("df --output=size -BM / | tail -1").strip("M ")) > 3700
    assert machine.check_output("resolvectl dns eth0").endswith(f"{variables()['platform_subnet']}.1")
    assert machine.run("systemctl --failed --no-legend").stdout == ""


def test_agent_of_the_virtual_machine_tells_its_address() -> None:
    answer = api("GET", f"{base('vm1')}/agent/network-get-interfaces")
    found = {address["ip-address"] for link in answer["result"] for address in link.get("ip-addresses", [])}
    assert f"{variables()['platform_subnet']}.41" in found


def test_second_run_is_unchanged_and_fast() -> None:
    guests, seconds = provision()
    assert {name: entry["actions"] for name, entry in guests.items()} == {"vm1": [], "ct1": [], "ct2": []}
    # The whole of ansible-playbook is in it; the module itself takes a fraction.
    assert seconds < 5
    assert max(entry["seconds"] for entry in guests.values()) < 2


def test_edits_by_hand_are_repaired_and_nothing_else() -> None:
    api("PUT", f"{base('ct1')}/config", memory=300)
    api("PUT", f"{base('vm1')}/config", tags="somebody", cpuunits=200)
    disk = api("GET", f"{base('ct2')}/config")["mp0"].replace("mp=/data", "mp=/elsewhere")
    api("PUT", f"{base('ct2')}/config", mp0=disk)
    predicted, _seconds = provision("--check")
    guests, _seconds = provision()
    for result in (predicted, guests):
        assert {name: entry["actions"] for name, entry in result.items()} == {
            name: ["configured"] for name in ("vm1", "ct1", "ct2")
        }
    assert guests["ct1"]["before"]["memory_mb"] == 300
    assert api("GET", f"{base('ct1')}/config")["memory"] == 512
    config = api("GET", f"{base('vm1')}/config")
    assert set(config["tags"].split(";")) == {"dev", "luxima"}
    # Nobody said anything about it, so it stays.
    assert config["cpuunits"] == 200
    api("PUT", f"{base('vm1')}/config", revert="cpuunits")
    assert "mp=/data" in api("GET", f"{base('ct2')}/config")["mp0"]
    again, _seconds = provision()
    assert [entry["changed"] for entry in again.values()] == [False] * 3


def test_memory_of_a_running_machine_waits_for_a_reboot() -> None:
    size = ("-e", json.dumps({"guest_memory_mb": 640}))
    guests, _seconds = provision(*size)
    assert guests["vm1"]["needs_reboot"]
    assert not guests["ct1"]["needs_reboot"]
    again, _seconds = provision(*size)
    assert not again["vm1"]["changed"]
    assert again["vm1"]["needs_reboot"]
    back, _seconds = provision()
    assert back["vm1"]["actions"] == ["configured"]
    assert not back["vm1"]["needs_reboot"]


def test_disk_of_a_running_machine_grows() -> None:
    guests, _seconds = provision("-e", json.dumps({"guest_disk_gb": 5}))
    assert all(entry["actions"] == ["grown"] for entry in guests.values())
    assert int(guest("vm1").check_output("cat /sys/block/sda/size")) * 512 == 5 << 30


def test_linked_clone_refers_to_the_disk_of_its_template() -> None:
    upid = api("POST", "nodes/pve2/qemu/9002/clone", newid=190, full=0, name="linked")
    while (task := api("GET", f"nodes/pve2/tasks/{upid}/status"))["status"] == "running":
        time.sleep(0.1)
    assert task["exitstatus"] == "OK"
    image = Path(variables()["lab_state_dir"]) / "storage/pve2/local-lvm/vm-190-disk-0"
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", image]))
    assert Path(told["backing-filename"]).name == "disk.qcow2"
    assert told["actual-size"] < 1 << 20
    api("DELETE", "nodes/pve2/qemu/190")
    end = time.monotonic() + 10
    while image.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not image.exists()
