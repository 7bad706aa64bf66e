# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Virtual machines: the real module against the lab's API over HTTPS, with a template on each node."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pytest

import lab.testing
from lab.drivers.base import Guest

from .conftest import KEY, Site, comparable, machine, outcome


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        yield Site(server)


def test_clone_is_configured_grown_and_started_in_one_plan(site: Site) -> None:
    predicted = site.ok(machine(), check=True)
    assert site.names() == []
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
    assert site.power("db-1") == "running"
    assert site.pending("db-1") == set()


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


def test_edits_by_hand_are_repaired_and_unmanaged_keys_stay(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}])
        for n in (1, 2, 3)
    ]
    site.ok(*guests)
    site.edit("db-1", tags="somebody", cpuunits=300, hotplug="disk")
    site.edit("db-2", net0="virtio=BC:24:11:00:00:77,bridge=vmbr0,tag=5,queues=2")
    result = site.ok(*guests)
    assert [guest["changed"] for guest in result["guests"].values()] == [True, False, False]
    assert site.config("db-1")["tags"] == "dev;luxima"
    assert site.pending("db-1") == {"cpuunits", "hotplug"}
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
    assert site.names() == []


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
    assert site.names() == []


@pytest.mark.parametrize("name", ["no-such-template", "9999"])
def test_template_that_is_nowhere(site: Site, name: str) -> None:
    message = site.fails(machine(template=name))
    assert f"there is no VM '{name}' to clone" in message
    assert site.names() == []


def test_two_templates_of_one_name_on_a_node_are_told_apart_by_id(site: Site) -> None:
    upid = site.api("POST", "nodes/pve1/qemu/9001/clone", newid=9100, name="debian-12-cloud")
    site.server.cluster.tasks.get(upid).done.wait(5)
    message = site.fails(machine())
    assert "VMs 9001, 9100 on one node are all called 'debian-12-cloud'" in message
    assert outcome(site.ok(machine(template="9001")), "db-1")["actions"][0] == "cloned"


def test_template_is_never_changed_or_destroyed_by_its_name(site: Site) -> None:
    message = site.fails(machine("debian-12-cloud", vmid=9001))
    assert "is a template, which is never changed" in message


def test_power(site: Site) -> None:
    assert outcome(site.ok(machine(state="stopped")), "db-1")["actions"] == ["cloned", "configured", "grown"]
    assert site.power("db-1") == "stopped"
    assert outcome(site.ok(machine()), "db-1")["actions"] == ["started"]
    assert outcome(site.ok(machine(state="restarted")), "db-1")["actions"] == ["rebooted"]
    assert outcome(site.ok(machine(state="stopped")), "db-1")["actions"] == ["stopped"]
    assert site.ok(machine(state="stopped"))["changed"] is False
    assert outcome(site.ok(machine(state="absent")), "db-1")["actions"] == ["destroyed"]
    assert site.names() == []
    assert len(site.server.cluster.guests) == 2, "the templates stay"


def test_machine_that_ignores_the_shutdown_is_stopped(site: Site) -> None:
    site.ok(machine())
    site.server.vm_driver.deaf.add(site.server.guest("db-1").vmid)
    result = site.ok(machine(state="stopped"), deadlines={"stop": 3})
    assert outcome(result, "db-1")["actions"] == ["stopped"]
    assert site.power("db-1") == "stopped"


def test_protected_machine_is_kept(site: Site) -> None:
    site.ok(machine(protection=True))
    assert "protection is on" in site.fails({**machine(), "state": "absent"})
    assert site.names() == ["db-1"]


def test_address_by_dhcp_is_told_by_the_agent(site: Site) -> None:
    wanted = machine(networks=[{"bridge": "vmbr0", "address": "dhcp"}])
    address = f"192.0.2.{100 + outcome(site.ok(wanted), 'db-1')['vmid'] % 150}"
    assert outcome(site.ok(wanted), "db-1")["addresses"] == [address]
    site.server.vm_driver.silent.add(site.server.guest("db-1").vmid)
    assert outcome(site.ok(wanted, deadlines={"address": 1}), "db-1")["addresses"] == []


# -- faults


def test_one_failing_clone_does_not_stop_the_others(site: Site) -> None:
    guests = [
        machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{20 + n}/24"}]) for n in (1, 2)
    ]
    site.server.faults.fail("POST", "/clone$", 500, "unable to parse volume ID 'x'")
    result = site.run(*guests)
    assert result["failed"]
    assert "1 of 2 guests failed" in result["msg"]
    assert len(site.names()) == 1
    assert site.ok(*guests)["changed"] is True
    assert site.names() == ["db-1", "db-2"]


def test_a_guest_that_has_the_name_of_a_template_is_not_cloned(site: Site) -> None:
    site.server.cluster.remove(site.server.cluster.guests[9002])
    site.server.cluster.add(
        Guest(500, "pve2", "qemu", {"name": "debian-12-cloud", "scsi0": "local-lvm:vm-500-disk-0,size=2G"})
    )
    site.ok(
        *[machine(f"db-{n}", networks=[{"bridge": "vmbr0", "address": f"10.0.0.{n}/24"}]) for n in (1, 2)]
    )
    asked = [entry.path for entry in site.server.requests if entry.path.endswith("/clone")]
    assert len(asked) == 2
    assert all("/9001/" in path for path in asked)
