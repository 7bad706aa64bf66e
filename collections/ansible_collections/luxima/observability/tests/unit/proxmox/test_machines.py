# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Virtual machines: the real module against the lab's API over HTTPS, with a template on each node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

import lab.testing

from .conftest import Site
from .test_module import comparable, outcome

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZv operator of db/1+2"


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        yield Site(server)


def machine(name: str = "db-1", **changes: Any) -> dict[str, Any]:
    """A VM as an inventory describes it, with what only a container has."""
    result: dict[str, Any] = {
        "name": name,
        "kind": "vm",
        "template": "debian-12-cloud",
        "cores": 2,
        "memory_mb": 2048,
        "swap_mb": 0,
        "unprivileged": True,
        "features": {},
        "rootfs": {"storage": "local-lvm", "size_gb": 8},
        "networks": [{"bridge": "vmbr0", "vlan": 0, "address": "10.0.0.21/24", "gateway": "10.0.0.1"}],
        "nameservers": ["10.0.0.1", "10.0.0.2"],
        "onboot": True,
        "tags": ["dev", "luxima"],
        "user": "root",
        "ssh_public_keys": [KEY],
    }
    return {**result, **changes}


def made(site: Site) -> list[str]:
    """Names of all guests but the templates."""
    return sorted(
        guest.name for guest in site.server.cluster.guests.values() if not guest.config.get("template")
    )


def edit(site: Site, name: str, **values: Any) -> None:
    guest = site.server.guest(name)
    site.api("PUT", f"nodes/{guest.node}/qemu/{guest.vmid}/config", **values)


def pending(site: Site, name: str) -> set[str]:
    guest = site.server.guest(name)
    entries = site.api("GET", f"nodes/{guest.node}/qemu/{guest.vmid}/pending")
    return {entry["key"] for entry in entries if "pending" in entry or "delete" in entry}


def running(site: Site, name: str) -> bool:
    return site.server.cluster.drivers["qemu"].runtime(site.server.guest(name)).running


def test_clone_is_configured_grown_and_started_in_one_plan(site: Site) -> None:
    predicted = site.ok(machine(), check=True)
    assert made(site) == []
    assert outcome(predicted, "db-1")["exists"] is False
    first = site.ok(machine())
    assert comparable(first) == comparable(predicted)
    assert outcome(first, "db-1")["actions"] == ["cloned", "configured", "grown", "started"]
    assert outcome(first, "db-1")["addresses"] == ["10.0.0.21"]
    config = site.config("db-1")
    assert config["memory"] == "2048"
    assert config["cores"] == 2
    assert config["ipconfig0"] == "ip=10.0.0.21/24,gw=10.0.0.1"
    assert config["nameserver"] == "10.0.0.1 10.0.0.2"
    assert (config["ciuser"], unquote(config["sshkeys"])) == ("root", KEY)
    assert "+" not in config["sshkeys"]
    assert "/" not in config["sshkeys"]
    assert config["scsi0"].endswith("size=8G")
    assert config["ide2"] == f"local-lvm:vm-{outcome(first, 'db-1')['vmid']}-cloudinit,media=cdrom"
    assert "template" not in config
    assert running(site, "db-1")
    assert pending(site, "db-1") == set()


def test_second_run_is_unchanged_by_reading_alone(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}])
        for n in (1, 2, 3)
    ]
    site.ok(*guests)
    before = len(site.server.requests)
    second = site.ok(*guests)
    assert second["changed"] is False
    assert second["diff"] == []
    new = site.server.requests[before:]
    assert all(entry.method == "GET" for entry in new)
    assert len(new) <= 1 + 2 + len(guests)


def test_clone_has_a_mac_of_its_own_and_keeps_it(site: Site) -> None:
    site.ok(machine())
    mac = site.config("db-1")["net0"].split(",")[0]
    templates = {
        guest.config["net0"].split(",")[0]
        for guest in site.server.cluster.guests.values()
        if guest.config.get("template")
    }
    assert mac not in templates
    nic = {"bridge": "vmbr0", "vlan": 7, "firewall": True, "address": "10.0.0.99/24", "gateway": "10.0.0.1"}
    changed = site.ok(machine(networks=[nic]))
    assert outcome(changed, "db-1")["actions"] == ["configured"]
    net = site.config("db-1")["net0"]
    assert net.startswith(mac)
    assert {"tag=7", "firewall=1"} <= set(net.split(","))
    assert site.ok(machine(networks=[nic]))["changed"] is False


@pytest.mark.parametrize(
    ("change", "later"),
    [
        ({"memory_mb": 4096}, {"memory"}),
        ({"cores": 4}, {"cores"}),
        ({"nameservers": ["9.9.9.9"]}, {"nameserver"}),
        ({"searchdomain": "example.org"}, {"searchdomain"}),
        (
            {"networks": [{"bridge": "vmbr0", "address": "10.0.0.22/24", "gateway": "10.0.0.1"}]},
            {"ipconfig0"},
        ),
        ({"tags": ["dev"]}, set()),
        ({"description": "a database"}, set()),
        ({"onboot": False}, set()),
        ({"startup": "order=2,up=30"}, set()),
        ({"protection": True}, set()),
        (
            {"networks": [{"bridge": "vmbr0", "vlan": 9, "address": "10.0.0.21/24", "gateway": "10.0.0.1"}]},
            set(),
        ),
        ({"rootfs": {"storage": "local-lvm", "size_gb": 10}}, set()),
        ({"disks": [{"slot": "scsi1", "storage": "local-lvm", "size_gb": 1}]}, set()),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_change_of_a_running_machine_holds_at_once_or_waits(
    site: Site, change: dict[str, Any], later: set[str]
) -> None:
    site.ok(machine())
    wanted = machine(**change)
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "db-1")["changed"] is True
    assert outcome(done, "db-1")["needs_reboot"] is bool(later)
    assert pending(site, "db-1") == later
    again = site.ok(wanted)
    assert again["changed"] is False
    assert outcome(again, "db-1")["needs_reboot"] is bool(later)
    # Allowed to reboot, it ends what waits; where nothing waits, it leaves the machine alone.
    predicted = site.ok(wanted, check=True, reboot="if_needed")
    allowed = site.ok(wanted, reboot="if_needed")
    assert comparable(allowed) == comparable(predicted)
    assert outcome(allowed, "db-1")["actions"] == (["rebooted"] if later else [])
    assert pending(site, "db-1") == set()
    assert outcome(allowed, "db-1")["needs_reboot"] is False


def test_pending_value_of_others_that_equals_ours_is_no_change(site: Site) -> None:
    site.ok(machine())
    edit(site, "db-1", memory=4096)
    result = site.ok(machine(memory_mb=4096))
    assert result["changed"] is False
    assert outcome(result, "db-1")["needs_reboot"] is True
    edit(site, "db-1", revert="memory")
    assert outcome(site.ok(machine()), "db-1")["needs_reboot"] is False


def test_edits_by_hand_are_repaired_and_unmanaged_keys_stay(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}])
        for n in (1, 2, 3)
    ]
    site.ok(*guests)
    edit(site, "db-1", tags="somebody", cpuunits=300, hotplug="disk")
    edit(site, "db-2", net0="virtio=BC:24:11:00:00:77,bridge=vmbr0,tag=5,queues=2")
    result = site.ok(*guests)
    assert [guest["changed"] for guest in result["guests"].values()] == [True, False, False]
    assert site.config("db-1")["tags"] == "dev;luxima"
    assert pending(site, "db-1") == {"cpuunits", "hotplug"}
    # No vlan in the record: it is not managed, and neither is anything else of the interface.
    assert site.config("db-2")["net0"] == "virtio=BC:24:11:00:00:77,bridge=vmbr0,queues=2,tag=5"


def test_disk_grows_and_never_shrinks(site: Site) -> None:
    site.ok(machine())
    grown = machine(rootfs={"storage": "local-lvm", "size_gb": 12})
    assert outcome(site.ok(grown), "db-1")["actions"] == ["grown"]
    vmid = site.server.guest("db-1").vmid
    assert site.server.vm_driver.disks[vmid]["scsi0"] == 12 << 30
    message = site.fails(machine())
    assert "VM db-1: rootfs has 12 GB and the record says 8 GB" in message
    assert "never shrink" in message
    assert site.config("db-1")["scsi0"].endswith("size=12G")


def test_record_smaller_than_the_template_is_refused_before_anything_is_made(site: Site) -> None:
    message = site.fails(machine(rootfs={"storage": "local-lvm", "size_gb": 2}))
    assert "rootfs has 3 GB and the record says 2 GB" in message
    assert made(site) == []


def test_second_disk_is_made_once_and_another_key_does_not_make_it_again(site: Site) -> None:
    disk = {"slot": "scsi1", "storage": "local-zfs", "size_gb": 4}
    first = site.ok(machine(disks=[disk]))
    assert outcome(first, "db-1")["actions"] == ["cloned", "configured", "grown", "started"]
    volume = site.config("db-1")["scsi1"]
    assert volume.startswith("local-zfs:vm-")
    site.ok(machine(disks=[disk], tags=["dev"]))
    site.ok(machine(disks=[{**disk, "size_gb": 6}]))
    assert site.config("db-1")["scsi1"] == volume.replace("size=4G", "size=6G")
    assert not any(key.startswith("unused") for key in site.config("db-1"))


@pytest.mark.parametrize(("node", "source"), [("pve1", 9001), ("pve2", 9002)])
def test_template_on_the_node_of_the_record_is_cloned(site: Site, node: str, source: int) -> None:
    result = site.ok(machine(node=node))
    assert outcome(result, "db-1")["node"] == node
    assert site.server.count("POST", f"/qemu/{source}/clone") == 1


def test_without_a_node_clones_are_spread(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}])
        for n in range(1, 5)
    ]
    nodes = [guest["node"] for guest in site.ok(*guests)["guests"].values()]
    assert sorted(nodes) == ["pve1", "pve1", "pve2", "pve2"]


def test_template_that_is_on_another_node_only(site: Site) -> None:
    message = site.fails(machine(node="pve2", template=None, clone_of="9001"))
    assert "template '9001' is on node pve1 and storage 'local-lvm' is not shared" in message
    assert "set node to pve1" in message
    assert made(site) == []


@pytest.mark.parametrize("name", ["no-such-template", "9999"])
def test_template_that_is_nowhere(site: Site, name: str) -> None:
    message = site.fails(machine(template=name))
    assert f"there is no VM '{name}' to clone" in message
    assert made(site) == []


def test_two_templates_of_one_name_on_a_node_are_told_apart_by_id(site: Site) -> None:
    upid = site.api("POST", "nodes/pve1/qemu/9001/clone", newid=9100, name="debian-12-cloud")
    site.server.cluster.tasks.get(upid).done.wait(5)
    message = site.fails(machine())
    assert "VMs 9001, 9100 on one node are all called 'debian-12-cloud'" in message
    assert outcome(site.ok(machine(template="9001")), "db-1")["actions"][0] == "cloned"


def test_template_is_never_changed_or_destroyed_by_its_name(site: Site) -> None:
    message = site.fails(machine("debian-12-cloud", vmid=9001))
    assert "is a template, which is never changed" in message


def test_name_of_a_container_is_not_taken_over(site: Site, web: Any) -> None:
    site.ok(web)
    assert "is of kind lxc, the record says vm" in site.fails(machine("web-1"))


def test_power(site: Site) -> None:
    assert outcome(site.ok(machine(state="stopped")), "db-1")["actions"] == ["cloned", "configured", "grown"]
    assert not running(site, "db-1")
    assert outcome(site.ok(machine()), "db-1")["actions"] == ["started"]
    assert outcome(site.ok(machine(state="restarted")), "db-1")["actions"] == ["rebooted"]
    assert outcome(site.ok(machine(state="stopped")), "db-1")["actions"] == ["stopped"]
    assert site.ok(machine(state="stopped"))["changed"] is False
    assert outcome(site.ok(machine(state="absent")), "db-1")["actions"] == ["destroyed"]
    assert made(site) == []
    assert len(site.server.cluster.guests) == 2, "the templates stay"


def test_machine_that_ignores_the_shutdown_is_stopped(site: Site) -> None:
    site.ok(machine())
    site.server.vm_driver.deaf.add(site.server.guest("db-1").vmid)
    result = site.ok(machine(state="stopped"), deadlines={"stop": 3})
    assert outcome(result, "db-1")["actions"] == ["stopped"]
    assert not running(site, "db-1")


def test_protected_machine_is_kept(site: Site) -> None:
    site.ok(machine(protection=True))
    assert "protection is on" in site.fails({**machine(), "state": "absent"})
    assert made(site) == ["db-1"]


def test_address_by_dhcp_is_told_by_the_agent(site: Site) -> None:
    wanted = machine(networks=[{"bridge": "vmbr0", "address": "dhcp"}])
    address = f"192.0.2.{outcome(site.ok(wanted), 'db-1')['vmid'] % 250 + 1}"
    assert outcome(site.ok(wanted), "db-1")["addresses"] == [address]
    site.server.vm_driver.silent.add(site.server.guest("db-1").vmid)
    assert outcome(site.ok(wanted, deadlines={"address": 1}), "db-1")["addresses"] == []


# -- faults


@pytest.mark.parametrize(
    ("method", "path", "change", "actions"),
    [
        ("POST", "/clone$", None, ["cloned", "configured", "grown", "started"]),
        ("POST", "/config$", None, ["cloned", "configured", "grown", "started"]),
        ("PUT", "/resize$", None, ["cloned", "configured", "grown", "started"]),
        ("POST", "/status/start$", None, ["cloned", "configured", "grown", "started"]),
        ("POST", "/config$", {"memory_mb": 4096}, ["configured"]),
        ("POST", "/status/shutdown$", {"state": "stopped"}, ["stopped"]),
        ("DELETE", r"/qemu/\d+$", {"state": "absent"}, ["stopped", "destroyed"]),
    ],
)
@pytest.mark.parametrize("fault", ["reply lost", "never arrived"])
def test_lost_request_is_looked_up_before_it_is_repeated(
    site: Site, method: str, path: str, change: Any, actions: list[str], fault: str
) -> None:
    if change is not None:
        site.ok(machine())
    if fault == "reply lost":
        site.server.faults.drop_reply(method, path)
    else:
        site.server.faults.fail(method, path, 596, "Connection timed out")
    wanted = machine(**(change or {}))
    assert outcome(site.ok(wanted), "db-1")["actions"] == actions
    assert made(site) == ([] if wanted.get("state") == "absent" else ["db-1"])
    assert site.ok(wanted)["changed"] is False


@pytest.mark.parametrize(
    "text",
    [
        "can't lock file '/var/lock/qemu-server/lock-9001.conf' - got timeout",
        "cfs-lock 'storage-local-lvm' error: got lock request timeout",
        "VM is locked (backup)",
    ],
)
@pytest.mark.parametrize("path", ["/clone$", "/config$", "/status/start$"])
def test_lock_of_the_server_is_waited_for(site: Site, path: str, text: str) -> None:
    site.server.faults.fail("POST", path, 500, text, times=2)
    assert outcome(site.ok(machine()), "db-1")["actions"] == ["cloned", "configured", "grown", "started"]
    assert made(site) == ["db-1"]
    assert site.ok(machine())["changed"] is False


@pytest.mark.parametrize("switch", ["storage_lock", "file_lock"])
def test_lock_inside_the_clone_task_is_waited_for(site: Site, switch: str) -> None:
    setattr(site.server.faults, switch, 1)
    site.ok(machine())
    assert getattr(site.server.faults, switch) == 0
    assert made(site) == ["db-1"]
    assert site.ok(machine())["changed"] is False


@pytest.mark.parametrize(
    "text",
    [
        "unable to create VM 100: config file already exists",
        "unable to create VM 100 - VM 100 already exists on node 'pve9'",
    ],
)
def test_id_that_only_the_server_knows_is_taken(site: Site, text: str) -> None:
    site.server.faults.fail("POST", "/clone$", 500, text)
    assert outcome(site.ok(machine()), "db-1")["vmid"] == 101


def test_stale_digest_is_read_and_planned_again(site: Site) -> None:
    site.ok(machine())
    site.server.faults.fail("POST", "/config$", 500, "checksum mismatch (file change by other user?)")
    assert outcome(site.ok(machine(memory_mb=4096)), "db-1")["actions"] == ["configured"]
    sent = [
        entry.params
        for entry in site.server.requests
        if entry.method == "POST" and entry.path.endswith("/config")
    ]
    assert sent
    assert all(params.get("digest") for params in sent)


def test_warnings_of_the_clone_are_success(site: Site) -> None:
    site.server.faults.task_warnings = 1
    result = site.ok(machine())
    assert outcome(result, "db-1")["actions"][0] == "cloned"
    assert any("VM db-1" in str(warning) for warning in result["warnings"])


def test_killed_run_is_finished_by_the_next(site: Site) -> None:
    site.server.faults.slow(0.6, ["qmclone"])
    process = site.process(machine())
    while not made(site):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=20)
    site.server.faults.reset()
    result = outcome(site.ok(machine()), "db-1")
    assert result["actions"] == ["configured", "grown", "started"]
    assert made(site) == ["db-1"]
    assert site.config("db-1")["ciuser"] == "root"
    assert site.ok(machine())["changed"] is False


def test_one_failing_clone_does_not_stop_the_others(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}]) for n in (1, 2)
    ]
    site.server.faults.fail("POST", "/clone$", 500, "unable to parse volume ID 'x'")
    result = site.run(*guests)
    assert result["failed"]
    assert "1 of 2 guests failed" in result["msg"]
    assert len(made(site)) == 1
    assert site.ok(*guests)["changed"] is True
    assert made(site) == ["db-1", "db-2"]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("vmadmin", ["lacks Datastore.AllocateSpace on /storage/local-lvm"]),
        (
            "operator",
            ["lacks VM.Allocate on /vms", "lacks VM.Clone on /vms/9001", "lacks VM.Config.Memory on /vms"],
        ),
    ],
)
def test_missing_rights_are_named_before_anything_is_made(site: Site, name: str, faults: list[str]) -> None:
    account = getattr(site.server, name)
    message = site.fails(
        machine(), api_user=account.user, api_token_id=account.token_id, api_token_secret=account.token_secret
    )
    assert [fault for fault in faults if fault not in message] == []
    assert made(site) == []
