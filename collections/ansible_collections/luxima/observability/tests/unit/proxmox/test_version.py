# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Templates per deployed version, of both kinds of guests, over the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_version

import lab.testing

from .conftest import Site, record
from .test_machines import machine
from .test_snapshot import running, same

BOTH = ["web-1", "db-1"]
ALL = ["snapshot_taken", "cloned", "configured", "templated", "snapshot_removed"]


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        result = Site(server)
        result.ok(record("web-1", protection=True), machine("db-1"))
        yield result


@pytest.fixture
def version(site: Site) -> Any:
    def run(*guests: str, check: bool = False, **options: Any) -> dict[str, Any]:
        return site.module(proxmox_version, check, guests=list(guests or BOTH), **options)

    return run


def templates(site: Site) -> list[str]:
    return sorted(
        guest.name
        for guest in site.server.cluster.guests.values()
        if guest.config.get("template") and guest.vmid < 9000
    )


def older(site: Site, name: str, days: float) -> None:
    guest = site.server.guest(name)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * 86400))
    head = guest.config["description"].rpartition(" ")[0]
    guest.config["description"] = f"{head} {moment}\n"


def test_made_once_while_the_guests_run(site: Site, version: Any) -> None:
    predicted = version(version="1.4.0", check=True)
    assert templates(site) == []
    first = version(version="1.4.0")
    same(first, predicted)
    assert first["guests"]["web-1"]["actions"] == ALL
    assert first["guests"]["db-1"]["after"] == {"versions": ["1.4.0"]}
    assert templates(site) == ["db-1-1.4.0", "web-1-1.4.0"]
    copy = site.config("web-1-1.4.0")
    assert set(copy["tags"].split(";")) == {"deployed-version", "dev", "luxima"}
    assert (copy["onboot"], copy["protection"]) == (0, 0)
    assert copy["description"].startswith("deployed version 1.4.0 of web-1 (")
    assert all(running(site, name) and not site.server.guest(name).snapshots for name in BOTH)
    before = len(site.server.requests)
    second = version(version="1.4.0")
    assert (second["changed"], second["diff"]) == (False, [])
    assert {entry.method for entry in site.server.requests[before:]} == {"GET"}


@pytest.mark.parametrize("name", BOTH)
def test_lock_of_others_is_waited_for(site: Site, version: Any, name: str) -> None:
    vmid = site.server.guest(name).vmid
    site.server.lock_guest(vmid, "backup")
    timer = threading.Timer(0.5, site.server.lock_guest, (vmid, ""))
    timer.start()
    result = version(name, version="1.4.0")
    timer.join()
    assert not result.get("failed"), result["msg"]
    assert result["guests"][name]["actions"] == ALL
    assert templates(site) == [f"{name}-1.4.0"]


def test_a_guest_is_made_of_its_version(site: Site, version: Any) -> None:
    version(version="1.4.0")
    site.ok(record("web-1", protection=False, state="absent"))
    again = site.ok(record("web-1", clone_of="web-1-1.4.0", description="back"))
    assert again["guests"]["web-1"]["actions"] == ["cloned", "configured", "started"]
    assert site.config("web-1")["tags"] == "dev;luxima"


@pytest.mark.parametrize(
    ("ages", "options", "left"),
    [
        ({"1": 9, "2": 8, "3": 1}, {"version": "4", "max_age_days": 7}, ["3", "4"]),
        ({"1": 9, "2": 8, "3": 1}, {"max_age_days": 7}, ["3"]),
        ({"1": 9, "2": 8, "3": 7.5}, {"max_age_days": 7}, ["3"]),
        ({"1": 9, "2": 8, "3": 7.5}, {"max_age_days": 7, "keep": 0}, []),
        ({"1": 9, "2": 8, "3": 1}, {"max_age_days": 7, "keep": 2}, ["2", "3"]),
        ({"1": 9, "2": 8, "3": 1}, {"version": "3"}, ["1", "2", "3"]),
        ({"1": 9, "2": 8, "3": 1}, {"version": "1", "max_age_days": 7}, ["1", "3"]),
        ({"1": 9, "2": 8, "3": 1}, {"version": "2", "state": "absent"}, ["1", "3"]),
    ],
)
def test_old_ones_are_removed(
    site: Site, version: Any, ages: dict[str, float], options: dict[str, Any], left: list[str]
) -> None:
    for name, days in ages.items():
        version("db-1", version=name)
        older(site, f"db-1-{name}", days)
    predicted = version("db-1", check=True, **options)
    done = version("db-1", **options)
    same(done, predicted)
    assert templates(site) == [f"db-1-{name}" for name in left]
    assert version("db-1", **options)["changed"] is False


def test_templates_of_others_are_never_removed(site: Site, version: Any) -> None:
    site.ok(record("web-1-old", networks=[], description="mine", state="template"))
    site.ok(record("web-1-2", networks=[]))
    version("web-1-2", version="1")
    older(site, "web-1-2-1", 30)
    assert version("web-1", max_age_days=7, keep=0)["changed"] is False
    message = version("web-1", version="old")["msg"]
    assert "is called web-1-old and is none of its versions: rename or remove it" in message
    assert templates(site) == ["web-1-2-1", "web-1-old"]


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("name", BOTH)
def test_a_run_that_ended_in_between_is_finished(site: Site, version: Any, name: str, cut: int) -> None:
    method, path = [
        ("POST", "/clone$"),
        ("PUT", "/config$"),
        ("POST", "/template$"),
        ("DELETE", "/snapshot/"),
    ][cut - 1]
    site.server.faults.fail(method, path, 500, "the end", times=1)
    assert "the end" in version(name, version="1")["msg"]
    done = version(name, version="1")
    assert done["guests"][name]["actions"] == ALL[cut:]
    assert templates(site) == [f"{name}-1"]
    assert site.server.guest(name).snapshots == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/clone$"), ("PUT", "/config$"), ("POST", "/template$"), ("DELETE", "/snapshot/")],
)
def test_lost_reply_makes_nothing_twice(site: Site, version: Any, method: str, path: str) -> None:
    site.server.faults.drop_reply(method, path, times=2)
    result = version(version="1")
    assert not result.get("failed"), result["msg"]
    assert templates(site) == ["db-1-1", "web-1-1"]
    assert len(site.server.cluster.guests) == 2 + 2 + 2


def test_version_that_is_no_name(site: Site, version: Any) -> None:
    assert "version: '1.4+5' cannot be part of a host name" in version(version="1.4+5")["msg"]
    assert "version is missing" in version()["msg"]


def test_right_to_make_one_is_missed_before(site: Site, version: Any) -> None:
    account = site.server.operator
    result = version(
        version="1",
        api_user=account.user,
        api_token_id=account.token_id,
        api_token_secret=account.token_secret,
    )
    for text in ("VM.Snapshot", "VM.Clone", "VM.Allocate", "Datastore.AllocateSpace on /storage/local-lvm"):
        assert text in result["msg"]
    assert site.server.count("POST", "/snapshot") == 0


def test_an_id_that_was_given_away_again_brings_no_versions_with_it(site: Site, version: Any) -> None:
    """Those of web-1 are none of web, although their names begin alike."""
    version("web-1", version="1.4.0")
    older(site, "web-1-1.4.0", 30)
    vmid = site.server.guest("web-1").vmid
    site.ok(record("web-1", state="absent", protection=False))
    nic = {"networks": [{"bridge": "vmbr0", "address": "10.0.0.99/24"}]}
    site.ok(record("web", vmid=vmid, **nic))
    result = version("web", version="1.5.0", keep=0, max_age_days=1)
    assert result["guests"]["web"]["after"] == {"versions": ["1.5.0"]}
    assert templates(site) == ["web-1-1.4.0", "web-1.5.0"]


def test_a_guest_that_moves_while_it_is_asked_for_is_followed(site: Site, version: Any) -> None:
    for number in range(1, 40):
        there = len(site.server.requests)
        site.server.move("web-1", {"pve1": "pve2", "pve2": "pve1"}[site.server.guest("web-1").node])
        version("web-1", version=f"1.{number}", check=True)
        asked = len(site.server.requests) - there
        if number > asked:
            return
        target = {"pve1": "pve2", "pve2": "pve1"}[site.server.guest("web-1").node]
        site.server.faults.after(number, lambda target=target: site.server.move("web-1", target))
        result = version("web-1", version=f"1.{number}", check=True)
        assert not result.get("failed"), f"moved after request {number}: {result['msg']}"
    raise AssertionError("the run has more requests than this test knows")
