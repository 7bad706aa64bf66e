# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The hypervisor's API over HTTPS, as its clients see it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lab import schema
from lab.api import ROUTES
from lab.testing import Account, TestServer, server

TEMPLATE = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst"
UPID = re.compile(r"^UPID:[^:]+:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:[^:\s/]+:[^:\s/]*:[^:\s/]+:$")


def _session(srv: TestServer) -> requests.Session:
    session = requests.Session()
    # REQUESTS_CA_BUNDLE would win over `verify`.
    session.trust_env = False
    session.verify = srv.ca_path
    return session


class Client:
    """A thin client of one account."""

    def __init__(self, srv: TestServer, account: Account | None = None) -> None:
        who = account or Account(srv.user, srv.token_id, srv.token_secret)
        self.base = f"https://{srv.host}:{srv.port}/api2/json"
        self.session = _session(srv)
        self.session.headers["Authorization"] = f"PVEAPIToken={who.user}!{who.token_id}={who.token_secret}"

    def __call__(self, method: str, path: str, status: int = 200, /, **params: Any) -> Any:
        sent: dict[str, Any] = {"params": params} if method in ("GET", "DELETE") else {"data": params}
        answer = self.session.request(method, self.base + path, timeout=10, **sent)
        assert answer.status_code == status, (
            f"{method} {path}: {answer.status_code} {answer.reason} {answer.text}"
        )
        return answer.json()["data"] if status == 200 else answer

    def task(self, upid: str, expected: str | None = "OK") -> dict[str, Any]:
        assert UPID.match(upid)
        node, deadline = upid.split(":")[1], time.monotonic() + 10
        while (status := self("GET", f"/nodes/{node}/tasks/{upid}/status"))["status"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert expected is None or status["exitstatus"] == expected
        return dict(status)

    def create(self, vmid: int = 100, /, **params: Any) -> None:
        given = {
            "vmid": vmid,
            "ostemplate": TEMPLATE,
            "rootfs": "local-lvm:8",
            "hostname": f"g{vmid}",
            **params,
        }
        self.task(self("POST", "/nodes/pve1/lxc", **given))


@pytest.fixture
def srv() -> Iterator[TestServer]:
    with server() as running:
        yield running


@pytest.fixture
def api(srv: TestServer) -> Client:
    return Client(srv)


# -- schema


def test_every_implemented_method_is_one_of_the_official_api() -> None:
    assert len(ROUTES) > 40
    for verb, path in ROUTES:
        assert schema.load().method(path, verb), f"{verb} {path}"


PLACES = {
    "userid": "root@pam",
    "tokenid": "lab",
    "roleid": "PVEAuditor",
    "node": "pve1",
    "storage": "local",
    "poolid": "p",
    "sid": "ct:100",
    "rule": "apart",
    "snapname": "s1",
    "id": "nightly",
    "pos": "0",
}


def _concrete(path: str, **values: str) -> str:
    """The path with an existing object at every place; "no-such-thing" where this test knows none."""
    vmid = "101" if "/qemu/" in path else "100"
    known = {**PLACES, "vmid": vmid, **values}
    return re.sub(r"\{([\w-]+)\}", lambda match: known.get(match[1], "no-such-thing"), path)


def test_every_readable_method_answers_as_declared(api: Client) -> None:
    """The server itself refuses to send an answer that differs from the schema; see Cluster.conform."""
    api.create(start=1)
    api("POST", "/pools", poolid="p")
    api.task(api("POST", "/nodes/pve1/qemu", vmid=101, agent=1, start=1, scsi0="local-lvm:1"))
    for kind, vmid in (("lxc", 100), ("qemu", 101)):
        api.task(api("POST", f"/nodes/pve1/{kind}/{vmid}/snapshot", snapname="s1"))
    api("POST", "/cluster/ha/resources", sid="ct:100")
    api("POST", "/cluster/ha/resources", sid="vm:101")
    api(
        "POST",
        "/cluster/ha/rules",
        rule="apart",
        type="resource-affinity",
        affinity="negative",
        resources="ct:100,vm:101",
    )
    upid = api("GET", "/cluster/tasks")[0]["upid"]
    for scope in ("/cluster", "/nodes/pve1", "/nodes/pve1/lxc/100", "/nodes/pve1/qemu/101"):
        api("POST", f"{scope}/firewall/rules", type="in", action="ACCEPT")
    api("POST", "/cluster/backup", id="nightly", schedule="02:00", all=1)
    walked = 0
    for verb, path in ROUTES:
        concrete = _concrete(path, upid=upid)
        if verb != "GET" or "no-such-thing" in concrete:
            continue
        walked += 1
        query = {"feature": "snapshot"} if path.endswith("/feature") else {}
        answer = api.session.get(api.base + concrete, params=query, timeout=10)
        gone = answer.reason == "cannot index groups: ha groups have been migrated to rules"
        assert answer.status_code == 200 or (path == "/cluster/ha/groups" and gone), (path, answer.reason)
    assert walked > 30


def test_every_implemented_method_is_checked_against_the_schema(api: Client) -> None:
    for verb, path in ROUTES:
        method = schema.load().method(path, verb)
        assert method
        if verb == "GET" and method.permissions.get("user") == "world":
            continue
        answer = api(verb, _concrete(path), 400, nonsense=1)
        errors = answer.json()["errors"]
        unknown = "property is not defined in schema and the schema does not allow additional properties\n"
        assert errors["nonsense"] == unknown, (verb, path)
        in_path = set(re.findall(r"\{([\w-]+)\}", path))
        for name, prop in method.properties.items():
            if not prop.get("optional") and name not in in_path and "[n]" not in name:
                assert errors[name] == "property is missing and it is not optional\n", (verb, path, name)


def test_known_but_missing_and_unknown_methods_are_not_implemented(api: Client) -> None:
    assert (
        api("POST", "/nodes/pve1/qemu/101/monitor", 501, command="info").reason
        == "Method 'POST /nodes/pve1/qemu/101/monitor' not implemented"
    )
    assert api("GET", "/no/such/thing", 501).reason == "Method 'GET /no/such/thing' not implemented"


def test_every_fault_of_the_parameters_is_told_at_once(api: Client) -> None:
    answer = api(
        "POST",
        "/nodes/pve1/lxc",
        400,
        vmid="x",
        memory=1,
        cmode="nonsense",
        nonsense=1,
        net0="bridge=vmbr0,ip=10.0.0.300/24",
    )
    assert answer.reason == "Parameter verification failed."
    errors = answer.json()["errors"]
    assert errors["vmid"] == "type check ('integer') failed - got 'x'\n"
    assert errors["memory"] == "value must have a minimum value of 16\n"
    assert (
        errors["cmode"] == "value 'nonsense' does not have a value in the enumeration 'shell, console, tty'\n"
    )
    assert errors["nonsense"] == (
        "property is not defined in schema and the schema does not allow additional properties\n"
    )
    assert errors["ostemplate"] == "property is missing and it is not optional\n"
    assert errors["net0"].startswith("invalid format - ")
    assert "name: property is missing" in errors["net0"]


def test_python_booleans_in_forms_are_refused_and_json_ones_taken(srv: TestServer, api: Client) -> None:
    assert (
        "onboot"
        in api("POST", "/nodes/pve1/lxc", 400, vmid=100, ostemplate=TEMPLATE, onboot=True).json()["errors"]
    )
    answer = api.session.post(
        api.base + "/nodes/pve1/lxc",
        json={"vmid": 100, "ostemplate": TEMPLATE, "rootfs": "local-lvm:4", "onboot": True},
        timeout=10,
    )
    api.task(answer.json()["data"])
    assert api("GET", "/nodes/pve1/lxc/100/config")["onboot"] == 1


# -- who may come in


def test_ticket_with_csrf(srv: TestServer, api: Client) -> None:
    session = _session(srv)
    login = {"username": "root", "realm": "pam", "password": srv.password}
    ticket = session.post(api.base + "/access/ticket", data=login, timeout=10).json()["data"]
    assert ticket["username"] == "root@pam"
    session.cookies.set("PVEAuthCookie", ticket["ticket"])
    assert session.get(api.base + "/version", timeout=10).status_code == 200
    assert session.post(api.base + "/pools", data={"poolid": "a"}, timeout=10).status_code == 401
    session.headers["CSRFPreventionToken"] = ticket["CSRFPreventionToken"]
    assert session.post(api.base + "/pools", data={"poolid": "a"}, timeout=10).status_code == 200
    renewed = {"username": "root@pam", "password": ticket["ticket"]}
    assert session.post(api.base + "/access/ticket", data=renewed, timeout=10).status_code == 200
    srv.expire_tickets()
    assert session.get(api.base + "/version", timeout=10).status_code == 401


def test_wrong_credentials_wait_before_the_answer(srv: TestServer, api: Client) -> None:
    srv.faults.auth_delay = 0.3
    begun = time.monotonic()
    wrong = requests.post(
        api.base + "/access/ticket",
        data={"username": "root@pam", "password": "no"},
        verify=srv.ca_path,
        timeout=10,
    )
    assert (wrong.status_code, wrong.reason) == (401, "authentication failure")
    assert time.monotonic() - begun >= 0.3
    assert _session(srv).get(api.base + "/version", timeout=10).reason == "No ticket"
    api.session.headers["Authorization"] = "PVEAPIToken=root@pam!lab=00000000-0000-4000-8000-ffffffffffff"
    assert api("GET", "/version", 401).reason == "Authentication failed!"


def test_a_token_without_rights_is_told_which_one_it_lacks(srv: TestServer, api: Client) -> None:
    api.create()
    for account in (srv.limited, srv.auditor, srv.operator):
        answer = Client(srv, account)("POST", "/nodes/pve1/lxc", 403, vmid=101, ostemplate=TEMPLATE)
        assert answer.reason == "Permission check failed (/vms/101, VM.Allocate)"
    answer = Client(srv, srv.vmadmin)(
        "POST", "/nodes/pve1/lxc", 403, vmid=101, ostemplate=TEMPLATE, rootfs="local-lvm:4"
    )
    assert answer.reason == "Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)"
    Client(srv, srv.operator)("POST", "/nodes/pve1/lxc/100/status/start")
    Client(srv, srv.auditor)("POST", "/nodes/pve1/lxc/100/status/stop", 403)
    assert Client(srv, srv.limited)("GET", "/cluster/resources", type="vm") == []
    assert len(Client(srv, srv.auditor)("GET", "/cluster/resources", type="vm")) == 1
    assert "VM.Allocate" in api("GET", "/access/permissions", path="/vms")["/vms"]
    assert Client(srv, srv.auditor)("GET", "/access/permissions")["/"]["VM.Audit"] == 1


def test_only_root_himself_may_ask_for_more_than_nesting(api: Client) -> None:
    answer = api("POST", "/nodes/pve1/lxc", 403, vmid=100, ostemplate=TEMPLATE, features="keyctl=1")
    assert "changing feature flags (except nesting)" in answer.reason


def test_a_body_on_delete_is_refused(api: Client) -> None:
    answer = api.session.delete(api.base + "/nodes/pve1/lxc/100", data={"force": 1}, timeout=10)
    assert (answer.status_code, answer.reason) == (501, "Unexpected content for method 'DELETE'")


def test_extjs_always_says_200(srv: TestServer, api: Client) -> None:
    url = api.base.replace("/json", "/extjs") + "/nodes/pve1/lxc/100/config"
    answer = api.session.get(url, timeout=10)
    assert answer.status_code == 200
    assert answer.json()["success"] == 0
    assert answer.json()["status"] == 500


# -- life of a container


def test_create_stores_what_the_server_adds(srv: TestServer, api: Client) -> None:
    api.create(
        net0="name=eth0,bridge=vmbr0,ip=10.0.0.5/24,gw=10.0.0.1",
        tags="b;A,b",
        description="x",
        pool="",
        **{"ssh-public-keys": "ssh-ed25519 AAAA a"},
    )
    config = api("GET", "/nodes/pve1/lxc/100/config")
    assert config["rootfs"] == "local-lvm:vm-100-disk-0,size=8G"
    assert re.fullmatch(
        r"name=eth0,bridge=vmbr0,gw=10\.0\.0\.1,hwaddr=BC:24:11(:[0-9A-F]{2}){3},ip=10\.0\.0\.5/24,type=veth",
        config["net0"],
    )
    assert (config["tags"], config["description"], config["unprivileged"]) == ("a;b", "x\n", 1)
    assert not {"ssh-public-keys", "ostemplate", "start", "lock"} & set(config)
    assert srv.driver.ssh_keys[100] == "ssh-ed25519 AAAA a"
    assert api("GET", "/nodes/pve1/storage/local-lvm/content", vmid=100)[0]["size"] == 8 << 30


def test_the_configuration_is_locked_while_the_worker_runs(srv: TestServer, api: Client) -> None:
    srv.faults.slow(0.5, ["vzcreate"])
    upid = api("POST", "/nodes/pve1/lxc", vmid=100, ostemplate=TEMPLATE, rootfs="local-lvm:4")
    assert api("GET", "/nodes/pve1/lxc/100/config")["lock"] == "create"
    assert api("POST", "/nodes/pve1/lxc/100/status/start", 500).reason == "CT is locked (create)"
    assert api("GET", "/cluster/nextid") == "101"
    assert api("POST", "/nodes/pve2/lxc", 500, vmid=100, ostemplate=TEMPLATE).reason == (
        "CT 100 already exists on node 'pve1'"
    )
    api.task(upid)
    assert "lock" not in api("GET", "/nodes/pve1/lxc/100/config")


def test_a_failed_create_leaves_nothing(srv: TestServer, api: Client) -> None:
    srv.faults.storage_lock = 1
    upid = api("POST", "/nodes/pve1/lxc", vmid=100, ostemplate=TEMPLATE, rootfs="local-lvm:4")
    api.task(upid, "cfs-lock 'storage-local-lvm' error: got lock request timeout")
    log = api("GET", f"/nodes/pve1/tasks/{upid}/log", limit=0)
    assert log[-1]["t"].startswith("TASK ERROR: cfs-lock")
    assert api("GET", "/cluster/resources", type="vm") == []
    api.create()


def test_start_stop_and_their_wrong_moments(api: Client) -> None:
    api.create()
    assert api("POST", "/nodes/pve1/lxc/100/status/stop", 500).reason == "CT 100 not running"
    api.task(api("POST", "/nodes/pve1/lxc/100/status/start"))
    assert api("POST", "/nodes/pve1/lxc/100/status/start", 500).reason == "CT 100 already running"
    assert (
        api("DELETE", "/nodes/pve1/lxc/100", 500).reason == "unable to destroy CT 100 - container is running"
    )
    assert api("GET", "/nodes/pve1/lxc")[0]["status"] == "running"
    api.task(api("POST", "/nodes/pve1/lxc/100/status/reboot"))
    api.task(api("POST", "/nodes/pve1/lxc/100/status/shutdown"))
    assert api("GET", "/nodes/pve1/lxc/100/status/current")["status"] == "stopped"
    api.task(api("DELETE", "/nodes/pve1/lxc/100"))
    assert api("GET", "/nodes/pve1/lxc/100/config", 500).reason == (
        "Configuration file 'nodes/pve1/lxc/100.conf' does not exist"
    )


def test_a_deaf_guest_is_stopped_only_by_force(srv: TestServer, api: Client) -> None:
    api.create(start=1)
    srv.driver.deaf.add(100)
    api.task(api("POST", "/nodes/pve1/lxc/100/status/shutdown", timeout=1), "container did not stop")
    api.task(api("POST", "/nodes/pve1/lxc/100/status/shutdown", timeout=1, forceStop=1))
    assert api("GET", "/nodes/pve1/lxc/100/status/current")["status"] == "stopped"


def test_protection_refuses_removal(api: Client) -> None:
    api.create(protection=1)
    assert api("DELETE", "/nodes/pve1/lxc/100", 500).reason == "can't remove CT 100 - protection mode enabled"


def test_digest_guards_every_write(api: Client) -> None:
    api.create()
    old = api("GET", "/nodes/pve1/lxc/100/config")["digest"]
    assert re.fullmatch(r"[0-9a-f]{40}", old)
    api("PUT", "/nodes/pve1/lxc/100/config", memory=600, digest=old)
    assert api("PUT", "/nodes/pve1/lxc/100/config", 500, memory=700, digest=old).reason == (
        "detected modified configuration - file changed by other user? Try again."
    )
    assert api("GET", "/nodes/pve1/lxc/100/config")["memory"] == 600


def test_what_is_live_and_what_waits_for_a_restart(srv: TestServer, api: Client) -> None:
    api.create(start=1)
    api("PUT", "/nodes/pve1/lxc/100/config", memory=2048, features="nesting=1", nameserver="10.0.0.1")
    pending = {entry["key"]: entry for entry in api("GET", "/nodes/pve1/lxc/100/pending")}
    assert pending["memory"] == {"key": "memory", "value": 2048}
    assert pending["features"] == {"key": "features", "pending": "nesting=1"}
    assert (100, "memory") in srv.driver.applied
    assert api("GET", "/nodes/pve1/lxc/100/config")["features"] == "nesting=1"
    assert "features" not in api("GET", "/nodes/pve1/lxc/100/config", current=1)
    api("PUT", "/nodes/pve1/lxc/100/config", revert="nameserver")
    api.task(api("POST", "/nodes/pve1/lxc/100/status/reboot"))
    assert not [e for e in api("GET", "/nodes/pve1/lxc/100/pending") if "pending" in e]
    assert "nameserver" not in api("GET", "/nodes/pve1/lxc/100/config")
    api("PUT", "/nodes/pve1/lxc/100/config", delete="features")
    assert {"key": "features", "value": "nesting=1", "delete": 1} in api("GET", "/nodes/pve1/lxc/100/pending")


def test_read_only_options(api: Client) -> None:
    api.create()
    assert api("PUT", "/nodes/pve1/lxc/100/config", 500, unprivileged=0).reason == (
        "unable to modify read-only option: 'unprivileged'"
    )


def test_a_net_keeps_its_address_of_hardware(api: Client) -> None:
    api.create(net0="name=eth0,bridge=vmbr0,ip=dhcp")
    before = re.search(r"hwaddr=([^,]+)", api("GET", "/nodes/pve1/lxc/100/config")["net0"])
    api("PUT", "/nodes/pve1/lxc/100/config", net0="name=eth0,bridge=vmbr0,ip=10.0.0.7/24")
    after = api("GET", "/nodes/pve1/lxc/100/config")["net0"]
    assert before
    assert before[0] in after
    api.task(api("POST", "/nodes/pve1/lxc/100/status/start"))
    found = {entry["name"]: entry for entry in api("GET", "/nodes/pve1/lxc/100/interfaces")}
    assert found["eth0"]["ip-addresses"][0]["ip-address"] == "10.0.0.7"
    assert api("PUT", "/nodes/pve1/lxc/100/config", 400, net0="name=eth0,bridge=vmbr7").json()["errors"][
        "net0"
    ]


def test_resize_only_grows(srv: TestServer, api: Client) -> None:
    api.create()
    path = "/nodes/pve1/lxc/100/resize"
    assert api("PUT", path, 500, disk="rootfs", size="8G").reason == "disk is already at specified size"
    assert api("PUT", path, 500, disk="rootfs", size="4G").reason == "unable to shrink disk size"
    api.task(api("PUT", path, disk="rootfs", size="+2G"))
    assert srv.driver.disks[100]["rootfs"] == 10 << 30
    assert api("GET", "/nodes/pve1/lxc/100/config")["rootfs"] == "local-lvm:vm-100-disk-0,size=10G"


def test_clone_and_template(api: Client) -> None:
    api.create(net0="name=eth0,bridge=vmbr0,ip=dhcp")
    api.task(api("POST", "/nodes/pve1/lxc/100/clone", newid=101, hostname="copy"))
    one, two = (api("GET", f"/nodes/pve1/lxc/{vmid}/config") for vmid in (100, 101))
    assert two["hostname"] == "copy"
    assert two["rootfs"] == "local-lvm:vm-101-disk-0,size=8G"
    assert one["net0"] != two["net0"]
    assert api("POST", "/nodes/pve1/lxc/100/template") is None
    while not api("GET", "/nodes/pve1/lxc/100/config").get("template"):
        time.sleep(0.01)
    assert (
        api("POST", "/nodes/pve1/lxc/100/status/start", 500).reason
        == "you can't start a container that is a template"
    )


def test_pools_hold_a_guest_once(api: Client) -> None:
    api("POST", "/pools", poolid="a")
    api("POST", "/pools", poolid="b")
    api.create(pool="a")
    assert api("GET", "/cluster/resources", type="vm")[0]["pool"] == "a"
    assert "already to pool 'a'" in api("PUT", "/pools", 500, poolid="b", vms="100").reason
    api("PUT", "/pools", **{"poolid": "b", "vms": "100", "allow-move": 1})
    assert [m["vmid"] for m in api("GET", "/pools", poolid="b")[0]["members"]] == [100]
    assert api("DELETE", "/pools", 500, poolid="b").reason == "delete pool failed: pool 'b' is not empty"
    api.task(api("DELETE", "/nodes/pve1/lxc/100"))
    api("DELETE", "/pools", poolid="b")


def test_next_id_only_asserts(api: Client) -> None:
    assert api("GET", "/cluster/nextid") == "100"
    api.create()
    assert api("GET", "/cluster/nextid") == "101"
    assert api("GET", "/cluster/nextid", 400, vmid=100).json()["errors"]["vmid"] == "CT 100 already exists\n"


# -- tasks and faults


def test_task_is_found_cancelled_and_unknown_ones_are_refused(srv: TestServer, api: Client) -> None:
    srv.faults.slow(30)
    upid = api("POST", "/nodes/pve1/lxc", vmid=100, ostemplate=TEMPLATE, rootfs="local-lvm:4")
    status = api("GET", f"/nodes/pve1/tasks/{upid}/status")
    assert (status["status"], status["type"], status["id"], status["tokenid"]) == (
        "running",
        "vzcreate",
        "100",
        "lab",
    )
    assert upid in [t["upid"] for t in api("GET", "/nodes/pve1/tasks", source="active")]
    api("DELETE", f"/nodes/pve1/tasks/{upid}")
    api.task(upid, "interrupted by signal")
    unknown = upid.replace(":vzcreate:", ":vzstart:")
    assert api("DELETE", f"/nodes/pve1/tasks/{unknown}", 400).json()["errors"]["upid"] == "no such task\n"


def test_warnings_are_told_in_the_exit_status(srv: TestServer, api: Client) -> None:
    srv.faults.task_warnings = 1
    upid = api("POST", "/nodes/pve1/lxc", vmid=100, ostemplate=TEMPLATE, rootfs="local-lvm:4")
    api.task(upid, "WARNINGS: 1")
    assert api("GET", f"/nodes/pve1/tasks/{upid}/log")[-1]["t"] == "TASK WARNINGS: 1"


def test_a_held_lock_and_a_busy_file_lock(srv: TestServer, api: Client) -> None:
    api.create()
    srv.lock_guest(100, "backup")
    assert api("PUT", "/nodes/pve1/lxc/100/config", 500, memory=600).reason == "CT is locked (backup)"
    srv.lock_guest(100, "")
    srv.faults.file_lock = 1
    assert "got timeout" in api("PUT", "/nodes/pve1/lxc/100/config", 500, memory=600).reason
    api("PUT", "/nodes/pve1/lxc/100/config", memory=600)


def test_a_dropped_reply_has_taken_effect(srv: TestServer, api: Client) -> None:
    srv.faults.drop_reply("POST", r"^/nodes/pve1/lxc$")
    with pytest.raises(requests.ConnectionError):
        api("POST", "/nodes/pve1/lxc", vmid=100, ostemplate=TEMPLATE, rootfs="local-lvm:4", hostname="lost")
    assert [guest["name"] for guest in api("GET", "/nodes/pve1/lxc")] == ["lost"]


def test_a_proxy_error_has_no_effect(srv: TestServer, api: Client) -> None:
    srv.faults.fail("*", r"/pools", 596, "Connection timed out")
    answer = api("POST", "/pools", 596, poolid="a")
    assert answer.reason == "Connection timed out"
    assert api("GET", "/pools") == []


def test_many_clients_at_once(srv: TestServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda vmid: Client(srv).create(vmid, start=1), range(100, 132)))
    assert len({guest["vmid"] for guest in Client(srv)("GET", "/cluster/resources", type="vm")}) == 32
