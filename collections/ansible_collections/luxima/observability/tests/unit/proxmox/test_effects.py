# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""When a change of a running guest holds: one table, every row carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import Site, comparable, guest, on_a_hypervisor, outcome, side_by_side


@dataclass(frozen=True)
class Row:
    """A change of a running guest. ``later``: the keys that wait for a reboot; none, when all of it holds at once."""

    kind: str
    change: dict[str, Any]
    later: frozenset[str] = frozenset()
    action: str = "configured"

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.change)}" + (" later" if self.later else "")


def row(kinds: str, change: dict[str, Any], *later: str, action: str = "configured") -> list[Row]:
    return [Row(kind, change, frozenset(later), action) for kind in kinds.split()]


def nic(**values: Any) -> dict[str, Any]:
    return {"networks": [{"bridge": "vmbr0", "address": "10.0.0.31/24", "gateway": "10.0.0.1", **values}]}


def disk(slot: str, size: float, path: str = "") -> dict[str, Any]:
    record = {"slot": slot, "storage": "local-lvm", "size_gb": size}
    return {"disks": [{**record, "path": path} if path else record]}


ROWS = [
    *row("lxc vm", {"description": "notes"}),
    *row("lxc vm", {"tags": ["dev"]}),
    *row("lxc vm", {"onboot": False}),
    *row("lxc vm", {"startup": "order=2,up=30"}),
    *row("lxc vm", {"protection": True}),
    *row("lxc vm", nic(vlan=9)),
    *row("lxc vm", nic(firewall=True)),
    *row("lxc vm", nic(mac="BC:24:11:AA:00:01")),
    *row("lxc vm", {"networks": [*nic()["networks"], {"bridge": "vmbr0"}]}),
    *row("lxc vm", {"rootfs": {"storage": "local-lvm", "size_gb": 12}}, action="grown"),
    *row("lxc", disk("mp3", 1, "/srv")),
    *row("vm", disk("scsi3", 1)),
    *row("lxc", disk("mp0", 2, "/data"), action="grown"),
    *row("vm", disk("scsi1", 2), action="grown"),
    *row("lxc", {"cores": 3}),
    *row("lxc", {"memory_mb": 512}),
    *row("lxc", {"swap_mb": 64}),
    *row("lxc", nic(address="10.0.0.32/24")),
    *row("lxc", nic(address="dhcp", gateway="")),
    *row("lxc", nic(address6="fd00::31/64", gateway6="fd00::1")),
    *row("vm", {"cores": 3}, "cores"),
    *row("vm", {"memory_mb": 4096}, "memory"),
    *row("vm", nic(address="10.0.0.32/24"), "ipconfig0"),
    *row("vm", nic(address="dhcp", gateway=""), "ipconfig0"),
    *row("vm", nic(address6="fd00::31/64", gateway6="fd00::1"), "ipconfig0"),
    *row("lxc vm", {"nameservers": ["9.9.9.9"]}, "nameserver"),
    *row("lxc vm", {"nameservers": []}, "nameserver"),
    *row("lxc vm", {"searchdomain": "example.org"}, "searchdomain"),
    *row("lxc", {"features": {"nesting": True}}, "features"),
    *row("lxc", disk("mp0", 1, "/elsewhere"), "mp0"),
    # Grown first: the line that waits tells the new size, and the volume has it.
    *row("lxc", disk("mp0", 3, "/elsewhere"), "mp0", action="grown configured"),
    *row("vm", {"memory_mb": 4096, "tags": ["dev"], "cores": 1}, "memory", "cores"),
]


def foretold(result: dict[str, Any], row: Row) -> dict[str, Any]:
    told = comparable(result)
    if "dhcp" in str(row.change):
        # Nobody knows an address before it was given.
        del told["guests"]["one"]["addresses"]
    return told


@on_a_hypervisor
def effect(both: Site, number: int) -> None:
    row = ROWS[number]
    existing = disk("mp0", 1, "/data") if row.kind == "lxc" else disk("scsi1", 1)
    first = guest(row.kind, **nic(), **existing)
    both.ok(first)
    wanted = {**first, **row.change}
    predicted = both.ok(wanted, check=True)
    done = both.ok(wanted)
    assert foretold(done, row) == foretold(predicted, row)
    assert outcome(done)["actions"] == row.action.split()
    assert outcome(done)["needs_reboot"] is bool(row.later)
    assert both.pending("one") == row.later
    assert both.power("one") == "running"
    again = both.ok(wanted)
    assert again["changed"] is False, again["diff"]
    assert outcome(again)["needs_reboot"] is bool(row.later)
    # Allowed to reboot, it ends what waits; where nothing waits, it leaves the guest alone.
    predicted = both.ok(wanted, check=True, reboot="if_needed")
    allowed = both.ok(wanted, reboot="if_needed")
    assert foretold(allowed, row) == foretold(predicted, row)
    assert outcome(allowed)["actions"] == (["rebooted"] if row.later else [])
    assert both.pending("one") == set()
    assert outcome(allowed)["needs_reboot"] is False
    assert both.ok(wanted, reboot="if_needed")["changed"] is False


@pytest.fixture(scope="module")
def results() -> dict[int, str]:
    return side_by_side(effect, range(len(ROWS)))


@pytest.mark.parametrize("number", range(len(ROWS)), ids=lambda number: str(ROWS[number]))
def test_change_holds_at_once_or_waits_for_a_reboot(results: dict[int, str], number: int) -> None:
    assert results[number] == "", results[number]


@pytest.mark.parametrize("kind", ["lxc", "vm"])
def test_change_and_reboot_in_one_run(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    wanted = guest(kind, nameservers=["9.9.9.9"])
    predicted = both.ok(wanted, check=True, reboot="if_needed")
    done = both.ok(wanted, reboot="if_needed")
    assert comparable(done) == comparable(predicted)
    assert outcome(done)["actions"] == ["configured", "rebooted"]
    assert both.pending("one") == set()


@pytest.mark.parametrize("kind", ["lxc", "vm"])
def test_name_holds_at_once(both: Site, kind: str) -> None:
    both.ok(guest(kind, vmid=500))
    wanted = guest(kind, "two", vmid=500)
    predicted = both.ok(wanted, check=True)
    done = both.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done, "two")["actions"] == ["configured"]
    assert both.server.guest("two").vmid == 500
    assert both.pending("two") == set()


@pytest.mark.parametrize("kind", ["lxc", "vm"])
def test_stopped_guest_has_nothing_that_waits(both: Site, kind: str) -> None:
    both.ok(guest(kind, state="stopped"))
    wanted = guest(kind, state="stopped", nameservers=["9.9.9.9"], cores=4, memory_mb=512)
    predicted = both.ok(wanted, check=True)
    done = both.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert outcome(done)["needs_reboot"] is False
    assert both.pending("one") == set()
    assert both.power("one") == "stopped"


@pytest.mark.parametrize("kind", ["lxc", "vm"])
def test_waiting_value_of_others_that_equals_ours_is_no_change(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.edit("one", nameserver="9.9.9.9")
    wanted = guest(kind, nameservers=["9.9.9.9"])
    again = both.ok(wanted)
    assert again["changed"] is False
    assert outcome(again)["needs_reboot"] is True
    both.edit("one", revert="nameserver")
    assert outcome(both.ok(guest(kind)))["needs_reboot"] is False


@pytest.mark.parametrize("kind", ["lxc", "vm"])
def test_what_others_wait_for_is_told_and_not_rebooted_for(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.edit("one", **({"cmode": "shell"} if kind == "lxc" else {"cpu": "host"}))
    again = both.ok(guest(kind), reboot="if_needed")
    assert again["changed"] is False
    assert outcome(again)["needs_reboot"] is True


def test_unprivileged_never_changes(both: Site) -> None:
    both.ok(guest("lxc"))
    before = both.config("one")
    message = both.fails(guest("lxc", unprivileged=False))
    assert "unprivileged is True and the record says False" in message
    assert both.config("one") == before
