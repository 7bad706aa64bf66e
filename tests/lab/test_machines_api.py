# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Virtual machines behind the API: values as they are stored, what is live and what waits, errors in the server's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from lab.drivers.base import Guest
from lab.drivers.qemu import cloud_config, network_config
from lab.testing import TestServer, server

from .test_api import Client

ONE = "/nodes/pve1/qemu/100"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2Jhcg+/ a b"


@pytest.fixture
def srv() -> Iterator[TestServer]:
    with server(nodes=("pve1", "pve2"), vm_templates=True) as running:
        yield running


@pytest.fixture
def api(srv: TestServer) -> Client:
    return Client(srv)


@pytest.fixture
def clone(api: Client) -> dict[str, Any]:
    """The configuration of a full clone with id 100."""
    api.task(api("POST", "/nodes/pve1/qemu/9001/clone", newid=100, name="db", full=1))
    found: dict[str, Any] = api("GET", f"{ONE}/config")
    return found


def fault(api: Client, method: str, path: str, status: int, /, **params: Any) -> str:
    return str(api(method, path, status, **params).reason)


def waiting(api: Client) -> dict[str, Any]:
    entries = api("GET", f"{ONE}/pending")
    return {e["key"]: e.get("pending", e.get("delete")) for e in entries if "pending" in e or "delete" in e}


def test_a_template_of_the_same_name_is_on_each_node(api: Client) -> None:
    rows = {row["vmid"]: row for row in api("GET", "/cluster/resources", type="vm")}
    assert {(v, r["node"], r["name"], r["template"], r["type"]) for v, r in rows.items()} == {
        (9001, "pve1", "debian-12-cloud", 1, "qemu"),
        (9002, "pve2", "debian-12-cloud", 1, "qemu"),
    }
    assert rows[9001]["maxdisk"] == 3 << 30


def test_clone_has_an_identity_of_its_own(api: Client, clone: dict[str, Any]) -> None:
    source = api("GET", "/nodes/pve1/qemu/9001/config")
    assert (clone["name"], clone["memory"], clone["cores"]) == ("db", "1024", 1)
    assert clone["scsi0"] == "local-lvm:vm-100-disk-0,size=3G"
    assert clone["ide2"] == "local-lvm:vm-100-cloudinit,media=cdrom"
    assert clone["net0"].split(",")[0] != source["net0"].split(",")[0]
    assert not {"template", "lock"} & set(clone)
    assert len(clone["digest"]) == 40


@pytest.mark.parametrize(
    ("params", "status", "text"),
    [
        ({"newid": 9002}, 500, "unable to create VM 9002: config file already exists"),
        ({"newid": 101, "target": "pve2"}, 500, "can't clone to non-shared storage 'local-lvm'"),
        ({"newid": 101, "full": 0, "storage": "local-zfs"}, 400, "Parameter verification failed."),
        ({"newid": 101, "full": 1, "storage": "nowhere"}, 500, "storage 'nowhere' does not exist"),
        ({"newid": 101, "pool": "nowhere"}, 500, "pool 'nowhere' does not exist"),
    ],
)
def test_clones_that_cannot_be(api: Client, params: dict[str, Any], status: int, text: str) -> None:
    assert fault(api, "POST", "/nodes/pve1/qemu/9001/clone", status, **params) == text
    assert len(api("GET", "/cluster/resources", type="vm")) == 2


def test_linked_clone_of_a_template_only(api: Client, clone: dict[str, Any]) -> None:
    api.task(api("POST", "/nodes/pve1/qemu/9001/clone", newid=101))
    assert fault(api, "POST", f"{ONE}/clone", 500, newid=102, full=0) == (
        "Linked clone feature is only available for templates"
    )


@pytest.mark.parametrize(
    ("key", "sent", "stored"),
    [
        ("tags", "B; a,B", "a;b"),
        ("description", "text", "text\n"),
        ("sshkeys", quote(KEY, safe=""), quote(KEY, safe="")),
        ("ipconfig0", "ip=10.0.0.5/24,gw=10.0.0.1", "ip=10.0.0.5/24,gw=10.0.0.1"),
        ("net0", "virtio=bc:24:11:0:0:1,bridge=vmbr0", None),
        (
            "net0",
            "virtio=bc:24:11:00:00:01,tag=5,bridge=vmbr0",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5",
        ),
        (
            "net0",
            "model=virtio,macaddr=bc:24:11:00:00:01,bridge=vmbr0",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0",
        ),
        ("memory", "2048", "2048"),
        ("scsi1", "local-zfs:2", "local-zfs:vm-100-disk-0,size=2G"),
        ("cipassword", "secret", "**********"),
        ("nonsense", "1", None),
        ("memory", "8", None),
        ("net0", "virtio,bridge=vmbr9", None),
        ("ipconfig0", "gw=10.0.0.1", None),
    ],
)
def test_values_as_they_are_stored(
    api: Client, clone: dict[str, Any], key: str, sent: str, stored: str | None
) -> None:
    if stored is None:
        answer = api("PUT", f"{ONE}/config", 400, **{key: sent})
        assert key in answer.json()["errors"]
        return
    api("PUT", f"{ONE}/config", **{key: sent})
    assert api("GET", f"{ONE}/config")[key] == stored


@pytest.mark.parametrize("key", ["not-a-key", quote("ssh-ed25519 !!!", safe="")])
def test_bad_ssh_key(api: Client, clone: dict[str, Any], key: str) -> None:
    assert fault(api, "PUT", f"{ONE}/config", 500, sshkeys=key) == "SSH public key validation error"


def test_ssh_keys_with_a_plus_are_refused_by_the_schema(api: Client, clone: dict[str, Any]) -> None:
    assert "sshkeys" in api("PUT", f"{ONE}/config", 400, sshkeys="ssh-ed25519+AAAA").json()["errors"]


@pytest.mark.parametrize(
    ("change", "later"),
    [
        ({"name": "other"}, False),
        ({"description": "x"}, False),
        ({"tags": "a"}, False),
        ({"onboot": 1}, False),
        ({"startup": "order=1"}, False),
        ({"protection": 1}, False),
        ({"shares": 500}, False),
        ({"net0": "virtio=BC:24:11:00:00:09,bridge=vmbr0,tag=4"}, False),
        ({"net1": "virtio=BC:24:11:00:00:10,bridge=vmbr0"}, False),
        ({"scsi1": "local-lvm:1"}, False),
        ({"cores": 4}, True),
        ({"memory": "4096"}, True),
        ({"cpu": "host"}, True),
        ({"bios": "ovmf"}, True),
        ({"machine": "q35"}, True),
        ({"scsihw": "virtio-scsi-single"}, True),
        ({"agent": "enabled=0"}, True),
        ({"serial1": "socket"}, True),
        ({"vga": "std"}, True),
        ({"ciuser": "root"}, True),
        ({"ipconfig0": "ip=dhcp"}, True),
        ({"sshkeys": quote(KEY, safe="")}, True),
        ({"nameserver": "10.0.0.1"}, True),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "later" if value else "live",
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_what_holds_on_a_running_machine_and_what_waits(
    api: Client, clone: dict[str, Any], change: dict[str, Any], later: bool, method: str
) -> None:
    api.task(api("POST", f"{ONE}/status/start"))
    answer = api(method, f"{ONE}/config", digest=clone["digest"], **change)
    if method == "POST":
        api.task(answer)
    (key,) = change
    assert set(waiting(api)) == ({key} if later else set())
    now, running = api("GET", f"{ONE}/config"), api("GET", f"{ONE}/config", current=1)
    assert (now[key] == running.get(key)) is not later
    api.task(api("POST", f"{ONE}/status/reboot"))
    assert waiting(api) == {}
    assert api("GET", f"{ONE}/config", current=1)[key] == now[key]


def test_revert_and_delete(api: Client, clone: dict[str, Any]) -> None:
    api("PUT", f"{ONE}/config", ciuser="root")
    api.task(api("POST", f"{ONE}/status/start"))
    api("PUT", f"{ONE}/config", memory="4096", delete="ciuser")
    assert waiting(api) == {"memory": "4096", "ciuser": 1}
    assert "ciuser" not in api("GET", f"{ONE}/config")
    api("PUT", f"{ONE}/config", revert="memory,ciuser")
    assert waiting(api) == {}
    assert api("GET", f"{ONE}/config")["ciuser"] == "root"


def test_stale_digest(api: Client, clone: dict[str, Any]) -> None:
    api("PUT", f"{ONE}/config", cores=2)
    for method, path, params in (
        ("PUT", "config", {"cores": 3}),
        ("POST", "config", {"cores": 3}),
        ("PUT", "resize", {"disk": "scsi0", "size": "5G"}),
    ):
        text = fault(api, method, f"{ONE}/{path}", 500, digest=clone["digest"], **params)
        assert text == "checksum mismatch (file change by other user?)"


@pytest.mark.parametrize(
    ("size", "status", "result"),
    [
        ("5G", "OK", "5G"),
        ("+1G", "OK", "4G"),
        ("3G", "OK", "3G"),
        ("2G", "shrinking disks is not supported", "3G"),
    ],
)
def test_resize(api: Client, clone: dict[str, Any], size: str, status: str, result: str) -> None:
    api.task(api("PUT", f"{ONE}/resize", disk="scsi0", size=size), status)
    assert api("GET", f"{ONE}/config")["scsi0"].endswith(f"size={result}")


def test_removed_disk_is_kept_as_unused(api: Client, clone: dict[str, Any]) -> None:
    api("PUT", f"{ONE}/config", scsi1="local-lvm:1")
    api("PUT", f"{ONE}/config", delete="scsi1")
    config = api("GET", f"{ONE}/config")
    assert "scsi1" not in config
    assert config["unused0"] == "local-lvm:vm-100-disk-1"


def test_power_in_the_wrong_state(api: Client, clone: dict[str, Any]) -> None:
    assert fault(api, "POST", f"{ONE}/status/reboot", 500) == "VM 100 not running"
    api.task(api("POST", f"{ONE}/status/stop"))
    api.task(api("POST", f"{ONE}/status/shutdown"))
    api.task(api("POST", f"{ONE}/status/start"))
    assert api("GET", f"{ONE}/status/current")["status"] == "running"
    api.task(api("POST", f"{ONE}/status/start"), "VM 100 already running")
    assert fault(api, "DELETE", ONE, 500) == "VM 100 is running - destroy failed"
    assert fault(api, "POST", f"{ONE}/template", 500) == "you can't convert a running VM to a template"
    assert fault(api, "POST", "/nodes/pve1/qemu/9001/status/start", 500) == (
        "you can't start a vm if it's a template"
    )


def test_shutdown_that_is_ignored(srv: TestServer, api: Client, clone: dict[str, Any]) -> None:
    api.task(api("POST", f"{ONE}/status/start"))
    srv.vm_driver.deaf.add(100)
    api.task(api("POST", f"{ONE}/status/shutdown", timeout=1), "VM quit/powerdown failed - got timeout")
    assert api("GET", f"{ONE}/status/current")["status"] == "running"
    api.task(api("POST", f"{ONE}/status/shutdown", timeout=1, forceStop=1))
    assert api("GET", f"{ONE}/status/current")["status"] == "stopped"


def test_lock_and_protection(srv: TestServer, api: Client, clone: dict[str, Any]) -> None:
    srv.lock_guest(100, "backup")
    for method, path in (("PUT", "/config"), ("POST", "/config"), ("POST", "/status/start"), ("DELETE", "")):
        params = {"cores": 2} if path == "/config" else {}
        assert fault(api, method, f"{ONE}{path}", 500, **params) == "VM is locked (backup)"
    srv.lock_guest(100, "")
    api("PUT", f"{ONE}/config", protection=1)
    assert fault(api, "DELETE", ONE, 500) == "can't remove VM 100 - protection mode enabled"
    srv.faults.file_lock = 1
    assert fault(api, "PUT", f"{ONE}/config", 500, cores=2) == (
        "can't lock file '/run/lock/qemu-server/lock-100.conf' - got timeout"
    )


def test_agent(srv: TestServer, api: Client, clone: dict[str, Any]) -> None:
    path = f"{ONE}/agent/network-get-interfaces"
    assert fault(api, "GET", path, 500) == "VM 100 is not running"
    api("PUT", f"{ONE}/config", ipconfig0="ip=10.0.0.5/24")
    api.task(api("POST", f"{ONE}/status/start"))
    nic = api("GET", path)["result"][1]
    assert nic["hardware-address"].upper() in clone["net0"]
    assert nic["ip-addresses"] == [{"ip-address": "10.0.0.5", "ip-address-type": "ipv4", "prefix": 24}]
    assert api("POST", f"{ONE}/agent/ping") == {"result": {}}
    srv.vm_driver.silent.add(100)
    assert fault(api, "GET", path, 500) == "QEMU guest agent is not running"
    assert fault(api, "POST", f"{ONE}/agent/ping", 500) == "QEMU guest agent is not running"
    api("PUT", f"{ONE}/config", agent=0)
    api.task(api("POST", f"{ONE}/status/reboot"))
    assert fault(api, "GET", path, 500) == "No QEMU guest agent configured"


def test_failed_clone_leaves_nothing(srv: TestServer, api: Client) -> None:
    srv.faults.storage_lock = 1
    api.task(
        api("POST", "/nodes/pve1/qemu/9001/clone", newid=100, full=1),
        "cfs-lock 'storage-local-lvm' error: got lock request timeout",
    )
    assert len(api("GET", "/cluster/resources", type="vm")) == 2


def test_made_without_a_template(api: Client) -> None:
    options = {
        "scsi0": "local-lvm:4",
        "net0": "virtio,bridge=vmbr0",
        "ide2": "local-lvm:cloudinit",
        "name": "own",
    }
    api.task(api("POST", "/nodes/pve2/qemu", vmid=150, **options))
    config = api("GET", "/nodes/pve2/qemu/150/config")
    assert config["boot"] == "order=ide2;scsi0;net0"
    assert config["memory"] == "512"
    assert fault(api, "POST", "/nodes/pve1/qemu", 500, vmid=150) == (
        "unable to create VM 150 - VM 150 already exists on node 'pve2'"
    )
    assert api("GET", "/cluster/nextid", 400, vmid=150).json()["errors"]["vmid"] == "VM 150 already exists\n"
    assert fault(api, "GET", "/nodes/pve1/qemu/150/config", 500) == (
        "Configuration file 'nodes/pve1/qemu-server/150.conf' does not exist"
    )


def test_rights_per_option(srv: TestServer, clone: dict[str, Any]) -> None:
    operator = Client(srv, srv.operator)
    operator("PUT", f"{ONE}/config", ciuser="root")
    for change in ({"cores": 2}, {"memory": "600"}, {"tags": "a"}, {"scsi1": "local-lvm:1"}):
        assert "Permission check failed (/vms/100, VM.Config." in fault(
            operator, "PUT", f"{ONE}/config", 403, **change
        )


def test_cloud_init_documents() -> None:
    guest = Guest(
        100,
        "pve1",
        "qemu",
        {
            "name": "db.example.org",
            "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
            "net1": "virtio=BC:24:11:00:00:02,bridge=vmbr0",
            "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
            "ipconfig1": "ip=dhcp,ip6=fd00::5/64,gw6=fd00::1",
            "ciuser": "root",
            "sshkeys": quote(KEY, safe=""),
            "nameserver": "10.0.0.1 10.0.0.2",
            "searchdomain": "example.org",
        },
    )
    user = cloud_config(guest)
    assert f'"{KEY}"' in user
    assert '"hostname": "db"' in user
    assert '"fqdn": "db.example.org"' in user
    network = network_config(guest, "10.9.8")
    assert json.loads(network)["config"][1]["subnets"][1] == {
        "type": "static6",
        "address": "fd00::5/64",
        "gateway": "fd00::1",
    }
    for part in ("10.0.0.5/24", "bc:24:11:00:00:02", "10.9.8.200/24", '"10.0.0.2"', '"example.org"'):
        assert part in network
