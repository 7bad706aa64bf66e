# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A server that keeps values in another form, or somebody who takes changes back: nothing is asked for without end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import (
    proxmox_backup_job,
    proxmox_firewall,
    proxmox_guests,
    proxmox_pool,
    proxmox_snapshot,
    proxmox_template,
    proxmox_version,
)

import lab.testing

from .conftest import Site, record

#: All texts that anybody writes here.
KEYS = "comment|description|notes-template|tags|name|hostname|schedule|dport"


@dataclass(frozen=True)
class Case:
    module: Any
    arguments: dict[str, Any]
    #: The same object with other values, which is there before; empty: nothing is.
    before: dict[str, Any] = field(default_factory=dict)
    #: What the message says besides.
    told: str = "the server took every change, but reads back"


def rules(port: str) -> dict[str, Any]:
    rule = {"comment": "metrics", "proto": "tcp", "ports": [port]}
    return {"guests": [{"name": "one", "rules": [rule]}]}


def job(**changes: Any) -> dict[str, Any]:
    base = {"id": "nightly", "schedule": "03:00", "storage": "local", "all": True}
    return {"jobs": [{**base, **changes}]}


MACHINE = {
    "name": "base",
    "kind": "vm",
    "nodes": ["pve1"],
    "storage": "local-lvm",
    "image": "local:import/i.qcow2",
}
CASES = {
    "pool": Case(
        proxmox_pool,
        {"pools": [{"name": "p", "comment": "new"}]},
        {"pools": [{"name": "p", "comment": "old"}]},
    ),
    "new pool": Case(proxmox_pool, {"pools": [{"name": "p", "comment": "new"}]}),
    "backup job": Case(proxmox_backup_job, job(comment="new"), job(comment="old")),
    "notes of a backup job": Case(proxmox_backup_job, job(notes_template="new"), job(notes_template="old")),
    "new backup job": Case(proxmox_backup_job, job(comment="new")),
    "firewall": Case(proxmox_firewall, rules("9100"), rules("9101")),
    "new rules": Case(proxmox_firewall, rules("9100")),
    "snapshot": Case(
        proxmox_snapshot,
        {"guests": ["one"], "name": "s1", "description": "new"},
        {"guests": ["one"], "name": "s1", "description": "old"},
    ),
    "new snapshot": Case(proxmox_snapshot, {"guests": ["one"], "name": "s1", "description": "new"}),
    "template": Case(proxmox_template, {"templates": [MACHINE]}),
    "version": Case(proxmox_version, {"guests": ["one"], "version": "1.4.0"}),
    "guest": Case(proxmox_guests, {"guests": [record("one", tags=["more"], description="new", vmid=100)]}),
    "new guest": Case(proxmox_guests, {"guests": [record("two", networks=[])]}),
}


@pytest.fixture
def there(tmp_path: Any) -> Iterator[Site]:
    with lab.testing.server(nodes=("pve1",)) as server:
        site = Site(server)
        site.ok(record("one", vmid=100))
        image = tmp_path / "i.qcow2"
        # An empty disk image: magic, version, and its virtual size where the format has it.
        image.write_bytes(
            b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (1 << 30).to_bytes(8, "big") + bytes(480)
        )
        file = {"name": "i.qcow2", "kind": "import", "src": str(image)}
        made = site.module(proxmox_template, templates=[file])
        assert not made.get("failed"), made
        yield site


@pytest.mark.parametrize("name", CASES)
def test_nobody_asks_for_what_is_not_kept_without_end(there: Site, name: str) -> None:
    case = CASES[name]
    if case.before:
        made = there.module(case.module, **case.before)
        assert not made.get("failed"), made["msg"]
    there.server.cluster.switch("normalise", {"keys": KEYS}, True)
    writes, began = there.writes(), time.monotonic()
    result = there.module(case.module, **case.arguments)
    seconds = time.monotonic() - began
    assert result.get("failed"), result
    assert case.told in result["msg"], result["msg"]
    assert seconds < 15
    assert there.writes() - writes <= 8
    # Seen again when the server keeps it: the next run ends it.
    there.server.cluster.switch("normalise", {}, False)


def test_somebody_who_takes_every_change_back_is_told_of(there: Site) -> None:
    """Another program, or a person, with an opinion of their own."""
    there.module(proxmox_pool, pools=[{"name": "p", "comment": "theirs"}])
    faults, pool = there.server.faults, there.server.cluster.pools["p"]

    def insist() -> None:
        pool.comment = "theirs"
        faults.after(1, insist)

    faults.after(1, insist)
    began = time.monotonic()
    result = there.module(proxmox_pool, pools=[{"name": "p", "comment": "ours"}])
    assert time.monotonic() - began < 15
    assert "find out who changes it back" in result["msg"]


def test_blanks_at_the_end_of_a_value_are_no_difference(there: Site) -> None:
    wanted = job(comment="nightly copy  ", notes_template=" {{guestname}} ")
    made = there.module(proxmox_backup_job, **wanted)
    assert made["jobs"]["nightly"]["actions"] == ["created"]
    assert there.module(proxmox_backup_job, **wanted)["changed"] is False


def test_a_template_of_notes_is_changed_alone(there: Site) -> None:
    there.module(proxmox_backup_job, **job())
    changed = there.module(proxmox_backup_job, **job(notes_template="{{guestname}}"))
    assert not changed.get("failed"), changed
    assert changed["jobs"]["nightly"]["actions"] == ["configured"]
    # Also by a record that does not name the storage.
    again = {"jobs": [{"id": "nightly", "notes_template": "{{node}}"}]}
    assert there.module(proxmox_backup_job, **again)["jobs"]["nightly"]["actions"] == ["configured"]
    assert there.module(proxmox_backup_job, **again)["changed"] is False


@pytest.mark.parametrize("key", ["comment", "notes_template"])
def test_lines_of_a_job_are_refused_before_anything_is_written(there: Site, key: str) -> None:
    writes = there.writes()
    result = there.module(proxmox_backup_job, **job(**{key: "one\ntwo"}))
    assert f"nightly: {key}: 'one\\ntwo' must be one line" in result["msg"]
    assert there.writes() == writes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"comment": "one\ntwo"}, "rules[0].comment: 'one\\ntwo' must be one line"),
        ({"proto": "tpc", "ports": []}, "rules[0].proto: 'tpc' is no protocol"),
        ({"proto": "300", "ports": []}, "rules[0].proto: '300' is no protocol"),
    ],
)
def test_rules_that_the_server_refuses_are_found_before(
    there: Site, change: dict[str, Any], told: str
) -> None:
    good = {"comment": "ssh", "proto": "tcp", "ports": ["22"]}
    guests = [{"name": "one", "rules": [{**good, **change}]}]
    writes = there.writes()
    assert told in there.module(proxmox_firewall, guests=guests)["msg"]
    assert there.writes() == writes


def test_protocols_in_capitals_are_what_they_mean(there: Site) -> None:
    guests = [{"name": "one", "rules": [{"comment": "ssh", "proto": "TCP", "ports": ["22"]}]}]
    made = there.module(proxmox_firewall, guests=guests)
    assert not made.get("failed"), made
    assert there.module(proxmox_firewall, guests=guests)["changed"] is False


def test_rules_are_changed_moved_and_withdrawn(there: Site) -> None:
    def wall(*ports: str) -> dict[str, Any]:
        listed = [{"comment": f"port {port}", "proto": "tcp", "ports": [port]} for port in ports]
        result = there.module(proxmox_firewall, guests=[{"name": "one", "rules": listed}])
        assert not result.get("failed"), result["msg"]
        return result

    wall("22", "80", "443")
    for ports in (("22", "443"), ("443", "22"), ("443", "8022"), ()):
        assert wall(*ports)["changed"] is True
        assert wall(*ports)["changed"] is False
        stored = there.api("GET", f"{there.place('one')}/firewall/rules")
        assert [rule["dport"] for rule in stored] == list(ports)
