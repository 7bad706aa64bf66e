# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What can be known is found before anything is made, and what is made is what was foretold."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_template, proxmox_version

from lab.access import User
from lab.drivers.base import Guest

from .conftest import KEY, KINDS, Site, comparable, guest, outcome, small

kinds = pytest.mark.parametrize("kind", KINDS)
#: A VM template as an operator made it by hand.
TEMPLATE: dict[str, Any] = {
    "name": "golden",
    "boot": "order=scsi0",
    "cores": 1,
    "memory": "1024",
    "ide2": "local-lvm:vm-9100-cloudinit,media=cdrom",
    "net0": "virtio=BC:24:11:00:91:00,bridge=vmbr0",
    "scsi0": "local-lvm:base-9100-disk-0,size=3G",
    "template": 1,
}


def golden(site: Site, vmid: int = 9100, **lines: Any) -> None:
    """The template, with other lines; None takes one away."""
    config = {key: value for key, value in {**TEMPLATE, **lines}.items() if value is not None}
    site.server.cluster.add(Guest(vmid, "pve1", "qemu", config))


def clone(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "kind": "vm", "state": "present", "clone_of": "golden", **changes}


def refused(site: Site, *records: dict[str, Any], **options: Any) -> str:
    """The error; nothing was written, and check mode says the same."""
    before, names = site.writes(), site.names()
    message = site.fails(*records, **options)
    assert site.fails(*records, check=True, **options) == message
    assert site.writes() == before
    assert site.names() == names
    return message


def foretold(site: Site, record: dict[str, Any], **options: Any) -> list[str]:
    """The actions of a run, which check mode knew and after which nothing is left to do."""
    predicted = site.ok(record, check=True, **options)
    done = site.ok(record, **options)
    assert comparable(done) == comparable(predicted)
    again = site.ok(record, **options)
    assert again["changed"] is False, again["diff"]
    actions: list[str] = outcome(done)["actions"]
    return actions


# -- the disk a VM starts from

BOOT = [
    ({"boot": "c", "bootdisk": "virtio0"}, "virtio0"),
    ({"boot": "cdn", "bootdisk": "virtio0"}, "virtio0"),
    ({"boot": "legacy=c", "bootdisk": "virtio0"}, "virtio0"),
    ({"boot": None, "bootdisk": "virtio0"}, "virtio0"),
    ({"boot": "order=virtio0"}, "virtio0"),
    ({"boot": "order=net0;ide2;virtio0;scsi0"}, "virtio0"),
    ({"boot": "order=virtio0", "bootdisk": "scsi0"}, "virtio0"),
    ({"boot": "order=scsi1;virtio0", "scsi1": "local:iso/tool.iso,media=cdrom"}, "virtio0"),
    ({"boot": "order=scsi0;virtio0"}, "scsi0"),
    ({"boot": "c", "bootdisk": "scsi0"}, "scsi0"),
    ({"boot": "c", "scsi0": None}, "virtio0"),
]


@pytest.mark.parametrize(("lines", "disk"), BOOT, ids=lambda value: str(value))
def test_boot_disk_is_grown_and_no_other(both: Site, lines: dict[str, Any], disk: str) -> None:
    golden(both, **{"virtio0": "local-lvm:base-9100-disk-1,size=3G", **lines})
    assert foretold(both, clone(rootfs={"size_gb": 9})) == ["cloned", "grown"]
    config = both.config("one")
    for key in {"scsi0", "virtio0"} & set(config):
        assert config[key].endswith("size=9G" if key == disk else "size=3G"), key


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ({"boot": "c"}, "it has no boot order, and the disks scsi0, virtio0"),
        ({"boot": None}, "it has no boot order, and the disks scsi0, virtio0"),
        ({"boot": "order=net0"}, "its boot order (net0) names none of its disks"),
        ({"boot": "order="}, "its boot order (empty) names none of its disks"),
        ({"boot": "c", "bootdisk": "sata0"}, "it starts from sata0, which is not attached"),
        ({"boot": "order=ide2", "scsi0": None, "virtio0": None}, "it has no disk"),
    ],
)
def test_boot_disk_that_cannot_be_told_is_no_other_disk(both: Site, lines: dict[str, Any], why: str) -> None:
    golden(both, **{"virtio0": "local-lvm:base-9100-disk-1,size=3G", **lines})
    message = refused(both, clone(rootfs={"size_gb": 9}))
    assert f"which one that is cannot be told: {why}" in message
    assert "set the boot order" in message
    # Whoever does not speak of it gets the clone.
    assert foretold(both, clone()) == ["cloned"]


def test_data_disk_is_not_grown_in_place_of_a_boot_disk_that_was_taken_away(both: Site) -> None:
    record = guest("vm", disks=[{"slot": "scsi1", "storage": "local-lvm", "size_gb": 2}], state="stopped")
    both.ok(record)
    both.edit("one", delete="scsi0")
    assert "cannot be told" in refused(both, record)
    both.store("one", {"boot": "order=scsi0;scsi1"})
    assert "it starts from scsi0, which is not attached" in refused(both, record)
    assert both.config("one")["scsi1"].endswith("size=2G")


def test_data_disk_that_comes_first_now_is_not_grown(both: Site) -> None:
    """Both were in the boot order, and the first was detached by hand."""
    disks = [{"slot": "scsi1", "storage": "local-lvm", "size_gb": 2}]
    both.ok(guest("vm", disks=disks, state="stopped"))
    both.edit("one", boot="order=scsi0;scsi1;net0")
    both.edit("one", delete="scsi0")
    message = refused(both, guest("vm", state="stopped"))
    assert (
        "rootfs is scsi1 by the boot order, but the VM has local-lvm:vm-100-disk-0, attached nowhere"
        in message
    )
    assert both.config("one")["scsi1"].endswith("size=2G")


def test_boot_disk_is_no_data_disk(both: Site) -> None:
    golden(both)
    disks = [{"slot": "scsi0", "storage": "local-lvm", "size_gb": 9}]
    assert "disks.scsi0 is the disk that the VM starts from" in refused(both, clone(disks=disks))


# -- volumes of a clone


@pytest.mark.parametrize(
    ("root", "data", "actions"),
    [
        ("local-lvm", "local-lvm", ["cloned"]),
        ("local-zfs", "local-zfs", ["cloned"]),
        ("local-lvm", "local-zfs", ["cloned", "moved"]),
        ("local-zfs", "local-lvm", ["cloned", "moved"]),
        ("", "local-zfs", ["cloned", "moved"]),
        ("local-zfs", "", ["cloned"]),
    ],
)
@kinds
def test_each_volume_of_a_clone_lies_where_the_record_says(
    both: Site, kind: str, root: str, data: str, actions: list[str]
) -> None:
    slot = {"lxc": "mp0", "vm": "scsi1"}[kind]
    extra = {"path": "/data"} if kind == "lxc" else {}
    disk = {"slot": slot, "storage": "local-lvm", "size_gb": 2, **extra}
    both.ok({**guest(kind, "base", state="template", node="pve1"), "disks": [disk]})
    size = {"lxc": 4, "vm": 8}[kind]
    record = {"name": "one", "kind": kind, "state": "present", "clone_of": "base"}
    record["rootfs"] = {"size_gb": size, **({"storage": root} if root else {})}
    record |= {"disks": [{**disk, "storage": data}]} if data else {}
    assert foretold(both, record) == actions
    config = both.config("one")
    boot = config["rootfs" if kind == "lxc" else "scsi0"]
    assert boot.startswith(root or "local-lvm")
    # Where nothing is said of it, it goes where the others go.
    assert config[slot].startswith(data or root or "local-lvm")
    assert config[slot].endswith("size=2G")


@kinds
def test_clone_without_a_storage_stays_where_its_source_is(both: Site, kind: str) -> None:
    both.ok(guest(kind, "base", state="template", node="pve1", rootfs={"storage": "local-zfs", "size_gb": 8}))
    assert foretold(both, {"name": "one", "kind": kind, "state": "present", "clone_of": "base"}) == ["cloned"]
    assert both.config("one")["rootfs" if kind == "lxc" else "scsi0"].startswith("local-zfs:")


def test_move_that_a_killed_run_left_is_made_by_the_next(both: Site) -> None:
    golden(both, scsi1="local-lvm:base-9100-disk-1,size=3G")
    disks = [{"slot": "scsi1", "storage": "local-zfs", "size_gb": 3}]
    record = clone(disks=disks, user="root", ssh_public_keys=[KEY])
    both.server.faults.fail("POST", "/move_disk$", 500, "mirroring failed")
    assert "mirroring failed" in both.fails(record)
    assert foretold(both, record) == ["moved", "configured"]
    # A guest that is in use is never moved.
    elsewhere = {**record, "disks": [{**disks[0], "storage": "local-lvm"}]}
    assert "volumes are not moved here" in refused(both, elsewhere)


def test_container_with_folders_of_its_node_is_no_source(both: Site) -> None:
    both.ok(guest("lxc", "base", state="stopped", node="pve1"))
    both.store("base", {"mp3": "/srv/data,mp=/data"})
    record = {"name": "one", "kind": "lxc", "clone_of": "base"}
    assert "has folders of its node mounted (mp3), so it cannot be cloned" in refused(both, record)


def test_hibernated_vm_is_no_source(both: Site) -> None:
    both.ok(guest("vm", "base", node="pve1"))
    both.wait(both.api("POST", f"{both.place('base')}/status/suspend", todisk=1))
    record = {"name": "one", "kind": "vm", "clone_of": "base"}
    assert "is hibernated, so it cannot be cloned" in refused(both, record)


# -- cloud-init


def test_template_without_a_cloud_init_drive(both: Site) -> None:
    golden(both, ide2=None)
    nics = [{"bridge": "vmbr0", "address": "10.0.0.11/24"}]
    record = clone(networks=nics, user="root", ssh_public_keys=[KEY], nameservers=["10.0.0.1"])
    message = refused(both, record)
    assert "golden (9100), which it is cloned from, has no cloud-init drive" in message
    assert "would never get user, ssh_public_keys, networks, nameservers of the record" in message
    assert foretold(both, clone(networks=[{"bridge": "vmbr0", "address": "dhcp"}]))[0] == "cloned"


@pytest.mark.parametrize(
    "drive", ["local-lvm:vm-9100-cloudinit,media=cdrom", "local:9100/vm-9100-cloudinit.qcow2,media=cdrom"]
)
@pytest.mark.parametrize("slot", ["ide2", "scsi1", "sata3"])
def test_cloud_init_drive_wherever_it_is(both: Site, slot: str, drive: str) -> None:
    golden(both, **{"ide2": None, slot: drive})
    assert foretold(both, clone(user="root", ssh_public_keys=[KEY])) == ["cloned", "configured"]


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        ("user=local:snippets/u.yaml", "user, ssh_public_keys"),
        ("network=local:snippets/n.yaml", "networks, nameservers"),
        ("vendor=local:snippets/v.yaml,meta=local:snippets/m.yaml", ""),
    ],
)
def test_template_with_cloud_init_files_of_its_own(both: Site, files: str, lost: str) -> None:
    golden(both, cicustom=files)
    nics = [{"bridge": "vmbr0", "address": "10.0.0.11/24"}]
    # Ansible keeps the warnings of a process: a name of its own tells ours.
    name = f"of-{files.partition('=')[0]}"
    record = clone(name=name, networks=nics, user="root", ssh_public_keys=[KEY], nameservers=["10.0.0.1"])
    for check in (True, False):
        warnings = [
            str(text) for text in both.ok(record, check=check).get("warnings", []) if name in str(text)
        ]
        assert any(f"does not get {lost} of the record" in text for text in warnings) is bool(lost)
    assert both.ok(record)["changed"] is False
    # Later, what is changed and not heard is told, too; what is not changed is not.
    changed = both.ok({**record, "nameservers": ["10.0.0.2"]})
    told = [text for text in map(str, changed.get("warnings", [])) if f"VM {name}: it has" in text]
    assert bool(told) is ("network=" in files)
    assert not [text for text in told if "networks" in text]


# -- memory


@pytest.mark.parametrize("state", ["stopped", "started"])
def test_memory_below_what_ballooning_leaves(both: Site, state: str) -> None:
    golden(both, memory="8192", balloon=4096)
    record = clone(memory_mb=2048, state=state)
    assert foretold(both, record) == ["cloned", "configured", *(["started"] if state == "started" else [])]
    assert (both.config("one")["memory"], both.config("one")["balloon"]) == ("2048", 2048)
    # What is below is left alone; less memory for a guest that is there takes it along.
    both.ok(clone(memory_mb=6144, state=state))
    assert both.config("one")["balloon"] == 2048
    assert foretold(both, clone(memory_mb=1024, state=state)) == ["configured"]
    assert both.config("one")["balloon"] == 1024


def test_balloon_that_is_off_stays_off(both: Site) -> None:
    golden(both, memory="8192", balloon=0)
    assert foretold(both, clone(memory_mb=2048)) == ["cloned", "configured"]
    assert both.config("one")["balloon"] == 0


# -- privileges


def account(site: Site, **roles: str) -> dict[str, str]:
    """Somebody who has the roles on the paths: ``vms="PVEVMAdmin"``."""
    site.server.cluster.access.users["maker@pve"] = User("secret")
    for path, role in roles.items():
        site.server.cluster.access.acl["/" + path.strip("_").replace("_", "/"), "maker@pve"] = role
    return {"api_user": "maker@pve", "api_password": "secret", "api_token_id": "", "api_token_secret": ""}


MAKER = {"vms": "PVEVMAdmin", "storage": "PVEDatastoreUser", "sdn": "PVESDNUser", "nodes": "PVEAuditor"}


@kinds
def test_start_order_of_a_vm_needs_the_right_to_change_nodes(both: Site, kind: str) -> None:
    login = account(both, **MAKER)
    record = guest(kind, startup="order=2")
    if kind == "lxc":
        assert outcome(both.ok(record, **login))["exists"]
        return
    assert "maker@pve lacks Sys.Modify on /" in refused(both, record, **login)
    both.ok(guest(kind))
    assert "maker@pve lacks Sys.Modify on /" in refused(both, record, **login)
    assert both.ok(guest(kind), **login)["changed"] is False
    both.ok(record)
    assert both.ok(record, **login)["changed"] is False, "what is so already needs no right"


@kinds
@pytest.mark.parametrize(
    ("granted", "vlan", "missing"),
    [
        ("", 0, "SDN.Use on /sdn/zones/localnetwork/vmbr0"),
        ("", 5, "SDN.Use on /sdn/zones/localnetwork/vmbr0/5"),
        ("sdn_zones_localnetwork", 5, ""),
        ("sdn_zones_localnetwork_vmbr0", 5, ""),
        ("sdn", 0, ""),
    ],
)
def test_right_to_use_a_bridge_is_missed_before_anything_is_made(
    both: Site, kind: str, granted: str, vlan: int, missing: str
) -> None:
    rights = {key: value for key, value in MAKER.items() if key != "sdn"}
    login = account(both, **rights, **({granted: "PVESDNUser"} if granted else {}))
    both.server.cluster.access.acl["/sdn/zones/localnetwork/vmbr0", "maker@pve"] = (
        "PVESDNUser" if granted else "PVEAuditor"
    )
    record = guest(kind, networks=[{"bridge": "vmbr0", "vlan": vlan}])
    if missing:
        assert f"maker@pve lacks {missing}" in refused(both, record, **login)
    else:
        assert outcome(both.ok(record, **login))["exists"]


@kinds
def test_right_to_use_a_bridge_is_missed_before_a_version_is_made(both: Site, kind: str) -> None:
    both.ok(guest(kind, networks=[{"bridge": "vmbr0", "vlan": 5}]))
    login = account(both, **{key: value for key, value in MAKER.items() if key != "sdn"})
    before = both.writes()
    for check in (True, False):
        result = both.module(proxmox_version, check, guests=["one"], version="1.0", **login)
        assert result["failed"]
        assert "maker@pve lacks SDN.Use on /sdn/zones/localnetwork/vmbr0/5" in result["msg"]
    assert both.writes() == before


def test_right_to_use_a_bridge_is_missed_before_a_vm_template_is_made(both: Site) -> None:
    login = account(both, **{key: value for key, value in MAKER.items() if key != "sdn"})
    both.server.cluster.access.acl["/sdn", "maker@pve"] = "PVEAuditor"
    before = both.writes()
    record = {"name": "golden", "kind": "vm", "storage": "local-lvm", "image": "local:import/d.qcow2"}
    result = both.module(proxmox_template, templates=[record], **login)
    assert "maker@pve lacks SDN.Use on /sdn/zones/localnetwork/vmbr0" in result["msg"]
    assert both.writes() == before


@kinds
def test_storage_of_every_volume_is_asked_for(both: Site, kind: str) -> None:
    login = account(both, **{key: value for key, value in MAKER.items() if key != "storage"})
    both.server.cluster.access.acl["/storage/local-lvm", "maker@pve"] = "PVEDatastoreUser"
    extra = {"path": "/data"} if kind == "lxc" else {}
    slot = {"lxc": "mp0", "vm": "scsi1"}[kind]
    record = guest(kind, disks=[{"slot": slot, "storage": "local-zfs", "size_gb": 1, **extra}])
    lacking = "maker@pve lacks Datastore.AllocateSpace on /storage/local-zfs"
    assert lacking in refused(both, record, **login)
    both.ok(record)
    record["disks"][0]["size_gb"] = 2
    assert lacking in refused(both, record, **login), "growing needs it, too"


def test_clone_needs_the_storages_of_its_source(both: Site) -> None:
    login = account(both, **{key: value for key, value in MAKER.items() if key != "storage"})
    golden(both)
    assert "maker@pve lacks Datastore.AllocateSpace on /storage/local-lvm" in refused(both, clone(), **login)


# -- features

TOKEN = "only root@pam himself may set that, with a password and not by a token"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"features": {"keyctl": True}}, "features.keyctl"),
        ({"features": {"nesting": True, "fuse": True}}, "features.fuse"),
        ({"features": {"mount": "nfs"}}, "features.mount"),
        (
            {"features": {"nesting": True}, "unprivileged": False},
            "features.nesting of a privileged container",
        ),
    ],
)
def test_features_that_only_root_himself_may_set(both: Site, options: dict[str, Any], what: str) -> None:
    message = refused(both, guest("lxc", **options))
    assert what in message
    assert TOKEN in message
    login = {"api_password": both.server.password, "api_token_id": "", "api_token_secret": ""}
    assert outcome(both.ok(guest("lxc", **options), **login))["exists"]
    assert both.ok(guest("lxc", **options))["changed"] is False, "what is so already needs no root"
    without = {**options, "features": dict.fromkeys(options["features"], False)}
    assert TOKEN in refused(both, guest("lxc", **without))


def test_features_that_nobody_mentions_are_not_respelled(both: Site) -> None:
    both.ok(guest("lxc"))
    both.store("one", {"features": "fuse=0,keyctl=0"})
    record = guest("lxc", features={"nesting": True, "keyctl": False}, state="stopped")
    assert foretold(both, record) == ["configured", "stopped"]
    assert set(both.config("one")["features"].split(",")) == {"fuse=0", "keyctl=0", "nesting=1"}


# -- interfaces


def test_only_interface_of_a_template_is_the_one_that_is_used(both: Site) -> None:
    golden(both, net0=None, net1="virtio=BC:24:11:00:91:01,bridge=vmbr0,queues=2")
    first = {"bridge": "vmbr0", "vlan": 7, "address": "10.0.0.11/24"}
    assert foretold(both, clone(networks=[first])) == ["cloned", "configured"]
    config = both.config("one")
    assert {"tag=7", "queues=2"} <= set(config["net1"].split(","))
    assert config["ipconfig1"] == "ip=10.0.0.11/24"
    assert not {"net0", "ipconfig0"} & set(config)
    second = {"bridge": "vmbr0", "address": "10.0.0.12/24"}
    assert foretold(both, clone(networks=[first, second])) == ["configured"]
    assert both.config("one")["ipconfig2"] == "ip=10.0.0.12/24"


def test_first_interface_of_a_container_is_used_whatever_its_name(both: Site) -> None:
    both.ok(
        guest("lxc", "base", networks=[{"name": "lan0", "bridge": "vmbr0"}], state="template", node="pve1")
    )
    record = {**guest("lxc", clone_of="base"), "state": "present"}
    assert foretold(both, record) == ["cloned", "configured"]
    config = both.config("one")
    assert config["net0"].startswith("name=lan0,")
    assert "ip=10.0.0.11/24" in config["net0"]
    assert "net1" not in config
    named = {**record, "networks": [{**record["networks"][0], "name": "eth0"}]}
    message = refused(both, named)
    assert "net0, which no record describes, has the address 10.0.0.11" in message


def test_address_that_another_interface_of_the_vm_has(both: Site) -> None:
    golden(both, net3="virtio=BC:24:11:00:91:03,bridge=vmbr0", ipconfig3="ip=10.0.0.12/24")
    nics = [{"bridge": "vmbr0", "address": f"10.0.0.1{number}/24"} for number in (1, 2)]
    assert "net3, which no record describes, has the address 10.0.0.12" in refused(both, clone(networks=nics))


# -- disks


@pytest.mark.parametrize(
    ("kind", "disks", "fault"),
    [
        ("vm", ["scsi1", "scsi1"], "disks[1].slot: scsi1 is also that of disks[0]"),
        ("vm", ["virtio16"], "'virtio16' is not one of scsi0 to scsi30, virtio0 to virtio15, sata0 to sata5"),
        ("vm", ["scsi31"], "'scsi31' is not one of"),
        ("vm", ["sata6"], "'sata6' is not one of"),
        ("vm", ["scsi01"], "'scsi01' is not one of"),
        ("vm", ["ide0"], "'ide0' is not one of"),
        ("vm", ["mp0"], "'mp0' is not one of"),
        ("lxc", ["mp0", "mp0"], "disks[1].slot: mp0 is also that of disks[0]"),
        ("lxc", ["mp256"], "'mp256' is not one of mp0 to mp255"),
        ("lxc", ["mp300"], "'mp300' is not one of mp0 to mp255"),
        ("lxc", ["scsi1"], "'scsi1' is not one of mp0 to mp255"),
    ],
)
def test_slots_that_cannot_be(both: Site, kind: str, disks: list[str], fault: str) -> None:
    records = [
        {"slot": slot, "storage": "local-lvm", "size_gb": 1, "path": f"/data/{number}"}
        for number, slot in enumerate(disks)
    ]
    assert fault in refused(both, guest(kind, disks=records))


def test_a_disk_under_another_slot_does_not_hide_what_is_mounted(both: Site) -> None:
    disk = {"slot": "mp0", "storage": "local-lvm", "size_gb": 2, "path": "/data"}
    both.ok(guest("lxc", disks=[disk]))
    before = both.config("one")
    for check in (True, False):
        message = both.fails(guest("lxc", disks=[{**disk, "slot": "mp1", "path": "/data/"}]), check=check)
        assert "disks.mp1 is not there, and mp0 of the guest is mounted at /data" in message
    assert both.config("one") == before
    # Both are described: the first is to be mounted elsewhere.
    both.ok(guest("lxc", state="stopped", disks=[{**disk, "path": "/old"}, {**disk, "slot": "mp1"}]))
    assert "mp=/old" in both.config("one")["mp0"]
    assert "mp=/data" in both.config("one")["mp1"]


def test_a_cloud_init_drive_is_no_data_disk(both: Site) -> None:
    for vmid in (9001, 9002):
        source = both.server.cluster.guests[vmid]
        with both.server.cluster.change(source):
            source.config["scsi1"] = source.config.pop("ide2")
    disk = {"slot": "scsi1", "storage": "local-lvm", "size_gb": 2}
    for check in (True, False):
        message = both.fails(guest("vm", disks=[disk]), check=check)
        assert "disks.scsi1 is a CD or the cloud-init drive of the VM" in message
    assert both.names() == []


def test_two_disks_at_one_place(both: Site) -> None:
    disks = [
        {"slot": f"mp{number}", "storage": "local-lvm", "size_gb": 1, "path": path}
        for number, path in enumerate(["/data", "/data/"])
    ]
    assert "disks[1].path: /data is also that of disks[0]" in refused(both, guest("lxc", disks=disks))


def test_two_interfaces_that_are_one(both: Site) -> None:
    nics = [{"bridge": "vmbr0", "name": "eth1"}, {"bridge": "vmbr0"}]
    assert "networks[1].name: eth1 is also that of networks[0]" in refused(both, guest("lxc", networks=nics))
    nics = [{"bridge": "vmbr0", "mac": "BC:24:11:00:00:01"}, {"bridge": "vmbr0", "mac": "bc:24:11:00:00:01"}]
    for kind in KINDS:
        assert "is also that of networks[0]" in refused(both, guest(kind, networks=nics))
    twins = [
        guest("lxc", name, networks=[{"bridge": "vmbr0", "mac": mac}])
        for name, mac in (("one", "BC:24:11:00:00:01"), ("two", "bc:24:11:00:00:01"))
    ]
    assert "two: mac: BC:24:11:00:00:01 is also that of one" in refused(both, *twins)
    assert "33 interfaces" in refused(both, guest("vm", networks=[{"bridge": "vmbr0"}] * 33))


@kinds
def test_disk_that_somebody_detached_is_not_replaced_by_an_empty_one(both: Site, kind: str) -> None:
    slot, extra = {"lxc": ("mp0", {"path": "/data"}), "vm": ("scsi1", {})}[kind]
    record = guest(
        kind, disks=[{"slot": slot, "storage": "local-lvm", "size_gb": 2, **extra}], state="stopped"
    )
    both.ok(record)
    volume = both.config("one")[slot].split(",")[0]
    both.edit("one", delete=slot)
    message = refused(both, record)
    assert f"disks.{slot} is not attached, and the guest has {volume}, attached nowhere" in message
    assert f"as {slot}, or remove it" in message
    # Elsewhere another disk may be made; and what is attached again is as it was.
    other = {
        "slot": slot[:-1] + "7",
        "storage": "local-zfs",
        "size_gb": 1,
        **({"path": "/more"} if extra else {}),
    }
    assert foretold(both, {**record, "disks": [other]}) == ["configured"]
    both.store("one", {slot: f"{volume},{'mp=/data,' if extra else ''}size=2G", "unused0": None})
    assert both.ok(record)["changed"] is False


@kinds
def test_disk_that_is_to_be_detached_at_the_next_reboot(both: Site, kind: str) -> None:
    slot, extra = {"lxc": ("mp0", {"path": "/data"}), "vm": ("scsi1", {})}[kind]
    record = guest(kind, disks=[{"slot": slot, "storage": "local-lvm", "size_gb": 2, **extra}])
    both.ok(record)
    both.edit("one", delete=slot)
    assert f"disks.{slot} is not attached" in refused(both, record)


# -- a VM whose memory lies on a disk


def hibernate(site: Site, name: str = "one") -> None:
    site.wait(site.api("POST", f"{site.place(name)}/status/suspend", todisk=1))
    assert site.config(name)["lock"] == "suspended"


@pytest.mark.parametrize(
    ("change", "actions", "waits"),
    [
        ({}, ["started"], False),
        ({"tags": ["new"]}, ["started", "configured"], False),
        ({"cores": 4}, ["started", "configured"], True),
        ({"rootfs": {"storage": "local-lvm", "size_gb": 12}}, ["started", "grown"], False),
        ({"state": "restarted"}, ["started", "rebooted"], False),
        ({"state": "restarted", "cores": 4}, ["started", "configured", "rebooted"], False),
    ],
)
def test_hibernated_vm_is_resumed_before_it_is_changed(
    both: Site, change: dict[str, Any], actions: list[str], waits: bool
) -> None:
    both.ok(guest("vm"))
    hibernate(both)
    record = guest("vm", **change)
    predicted = both.ok(record, check=True)
    done = both.ok(record, deadlines={"lock": 2})
    assert comparable(done) == comparable(predicted)
    assert (outcome(done)["actions"], outcome(done)["needs_reboot"]) == (actions, waits)
    assert both.power("one") == "running"
    assert not {"lock", "vmstate"} & set(both.config("one"))
    assert both.ok({**record, "state": "started"})["changed"] is False


@pytest.mark.parametrize("state", ["present", "stopped", "template"])
def test_hibernated_vm_that_shall_not_run_takes_no_changes_and_it_is_said(both: Site, state: str) -> None:
    both.ok(guest("vm"))
    hibernate(both)
    message = refused(both, guest("vm", state=state, tags=["new"]), deadlines={"lock": 2})
    assert "it is hibernated, so it takes no changes: set state to started" in message
    if state != "template":
        assert both.ok(guest("vm", state=state))["changed"] is False
    both.ok(guest("vm", state="absent"))
    assert both.names() == []


def test_protected_vm_that_is_hibernated_is_kept(both: Site) -> None:
    both.ok(guest("vm", protection=True))
    hibernate(both)
    gone = guest("vm", state="absent", protection=False)
    assert "it is hibernated, so its protection cannot be taken away" in refused(both, gone)


# -- ends that are not ours


@kinds
def test_start_that_fails_is_told_in_its_own_words_and_not_repeated(both: Site, kind: str) -> None:
    types = {"lxc": "vzstart", "vm": "qmstart"}[kind]
    both.server.faults.fail_task("start failed: got timeout", [types], 99)
    message = both.fails(guest(kind))
    assert "start failed: got timeout" in message
    assert "deadlines.lock" not in message
    assert both.server.count("POST", "/status/start") == 1


@kinds
def test_volume_that_is_left_of_a_guest_with_the_id_of_the_record(both: Site, kind: str) -> None:
    both.server.faults.volume_left = 1
    message = both.fails(guest(kind, vmid=500))
    assert "already exists" in message
    assert "no guest has the id 500" in message
    assert "choose another vmid" in message
    assert both.names() == []
    both.ok(guest(kind, vmid=500))


@pytest.mark.parametrize("reboot", ["restarted", "if_needed"])
def test_vm_that_ignores_the_button_is_rebooted_all_the_same(both: Site, reboot: str) -> None:
    name = f"deaf-{reboot.replace('_', '-')}"
    both.ok(guest("vm", name))
    both.server.faults.switch("deaf", {"vmid": both.server.guest(name).vmid}, True)
    change: dict[str, Any] = {"state": "restarted"} if reboot == "restarted" else {"cores": 4}
    done = both.ok(guest("vm", name, **change), reboot="if_needed", deadlines={"stop": 3, "lock": 2})
    assert outcome(done)["actions"][-1] == "rebooted"
    assert both.power(name) == "running"
    assert both.pending(name) == set()
    assert both.server.count("POST", "/status/reboot") == 1, "it is asked once"
    asked = next(entry for entry in both.server.requests if entry.path.endswith("/status/reboot"))
    assert int(asked.params["timeout"]) == 2, "two thirds of the deadline"
    assert any(f"VM {name}: did not obey" in str(text) for text in done["warnings"])


@kinds
def test_public_key_with_options(both: Site, kind: str) -> None:
    key = f'from="10.0.0.0/8,!10.0.0.9",command="echo \\"a b\\"",no-pty {KEY}'
    assert outcome(both.ok(guest(kind, ssh_public_keys=[key])))["exists"]


@kinds
def test_template_that_linked_clones_refer_to_is_kept_in_the_words_of_the_server(
    both: Site, kind: str
) -> None:
    both.ok(guest(kind, "base", state="template", node="pve1"))
    both.ok(small(kind, clone_of="base", linked=True, rootfs={"size_gb": 8}))
    assert "is still in use by linked cloned" in both.fails(guest(kind, "base", state="absent"))
    both.ok(small(kind, state="absent", tags=["dev", "luxima"]))
    both.ok(guest(kind, "base", state="absent"))
