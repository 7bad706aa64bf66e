# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Snapshots of both kinds of guests over the wire."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_snapshot

import lab.testing
from lab.cluster import Storage

from .conftest import Site, record
from .test_machines import machine

BOTH = ["web-1", "db-1"]


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        result = Site(server)
        result.ok(record("web-1"), machine("db-1"))
        yield result


@pytest.fixture
def snapshot(site: Site) -> Any:
    def run(*guests: str, check: bool = False, **options: Any) -> dict[str, Any]:
        return site.module(proxmox_snapshot, check, guests=list(guests or BOTH), **options)

    return run


def names(site: Site, name: str) -> list[str]:
    return list(site.server.guest(name).snapshots)


def running(site: Site, name: str) -> bool:
    guest = site.server.guest(name)
    return site.server.cluster.driver(guest).runtime(guest).running


def same(done: dict[str, Any], predicted: dict[str, Any]) -> None:
    """Check mode told what the run then did."""
    assert not done.get("failed"), done.get("msg")
    assert [predicted[key] for key in ("changed", "diff")] == [done[key] for key in ("changed", "diff")]
    actions = [{name: entry["actions"] for name, entry in r["guests"].items()} for r in (predicted, done)]
    assert actions[0] == actions[1]


def age(site: Site, name: str, days: dict[str, float]) -> None:
    """Make snapshots older."""
    for snapshot, number in days.items():
        site.server.guest(name).snapshots[snapshot]["snaptime"] = int(time.time() - number * 86400)


def test_taken_once(site: Site, snapshot: Any) -> None:
    wanted = {"name": "deploy-1", "description": "before 1"}
    predicted = snapshot(check=True, **wanted)
    assert names(site, "web-1") == []
    first = snapshot(**wanted)
    same(first, predicted)
    assert first["guests"]["db-1"]["actions"] == ["taken"]
    assert first["diff"][0]["before"] == {"snapshots": []}
    assert first["diff"][0]["after"] == {"snapshots": ["deploy-1"]}
    assert all(names(site, name) == ["deploy-1"] for name in BOTH)
    before = len(site.server.requests)
    second = snapshot(**wanted)
    assert (second["changed"], second["diff"]) == (False, [])
    assert {entry.method for entry in site.server.requests[before:]} == {"GET"}
    assert len(site.server.requests) - before == 1 + site.visits() + len(BOTH)


def test_only_the_description_differs(site: Site, snapshot: Any) -> None:
    snapshot(name="deploy-1", description="one")
    predicted = snapshot("web-1", name="deploy-1", description="two", check=True)
    done = snapshot("web-1", name="deploy-1", description="two")
    same(done, predicted)
    assert done["guests"]["web-1"]["actions"] == ["described"]
    assert snapshot(name="deploy-1")["changed"] is False


def test_rollback_brings_back_configuration_disks_and_power(site: Site, snapshot: Any) -> None:
    snapshot(name="deploy-1")
    site.ok(record("web-1", tags=["new"], rootfs={"storage": "local-lvm", "size_gb": 6}))
    site.ok(machine("db-1", tags=["new"], state="stopped"))
    predicted = snapshot(name="deploy-1", state="rollback", check=True)
    assert site.config("web-1")["tags"] == "new"
    done = snapshot(name="deploy-1", state="rollback")
    same(done, predicted)
    assert {entry["actions"][0] for entry in done["guests"].values()} == {"rolled_back"}
    assert [site.config(name)["tags"] for name in BOTH] == ["dev;luxima"] * 2
    assert site.server.driver.disks[site.server.guest("web-1").vmid]["rootfs"] == 4 << 30
    assert (running(site, "web-1"), running(site, "db-1")) == (True, False)
    snapshot(name="deploy-1", state="rollback", start=False)
    assert not running(site, "web-1")
    assert site.ok(record("web-1"))["guests"]["web-1"]["actions"] == ["started"]


def test_rollback_of_one_that_is_not_there_touches_nobody(site: Site, snapshot: Any) -> None:
    snapshot("web-1", name="deploy-1")
    result = snapshot(name="deploy-1", state="rollback")
    assert "db-1" in result["msg"]
    assert "there is no snapshot 'deploy-1' (it has none)" in result["msg"]
    assert site.server.count("POST", "/rollback") == 0


def test_zfs_goes_back_to_the_newest_only_and_that_is_told_before(site: Site, snapshot: Any) -> None:
    site.ok(record("web-2", networks=[], rootfs={"storage": "local-zfs", "size_gb": 4}))
    for name in ("deploy-1", "deploy-2"):
        snapshot("web-2", "db-1", name=name)
    result = snapshot("web-2", "db-1", name="deploy-1", state="rollback")
    assert "web-2 has later ones than deploy-1: remove deploy-2 first" in result["msg"]
    assert site.server.count("POST", "/rollback") == 0
    assert snapshot("web-2", name="deploy-2", state="rollback")["changed"] is True


def test_removed_once(site: Site, snapshot: Any) -> None:
    snapshot(name="deploy-1")
    snapshot(name="deploy-2")
    predicted = snapshot(name="deploy-1", state="absent", check=True)
    done = snapshot(name="deploy-1", state="absent")
    same(done, predicted)
    assert names(site, "db-1") == ["deploy-2"]
    assert snapshot(name="deploy-1", state="absent")["changed"] is False


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"max_age_days": 7}, ["deploy-3", "deploy-4", "mine"]),
        ({"keep": 1}, ["deploy-4", "mine"]),
        ({"keep": 3, "max_age_days": 7}, ["deploy-2", "deploy-3", "deploy-4", "mine"]),
        ({"keep": 1, "max_age_days": 7}, ["deploy-3", "deploy-4", "mine"]),
        ({"keep": 0}, ["mine"]),
        ({"keep": 9}, ["deploy-1", "deploy-2", "deploy-3", "deploy-4", "mine"]),
        ({"keep": 1, "name": "deploy-5"}, ["deploy-5", "mine"]),
        ({"keep": 0, "name": "deploy-2"}, ["deploy-2", "mine"]),
        ({"max_age_days": 7, "name": "deploy-4", "state": "absent"}, ["deploy-3", "mine"]),
    ],
)
def test_old_ones_of_the_prefix_are_removed(
    site: Site, snapshot: Any, options: dict[str, Any], left: list[str]
) -> None:
    for name in ("deploy-1", "deploy-2", "mine", "deploy-3", "deploy-4"):
        snapshot("web-1", name=name)
    age(site, "web-1", {"deploy-1": 20, "deploy-2": 8, "mine": 30, "deploy-3": 6, "deploy-4": 0.1})
    predicted = snapshot("web-1", prefix="deploy-", check=True, **options)
    done = snapshot("web-1", prefix="deploy-", **options)
    same(done, predicted)
    assert sorted(names(site, "web-1")) == left
    assert sorted(done["guests"]["web-1"]["after"]["snapshots"]) == left
    assert snapshot("web-1", prefix="deploy-", **options)["changed"] is False


def test_memory_of_a_machine(site: Site, snapshot: Any) -> None:
    snapshot(name="warm", vmstate=True)
    assert site.server.guest("db-1").snapshots["warm"]["vmstate"] == 1
    assert "vmstate" not in site.server.guest("web-1").snapshots["warm"]


def test_storage_without_snapshots_is_told_before(site: Site, snapshot: Any) -> None:
    site.server.cluster.storages["files"] = Storage("files", "dir", ("images", "rootdir"))
    site.ok(record("web-2", networks=[], rootfs={"storage": "files", "size_gb": 4}))
    result = snapshot("web-1", "web-2", name="deploy-1")
    assert "web-2" in result["msg"]
    assert "storage without snapshots" in result["msg"]
    assert names(site, "web-1") == []


@pytest.mark.parametrize(
    ("guests", "text"),
    [
        (["web-1", "no-such"], "no-such: there is no such guest"),
        (["debian-12-cloud"], "2 guests are called so (9001 on pve1, 9002 on pve2)"),
        (["9001"], "9001: is a template, which has no snapshots"),
        (["web-1", "100", "web-1"], "web-1: listed twice"),
    ],
)
def test_guests_that_are_not_meant(site: Site, snapshot: Any, guests: list[str], text: str) -> None:
    assert text in snapshot(*guests, name="deploy-1")["msg"]
    assert site.server.count("POST", "/snapshot") == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "name is missing"),
        ({"name": "x"}, "name: 'x' must begin with a letter"),
        ({"name": "current"}, "name: 'current' must"),
        ({"name": "1.4.0"}, "name: '1.4.0' must"),
        ({"keep": 3}, "prefix is missing"),
        ({"name": "deploy-1", "keep": -1, "prefix": "d"}, "keep: -1 is below 0"),
        ({"state": "rollback"}, "which snapshot to go back to"),
        ({"state": "rollback", "name": "deploy-1", "keep": 1, "prefix": "d"}, "belong to state present"),
    ],
)
def test_arguments_that_make_no_sense(site: Site, snapshot: Any, options: dict[str, Any], text: str) -> None:
    before = len(site.server.requests)
    assert text in snapshot(**options)["msg"]
    assert len(site.server.requests) == before


# -- faults


@pytest.mark.parametrize(
    ("method", "path", "options", "action"),
    [
        ("POST", "/snapshot$", {"name": "deploy-2"}, "taken"),
        ("DELETE", "/snapshot/deploy-1$", {"name": "deploy-1", "state": "absent"}, "removed"),
        ("POST", "/rollback$", {"name": "deploy-1", "state": "rollback"}, "rolled_back"),
    ],
)
@pytest.mark.parametrize("fault", ["reply lost", "never arrived"])
def test_lost_request_is_looked_up_before_it_is_repeated(
    site: Site, snapshot: Any, method: str, path: str, options: dict[str, Any], action: str, fault: str
) -> None:
    snapshot(name="deploy-1")
    if fault == "reply lost":
        site.server.faults.drop_reply(method, path)
    else:
        site.server.faults.fail(method, path, 596, "Connection timed out")
    before = site.server.count(method, "/snapshot")
    result = snapshot("web-1", **options)
    assert not result.get("failed"), result["msg"]
    assert result["guests"]["web-1"]["actions"] == [action]
    # A request that was heard is not sent again.
    assert site.server.count(method, "/snapshot") - before == (1 if fault == "reply lost" else 2)


@pytest.mark.parametrize("guest", BOTH)
@pytest.mark.parametrize(
    ("options", "action"),
    [
        ({"name": "deploy-2"}, "taken"),
        ({"name": "deploy-1", "state": "absent"}, "removed"),
        ({"name": "deploy-1", "state": "rollback"}, "rolled_back"),
    ],
)
def test_lock_of_others_is_waited_for_and_never_skipped(
    site: Site, snapshot: Any, guest: str, options: dict[str, Any], action: str
) -> None:
    snapshot(name="deploy-1")
    vmid = site.server.guest(guest).vmid
    site.server.lock_guest(vmid, "backup")
    timer = threading.Timer(0.5, site.server.lock_guest, (vmid, ""))
    timer.start()
    result = snapshot(guest, **options)
    timer.join()
    assert not result.get("failed"), result["msg"]
    assert result["guests"][guest]["actions"] == [action]
    assert not any("skiplock" in entry.params for entry in site.server.requests)


@pytest.mark.skipif(not os.environ.get("TESTS_LONG"), reason="waits for a lock, 3 minutes; TESTS_LONG=1")
def test_lock_that_is_never_given_back_ends_the_wait(site: Site, snapshot: Any) -> None:
    site.server.lock_guest(site.server.guest("web-1").vmid, "backup")
    result = snapshot(name="deploy-1")
    assert result["msg"].startswith("1 of 2 failed:\n- web-1")
    assert "CT is locked (backup)" in result["msg"]
    assert names(site, "web-1") == []
    assert result["guests"]["db-1"]["actions"] == ["taken"]


def test_one_that_fails_does_not_stop_the_other(site: Site, snapshot: Any) -> None:
    site.server.faults.fail("POST", "/lxc/.*/snapshot$", 500, "out of space", times=9)
    result = snapshot(name="deploy-1")
    assert "1 of 2 failed" in result["msg"]
    assert "web-1" in result["msg"]
    assert names(site, "db-1") == ["deploy-1"]


def test_privilege_is_missed_before_anything_is_touched(site: Site, snapshot: Any) -> None:
    account = site.server.operator
    result = snapshot(
        name="deploy-1",
        api_user=account.user,
        api_token_id=account.token_id,
        api_token_secret=account.token_secret,
    )
    assert "lacks VM.Snapshot" in result["msg"]
    assert site.server.count("POST", "/snapshot") == 0


def test_a_rollback_of_former_days_is_not_that_of_this_run(site: Site, snapshot: Any) -> None:
    """The guest moves while it is asked for, to a node whose list of tasks tells of another one."""
    snapshot("web-1", name="before")
    first = site.server.guest("web-1").node
    second = {"pve1": "pve2", "pve2": "pve1"}[first]
    snapshot("web-1", name="before", state="rollback")
    site.server.move("web-1", second)

    def rollbacks() -> int:
        return sum(task.fields["type"] == "vzrollback" for task in site.server.cluster.tasks.all())

    before, asked = rollbacks(), len(site.server.requests)
    snapshot("web-1", name="before", state="rollback", check=True)
    site.server.faults.after(len(site.server.requests) - asked, lambda: site.server.move("web-1", first))
    result = snapshot("web-1", name="before", state="rollback")
    assert not result.get("failed"), result["msg"]
    assert result["changed"]
    assert rollbacks() == before + 1
