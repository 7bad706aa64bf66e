# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What several writers do to each other, for both kinds of guest. Faults of the hypervisor itself are in test_faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.errors import Conflict
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.writer import ROUNDS, _Course
from ansible_collections.luxima.observability.plugins.modules import proxmox_firewall

from lab.drivers.base import Guest

from .conftest import KINDS, Site, guest, outcome, small

kinds = pytest.mark.parametrize("kind", KINDS)
TASK = {"lxc": "vzcreate", "vm": "qmclone"}
CREATE = {"lxc": ("POST", r"/lxc$"), "vm": ("POST", r"/clone$")}


def nic(number: int) -> dict[str, Any]:
    return {"networks": [{"bridge": "vmbr0", "address": f"10.0.0.{number}/24"}]}


def at(site: Site, record: dict[str, Any], path: str, action: Callable[[], object]) -> None:
    """Do something right after the run's first question of this path was answered."""
    before = len(site.server.requests)
    site.ok(record, check=True)
    asked = [entry.path for entry in site.server.requests[before:]]
    number = next(number for number, asked_path in enumerate(asked, 1) if path in asked_path)
    site.server.faults.after(number, action)


# -- power


@kinds
@pytest.mark.parametrize("verb", ["shutdown", "reboot", "stop"])
def test_guest_that_somebody_is_switching_off_is_started_once_it_is_off(
    both: Site, kind: str, verb: str
) -> None:
    both.ok(guest(kind))
    found = both.server.guest("one")
    both.server.faults.slow(1.0, [("vz" if kind == "lxc" else "qm") + verb])
    both.api("POST", f"nodes/{found.node}/{found.kind}/{found.vmid}/status/{verb}")
    result = outcome(both.ok(guest(kind)))
    assert both.power("one") == "running"
    assert result["actions"] == ([] if verb == "reboot" else ["started"])


@kinds
def test_switching_off_that_does_not_end_is_told(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    found = both.server.guest("one")
    both.server.faults.slow(8.0, ["vzshutdown" if kind == "lxc" else "qmshutdown"])
    both.api("POST", f"nodes/{found.node}/{found.kind}/{found.vmid}/status/shutdown")
    message = both.fails(guest(kind), deadlines={"lock": 1})
    assert "wait for" in message
    assert "not finished after 1 s; it goes on as task UPID:" in message


# -- ids


@kinds
def test_id_that_somebody_takes_after_it_was_found_free(both: Site, kind: str) -> None:
    theirs = Guest(100, "pve2", "lxc", {"hostname": "theirs", "memory": 512})
    at(both, guest(kind), "nextid", lambda: both.server.cluster.add(theirs))
    result = outcome(both.ok(guest(kind)))
    assert result["vmid"] == 101
    assert both.server.cluster.guests[100].config == {"hostname": "theirs", "memory": 512}
    assert both.ok(guest(kind))["changed"] is False


@kinds
@pytest.mark.parametrize(
    "text",
    [
        "unable to create VM 100 - VM 100 already exists on node 'pve2'",
        "CT 100 already exists on node 'pve2'",
        "unable to create VM 100: config file already exists",
    ],
)
def test_id_that_only_the_server_knows_is_taken(both: Site, kind: str, text: str) -> None:
    both.server.faults.fail(*CREATE[kind], 500, text)
    assert outcome(both.ok(guest(kind)))["vmid"] == 101
    assert both.names() == ["one"]


@kinds
def test_id_of_the_record_that_is_taken_is_not_replaced(both: Site, kind: str) -> None:
    theirs = Guest(500, "pve2", "qemu", {"name": "theirs"})
    at(both, guest(kind, vmid=500), "/network", lambda: both.server.cluster.add(theirs))
    message = both.fails(guest(kind, vmid=500))
    assert "already exists" in message
    assert "correct vmid" in message
    assert both.names() == ["theirs"]


@kinds
def test_two_runs_at_the_same_time(both: Site, kind: str) -> None:
    groups = [
        [guest(kind, f"{group}-{n}", **nic(n + 100 * offset)) for n in (1, 2, 3)]
        for offset, group in enumerate("ab")
    ]
    both.server.faults.slow(0.1, [TASK[kind]])
    processes = [both.process(*group) for group in groups]
    for process in processes:
        output, _none = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert both.names() == sorted(record["name"] for group in groups for record in group)
    assert both.ok(*groups[0], *groups[1])["changed"] is False


@kinds
@pytest.mark.parametrize("late", [0.0, 0.5], ids=["named", "named late"])
def test_guest_that_another_run_makes_meanwhile_is_not_made_again(both: Site, kind: str, late: float) -> None:
    """Another run with other records beside this one: nothing but the name is common, least of all the id."""
    both.ok(guest(kind))
    config, node = dict(both.config("one")), both.server.guest("one").node
    both.ok(guest(kind, state="absent"))
    named = dict(config)
    theirs = Guest(900, node, {"lxc": "lxc", "vm": "qemu"}[kind], named)

    def make() -> None:
        if late:
            named.clear()
            named["lock"] = "create" if kind == "lxc" else "clone"

            def finish() -> None:
                named.update(config)
                del named["lock"]

            threading.Timer(late, finish).start()
        both.server.cluster.add(theirs)

    at(both, guest(kind), "nextid", make)
    result = outcome(both.ok(guest(kind)))
    assert both.names() == ["one"]
    assert result["vmid"] == 900
    assert both.ok(guest(kind))["changed"] is False


@kinds
def test_id_is_free_again_when_the_destroyed_guest_is_really_gone(both: Site, kind: str) -> None:
    both.ok(guest(kind, vmid=500))
    both.server.faults.slow(0.5, ["vzdestroy", "qmdestroy"])
    both.ok(guest(kind, vmid=500, state="absent"))
    assert both.names() == []
    assert outcome(both.ok(guest(kind, "two", vmid=500)), "two")["vmid"] == 500


# -- names


@kinds
def test_two_guests_of_one_name_are_refused_and_told_apart_by_id(both: Site, kind: str) -> None:
    first = outcome(both.ok(guest(kind)))["vmid"]
    both.server.cluster.add(Guest(900, "pve2", {"lxc": "lxc", "vm": "qemu"}[kind], dict(both.config("one"))))
    message = both.fails(guest(kind))
    assert "2 guests have this name" in message
    assert "900 on pve2" in message
    assert "set vmid" in message
    assert both.ok(guest(kind, vmid=first))["changed"] is False
    assert "2 guests have this name" in both.fails(guest(kind, state="absent"))


@kinds
def test_guest_of_others_under_the_id_is_left_alone(both: Site, kind: str) -> None:
    both.ok(guest(kind, "theirs", tags=["theirs"], vmid=500))
    before = both.config("theirs")
    for record in (guest(kind, vmid=500), guest(kind, vmid=500, state="absent")):
        message = both.fails(record)
        assert "vmid 500 belongs to 'theirs'" in message
        assert "left alone" in message
    assert both.config("theirs") == before


@kinds
def test_name_that_the_other_kind_has_is_not_taken_over(both: Site, kind: str) -> None:
    other = {"lxc": "vm", "vm": "lxc"}[kind]
    both.ok(guest(other))
    before = both.config("one")
    assert f"the record says {kind}" in both.fails(guest(kind))
    assert f"the record says {kind}" in both.fails(guest(kind, state="absent"))
    assert both.config("one") == before


@kinds
def test_one_guest_is_not_that_of_two_records(both: Site, kind: str) -> None:
    """A host that was renamed in the inventory, its former entry said to be absent."""
    vmid = outcome(both.ok(guest(kind, "old")))["vmid"]
    records = [guest(kind, "old", state="absent"), guest(kind, "new", vmid=vmid)]
    writes = both.writes()
    for check in (True, False):
        message = both.fails(*records, check=check)
        assert f"{vmid} on {both.server.guest('old').node} is also the guest of the record new" in message
        assert "is also the guest of the record old" in message
    assert (both.writes(), both.names()) == (writes, ["old"])
    both.ok(records[1])
    assert both.names() == ["new"]


@kinds
def test_no_guest_gets_the_name_of_another_one(both: Site, kind: str) -> None:
    """An id that was mistyped: it is that of another guest of the environment."""
    both.ok(guest(kind, "one", **nic(1)), guest(kind, "two", **nic(2)))
    one, two = (both.server.guest(name).vmid for name in ("one", "two"))
    before = both.config("two")
    message = both.fails(guest(kind, "one", vmid=two, **nic(1)))
    assert f"the record says vmid {two}, which is 'two'" in message
    assert f"another guest has the record's name ({one} on" in message
    assert both.config("two") == before
    both.ok(guest(kind, "one", vmid=two, **nic(1)), guest(kind, "two", vmid=one, **nic(2)))
    assert (both.server.guest("one").vmid, both.server.guest("two").vmid) == (two, one)


@kinds
def test_id_that_is_given_away_while_its_guest_goes(both: Site, kind: str) -> None:
    """The answer is lost, and before it is looked up somebody else has the id."""
    both.ok(guest(kind))
    gone = both.server.guest("one")
    both.server.faults.drop_reply("DELETE", r"/(lxc|qemu)/\d+$")

    def give_away() -> None:
        while gone.vmid in both.server.cluster.guests:
            time.sleep(0.01)
        key = {"lxc": "hostname", "vm": "name"}[kind]
        both.server.cluster.add(Guest(gone.vmid, gone.node, gone.kind, {key: "theirs"}))

    somebody = threading.Thread(target=give_away)
    somebody.start()
    message = both.fails(guest(kind, state="absent"))
    somebody.join()
    assert "is called 'theirs' by now, so it is left alone" in message
    assert both.names() == ["theirs"]
    assert both.ok(guest(kind, state="absent"))["changed"] is False


@kinds
def test_capitals_make_no_other_guest(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    assert outcome(both.ok(guest(kind, "One")))["actions"] == ["configured"]
    assert both.names() == ["One"]
    assert "name: one is also that of One" in both.fails(guest(kind, "One"), guest(kind, **nic(2)))
    vmid = both.server.guest("One").vmid
    assert outcome(both.ok(small(kind, vmid=vmid)))["actions"] == ["configured"]
    both.ok(guest(kind, state="absent"))
    assert both.names() == []


@kinds
def test_a_running_guest_becomes_no_template_for_its_name_alone(both: Site, kind: str) -> None:
    both.ok(guest(kind, tags=["theirs"]))
    before = both.config("one")
    message = both.fails(guest(kind, state="template"))
    assert "so it is not stopped and made a template" in message
    assert (both.config("one"), both.power("one")) == (before, "running")


@kinds
def test_a_template_of_the_name_of_a_guest_is_not_meant(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    folder, key = {"lxc": ("lxc", "hostname"), "vm": ("qemu", "name")}[kind]
    both.server.cluster.add(Guest(900, "pve2", folder, {key: "one", "template": 1}))
    assert both.ok(guest(kind))["changed"] is False
    assert both.module(proxmox_firewall, guests=[{"name": "one", "rules": []}])["changed"]
    # What is to be destroyed has to be told apart.
    assert "2 guests have this name" in both.fails(guest(kind, state="absent"))


# -- writers of one configuration


@kinds
def test_edit_between_reading_and_writing_survives(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    wanted = guest(kind, tags=["ours"])
    at(both, wanted, "/pending", lambda: both.edit("one", description="theirs", onboot=0))
    assert outcome(both.ok(wanted))["actions"] == ["configured"]
    config = both.config("one")
    assert config["tags"] == "ours"
    assert config["description"] == "theirs\n" or kind == "lxc"
    assert config["onboot"] == 1
    assert any(entry.status == 500 for entry in both.server.requests), "the first attempt was refused"
    assert both.ok(wanted)["changed"] is False


@kinds
def test_every_write_of_a_configuration_carries_the_digest(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.ok(guest(kind, cores=1, tags=["a"]))
    both.ok(guest(kind, state="stopped", description="b"))
    written = [e.params for e in both.server.requests if e.method != "GET" and e.path.endswith("/config")]
    assert len(written) >= 2
    assert all(len(str(params.get("digest"))) == 40 for params in written)


@kinds
@pytest.mark.parametrize("state", ["started", "stopped"])
def test_power_that_somebody_changes_meanwhile(both: Site, kind: str, state: str) -> None:
    both.ok(guest(kind, state={"started": "stopped", "stopped": "started"}[state]))
    verb = {"started": "start", "stopped": "stop"}[state]
    path = f"{both.place('one')}/status/{verb}"
    at(both, guest(kind, state=state), "/pending", lambda: both.wait(both.api("POST", path)))
    both.ok(guest(kind, state=state))
    assert both.power("one") == {"started": "running", "stopped": "stopped"}[state]


@kinds
def test_disk_that_somebody_grows_meanwhile(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    wanted = guest(kind, rootfs={"storage": "local-lvm", "size_gb": 12})
    disk, place = {"lxc": "rootfs", "vm": "scsi0"}[kind], both.place("one")
    at(both, wanted, "/pending", lambda: both.wait(both.api("PUT", f"{place}/resize", disk=disk, size="12G")))
    both.ok(wanted)
    assert "size=12G" in both.config("one")[disk]
    assert both.ok(wanted)["changed"] is False


@kinds
def test_disk_that_somebody_puts_in_place_of_the_one_that_grows(both: Site, kind: str) -> None:
    slot, path = {"lxc": ("mp0", {"path": "/data"}), "vm": ("scsi1", {})}[kind]
    disk = {"slot": slot, "storage": "local-lvm", "size_gb": 2, **path}
    both.ok(guest(kind, disks=[disk], state="stopped"))
    text = both.config("one")[slot].replace("local-lvm:", "local-zfs:")
    wanted = guest(kind, disks=[{**disk, "size_gb": 3}], state="stopped")
    at(both, wanted, "/pending", lambda: both.store("one", {slot: text}))
    assert "lies on storage 'local-zfs'" in both.fails(wanted)
    assert both.config("one")[slot] == text


@kinds
def test_an_id_that_is_another_guest_s_after_the_stop_is_not_destroyed(both: Site, kind: str) -> None:
    """Somebody destroys it as well, faster, and the id is given away again."""
    both.ok(guest(kind))
    gone = guest(kind, state="absent")
    found = both.server.guest("one")
    theirs = Guest(
        found.vmid, found.node, found.kind, {**found.config, "hostname": "theirs", "name": "theirs"}
    )

    def exchange() -> None:
        both.server.cluster.guests.pop(found.vmid)
        both.server.cluster.add(theirs)

    both.ok(guest(kind, "two"))
    before = len(both.server.requests)
    both.ok(guest(kind, "two", state="absent"))
    asked = [entry.path for entry in both.server.requests[before:]]
    stopped = next(number for number, path in enumerate(asked, 1) if path.endswith(("/stop", "/shutdown")))
    before = len(both.server.requests)
    both.server.faults.after(stopped, exchange)
    message = both.fails(gone)
    assert "is called 'theirs' by now, so it is left alone" in message
    assert both.names() == ["theirs"]
    assert not [one for one in both.server.requests[before:] if one.method == "DELETE"]


@kinds
def test_guest_that_somebody_destroys_meanwhile(both: Site, kind: str) -> None:
    both.ok(guest(kind, state="stopped"))
    gone = guest(kind, state="absent")
    place = both.place("one")
    at(both, gone, "/pending", lambda: both.wait(both.api("DELETE", place)))
    both.ok(gone)
    assert both.names() == []


# -- locks


@kinds
@pytest.mark.parametrize(
    "lock", ["backup", "clone", "create", "disk", "migrate", "rollback", "snapshot", "suspended"]
)
def test_lock_is_waited_for_and_never_skipped(both: Site, kind: str, lock: str) -> None:
    both.ok(guest(kind))
    vmid = both.server.guest("one").vmid
    both.server.lock_guest(vmid, lock)
    timer = threading.Timer(0.3, both.server.lock_guest, (vmid, ""))
    timer.start()
    assert outcome(both.ok(guest(kind, tags=["ours"])))["actions"] == ["configured"]
    timer.join()
    assert not any("skiplock" in entry.params for entry in both.server.requests)


@kinds
def test_locked_guest_that_needs_nothing_is_no_reason_to_wait(both: Site, kind: str) -> None:
    both.ok(guest(kind))
    both.server.lock_guest(both.server.guest("one").vmid, "backup")
    assert both.ok(guest(kind), deadlines={"lock": 1})["changed"] is False


@kinds
def test_stub_that_a_dead_task_left_is_named_and_neither_adopted_nor_removed(both: Site, kind: str) -> None:
    name, lock, folder = {"lxc": ("hostname", "create", "lxc"), "vm": ("name", "clone", "qemu")}[kind]
    stub = {name: "one", "lock": lock}
    both.server.cluster.add(Guest(100, "pve1", folder, dict(stub)))
    for record in (guest(kind), guest(kind, state="absent")):
        message = both.fails(record, deadlines={"lock": 1}, destroy_by_name=True)
        assert f"locked ({lock})" in message
        assert "100" in message
        assert both.config("one") == stub


# -- limits


@pytest.mark.parametrize(("kind", "limit"), [("lxc", 4), ("vm", 2)])
def test_work_on_one_storage_or_template_is_limited(both: Site, kind: str, limit: int) -> None:
    both.server.faults.slow(0.15, [TASK[kind]])
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            tasks = both.server.cluster.tasks.all()
            most[0] = max(most[0], sum(t.fields["type"] == TASK[kind] and not t.done.is_set() for t in tasks))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    both.ok(*[guest(kind, f"g-{n}", node="pve1", **nic(n)) for n in range(1, 8)], workers=8)
    done.set()
    watcher.join()
    assert most[0] == limit


def test_nothing_is_asked_of_a_clone_before_its_task_has_ended(both: Site) -> None:
    both.server.faults.slow(0.3, ["qmclone"])
    both.ok(guest("vm"))
    paths = [(entry.method, entry.path) for entry in both.server.requests]
    cloned = next(number for number, (_verb, path) in enumerate(paths) if path.endswith("/clone"))
    touched = next(number for number, (_verb, path) in enumerate(paths) if "/qemu/100/" in path)
    polls = [
        number for number, (_verb, path) in enumerate(paths) if "qmclone" in path and path.endswith("/status")
    ]
    assert cloned < max(polls) < touched
    assert all(entry.status == 200 for entry in both.server.requests)


@kinds
def test_storage_that_stays_busy_leaves_nothing(both: Site, kind: str) -> None:
    both.server.faults.storage_lock = 99
    message = both.fails(guest(kind), deadlines={"lock": 1})
    assert "cfs-lock 'storage-local-lvm'" in message
    assert "deadlines.lock" in message
    assert both.names() == []
    both.server.faults.reset()
    both.ok(guest(kind))
    assert both.names() == ["one"]


@kinds
def test_waiting_for_a_lock_is_no_fight(both: Site, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Course, "_pause", _impatient)
    both.ok(guest(kind))
    both.server.faults.file_lock = ROUNDS + 3
    assert outcome(both.ok(guest(kind, nameservers=["9.9.9.9"])))["actions"] == ["configured"]
    assert both.server.faults.file_lock == 0


def _impatient(course: _Course, conflict: Conflict, pauses: dict[str, int]) -> None:
    assert conflict.reason == "lock"


def test_a_long_clone_leaves_the_time_to_wait_for_a_lock(both: Site) -> None:
    both.server.faults.slow(1.5, ["qmclone"])
    seen = threading.Event()

    def lock() -> None:
        while "one" not in both.names():
            time.sleep(0.01)
        both.server.faults.file_lock = 1
        seen.set()

    somebody = threading.Thread(target=lock)
    somebody.start()
    result = both.run(guest("vm"), deadlines={"lock": 1})
    somebody.join()
    assert seen.is_set()
    assert not result.get("failed"), result["msg"]
