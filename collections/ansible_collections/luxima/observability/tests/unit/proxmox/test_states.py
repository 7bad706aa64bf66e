# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Templates, clones, high availability and addresses by DHCP: the real module against the lab's API."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import lab.testing

from .conftest import Site, comparable, machine, outcome, record


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        yield Site(server)


def of(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """A record of either kind."""
    return record(name, **changes) if kind == "lxc" else machine(name, **changes)


KINDS = pytest.mark.parametrize("kind", ["lxc", "vm"])


# -- templates


@KINDS
def test_template_is_made_once_and_predicted(site: Site, kind: str) -> None:
    wanted = of(kind, "base-1", state="template")
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "base-1")["actions"][-1] == "templated"
    assert "started" not in outcome(done, "base-1")["actions"]
    assert site.config("base-1")["template"] == 1
    again = site.ok(wanted)
    assert again["changed"] is False
    assert again["diff"] == []


@KINDS
def test_running_guest_is_stopped_and_becomes_a_template(site: Site, kind: str) -> None:
    site.ok(of(kind, "base-1"))
    wanted = of(kind, "base-1", state="template", memory_mb=3000)
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "base-1")["actions"] == ["stopped", "configured", "templated"]
    assert outcome(done, "base-1")["needs_reboot"] is False


@KINDS
def test_template_keeps_its_volumes_and_takes_tags(site: Site, kind: str) -> None:
    wanted = of(kind, "base-1", state="template")
    site.ok(wanted)
    assert outcome(site.ok({**wanted, "tags": ["dev"]}), "base-1")["actions"] == ["configured"]
    grown = {**wanted, "rootfs": {"storage": "local-lvm", "size_gb": 20}}
    assert "is a template, whose volumes are never changed" in site.fails(grown)
    assert "is a template, which is never changed" in site.fails(of(kind, "base-1"))


@KINDS
def test_template_with_snapshots_is_refused_by_the_server(site: Site, kind: str) -> None:
    site.ok(of(kind, "base-1", state="stopped"))
    guest = site.server.guest("base-1")
    upid = site.api("POST", f"nodes/{guest.node}/{guest.kind}/{guest.vmid}/snapshot", snapname="s1")
    site.server.cluster.tasks.get(upid).done.wait(5)
    assert "contains snapshots" in site.fails(of(kind, "base-1", state="template"))


# -- clones


@KINDS
@pytest.mark.parametrize("linked", [False, True])
def test_clone_of_a_template_of_ours(site: Site, kind: str, linked: bool) -> None:
    site.ok(of(kind, "base-1", state="template", node="pve1"))
    wanted = of(kind, "web-1", clone_of="base-1", linked=linked, tags=["dev"])
    wanted["rootfs"] = {"storage": "local-lvm", "size_gb": 9}
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "web-1")["actions"] == ["cloned", "configured", "grown", "started"]
    assert outcome(done, "web-1")["node"] == "pve1"
    assert site.config("web-1")["tags"] == "dev"
    last = [entry for entry in site.server.requests if entry.path.endswith("/clone")][-1]
    assert int(last.params["full"]) == int(not linked)
    assert site.config("web-1")["net0"] != site.config("base-1")["net0"]
    assert site.ok(wanted)["changed"] is False


def test_container_that_runs_is_no_source(site: Site) -> None:
    site.ok(record("base-1", node="pve1"))
    assert "runs, so it cannot be cloned: stop it" in site.fails(record("web-1", clone_of="base-1"))


@KINDS
def test_linked_clone_needs_a_template(site: Site, kind: str) -> None:
    site.ok(of(kind, "base-1", state="stopped"))
    message = site.fails(of(kind, "web-1", clone_of="base-1", linked=True))
    assert "is no template, so linked must be false" in message


def test_source_of_the_other_kind_is_not_taken(site: Site) -> None:
    site.ok(machine("base-1", state="template"))
    assert "there is no container 'base-1' to clone" in site.fails(record("web-1", clone_of="base-1"))


# -- high availability


def ha(site: Site) -> list[dict[str, Any]]:
    return list(site.api("GET", "cluster/ha/resources"))


@KINDS
def test_guest_is_handed_to_the_ha_manager_once(site: Site, kind: str) -> None:
    wanted = of(kind, "web-1", ha=True)
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "web-1")["actions"][-2:] == ["started", "ha_added"]
    [entry] = ha(site)
    assert (entry["sid"].partition(":")[0], entry["state"]) == ("ct" if kind == "lxc" else "vm", "started")
    assert site.ok(wanted)["changed"] is False
    assert site.ok(of(kind, "web-1"))["changed"] is False, (
        "a record that does not speak of it leaves it alone"
    )


@KINDS
def test_power_of_a_kept_guest_is_waited_for(site: Site, kind: str) -> None:
    site.ok(of(kind, "web-1", ha=True))
    stopped = site.ok(of(kind, "web-1", ha=True, state="stopped"))
    assert outcome(stopped, "web-1")["actions"] == ["stopped"]
    assert (
        not site.server.cluster.drivers[site.server.guest("web-1").kind]
        .runtime(site.server.guest("web-1"))
        .running
    )
    assert ha(site)[0]["state"] == "stopped"
    assert outcome(site.ok(of(kind, "web-1", ha=True)), "web-1")["actions"] == ["started"]
    assert site.ok(of(kind, "web-1", ha=True))["changed"] is False


@KINDS
def test_guest_is_taken_from_the_ha_manager(site: Site, kind: str) -> None:
    site.ok(of(kind, "web-1", ha=True))
    wanted = of(kind, "web-1", ha=False, state="stopped")
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "web-1")["actions"] == ["ha_removed", "stopped"]
    assert ha(site) == []


@KINDS
def test_kept_guest_is_destroyed_with_its_service(site: Site, kind: str) -> None:
    site.ok(of(kind, "web-1", ha=True))
    assert outcome(site.ok(of(kind, "web-1", state="absent")), "web-1")["actions"] == ["stopped", "destroyed"]
    assert ha(site) == []


@KINDS
def test_lost_reply_of_the_ha_manager_is_looked_up(site: Site, kind: str) -> None:
    site.server.faults.drop_reply("POST", "/cluster/ha/resources")
    assert outcome(site.ok(of(kind, "web-1", ha=True)), "web-1")["actions"][-1] == "ha_added"
    assert len(ha(site)) == 1


def test_templates_are_kept_by_nobody(site: Site) -> None:
    message = site.fails(record("base-1", state="template", ha=True))
    assert "base-1: ha: the HA manager keeps no templates" in message
    site.ok(record("base-1", ha=True))
    done = site.ok(record("base-1", state="template"))
    assert outcome(done, "base-1")["actions"] == ["ha_removed", "stopped", "templated"]


def test_right_for_the_ha_manager_is_missed_before_anything_is_made(site: Site) -> None:
    account = site.server.vmadmin
    message = site.fails(
        machine("db-1", ha=True, rootfs={"size_gb": 8}),
        api_user=account.user,
        api_token_id=account.token_id,
        api_token_secret=account.token_secret,
    )
    assert f"{account.user}!{account.token_id} lacks Sys.Console on /" in message


# -- addresses by DHCP

DHCP = [{"bridge": "vmbr0", "address": "dhcp"}]


def test_agent_that_comes_later_is_waited_for(site: Site) -> None:
    wanted = machine("db-1", vmid=150, networks=DHCP)
    site.server.vm_driver.silent.add(150)
    awake = threading.Timer(1.5, lambda: site.server.vm_driver.silent.discard(150))
    awake.start()
    began = time.monotonic()
    assert outcome(site.ok(wanted), "db-1")["addresses"] == ["192.0.2.100"]
    assert time.monotonic() - began > 1.0


def test_agent_that_never_comes_is_waited_for_as_long_as_said(site: Site) -> None:
    wanted = machine("db-1", vmid=150, networks=DHCP)
    site.server.vm_driver.silent.add(150)
    began = time.monotonic()
    result = site.ok(wanted, deadlines={"address": 1})
    assert outcome(result, "db-1")["addresses"] == []
    assert 1 <= time.monotonic() - began < 6
    assert any("VM db-1: its address by DHCP is not known" in text for text in map(str, result["warnings"]))


def test_machine_without_an_agent_is_not_waited_for(site: Site) -> None:
    site.ok(machine("db-1", networks=DHCP, state="stopped"))
    guest = site.server.guest("db-1")
    site.api("PUT", f"nodes/{guest.node}/qemu/{guest.vmid}/config", delete="agent")
    began = time.monotonic()
    result = site.ok(machine("db-1", networks=DHCP))
    assert outcome(result, "db-1")["addresses"] == []
    assert time.monotonic() - began < 5
    assert any("guest agent is not enabled" in str(text) for text in result["warnings"])


# -- hotplug


@pytest.mark.parametrize(
    ("setting", "change", "waits"),
    [
        ({"hotplug": "network,disk,usb,memory", "numa": 1}, {"memory_mb": 3072}, False),
        ({"hotplug": "network,disk,usb,memory"}, {"memory_mb": 3072}, True),
        ({"hotplug": "disk"}, {"networks": [{"bridge": "vmbr0", "vlan": 9}]}, True),
        ({"hotplug": "1"}, {"networks": [{"bridge": "vmbr0", "vlan": 9}]}, False),
        ({"hotplug": "0"}, {"disks": [{"slot": "scsi1", "storage": "local-lvm", "size_gb": 1}]}, True),
        ({"hotplug": "0"}, {"rootfs": {"storage": "local-lvm", "size_gb": 12}}, False),
    ],
)
def test_what_a_machine_takes_while_it_runs_is_its_own_setting(
    site: Site, setting: dict[str, Any], change: dict[str, Any], waits: bool
) -> None:
    site.ok(machine("db-1", state="stopped"))
    guest = site.server.guest("db-1")
    site.api("PUT", f"nodes/{guest.node}/qemu/{guest.vmid}/config", **setting)
    site.ok(machine("db-1"))
    wanted = machine("db-1", **change)
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "db-1")["needs_reboot"] is waits
    assert site.ok(wanted)["changed"] is False
