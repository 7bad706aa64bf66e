# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Virtual machines to clone, made over the wire from disk images; then cloned by the module of the guests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_template

NODES = ("pve1", "pve2", "pve3")
KEY = "debian-12-cloud on pve1"


@pytest.fixture
def template(site: Any) -> Any:
    def run(*templates: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return dict(site.module(proxmox_template, check, templates=list(templates), **options))

    return run


@pytest.fixture
def image(tmp_path: Path) -> dict[str, Any]:
    """The head of a qcow2 image that shows 3 GiB."""
    path = tmp_path / "debian-12.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(20) + (3 << 30).to_bytes(8, "big") + bytes(100))
    return {"name": "debian-12.qcow2", "kind": "import", "src": str(path)}


MACHINE = {
    "name": "debian-12-cloud",
    "kind": "vm",
    "image": "local:import/debian-12.qcow2",
    "storage": "local-lvm",
    "tags": ["Template"],
}


def machines(site: Any) -> dict[str, list[tuple[int, Any]]]:
    """Name to the nodes that have such a machine, with its id and whether it is a template."""
    found: dict[str, Any] = {}
    for guest in site.server.cluster.guests.values():
        found.setdefault(guest.name, {})[guest.node] = (guest.vmid, guest.config.get("template"))
    return found


def test_made_on_every_node_and_then_unchanged(site: Any, template: Any, image: Any) -> None:
    predicted = template(image, MACHINE, check=True)
    assert site.server.cluster.guests == {}
    first = template(image, MACHINE)
    assert not first.get("failed"), first
    assert first["templates"][KEY]["actions"] == ["created", "converted"]
    assert [predicted[key] for key in ("changed", "diff")] == [first[key] for key in ("changed", "diff")]
    assert machines(site)["debian-12-cloud"] == {"pve1": (100, 1), "pve2": (101, 1), "pve3": (102, 1)}
    config = site.server.cluster.guests[100].config
    assert config["scsi0"] == "local-lvm:vm-100-disk-0,size=3G"
    assert config["ide2"] == "local-lvm:vm-100-cloudinit,media=cdrom"
    assert (config["boot"], config["serial0"], config["tags"]) == ("order=scsi0", "socket", "template")
    assert config["description"].startswith("image: local:import/debian-12.qcow2")
    begun = len(site.server.requests)
    second = template(image, MACHINE)
    assert (second["changed"], second["diff"]) == (False, [])
    assert {entry.method for entry in site.server.requests[begun:]} == {"GET"}


def test_what_was_made_is_cloned(site: Any, template: Any, image: Any) -> None:
    template(image, {**MACHINE, "vmid": 9001})
    ids = {node: vmid for node, (vmid, _) in machines(site)["debian-12-cloud"].items()}
    assert ids == {"pve1": 9001, "pve2": 9002, "pve3": 9003}
    guest = {
        "name": "db-1",
        "kind": "vm",
        "clone_of": "debian-12-cloud",
        "node": "pve2",
        "rootfs": {"storage": "local-zfs", "size_gb": 8},
        "networks": [{"bridge": "vmbr0", "address": "10.0.0.9/24", "gateway": "10.0.0.1"}],
        "user": "root",
    }
    result = site.ok(guest)
    assert result["guests"]["db-1"]["actions"] == ["cloned", "configured", "grown", "started"]
    assert "size=8G" in site.config("db-1")["scsi0"]
    assert site.ok(guest)["changed"] is False


@pytest.mark.parametrize("fault", ["drop", "596"])
@pytest.mark.parametrize("path", [r"/qemu$", r"/template$"])
def test_lost_replies_make_no_second_machine(
    site: Any, template: Any, image: Any, fault: str, path: str
) -> None:
    site.server.faults.slow(0.3, ["qmcreate", "qmtemplate"])
    if fault == "drop":
        site.server.faults.drop_reply("POST", path)
    else:
        site.server.faults.fail("POST", path)
    result = template({**image, "nodes": ["pve1"]}, {**MACHINE, "nodes": ["pve1"]})
    assert not result.get("failed"), result
    assert machines(site) == {"debian-12-cloud": {"pve1": (100, 1)}}


def test_a_taken_id_is_replaced_by_the_next(site: Any, template: Any, image: Any, make: Any) -> None:
    """Somebody takes the free id between the question and the creation."""
    template({**image, "nodes": ["pve1"]})
    site.server.faults.fail(
        "POST", r"/qemu$", status=500, reason="unable to create VM 100 - VM 100 already exists on node 'pve3'"
    )
    assert not template({**MACHINE, "nodes": ["pve1"]}).get("failed")
    assert machines(site)["debian-12-cloud"]["pve1"][1] == 1


def test_one_that_is_half_made_is_finished(site: Any, template: Any, image: Any) -> None:
    site.server.faults.fail("POST", r"/template$", status=500, reason="disk is full", times=99)
    record = {**MACHINE, "nodes": ["pve1"]}
    assert "disk is full" in template({**image, "nodes": ["pve1"]}, record)["msg"]
    assert machines(site)["debian-12-cloud"] == {"pve1": (100, None)}
    site.server.faults.reset()
    result = template(record)
    assert result["templates"][KEY]["actions"] == ["converted"]
    assert template(record)["changed"] is False


def test_machines_of_others_are_left_alone(site: Any, template: Any, image: Any) -> None:
    record = {**MACHINE, "nodes": ["pve1"]}
    template({**image, "nodes": ["pve1"]})
    site.api("POST", "nodes/pve1/qemu", vmid=150, name="debian-12-cloud")
    site.server.cluster.tasks.wait_idle(5)
    for wanted in (record, {**record, "state": "absent"}):
        assert (
            "VM template debian-12-cloud on pve1: 150 has this name and is no template"
            in template(wanted)["msg"]
        )
    site.api("POST", "nodes/pve1/qemu/150/template")
    site.server.cluster.tasks.wait_idle(5)
    assert template(record)["changed"] is False
    site.api("POST", "nodes/pve1/lxc", vmid=151, hostname="debian-13-cloud", **CONTAINER)
    site.server.cluster.tasks.wait_idle(5)
    assert "151 has this name and is a container" in template({**record, "name": "debian-13-cloud"})["msg"]


def test_one_on_a_shared_storage_is_not_made_again_elsewhere(site: Any, template: Any, image: Any) -> None:
    """The node that has it is down, and the first that is left would be another one."""
    site.server.cluster.storages["local-lvm"].shared = True
    assert not template(image, MACHINE).get("failed")
    assert set(machines(site)["debian-12-cloud"]) == {"pve1"}
    for silent in (0, 400):
        site.server.broadcast()
        site.server.kill("pve1", silent=silent)
        assert "100 is it, or may be it" in template(MACHINE)["msg"]
        assert set(machines(site)["debian-12-cloud"]) == {"pve1"}
        site.server.revive("pve1")
    site.server.move("debian-12-cloud", "pve2")
    assert template(MACHINE)["changed"] is False


def test_a_template_that_was_not_made_here_is_not_removed_by_its_name(site: Any, template: Any) -> None:
    site.api("POST", "nodes/pve1/qemu", vmid=150, name="debian-12-cloud")
    site.server.cluster.tasks.wait_idle(5)
    site.api("POST", "nodes/pve1/qemu/150/template")
    site.server.cluster.tasks.wait_idle(5)
    gone = {"name": "debian-12-cloud", "kind": "vm", "state": "absent", "nodes": ["pve1"]}
    assert "150 has this name and was not made here" in template(gone)["msg"]
    assert 150 in site.server.cluster.guests
    assert template({**gone, "vmid": 150})["changed"]
    assert 150 not in site.server.cluster.guests


CONTAINER = {"ostemplate": "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst", "rootfs": "local-lvm:4"}


def test_another_image_needs_another_name(site: Any, template: Any, image: Any) -> None:
    record = {**MACHINE, "nodes": ["pve1"]}
    template({**image, "nodes": ["pve1"]}, record)
    newer = {**image, "name": "debian-13.qcow2", "nodes": ["pve1"]}
    result = template(newer, {**record, "image": "local:import/debian-13.qcow2"})
    assert (
        "100 was made from local:import/debian-12.qcow2, and the record says local:import/debian-13.qcow2"
        in result["msg"]
    )
    assert [
        row["volid"] for row in site.api("GET", "nodes/pve1/storage/local/content", content="import")
    ] == ["local:import/debian-12.qcow2"]
    gone = template({**record, "state": "absent"}, {**image, "nodes": ["pve1"], "state": "absent"})
    assert gone["templates"][KEY]["actions"] == ["removed"]
    assert machines(site) == {}
    assert template({**record, "state": "absent"})["changed"] is False


def test_everything_that_is_missing_is_told_before_anything(site: Any, template: Any, image: Any) -> None:
    message = template(
        {**MACHINE, "nodes": ["pve1"], "bridge": "vmbr9", "pool": "no"},
        {**MACHINE, "name": "b", "nodes": ["pve9"]},
    )["msg"]
    for text in (
        "template 'local:import/debian-12.qcow2' is not on node pve1",
        "bridge 'vmbr9' is not on node pve1",
        "pool 'no' does not exist",
        "node 'pve9' is not in the cluster",
    ):
        assert text in message
    who = site.server.vmadmin
    account = {"api_user": who.user, "api_token_id": who.token_id, "api_token_secret": who.token_secret}
    rights = template({**image, "nodes": ["pve1"]}, {**MACHINE, "nodes": ["pve1"]}, **account)["msg"]
    assert site.server.count("POST") == 0
    assert "Datastore" in rights
