# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people read on the terminal, from results of the real modules."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._proxmox import story
from ansible_collections.luxima.observability.plugins.modules import (
    proxmox_firewall,
    proxmox_pool,
    proxmox_snapshot,
)

from .conftest import KINDS, Site, guest, record

kinds = pytest.mark.parametrize("kind", KINDS)


def told(result: dict[str, Any], check: bool = False) -> list[str]:
    return story.lines("proxmox_guests", result, check)


@kinds
def test_the_life_of_a_guest_is_told(both: Site, kind: str) -> None:
    made = "created, started" if kind == "lxc" else "cloned, configured, grown, started"
    place = "guest one (100 on pve1)"
    assert told(both.run(guest(kind), check=True), check=True) == [
        f"{place} (check): {made}: it was not there"
    ]
    assert told(both.ok(guest(kind))) == [f"{place}: {made}: it was not there"]
    assert told(both.ok(guest(kind))) == []
    changed = guest(kind, cores=4, tags=["dev", "luxima", "more"])
    cores = 1 if kind == "lxc" else 2
    lines = told(both.ok(changed))
    assert lines[0] == f"{place}: configured: cores {cores} -> 4; tags + more"
    if kind == "vm":
        assert lines[1:] == [f"{place}: waits for a reboot: cores (with reboot: if_needed a run does it)"]
        # Told by every run until it has happened.
        assert told(both.ok(changed)) == lines[1:]
    assert told(both.ok(guest(kind, state="absent"))) == [
        f"{place}: stopped, destroyed: its record says absent"
    ]


def test_why_nothing_was_done_is_told_in_lines(both: Site) -> None:
    refused = both.run(record("one", template="local:vztmpl/none.tar.zst"))
    assert told(refused) == []
    assert story.refusals(refused)[0].startswith("nothing was changed, because this is missing")
    assert story.refusals(refused)[1].startswith("- template 'local:vztmpl/none.tar.zst' is not on node")


def test_companions_are_told(both: Site) -> None:
    both.ok(record("one"))
    pool = both.module(proxmox_pool, pools=[{"name": "p", "comment": "c"}])
    assert story.lines("proxmox_pool", pool) == ["pool p: created: it was not there"]
    pool = both.module(proxmox_pool, pools=[{"name": "p", "comment": "d"}])
    assert story.lines("proxmox_pool", pool) == ["pool p: configured: comment c -> d"]
    pool = both.module(proxmox_pool, pools=[{"name": "p", "state": "absent"}])
    assert story.lines("proxmox_pool", pool) == ["pool p: removed: its record says absent"]
    rules = [{"comment": "ssh", "proto": "tcp", "ports": ["22"]}]
    walled = both.module(proxmox_firewall, guests=[{"name": "one", "enabled": False, "rules": rules}])
    assert story.lines("proxmox_firewall", walled) == [
        "firewall of one: rules added: rules + in ACCEPT tcp port 22 # ansible: ssh"
    ]
    taken = both.module(proxmox_snapshot, guests=["one"], name="before")
    assert story.lines("proxmox_snapshot", taken) == ["snapshots of one: taken: snapshots + before"]


def test_long_stories_are_cut() -> None:
    before = {f"k{number}": "x" * 100 for number in range(9)}
    after = dict.fromkeys(before, "y" * 100)
    result = {"guests": {"one": {"actions": ["configured"], "before": before, "after": after}}}
    (line,) = told(result)
    assert line.endswith("; 5 more")
    assert len(line) < 600
