"""Guests made from nothing: reachable, sized as asked, unchanged by a second run, repaired after edits by hand."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.platform import LAB, RECORDS, ROOT, Json, Platform, until

SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "guests")
SITE = Platform(
    LAB / "00-platform.yml", LAB / "10-instance", ROOT / "molecule" / SCENARIO / "inventory" / "hosts.yml"
)
PROVISION = "playbooks/provision.yml"
MODULE = "luxima.observability.proxmox_guests"
LONG = pytest.mark.skipif(
    SCENARIO != "guests_long", reason="waits for machines to start again; scenario guests_long"
)
GUESTS, VMS = SITE.groups["guests"], SITE.groups["vms"]


def of_module(rows: list[Json]) -> Json:
    """What the module answered for each guest; its task's seconds under an empty name."""
    row = next(row for row in rows if row["action"] == MODULE)
    return {**row["guests"], "": row["seconds"]}


def provision(*options: str) -> Json:
    return of_module(SITE.run(PROVISION, *options))


def first_rows(mode: str) -> list[Json]:
    """The record of the first run of that mode that asked for guests; the scenario's other playbooks leave some, too."""
    runs = [json.loads(path.read_text()) for path in sorted((RECORDS / SCENARIO).glob(f"*-{mode}.json"))]
    return next(rows for rows in runs if any(row["action"] == MODULE for row in rows))


@lru_cache
def addresses() -> dict[str, str]:
    """Where each guest is, as the hypervisor tells."""
    found = of_module(first_rows("run"))
    return {name: found[name]["addresses"][0] for name in GUESTS}


def guest(name: str) -> Any:
    return SITE.at(addresses()[name])


def base(name: str) -> str:
    row = next(row for row in SITE.guests() if row["name"] == name)
    return f"nodes/{row['node']}/{row['type']}/{row['vmid']}"


def config(name: str) -> Json:
    found: Json = SITE.api("GET", f"{base(name)}/config")
    return found


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Json]]:
    """What each run did with each guest, for people: reports/<scenario>.md."""
    runs: dict[str, Json] = {"from nothing": of_module(first_rows("run"))}
    yield runs
    waits = {row["host"]: row["seconds"] for row in first_rows("run") if row["task"] == "SSH and Python"}
    lines = [
        "# Guests: from nothing, again, and after edits by hand",
        "",
        f"| guest | kind | node | id | address | SSH after | {' | '.join(runs)} |",
        f"| --- | --- | --- | --- | --- | --- |{' --- |' * len(runs)}",
    ]
    for name in GUESTS:
        made = runs["from nothing"][name]
        did = [", ".join(run[name]["actions"]) or "unchanged" for run in runs.values()]
        kind = "vm" if name in VMS else "lxc"
        words = [name, kind, made["node"], made["vmid"], made["addresses"][0], f"{waits[name]:.1f} s", *did]
        lines.append("| " + " | ".join(str(word) for word in words) + " |")
    took = [f"**{run['']:.2f} s**" for run in runs.values()]
    lines.append(f"| the module |  |  |  |  |  | {' | '.join(took)} |")
    (ROOT / "reports" / f"{SCENARIO}.md").write_text("\n".join(lines) + "\n")


def test_check_mode_on_nothing_predicted_what_the_run_did() -> None:
    def changes(mode: str) -> list[tuple[str, str, bool, list[str]]]:
        return sorted(
            (row["task"], row["host"], row["changed"], row["actions"])
            for row in first_rows(mode)
            # What is not there yet has no address.
            if not row["action"].endswith("add_host")
        )

    assert changes("check") == changes("run")


def test_every_guest_was_made_on_its_node() -> None:
    made = of_module(first_rows("run"))
    assert {name: made[name]["actions"][0] for name in GUESTS} == {
        name: "cloned" if name in VMS else "created" for name in GUESTS
    }
    assert {name: made[name]["node"] for name in GUESTS} == {
        name: values["guest_node"] for name, values in SITE.values("guest_node").items()
    }
    assert {made[name]["node"] for name in GUESTS} == {"pve1", "pve2"}


@pytest.mark.parametrize("name", GUESTS)
def test_guest_answers_with_its_name(name: str) -> None:
    assert guest(name).check_output("hostname") == name


@pytest.mark.parametrize("name", GUESTS)
def test_only_virtual_machines_have_a_kernel_of_their_own(name: str) -> None:
    assert (guest(name).check_output("uname -r") != os.uname().release) == (name in VMS)


def leased() -> list[str]:
    values = SITE.values("guest_address", "ansible_host")
    return [name for name in GUESTS if values[name]["guest_address"] == "dhcp"]


def test_guests_on_dhcp_are_reached_at_the_address_that_the_hypervisor_tells() -> None:
    assert leased()
    given = SITE.values("guest_address", "ansible_host")
    # Without an address of its own the inventory's is the name, which nothing resolves here.
    assert [given[name]["ansible_host"] for name in leased()] == leased()
    waited = {row["host"]: row["status"] for row in first_rows("run") if row["task"] == "SSH and Python"}
    assert waited == dict.fromkeys(GUESTS, "ok")
    # A run that does not provide guests asks for the addresses all the same, and changes nothing.
    rows = SITE.run(PROVISION, "--tags", "validate", "-e", "guest_memory_mb=700")
    assert of_module(rows)[leased()[0]]["addresses"] == [addresses()[leased()[0]]]
    assert sum(row["action"].endswith("add_host") for row in rows) == len(leased())
    assert all(config(name)["memory"] in (512, "512") for name in GUESTS)


@LONG
def test_a_template_was_made_of_a_disk_image_by_the_api_alone() -> None:
    made = next(row for row in first_rows("run") if row["action"].endswith("proxmox_template"))
    assert made["changed"]
    template = SITE.api("GET", "nodes/pve2/qemu/9102/config")
    assert (template["name"], template["template"]) == ("made-by-api", 1)
    # The machine that was cloned from it started, grew its file system and let us in.
    assert SITE.values("guest_template")["vm2"]["guest_template"] == "made-by-api"
    assert int(guest("vm2").check_output("df --output=size -BM / | tail -1").strip("M ")) > 3700


def test_virtual_machine_is_what_its_record_says() -> None:
    machine = guest("vm1")
    assert int(machine.check_output("awk '/MemTotal/ {print $2}' /proc/meminfo")) < 512 * 1024
    # A file system of 3 GiB in the template, grown with its disk to 4 GiB.
    assert int(machine.check_output("df --output=size -BM / | tail -1").strip("M ")) > 3700
    assert machine.check_output("resolvectl dns eth0").endswith(SITE.address(1))
    assert machine.run("systemctl --failed --no-legend").stdout == ""


@pytest.mark.parametrize("name", VMS)
def test_agent_of_a_virtual_machine_tells_its_address(name: str) -> None:
    answer = SITE.api("GET", f"{base(name)}/agent/network-get-interfaces")
    found = {address["ip-address"] for link in answer["result"] for address in link.get("ip-addresses", [])}
    assert addresses()[name] in found


def test_second_run_is_unchanged_and_fast(report: dict[str, Json]) -> None:
    report["again"] = again = provision()
    assert {name: again[name]["actions"] for name in GUESTS} == {name: [] for name in GUESTS}
    assert again[""] < 2


def test_edits_by_hand_are_repaired_and_nothing_else(report: dict[str, Json]) -> None:
    SITE.api("PUT", f"{base('ct1')}/config", memory=300)
    SITE.api("PUT", f"{base('vm1')}/config", tags="somebody", cpuunits=200)
    SITE.api("PUT", f"{base('ct2')}/config", mp0=config("ct2")["mp0"].replace("mp=/data", "mp=/elsewhere"))
    predicted = provision("--check")
    report["after edits by hand"] = done = provision()
    edited = {"vm1", "ct1", "ct2"}
    for result in (predicted, done):
        assert {name: result[name]["actions"] for name in GUESTS} == {
            name: ["configured"] if name in edited else [] for name in GUESTS
        }
    assert done["ct1"]["before"]["memory_mb"] == 300
    assert config("ct1")["memory"] == 512
    assert set(config("vm1")["tags"].split(";")) == {"dev", "luxima"}
    # Nobody said anything about it, so it stays.
    assert config("vm1")["cpuunits"] == 200
    SITE.api("PUT", f"{base('vm1')}/config", revert="cpuunits")
    assert "mp=/data" in config("ct2")["mp0"]
    again = provision()
    assert [name for name in GUESTS if again[name]["changed"]] == []


def test_memory_of_a_running_machine_waits_for_a_reboot() -> None:
    size = ("-e", json.dumps({"guest_memory_mb": 640}))
    done = provision(*size)
    assert done["vm1"]["needs_reboot"]
    assert not done["ct1"]["needs_reboot"]
    again = provision(*size)
    assert not again["vm1"]["changed"]
    assert again["vm1"]["needs_reboot"]
    back = provision()
    assert back["vm1"]["actions"] == ["configured"]
    assert not back["vm1"]["needs_reboot"]


def test_disk_of_a_running_machine_grows() -> None:
    done = provision("-e", json.dumps({"guest_disk_gb": 5}))
    assert {name: done[name]["actions"] for name in GUESTS} == {name: ["grown"] for name in GUESTS}
    assert int(guest("vm1").check_output("cat /sys/block/sda/size")) * 512 == 5 << 30


def test_linked_clone_refers_to_the_disk_of_its_template() -> None:
    upid = SITE.api("POST", "nodes/pve2/qemu/9002/clone", newid=190, full=0, name="linked")
    path = f"nodes/pve2/tasks/{upid}/status"
    task = until(lambda: (found := SITE.api("GET", path))["status"] != "running" and found, 60)
    assert task
    assert task["exitstatus"] == "OK"
    image = Path(SITE.lab["lab_state_dir"]) / "storage/pve2/local-lvm/vm-190-disk-0"
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", image]))
    assert Path(told["backing-filename"]).name == "disk.qcow2"
    assert told["actual-size"] < 1 << 20
    SITE.api("DELETE", "nodes/pve2/qemu/190")
    assert until(lambda: not image.exists(), 10)


def alone(name: str, script: str) -> str:
    """Output of a script on a guest by a connection of its own: one that is kept does not outlive what the guest was."""
    lab = SITE.lab
    options = [
        *shlex.split(lab["ansible_ssh_common_args"]),
        "-o",
        "ControlPath=none",
        "-o",
        "ConnectTimeout=10",
    ]
    login = ["-i", lab["ansible_ssh_private_key_file"], f"root@{addresses()[name]}"]
    done = subprocess.run(["ssh", *options, *login, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BOOT = "cat /proc/sys/kernel/random/boot_id"


@LONG
def test_running_guests_go_back_to_their_snapshot() -> None:
    """Without memory: what a power cut would have left, started again."""
    words = ["playbooks/snapshot.yml", "--limit", "vm1,ct1", "-e", "snapshot=deploy-1"]
    for name in ("vm1", "ct1"):
        alone(name, "echo before >/root/mark; sync")
    SITE.run(*words)
    boot = alone("vm1", BOOT)
    for name in ("vm1", "ct1"):
        alone(name, "echo after >/root/mark; sync")
    rows = SITE.run(*words, "-e", "snapshot_state=rollback")
    assert {row["host"]: row["status"] for row in rows if row["task"] == "SSH and Python"} == {
        "vm1": "ok",
        "ct1": "ok",
    }
    assert [alone(name, "cat /root/mark") for name in ("vm1", "ct1")] == ["before", "before"]
    assert alone("vm1", BOOT) != boot
    assert alone("vm1", "systemctl --failed --no-legend") == ""
    assert [row for row in SITE.run(*words) if row["changed"]] == []


@LONG
def test_running_machine_goes_on_from_a_snapshot_with_its_memory() -> None:
    words = [
        "playbooks/snapshot.yml",
        "--limit",
        "vm1",
        "-e",
        "snapshot=live",
        "-e",
        "guests_snapshot_memory=true",
    ]
    boot = alone("vm1", BOOT)
    # Nothing on disk: the file is in memory alone.
    alone("vm1", "echo before >/run/mark")
    SITE.run(*words)
    alone("vm1", "echo after >/run/mark")
    SITE.run(*words, "-e", "snapshot_state=rollback")
    assert alone("vm1", "cat /run/mark") == "before"
    assert alone("vm1", BOOT) == boot


@LONG
@pytest.mark.parametrize("name", ["vm1", "ct1"])
def test_guest_is_reached_by_its_ipv6_address_too(name: str) -> None:
    wanted = SITE.values("guest_address6")[name]["guest_address6"].partition("/")[0]
    assert wanted in of_module(first_rows("run"))[name]["addresses"]
    with socket.create_connection((wanted, 22), timeout=20) as connection:
        assert connection.recv(4) == b"SSH-"
