# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Snapshots and high availability of the API, for both kinds of guests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.testing import TestServer, server

from .test_api import Client


@dataclass
class One:
    """A guest with a volume, of either kind."""

    srv: TestServer
    api: Client
    kind: str

    @property
    def base(self) -> str:
        return f"/nodes/pve1/{self.kind}/100"

    @property
    def disk(self) -> str:
        return "rootfs" if self.kind == "lxc" else "scsi0"

    @property
    def prefix(self) -> str:
        return "vz" if self.kind == "lxc" else "qm"

    @property
    def sid(self) -> str:
        return f"{'ct' if self.kind == 'lxc' else 'vm'}:100"

    def make(self, storage: str = "local-lvm") -> None:
        if self.kind == "lxc":
            self.api.create(100, rootfs=f"{storage}:4", tags="old")
        else:
            values = {"scsi0": f"{storage}:4", "name": "g100", "tags": "old"}
            self.api.task(self.api("POST", "/nodes/pve1/qemu", vmid=100, **values))

    def do(self, method: str, path: str, expected: str | None = "OK", /, **params: Any) -> str:
        upid = self.api(method, self.base + path, **params)
        self.api.task(upid, expected)
        return str(upid)

    def take(self, name: str, **params: Any) -> str:
        return self.do("POST", "/snapshot", snapname=name, **params)

    def names(self) -> list[str]:
        return [entry["name"] for entry in self.api("GET", self.base + "/snapshot")]

    def config(self) -> dict[str, Any]:
        return dict(self.api("GET", self.base + "/config"))

    def status(self) -> str:
        return str(self.api("GET", self.base + "/status/current")["status"])


@pytest.fixture(params=["lxc", "qemu"])
def one(request: pytest.FixtureRequest) -> Iterator[One]:
    with server() as srv:
        guest = One(srv, Client(srv), request.param)
        guest.make()
        yield guest


def _until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rollback_brings_configuration_and_disks_back(one: One) -> None:
    upid = one.take("before", description="as it was")
    assert f":{one.prefix}snapshot:100:" in upid
    one.api("PUT", one.base + "/config", tags="new")
    one.do("PUT", "/resize", disk=one.disk, size="6G")
    one.do("POST", "/status/start")
    assert f":{one.prefix}rollback:100:" in one.do("POST", "/snapshot/before/rollback")
    config = one.config()
    assert (config["tags"], config["parent"]) == ("old", "before")
    assert "size=4G" in config[one.disk]
    driver = one.srv.driver if one.kind == "lxc" else one.srv.vm_driver
    assert driver.disks[100][one.disk] == 4 << 30
    assert one.status() == "stopped"
    one.do("POST", "/snapshot/before/rollback", start=1)
    assert one.status() == "running"


def test_list_shows_the_tree_and_the_present(one: One) -> None:
    one.take("first")
    one.take("second", description="two")
    first, second, now = one.api("GET", one.base + "/snapshot")
    assert "parent" not in first
    assert (second["parent"], second["description"]) == ("first", "two")
    assert (now["name"], now["parent"], now["running"]) == ("current", "second", 0)
    one.do("DELETE", "/snapshot/first")
    second, now = one.api("GET", one.base + "/snapshot")
    assert "parent" not in second
    one.do("DELETE", "/snapshot/second")
    assert one.names() == ["current"]
    assert "parent" not in one.config()


@pytest.mark.parametrize(
    ("method", "path", "params", "text"),
    [
        ("POST", "/snapshot", {"snapname": "s1"}, "snapshot name 's1' already used"),
        ("DELETE", "/snapshot/none", {}, "snapshot 'none' does not exist"),
    ],
)
def test_what_the_worker_refuses(one: One, method: str, path: str, params: Any, text: str) -> None:
    one.take("s1")
    one.do(method, path, text, **params)
    assert one.names() == ["s1", "current"]


def test_what_is_refused_at_once(one: One) -> None:
    one.take("s1")
    answer = one.api("POST", one.base + "/snapshot", 400, snapname="current")
    assert "reserved name" in answer.json()["errors"]["snapname"]
    answer = one.api("POST", one.base + "/snapshot/none/rollback", 500)
    assert answer.reason == "snapshot 'none' does not exist"
    answer = one.api("POST", one.base + "/template", 500)
    assert answer.reason.endswith("contains snapshots")
    one.srv.lock_guest(100, "backup")
    answer = one.api("POST", one.base + "/snapshot", 500, snapname="s2")
    assert answer.reason.endswith("is locked (backup)")


def test_zfs_goes_back_to_the_newest_only(one: One) -> None:
    one.do("DELETE", "")
    one.make("local-zfs")
    one.take("first")
    one.take("second")
    answer = one.api("POST", one.base + "/snapshot/first/rollback", 500)
    assert answer.reason.startswith("can't rollback, 'first' is not most recent snapshot on 'local-zfs:")
    one.do("POST", "/snapshot/second/rollback")


def test_a_failed_snapshot_leaves_nothing(one: One) -> None:
    one.srv.faults.slow(5, [f"{one.prefix}snapshot"])
    upid = one.api("POST", one.base + "/snapshot", snapname="s1")
    one.api("DELETE", f"/nodes/pve1/tasks/{upid}")
    one.api.task(upid, "interrupted by signal")
    assert one.names() == ["current"]
    assert "lock" not in one.config()


def test_clone_of_a_snapshot_of_a_running_guest(one: One) -> None:
    one.take("s1")
    one.do("POST", "/status/start")
    one.api("PUT", one.base + "/config", tags="new")
    one.do("POST", "/clone", newid=101, snapname="s1", full=1)
    copy = one.api("GET", f"/nodes/pve1/{one.kind}/101/config")
    assert copy["tags"] == "old"
    assert not {"parent", "lock", "snaptime"} & set(copy)
    assert copy[one.disk] != one.config()[one.disk]


def test_snapshot_needs_its_privilege(one: One) -> None:
    limited = Client(one.srv, one.srv.operator)
    answer = limited("POST", one.base + "/snapshot", 403, snapname="s1")
    assert answer.reason == "Permission check failed (/vms/100, VM.Snapshot)"


def test_memory_belongs_to_the_snapshot_of_a_running_machine() -> None:
    with server() as srv:
        one = One(srv, Client(srv), "qemu")
        one.make()
        one.do("POST", "/status/start")
        one.take("warm", vmstate=1)
        one.do("POST", "/status/stop")
        one.do("POST", "/snapshot/warm/rollback")
        assert one.status() == "running"
        assert one.api("GET", one.base + "/snapshot")[0]["vmstate"] == 1


# -- high availability


def test_ha_obeys_later_and_the_task_is_only_the_request(one: One) -> None:
    one.api("POST", "/cluster/ha/resources", sid=one.sid, state="stopped")
    assert one.api("GET", one.base + "/status/current")["ha"] == {"managed": 1, "state": "stopped"}
    upid = one.do("POST", "/status/start")
    assert ":hastart:100:" in upid
    assert one.status() == "stopped"
    _until(lambda: one.status() == "running")
    assert ":hastop:100:" in one.do("POST", "/status/shutdown")
    _until(lambda: one.status() == "stopped")
    row = next(row for row in one.api("GET", "/cluster/resources", type="vm") if row["vmid"] == 100)
    assert row["hastate"] == "stopped"


def test_ha_starts_what_it_is_given(one: One) -> None:
    one.api("POST", "/cluster/ha/resources", sid=one.sid)
    _until(lambda: one.status() == "running")
    assert one.api("POST", "/cluster/ha/resources", 500, sid=one.sid).reason.endswith("already defined")


def test_a_guest_of_ha_is_destroyed_with_purge_only(one: One) -> None:
    one.api("POST", "/cluster/ha/resources", sid=one.sid, state="stopped")
    assert "used in HA resources" in one.api("DELETE", one.base, 500).reason
    one.do("DELETE", "", purge=1)
    assert one.api("GET", "/cluster/ha/resources") == []


def test_groups_have_become_rules(one: One) -> None:
    one.api("POST", "/cluster/ha/resources", sid=one.sid, state="stopped")
    rule = {"rule": "near", "type": "node-affinity", "nodes": "pve1:2,pve2", "resources": one.sid}
    one.api("POST", "/cluster/ha/rules", **rule)
    one.api("PUT", "/cluster/ha/rules/near", type="node-affinity", nodes="pve2")
    assert one.api("GET", "/cluster/ha/rules", resource=one.sid)[0]["nodes"] == "pve2"
    one.api("DELETE", "/cluster/ha/rules/near")
    assert one.api("GET", "/cluster/ha/groups", 500).reason.endswith("ha groups have been migrated to rules")
