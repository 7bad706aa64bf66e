# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Where a real hypervisor is late, deaf or pedantic, so is the lab."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.api.networks import ZONE
from lab.testing import Account, TestServer, server

from .test_api import TEMPLATE, Client, api, srv

__all__ = ["api", "srv"]

LIST = "/cluster/resources"


def row(api: Client, vmid: int = 100) -> dict[str, Any]:
    return next(dict(entry) for entry in api("GET", LIST, type="vm") if entry["vmid"] == vmid)


# -- names and power


def test_what_stands_in_shared_files_is_known_at_once_and_the_rest_when_it_was_told(
    srv: TestServer, api: Client
) -> None:
    api("POST", "/pools", poolid="a")
    api.create(pool="a", tags="dev")
    known = {"id": "lxc/100", "vmid": 100, "type": "lxc", "node": "pve1", "pool": "a", "tags": "dev"}
    assert row(api) == {**known, "status": "unknown"}
    assert api("GET", "/nodes/pve1/lxc")[0]["name"] == "g100"
    srv.broadcast()
    told = row(api)
    assert (told["name"], told["status"], told["template"]) == ("g100", "stopped", 0)
    api("PUT", "/nodes/pve1/lxc/100/config", hostname="other")
    assert row(api)["name"] == "g100"
    srv.lock_guest(100, "backup")
    assert row(api)["lock"] == "backup"


def test_an_id_that_was_given_away_again_has_the_old_name_for_a_while(srv: TestServer, api: Client) -> None:
    api.create()
    srv.broadcast()
    api.task(api("DELETE", "/nodes/pve1/lxc/100"))
    assert api("GET", LIST, type="vm") == []
    api.create(hostname="new")
    assert row(api)["name"] == "g100"


def test_the_nodes_tell_each_other_from_time_to_time() -> None:
    with server(lag=0.2) as running:
        client = Client(running)
        client.create()
        end = time.monotonic() + 10
        while "name" not in row(client):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize("fault", ["dead-node", "silent-statd"])
def test_words_of_a_silent_node_are_forgotten(srv: TestServer, api: Client, fault: str) -> None:
    api.create()
    srv.broadcast()
    srv.cluster.switch(fault, {"node": "pve1"}, True)
    srv.cluster.statd.skip(200)
    assert row(api)["name"] == "g100"
    srv.cluster.statd.skip(200)
    srv.broadcast()
    assert row(api) == {"id": "lxc/100", "vmid": 100, "type": "lxc", "node": "pve1", "status": "unknown"}
    srv.cluster.switch(fault, {"node": "pve1"}, False)
    srv.broadcast()
    assert row(api)["name"] == "g100"


def test_a_dead_node_is_known_and_does_not_answer(srv: TestServer, api: Client) -> None:
    api.create()
    srv.kill("pve1")
    assert "No route to host" in api("GET", "/nodes/pve1/lxc", 595).reason
    assert "No route to host" in api("GET", "/nodes/pve1/lxc/100/config", 595).reason
    assert {node["node"]: node["status"] for node in api("GET", "/nodes")} == {
        "pve1": "offline",
        "pve2": "online",
        "pve3": "online",
    }
    assert [node["online"] for node in api("GET", "/cluster/status") if node["type"] == "node"] == [0, 1, 1]
    assert api("POST", "/nodes/pve2/lxc", 500, vmid=100, ostemplate=TEMPLATE).reason.endswith("node 'pve1'")
    srv.revive("pve1")
    assert api("GET", "/nodes/pve1/lxc/100/config")["hostname"] == "g100"


# -- migrations


def test_a_migrated_guest_is_not_where_it_was(srv: TestServer, api: Client) -> None:
    api.create()
    api.task(api("POST", "/nodes/pve1/lxc/100/status/start"))
    wrong = api("POST", "/nodes/pve1/lxc/100/migrate", 500, target="pve2").reason
    assert wrong == "can't migrate running container without --online or --restart"
    srv.faults.slow(0.5, ["moving"])
    upid = api("POST", "/nodes/pve1/lxc/100/migrate", target="pve2", restart=1)
    assert upid.startswith("UPID:pve1:")
    end = time.monotonic() + 5
    while api("GET", "/nodes/pve1/lxc/100/config").get("lock") != "migrate":
        assert time.monotonic() < end
    assert row(api)["node"] == "pve1"
    api.task(upid)
    assert api("GET", "/nodes/pve1/lxc/100/config", 500).reason.endswith("does not exist")
    assert "lock" not in api("GET", "/nodes/pve2/lxc/100/config")
    assert api("GET", "/nodes/pve2/lxc/100/status/current")["status"] == "running"
    assert row(api)["node"] == "pve2"


# -- networks


def automation(api: Client, *grants: tuple[str, str]) -> Account:
    user = "automation@pve"
    api("POST", "/access/users", userid=user)
    made = api("POST", f"/access/users/{user}/token/ansible", privsep=0)
    for path, roles in grants:
        api("PUT", "/access/acl", path=path, users=user, roles=roles)
    return Account(user, "ansible", made["value"])


@pytest.mark.parametrize(
    ("grants", "net", "refused"),
    [
        ([], "name=eth0,bridge=vmbr0", f"({ZONE}/vmbr0, SDN.Use)"),
        ([], "name=eth0,bridge=vmbr0,tag=7", f"({ZONE}/vmbr0/7, SDN.Use)"),
        ([(f"{ZONE}/vmbr0/7", "PVESDNUser")], "name=eth0,bridge=vmbr0", f"({ZONE}/vmbr0, SDN.Use)"),
        ([(f"{ZONE}/vmbr0/7", "PVESDNUser")], "name=eth0,bridge=vmbr0,tag=7", ""),
        ([(f"{ZONE}/vmbr0", "PVESDNUser")], "name=eth0,bridge=vmbr0,tag=8", ""),
        ([("/sdn", "PVESDNUser")], "name=eth0,bridge=vmbr0", ""),
        ([], "name=eth0,ip=manual", ""),
    ],
)
def test_a_bridge_is_used_by_who_may(
    srv: TestServer, api: Client, grants: list[tuple[str, str]], net: str, refused: str
) -> None:
    client = Client(srv, automation(api, ("/", "PVEVMAdmin,PVEDatastoreUser"), *grants))
    answer = client(
        "POST",
        "/nodes/pve1/lxc",
        403 if refused else 200,
        vmid=100,
        ostemplate=TEMPLATE,
        rootfs="local-lvm:8",
        net0=net,
    )
    assert refused in (answer.reason if refused else "")


def test_a_copy_and_a_change_need_the_bridge_too(srv: TestServer, api: Client) -> None:
    client = Client(srv, automation(api, ("/", "PVEVMAdmin,PVEDatastoreUser")))
    api.create(net0="name=eth0,bridge=vmbr0")
    assert "SDN.Use" in client("POST", "/nodes/pve1/lxc/100/clone", 403, newid=101).reason
    changed = {"net0": "name=eth0,bridge=vmbr0,tag=3"}
    assert "vmbr0/3, SDN.Use" in client("PUT", "/nodes/pve1/lxc/100/config", 403, **changed).reason


def test_bridges_are_shown_to_who_may_see_them(srv: TestServer, api: Client) -> None:
    client = Client(srv, automation(api, ("/", "PVEVMAdmin")))
    assert client("GET", "/nodes/pve1/network", type="any_bridge") == []
    api("PUT", "/access/acl", path=f"{ZONE}/vmbr0/7", users="automation@pve", roles="PVESDNUser")
    seen = client("GET", "/nodes/pve1/network", type="any_bridge")
    assert [bridge["iface"] for bridge in seen] == ["vmbr0"]


def test_the_order_of_starting_virtual_machines_is_the_operators_of_the_whole() -> None:
    with server(vm_templates=True) as running:
        client = Client(running, running.vmadmin)
        path = "/nodes/pve1/qemu/9001/config"
        assert client("PUT", path, 403, startup="order=1").reason.endswith("(/, Sys.Modify)")
        Client(running)("PUT", path, startup="order=1")


# -- values as they are kept


def test_options_and_rules_of_a_firewall_have_a_digest_each(api: Client) -> None:
    api.create()
    base = "/nodes/pve1/lxc/100/firewall"
    api("POST", f"{base}/rules", type="in", action="ACCEPT", proto="tcp", dport="22")
    options = api("GET", f"{base}/options")["digest"]
    [rule] = api("GET", f"{base}/rules")
    assert rule["digest"] != options
    assert "detected modified" in api("DELETE", f"{base}/rules/0", 500, digest=options).reason
    api("PUT", f"{base}/options", enable=1, digest=options)
    assert "detected modified" in api("PUT", f"{base}/options", 500, enable=0, digest=options).reason
    api("DELETE", f"{base}/rules/0", digest=rule["digest"])


@pytest.mark.parametrize(("rule", "key"), [({"proto": "TCP"}, "proto"), ({"comment": "one\ntwo"}, "comment")])
def test_a_rule_that_the_firewall_cannot_read_is_refused(api: Client, rule: dict[str, str], key: str) -> None:
    answer = api("POST", "/cluster/firewall/rules", 400, type="in", action="ACCEPT", **rule)
    assert set(answer.json()["errors"]) == {key}


def test_sections_lose_blanks_at_the_end_of_a_line_and_take_no_control_characters(api: Client) -> None:
    job = {"schedule": "03:00", "all": 1, "storage": "local", "id": "nightly"}
    api("POST", "/cluster/backup", comment="nightly copy  ", **job)
    assert api("GET", "/cluster/backup/nightly")["comment"] == "nightly copy"
    api("PUT", "/cluster/backup/nightly", comment=" again ")
    assert api("GET", "/cluster/backup/nightly")["comment"] == "again"
    answer = api("PUT", "/cluster/backup/nightly", 500, comment="one\ntwo")
    assert "unexpected control character" in answer.reason


def test_what_requires_another_parameter_is_refused_without_it(api: Client) -> None:
    api("POST", "/cluster/backup", id="nightly", schedule="03:00", all=1, storage="local")
    answer = api("PUT", "/cluster/backup/nightly", 400, **{"notes-template": "{{guestname}}"})
    assert "'notes-template' requires this property" in answer.json()["errors"]["storage"]
    api("PUT", "/cluster/backup/nightly", **{"notes-template": "{{guestname}}", "storage": "local"})


def test_lists_of_a_container_are_kept_with_blanks_between(api: Client) -> None:
    api.create(nameserver="10.0.0.1,10.0.0.2", searchdomain="a.example,b.example", tags="Web,dev;dev")
    config = api("GET", "/nodes/pve1/lxc/100/config")
    assert config["nameserver"] == "10.0.0.1 10.0.0.2"
    assert config["searchdomain"] == "a.example b.example"
    assert config["tags"] == "dev;web"
