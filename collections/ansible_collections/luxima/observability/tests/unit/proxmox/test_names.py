# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Which guest is meant, while names are late or stale, nodes are down and guests move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import (
    proxmox_backup_job,
    proxmox_firewall,
    proxmox_guests,
    proxmox_snapshot,
    proxmox_template,
)

import lab.testing

from .conftest import KINDS, OPERATIONS, Operation, Site, guest, outcome, record, small

kinds = pytest.mark.parametrize("kind", KINDS)
NODES = ("pve1", "pve2", "pve3")


def nic(number: int) -> dict[str, Any]:
    return {"networks": [{"bridge": "vmbr0", "address": f"10.0.0.{number}/24"}]}


@pytest.fixture
def three() -> Iterator[Site]:
    """Three nodes with a VM template each, and a guest of ours on each: one, two, three."""
    with lab.testing.server(nodes=NODES, vm_templates=True) as server:
        yield Site(server)


def environment(kind: str) -> list[dict[str, Any]]:
    return [
        guest(kind, name, node=node, **nic(number))
        for number, (name, node) in enumerate(zip(("one", "two", "three"), NODES), 11)
    ]


# -- names that were not told yet, or are not right any more


@kinds
def test_again_right_after_creation_nothing_is_made_twice(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    again = both.ok(guest(kind))
    assert again["changed"] is False
    assert both.names() == ["one"]


@kinds
def test_absent_right_after_creation_destroys(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    assert outcome(both.ok(guest(kind, state="absent")))["actions"] == ["stopped", "destroyed"]
    assert both.names() == []


def test_companions_right_after_creation_find_the_guest(both: Site) -> None:
    both.ok(record("one", state="stopped"))
    taken = both.module(proxmox_snapshot, guests=["one"], name="before")
    assert taken["guests"]["one"]["actions"] == ["taken"], taken
    rules = [{"comment": "ssh", "proto": "tcp", "ports": ["22"]}]
    walled = both.module(proxmox_firewall, guests=[{"name": "one", "rules": rules}])
    assert walled["guests"]["one"]["actions"] == ["rules added", "configured"], walled
    job = {"id": "nightly", "schedule": "03:00", "storage": "local", "guests": ["one"]}
    saved = both.module(proxmox_backup_job, jobs=[job])
    assert saved["jobs"]["nightly"]["actions"] == ["created"], saved
    both.module(proxmox_snapshot, guests=["one"], name="before", state="absent")
    both.ok(record("one", state="template"))
    assert outcome(both.ok(small("lxc", "copy", clone_of="one")))["actions"] == ["cloned"]


@kinds
def test_a_guest_that_was_renamed_has_its_new_name_at_once(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.server.broadcast()
    both.api("PUT", f"{both.place('one')}/config", **{"hostname" if kind == "lxc" else "name": "other"})
    assert both.ok(guest(kind, "other"))["changed"] is False
    # The old name is free.
    assert outcome(both.ok(guest(kind, "one", **nic(99))), "one")["vmid"] == 101
    assert both.names() == ["one", "other"]


@kinds
def test_an_id_that_was_given_away_again_is_not_taken_for_the_former_guest(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.server.broadcast()
    both.ok(guest(kind, state="absent"))
    both.ok(guest(kind, "other"))
    assert both.server.guest("other").vmid == 100
    assert both.ok(guest(kind, state="absent"))["changed"] is False
    assert both.names() == ["other"]


# -- nodes that are down


@kinds
@pytest.mark.parametrize("silent", [0, 400], ids=["names still told", "names forgotten"])
def test_guests_of_other_nodes_converge_and_nothing_is_made_twice(
    three: Site, kind: str, silent: int
) -> None:
    records = environment(kind)
    three.ok(*records)
    three.server.broadcast()
    three.server.kill("pve3", silent=silent)
    before = sorted(three.server.cluster.guests)
    changed = [{**entry, "tags": ["dev", "luxima", "more"], "nameservers": ["9.9.9.9"]} for entry in records]
    result = three.run(*changed)
    assert result["failed"]
    lines = result["msg"].splitlines()
    assert lines[0] == "1 of 3 guests failed:"
    assert len(lines) == 2, lines
    assert "pve3 does not answer (595" in lines[1]
    assert "three" in lines[1]
    assert "until that node is back" in lines[1] or "when that node is back" in lines[1]
    assert [outcome(result, name)["actions"] for name in ("one", "two", "three")] == [
        ["configured"],
        ["configured"],
        [],
    ]
    assert "pve3 does not answer" in outcome(result, "three")["error"]
    assert sorted(three.server.cluster.guests) == before
    three.server.revive("pve3")
    assert outcome(three.ok(*changed), "three")["actions"] == ["configured"]
    assert three.ok(*changed)["changed"] is False


@kinds
def test_absent_on_a_node_that_is_down_is_not_called_done(three: Site, kind: str) -> None:
    three.ok(*environment(kind))
    three.server.kill("pve3", silent=400)
    gone = [{**entry, "state": "absent"} for entry in environment(kind)]
    message = three.fails(*gone)
    assert "nothing is made or destroyed under this name" in message
    assert three.names() == ["three"]


@kinds
def test_new_guests_are_made_where_nodes_live(three: Site, kind: str) -> None:
    three.ok(guest(kind, "theirs", node="pve3", tags=["theirs"], **nic(50)))
    three.server.broadcast()
    three.server.kill("pve3", silent=400)
    new = [guest(kind, f"n-{n}", node=f"pve{n}", **nic(n)) for n in (1, 2)]
    result = three.ok(*new)
    assert {outcome(result, f"n-{n}")["node"] for n in (1, 2)} == {"pve1", "pve2"}
    # Without a node nothing tells them apart for sure.
    message = three.fails(*new, guest(kind, "n-3", **nic(3)))
    assert "1 of 3 guests failed" in message
    assert "or node to where it is to be made" in message


@kinds
def test_edited_tags_do_not_make_a_guest_twice(three: Site, kind: str) -> None:
    three.ok(*environment(kind))
    three.server.kill("pve3", silent=400)
    before = sorted(three.server.cluster.guests)
    for changes in ({"tags": ["quite", "other"]}, {"tags": ["quite", "other"], "node": ""}):
        three.fails(guest(kind, "three", **{"node": "pve3", **nic(13), **changes}))
        assert sorted(three.server.cluster.guests) == before


def test_guests_of_the_other_kind_are_told_apart(three: Site) -> None:
    """There is a VM template on every node."""
    three.server.kill("pve3", silent=400)
    assert outcome(three.ok(record("new")))["node"] in ("pve1", "pve2")


@kinds
def test_a_record_for_a_node_that_is_down_keeps_no_other_from_being_made(three: Site, kind: str) -> None:
    three.server.kill("pve2")
    result = three.run(*environment(kind))
    lines = result["msg"].splitlines()
    assert lines[0] == "1 of 3 guests failed:"
    assert lines[1].count("two") == 1
    assert "pve2 does not answer" in lines[1]
    assert "cannot be made until that node is back" in lines[1]
    assert three.names() == ["one", "three"]


def test_several_guests_of_one_node_are_told_in_one_line(three: Site) -> None:
    records = [record(f"n-{n}", node="pve2", **nic(n)) for n in (1, 2, 3)]
    three.ok(*records)
    three.server.broadcast()
    three.server.kill("pve2")
    lines = three.fails(*records).splitlines()
    assert lines[0] == "3 of 3 guests failed:"
    assert len(lines) == 2
    assert all(f"container n-{n}" in lines[1] for n in (1, 2, 3))


def test_a_template_that_is_on_a_dead_node_only_is_named(three: Site) -> None:
    for vmid in (9001, 9002):
        three.server.cluster.remove(three.server.cluster.guests[vmid])
    three.server.broadcast()
    three.server.kill("pve3")
    message = three.fails(guest("vm"), record("two", **nic(30)))
    assert "1 of 2 guests failed" in message
    assert "debian-12-cloud (9003) is there only" in message
    assert three.names() == ["two"]
    three.server.cluster.statd.skip(400)
    message = three.fails(guest("vm", "five", node="pve1"), record("six", **nic(31)))
    assert "there is no VM 'debian-12-cloud' to clone" in message
    assert "whether debian-12-cloud is one of 9003 on pve3 is not known" in message


def test_an_id_in_the_record_is_the_way_out(three: Site) -> None:
    three.ok(record("theirs", node="pve3"))
    three.server.kill("pve3", silent=400)
    assert "set vmid in the record" in three.fails(record("new", **nic(60)))
    assert outcome(three.ok(record("new", vmid=500, **nic(60))))["vmid"] == 500


def test_companions_serve_guests_of_living_nodes(three: Site) -> None:
    three.ok(*environment("lxc"))
    three.server.broadcast()
    three.server.kill("pve3")
    taken = three.module(proxmox_snapshot, guests=["one", "three"], name="before")
    assert taken["failed"]
    assert taken["guests"]["one"]["actions"] == ["taken"]
    assert "three" in taken["msg"]
    assert "595" in taken["msg"]
    three.server.cluster.statd.skip(400)
    unknown = three.module(proxmox_snapshot, guests=["three"], name="before")
    assert "whether three is one of" in unknown["msg"]
    image = {"name": "t.tar.zst", "kind": "vztmpl", "state": "absent"}
    assert three.module(proxmox_template, templates=[image])["changed"] is False


@kinds
def test_tags_that_keep_their_capitals_are_the_same(three: Site, kind: str) -> None:
    """Where the datacenter tells them apart, or somebody wrote the file."""
    three.ok(guest(kind, "three", node="pve3", tags=["luxima"], **nic(13)))
    three.store("three", {"tags": "Luxima"})
    three.server.kill("pve3", silent=400)
    message = three.fails(guest(kind, "three", node="pve1", tags=["Luxima"], **nic(13)))
    assert "nothing is made or destroyed under this name" in message
    assert three.names() == ["three"]
    three.server.revive("pve3")
    three.ok(guest(kind, "three", tags=["Luxima"], state="absent"))
    assert three.names() == []


@kinds
def test_a_name_that_was_told_before_a_node_died_may_be_old(three: Site, kind: str) -> None:
    three.ok(guest(kind, "old", node="pve3", **nic(13)))
    three.server.broadcast()
    three.ok(guest(kind, "new", node="pve3", vmid=three.server.guest("old").vmid, **nic(13)))
    three.server.kill("pve3")
    assert "there may be it: nothing is made" in three.fails(guest(kind, "new", **nic(13)))
    assert three.names() == ["new"]


@pytest.mark.parametrize("status", [595, 596])
def test_a_node_that_has_no_guests_and_fell_silent_keeps_nothing_from_being_made(
    three: Site, status: int
) -> None:
    """It is called online as long as nobody has noticed."""
    three.server.cluster.remove(three.server.cluster.guests[9002])
    three.server.faults.fail("GET", r"nodes/pve2/", status, "No route to host", times=1000)
    there = [guest("vm", "one", **nic(1)), record("three", **nic(3))]
    three.ok(*there)
    message = three.fails(*there, record("two", node="pve2", **nic(2)))
    assert "1 of 3 guests failed" in message
    assert "pve2 does not answer" in message
    assert three.names() == ["one", "three"]


@pytest.mark.parametrize("silent", [0, 400], ids=["names still told", "names forgotten"])
def test_access_is_withdrawn_where_nodes_live(three: Site, silent: int) -> None:
    three.ok(*environment("lxc"))
    rules = [{"comment": "log in", "proto": "tcp", "ports": ["22"]}]
    records = [{"name": name, "rules": rules} for name in ("one", "three")]
    assert three.module(proxmox_firewall, guests=records)["changed"]
    three.server.broadcast()
    three.server.kill("pve3", silent=silent)
    withdrawn = [{**entry, "rules": []} for entry in records]
    result = three.module(proxmox_firewall, guests=withdrawn, datacenter_enabled=True)
    assert result["failed"]
    assert result["guests"]["one"]["actions"] == ["rules removed"]
    assert "pve3 does not answer" in result["msg"]
    assert "left alone, because something before it failed" in result["msg"]
    assert three.api("GET", f"{three.place('one')}/firewall/rules") == []


# -- guests that move


@kinds
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.before is not None], ids=lambda o: o.name)
def test_a_guest_that_moves_at_any_moment_is_followed(kind: str, operation: Operation) -> None:
    """After each request of the run in turn: the guest is on another node from then on."""
    for number in range(1, 40):
        with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
            site = Site(server)
            site.ok(guest(kind, **(operation.before or {})))
            there = server.guest("one").node
            target = "pve2" if there == "pve1" else "pve1"
            before = len(server.requests)

            def move(site: Site = site, target: str = target) -> None:
                if "one" in site.names() and not site.server.guest("one").config.get("lock"):
                    site.server.move("one", target)

            server.faults.after(number, move)
            result = site.run(operation.record(kind))
            assert not result.get("failed"), f"moved after request {number}: {result['msg']}"
            assert outcome(result)["actions"] == operation.actions[kind], f"moved after request {number}"
            assert site.names() == ([] if operation.record(kind).get("state") == "absent" else ["one"])
            if len(server.requests) - before < number:
                return
    raise AssertionError("the run has more requests than this test knows")


@kinds
def test_a_migration_under_way_is_waited_for(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.server.faults.slow(1.0, ["moving"])
    there = both.server.guest("one").node
    target = "pve2" if there == "pve1" else "pve1"
    how = {"restart": 1} if kind == "lxc" else {"online": 1}
    both.api("POST", f"{both.place('one')}/migrate", target=target, **how)
    result = outcome(both.ok(guest(kind, tags=["changed", "dev", "luxima"])))
    assert (result["actions"], result["node"]) == (["configured"], target)
    assert both.names() == ["one"]


def test_companions_follow_a_guest_that_moves(both: Site) -> None:
    both.ok(record("one"))

    def move() -> None:
        both.server.move("one", "pve2" if both.server.guest("one").node == "pve1" else "pve1")

    for number in range(1, 9):
        for module, arguments in (
            (proxmox_snapshot, {"guests": ["one"], "name": f"s{number}"}),
            (
                proxmox_firewall,
                {
                    "guests": [
                        {
                            "name": "one",
                            "rules": [{"comment": "ssh", "proto": "tcp", "ports": [str(number)]}],
                        }
                    ]
                },
            ),
        ):
            both.server.faults.after(number, move)
            result = both.module(module, **arguments)
            assert not result.get("failed"), f"moved after request {number}: {result['msg']}"
            assert result["changed"]


# -- what is destroyed


@kinds
@pytest.mark.parametrize(
    ("theirs", "ours", "destroyed"),
    [
        ({"tags": ["other"]}, {"tags": ["dev", "luxima"]}, False),
        ({"tags": ["luxima", "production"]}, {"tags": ["luxima", "staging"]}, False),
        ({}, {}, False),
        ({"tags": ["dev"]}, {}, False),
        ({"tags": ["dev", "luxima", "more"]}, {"tags": ["Dev", "luxima"]}, True),
        ({"pool": "p"}, {"pool": "p"}, True),
        ({"pool": "p"}, {"pool": "q"}, False),
        ({"vmid": 500}, {"vmid": 500}, True),
    ],
    ids=str,
)
def test_only_what_carries_more_than_the_name_is_destroyed(
    both: Site, kind: str, theirs: dict[str, Any], ours: dict[str, Any], destroyed: bool
) -> None:
    for pool in ("p", "q"):
        both.api("POST", "pools", poolid=pool)
    both.ok(small(kind, **theirs))
    gone = {"name": "one", "kind": kind, "state": "absent", **ours}
    if destroyed:
        both.ok(gone)
        assert both.names() == []
        return
    writes = both.writes()
    for check in (True, False):
        message = both.fails(gone, check=check)
        assert "has this name and nothing else of the record" in message
        assert "destroy_by_name: true" in message
    assert (both.writes(), both.names()) == (writes, ["one"])
    both.ok(gone, destroy_by_name=True)
    assert both.names() == []


# -- addresses


def test_networks_that_are_apart_may_have_the_same_addresses(both: Site) -> None:
    card = {"bridge": "vmbr0", "address": "10.0.0.5/24"}
    apart = [record(f"n-{tag}", networks=[{**card, "vlan": tag}]) for tag in (0, 1, 2)]
    both.ok(*apart)
    message = both.fails(apart[1], record("n-3", networks=[{**card, "vlan": 1}]))
    assert "address: 10.0.0.5 is also that of n-1" in message


# -- what waits for a reboot


@kinds
def test_what_waits_for_a_reboot_is_named(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    changed = {"nameservers": ["9.9.9.9"]} if kind == "lxc" else {"cores": 4}
    result = outcome(both.ok(guest(kind, **changed)))
    assert (result["needs_reboot"], result["pending"]) == (
        True,
        ["nameserver" if kind == "lxc" else "cores"],
    )
    again = both.ok(guest(kind, **changed))
    assert (again["changed"], outcome(again)["pending"]) == (False, result["pending"])


# -- privileges nobody may look up


def test_unreadable_privileges_are_not_missing(both: Site) -> None:
    both.server.faults.fail("GET", "/access/permissions", 403, "Permission check failed", 99)
    both.ok(guest("lxc"))
    asked = [entry for entry in both.server.requests if entry.path == "/access/permissions"]
    assert len(asked) == 1


# -- what can be known before anything is written


@pytest.mark.parametrize("startup", ["foo=1", "order=x", "1;2"])
def test_an_order_of_starting_that_says_nothing_is_refused(both: Site, startup: str) -> None:
    assert f"startup: {startup!r}" in both.fails(record("one"), record("two", startup=startup, **nic(9)))
    assert both.writes() == 0


def test_a_missing_template_of_one_is_found_before_the_others_are_made(both: Site) -> None:
    message = both.fails(
        record("one"), guest("vm", "two"), guest("vm", "three", template="no-such", **nic(9))
    )
    assert "there is no VM 'no-such' to clone: correct template" in message
    assert "(for three)" in message
    assert both.writes() == 0


def test_documented_example_of_absent_has_something_to_be_known_by() -> None:
    assert "tags: [production]" in proxmox_guests.EXAMPLES
