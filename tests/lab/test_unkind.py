# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a kinder hypervisor would let pass: refusals, values that are stored otherwise, states that take nothing."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from lab.testing import TestServer

from .test_api import TEMPLATE, Client
from .test_machines_api import ONE, api, clone, fault, srv, waiting

__all__ = ["api", "clone", "srv"]

CT = "/nodes/pve1/lxc/100"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2Jhcg me"
RESTRICTED = f'from="10.0.0.0/8,!10.0.0.9",command="say \\"a b\\"",no-pty {KEY}'


def make(api: Client, vmid: int = 100, **params: Any) -> dict[str, Any]:
    given = {"rootfs": "local-lvm:8", "hostname": f"g{vmid}", **params}
    api.task(api("POST", "/nodes/pve1/lxc", vmid=vmid, ostemplate=TEMPLATE, **given))
    found: dict[str, Any] = api("GET", f"/nodes/pve1/lxc/{vmid}/config")
    return found


# -- values


@pytest.mark.parametrize(
    ("key", "sent", "stored"),
    [
        ("searchdomain", "a.example,b.example", "a.example b.example"),
        ("searchdomain", "a.example;  b.example", "a.example b.example"),
        ("nameserver", "10.0.0.1,10.0.0.2", "10.0.0.1 10.0.0.2"),
    ],
)
def test_lists_of_a_container_are_kept_with_blanks(api: Client, key: str, sent: str, stored: str) -> None:
    assert make(api, **{key: sent})[key] == stored
    api("PUT", f"{CT}/config", **{key: sent.replace("a.", "c.")})
    assert api("GET", f"{CT}/config")[key] == stored.replace("a.", "c.")


@pytest.mark.parametrize("key", ["searchdomain", "nameserver"])
def test_lists_of_a_machine_are_kept_as_sent(api: Client, clone: dict[str, Any], key: str) -> None:
    api("PUT", f"{ONE}/config", **{key: "10.0.0.1,10.0.0.2"})
    assert api("GET", f"{ONE}/config")[key] == "10.0.0.1,10.0.0.2"


@pytest.mark.parametrize(
    "key", ["scsi31", "virtio16", "sata6", "ide4", "net32", "ipconfig32", "unused256", "scsi01"]
)
def test_indexes_of_a_machine_end_somewhere(api: Client, clone: dict[str, Any], key: str) -> None:
    value = "ip=dhcp" if key.startswith("ip") else "virtio" if key.startswith("net") else "local-lvm:1"
    assert key in api("PUT", f"{ONE}/config", 400, **{key: value}).json()["errors"]
    assert key not in api("GET", f"{ONE}/config")


@pytest.mark.parametrize("key", ["mp256", "mp300", "net32"])
def test_indexes_of_a_container_end_somewhere(api: Client, key: str) -> None:
    make(api)
    value = "name=eth9" if key.startswith("net") else "local-lvm:1,mp=/data"
    assert key in api("PUT", f"{CT}/config", 400, **{key: value}).json()["errors"]
    last = "net31" if key.startswith("net") else "mp255"
    api("PUT", f"{CT}/config", **{last: value})


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (KEY, True),
        (RESTRICTED, True),
        (f"# mine\n{KEY}\n\n", True),
        ("ssh-ed25519", False),
        (f"no pty {KEY}", False),
    ],
)
def test_public_keys_with_options_and_without(
    api: Client, clone: dict[str, Any], key: str, good: bool
) -> None:
    answer = api("PUT", f"{ONE}/config", 200 if good else 500, sshkeys=quote(key, safe=""))
    assert good or answer.reason == "SSH public key validation error"
    options = {"vmid": 101, "ostemplate": TEMPLATE, "rootfs": "local-lvm:8", "ssh-public-keys": key}
    answer = api("POST", "/nodes/pve1/lxc", 200 if good else 500, **options)
    assert good or answer.reason == "SSH public key validation error"


# -- memory


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"memory": "512"}, False),
        ({"memory": "512", "balloon": 512}, True),
        ({"memory": "512", "balloon": 0}, True),
        ({"balloon": 2048}, False),
        ({"memory": "4096", "balloon": 2048}, True),
        ({"memory": "512", "delete": "balloon"}, False),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_balloon_is_not_above_memory(
    api: Client, clone: dict[str, Any], change: dict[str, Any], good: bool, method: str
) -> None:
    api("PUT", f"{ONE}/config", balloon=1024)
    answer = api(method, f"{ONE}/config", 200 if good else 500, **change)
    if not good:
        assert answer.reason == "balloon value too large (must be smaller than assigned memory)"


def test_balloon_takes_another_target_at_once(api: Client, clone: dict[str, Any]) -> None:
    api("PUT", f"{ONE}/config", balloon=1024)
    api.task(api("POST", f"{ONE}/status/start"))
    api("PUT", f"{ONE}/config", balloon=512)
    assert waiting(api) == {}
    api("PUT", f"{ONE}/config", balloon=0)
    assert waiting(api) == {"balloon": 0}


# -- rights


def test_start_order_of_a_machine_needs_a_right_on_all(srv: TestServer, clone: dict[str, Any]) -> None:
    admin = Client(srv, srv.vmadmin)
    text = "Permission check failed (/, Sys.Modify)"
    assert fault(admin, "PUT", f"{ONE}/config", 403, startup="order=1") == text
    assert fault(admin, "PUT", f"{ONE}/config", 403, delete="startup") == text
    admin("PUT", f"{ONE}/config", tags="a")
    make(Client(srv), 101)
    admin("PUT", "/nodes/pve1/lxc/101/config", startup="order=1")


def test_space_is_asked_for_where_it_is_taken(srv: TestServer, api: Client, clone: dict[str, Any]) -> None:
    make(api, 101)
    admin = Client(srv, srv.vmadmin)
    srv.cluster.access.acl["/sdn", "vmadmin@pve"] = "PVESDNUser"
    text = "Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)"
    for path, disk in ((ONE, "scsi0"), ("/nodes/pve1/lxc/101", "rootfs")):
        assert fault(admin, "PUT", f"{path}/resize", 403, disk=disk, size="+1G") == text
        assert fault(admin, "POST", f"{path}/clone", 403, newid=110) == text
    assert fault(admin, "PUT", f"{ONE}/config", 403, scsi1="local-lvm:1") == text
    assert fault(admin, "PUT", "/nodes/pve1/lxc/101/config", 403, mp0="local-lvm:1,mp=/data") == text


def test_features_of_a_privileged_container_are_for_root_himself(srv: TestServer, api: Client) -> None:
    text = "Permission check failed (changing feature flags for privileged container is only allowed for root@pam)"
    options = {"ostemplate": TEMPLATE, "rootfs": "local-lvm:8", "features": "nesting=1"}
    assert fault(api, "POST", "/nodes/pve1/lxc", 403, vmid=100, unprivileged=0, **options) == text
    make(api, unprivileged=0)
    assert fault(api, "PUT", f"{CT}/config", 403, features="nesting=1") == text
    make(api, 101, features="nesting=1")


# -- volumes


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", ["lxc", "qemu"])
def test_template_with_linked_clones_stays(api: Client, kind: str, linked: bool) -> None:
    source = 9001
    if kind == "lxc":
        source = 101
        make(api, source)
        api("POST", "/nodes/pve1/lxc/101/template")
        until = time.monotonic() + 5
        while not api("GET", "/nodes/pve1/lxc/101/config").get("template"):
            assert time.monotonic() < until
            time.sleep(0.02)
    base = f"/nodes/pve1/{kind}"
    api.task(api("POST", f"{base}/{source}/clone", newid=102, full=int(not linked)))
    disk = "rootfs" if kind == "lxc" else "scsi0"
    volume = api("GET", f"{base}/{source}/config")[disk].split(",")[0]
    if linked:
        api.task(
            api("DELETE", f"{base}/{source}"), f"base volume '{volume}' is still in use by linked cloned"
        )
        api.task(api("DELETE", f"{base}/102"))
    api.task(api("DELETE", f"{base}/{source}"))


def test_container_with_a_folder_of_its_node(srv: TestServer, api: Client) -> None:
    make(api)
    srv.cluster.guests[100].config["mp0"] = "/srv/data,mp=/data"
    assert api("GET", f"{CT}/feature", feature="snapshot")["hasFeature"] == 0
    api.task(api("POST", f"{CT}/snapshot", snapname="s1"), "snapshot feature is not available")
    assert fault(api, "POST", f"{CT}/clone", 500, newid=101) == "unable to clone mountpoint 'mp0' (type bind)"


def test_every_drive_of_a_machine_goes_to_the_storage_of_its_clone(
    api: Client, clone: dict[str, Any]
) -> None:
    api("PUT", f"{ONE}/config", scsi1="local-lvm:1")
    api.task(api("POST", f"{ONE}/clone", newid=101, full=1, storage="local-zfs"))
    found = api("GET", "/nodes/pve1/qemu/101/config")
    assert [found[key].split(":")[0] for key in ("scsi0", "scsi1", "ide2")] == ["local-zfs"] * 3


@pytest.mark.parametrize("kind", ["lxc", "qemu"])
def test_a_disk_is_moved(api: Client, clone: dict[str, Any], kind: str) -> None:
    make(api, 101)
    base, verb, name, disk = {
        "lxc": ("/nodes/pve1/lxc/101", "move_volume", "volume", "rootfs"),
        "qemu": (ONE, "move_disk", "disk", "scsi0"),
    }[kind]
    api.task(api("POST", f"{base}/{verb}", **{name: disk, "storage": "local-zfs", "delete": 1}))
    assert api("GET", f"{base}/config")[disk].startswith("local-zfs:")
    again = api("POST", f"{base}/{verb}", 400, **{name: disk, "storage": "local-zfs", "delete": 1})
    assert "same storage" in again.json()["errors"]["storage"]


def test_path_of_a_mount_point_waits_and_its_size_is_that_of_the_volume(api: Client) -> None:
    make(api, mp0="local-lvm:1,mp=/data", start=1)
    api("PUT", f"{CT}/config", mp0="local-lvm:vm-100-disk-0,mp=/other,size=1G")
    api.task(api("PUT", f"{CT}/resize", disk="mp0", size="3G"))
    assert (
        fault(api, "PUT", f"{CT}/resize", 500, disk="mp0", size="3G") == "disk is already at specified size"
    )
    entry = next(entry for entry in api("GET", f"{CT}/pending") if entry["key"] == "mp0")
    assert entry["value"].endswith("mp=/data,size=3G")
    assert entry["pending"].endswith("mp=/other,size=1G"), "as it was sent"
    api.task(api("POST", f"{CT}/status/reboot"))
    assert api("GET", f"{CT}/config")["mp0"].endswith("mp=/other,size=3G")
    api.task(api("POST", f"{CT}/status/stop"))
    api("PUT", f"{CT}/config", mp0="local-lvm:vm-100-disk-0,mp=/data,size=1G")
    assert api("GET", f"{CT}/config")["mp0"].endswith("mp=/data,size=3G")


def test_detached_disk_is_no_device_to_start_from(api: Client, clone: dict[str, Any]) -> None:
    api("PUT", f"{ONE}/config", boot="order=scsi0;net0")
    api("PUT", f"{ONE}/config", delete="scsi0")
    config = api("GET", f"{ONE}/config")
    assert (config["boot"], config["unused0"]) == ("order=net0", "local-lvm:vm-100-disk-0")


# -- sleep


def test_hibernated_machine_takes_nothing_until_it_is_started(api: Client, clone: dict[str, Any]) -> None:
    api.task(api("POST", f"{ONE}/status/start"))
    assert fault(api, "POST", f"{ONE}/status/suspend", 501).startswith("pausing")
    api.task(api("POST", f"{ONE}/status/suspend", todisk=1))
    config = api("GET", f"{ONE}/config")
    assert (config["lock"], api("GET", f"{ONE}/status/current")["status"]) == ("suspended", "stopped")
    assert "vmstate" in config
    for method, path, params in (
        ("PUT", "/config", {"tags": "a"}),
        ("PUT", "/resize", {"disk": "scsi0", "size": "9G"}),
        ("POST", "/clone", {"newid": 101}),
        ("POST", "/template", {}),
        ("POST", "/snapshot", {"snapname": "s1"}),
    ):
        assert fault(api, method, f"{ONE}{path}", 500, **params) == "VM is locked (suspended)"
    api.task(api("POST", f"{ONE}/status/start"))
    assert not {"lock", "vmstate"} & set(api("GET", f"{ONE}/config"))
    api("PUT", f"{ONE}/config", tags="a")


def test_what_waits_still_waits_after_a_sleep(api: Client, clone: dict[str, Any]) -> None:
    api.task(api("POST", f"{ONE}/status/start"))
    api("PUT", f"{ONE}/config", cores=4)
    api.task(api("POST", f"{ONE}/status/suspend", todisk=1))
    api.task(api("POST", f"{ONE}/status/start"))
    assert waiting(api) == {"cores": 4}


def test_hibernated_machine_is_removed_with_its_state(api: Client, clone: dict[str, Any]) -> None:
    api.task(api("POST", f"{ONE}/status/start"))
    api.task(api("POST", f"{ONE}/status/suspend", todisk=1))
    api.task(api("DELETE", ONE))


# -- power


def test_reboot_of_a_guest_that_does_not_obey(srv: TestServer, api: Client, clone: dict[str, Any]) -> None:
    """A container is stopped when its time is over, a machine is not."""
    make(api, 101, start=1)
    api.task(api("POST", f"{ONE}/status/start"))
    srv.faults.switch("deaf", {"vmid": 100}, True)
    srv.faults.switch("deaf", {"vmid": 101}, True)
    api.task(api("POST", f"{ONE}/status/reboot", timeout=1), "VM quit/powerdown failed - got timeout")
    api.task(api("POST", "/nodes/pve1/lxc/101/status/reboot", timeout=1))
    srv.faults.switch("deaf", {"vmid": 100}, False)
    api.task(api("POST", f"{ONE}/status/reboot", timeout=1))
