# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Whatever was wanted before and whatever others did: a run makes it so, says so beforehand, and the next finds nothing."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import lab.testing

from .conftest import MAC, Site, comparable, outcome, side_by_side, small

LONG = bool(os.environ.get("TESTS_LONG"))
pytestmark = pytest.mark.slow
#: What nobody manages here, by kind: changed by others, kept by every run.
UNMANAGED: dict[str, dict[str, list[Any]]] = {
    "lxc": {
        "cpulimit": [1, 2],
        "cpuunits": [200, 300],
        "net7": ["name=eth7,bridge=vmbr0,ip=manual", "name=eth8,bridge=vmbr0,tag=3"],
        "timezone": ["UTC", "Europe/Zurich"],
    },
    "vm": {
        "cpulimit": [1, 2],
        "shares": [500, 600],
        "net7": ["virtio=BC:24:11:00:07:07,bridge=vmbr0", "e1000=BC:24:11:00:07:07,bridge=vmbr0,tag=3"],
        "cpu": ["host", "x86-64-v3"],
    },
}
EDITS = [
    ("memory", 300),
    ("memory", 700),
    ("cores", 1),
    ("cores", 4),
    ("tags", "theirs"),
    ("tags", "dev;theirs"),
    ("description", "theirs"),
    ("onboot", 0),
    ("onboot", 1),
    ("nameserver", "1.1.1.1"),
    ("startup", "order=9"),
    ("searchdomain", "example.com"),
]
octet = st.integers(1, 250)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "cores": st.integers(1, 4),
    "memory_mb": st.sampled_from([256, 512, 1024]),
    "swap_mb": st.sampled_from([0, 128]),
    "tags": st.just([]) | st.lists(st.sampled_from(["dev", "Web", "a.b", "x-y"]), max_size=3),
    "description": st.sampled_from(["notes", "two\nlines: ä %20 + #\n"]),
    "onboot": st.booleans(),
    "protection": st.booleans(),
    "startup": st.sampled_from(["order=1", "order=2,up=30"]),
    "nameservers": st.just([]) | st.lists(octet.map("9.9.9.{}".format), max_size=2),
    "searchdomain": st.sampled_from(["example.org", "example.net", "a.example,b.example"]),
    "disks": st.tuples(st.integers(1, 3), st.sampled_from(["/data", "/srv"])),
    "rootfs": st.integers(4, 9).map(lambda size: {"storage": "local-lvm", "size_gb": size}),
    "networks": st.lists(
        st.fixed_dictionaries(
            {"bridge": st.just("vmbr0")},
            optional={
                "vlan": st.integers(0, 9),
                "address": octet.map("10.0.0.{}/24".format),
                "address6": octet.map("fd00::{}/64".format),
                "firewall": st.booleans(),
            },
        ),
        max_size=2,
        unique_by=(lambda nic: nic.get("address", id(nic)), lambda nic: nic.get("address6", id(nic))),
    ),
    "pool": st.sampled_from(["blue", "green"]),
    "state": st.sampled_from(["present", "started", "stopped"]),
}
#: Its name is all that is sure to be common to the record and what others made of the guest.
OPTIONS = {"destroy_by_name": True}
REFUSALS = ("never shrink", "protection is on", "is hibernated", "is not attached")
SLOT = {"lxc": "mp0", "vm": "scsi1"}


class Guests(RuleBasedStateMachine):
    """One guest, its record, and somebody else with the same rights."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        server = self.resources.enter_context(lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True))
        self.site = Site(server)
        self.want = small(self.kind)
        self.foreign: dict[str, Any] = {}
        #: Whether the guest is what its record says.
        self.settled = False

    def teardown(self) -> None:
        self.resources.close()

    @property
    def exists(self) -> bool:
        return "one" in self.site.names()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for name in ("blue", "green"):
            self.site.api("POST", "pools", poolid=name)
        self.desire(data, set(CHANGES) - {"state", "protection"})
        self.run("never")

    def desire(self, data: st.DataObject, names: set[str]) -> None:
        for name in sorted(names):
            drawn = data.draw(CHANGES[name], label=name)
            self.want[name] = [self.disk(*drawn)] if name == "disks" else drawn

    def disk(self, size: int, path: str) -> dict[str, Any]:
        place = {"path": path} if self.kind == "lxc" else {}
        return {"slot": SLOT[self.kind], "storage": "local-lvm", "size_gb": size, **place}

    @rule(
        data=st.data(),
        changed=st.sets(st.sampled_from(sorted(CHANGES)), max_size=4),
        given_up=st.sets(st.sampled_from(sorted(set(CHANGES) - {"rootfs", "state"})), max_size=1),
        reboot=st.sampled_from(["never", "if_needed"]),
    )
    def want_something_else(
        self, data: st.DataObject, changed: set[str], given_up: set[str], reboot: str
    ) -> None:
        self.desire(data, changed)
        for name in given_up:
            self.want.pop(name, None)
        self.run(reboot)

    @precondition(lambda self: self.exists)
    @rule(data=st.data(), reboot=st.sampled_from(["never", "if_needed"]))
    def somebody_meddles(self, data: st.DataObject, reboot: str) -> None:
        deeds = (self.edit, self.edit, self.set_unmanaged, self.delete, self.touch_interface, self.grow)
        deeds += (
            self.press_button,
            self.detach,
            self.tidy,
            self.tidy,
            self.mount_elsewhere,
            self.hibernate,
            self.migrate,
        )
        for deed in data.draw(st.lists(st.sampled_from(deeds), min_size=1, max_size=4)):
            # A VM that is hibernated can only be woken.
            if "lock" not in self.site.config("one") or deed == self.press_button:
                deed(data)
        self.run(reboot)

    @rule(told=st.booleans())
    def time_passes(self, told: bool) -> None:
        """The nodes tell each other the names of their guests, or have not done so for long."""
        if told:
            self.site.server.broadcast()
        else:
            self.site.server.cluster.statd.skip(400)
        self.run("never")

    @precondition(lambda self: self.exists)
    @rule(data=st.data(), changed=st.sets(st.sampled_from(sorted(set(CHANGES) - {"state"})), max_size=2))
    def it_moves_during_the_run(self, data: st.DataObject, changed: set[str]) -> None:
        self.desire(data, changed)
        moment = data.draw(st.integers(1, 20))

        def move() -> None:
            if self.exists and not self.site.server.guest("one").config.get("lock"):
                self.site.server.move("one", self.elsewhere())

        self.site.server.faults.after(moment, move)
        done = self.site.run(self.want, **OPTIONS)
        self.site.server.faults.after(0, move)
        if done.get("failed"):
            assert any(refusal in done["msg"] for refusal in REFUSALS), done["msg"]
        assert self.site.names() == ["one"]
        self.run("never")

    @precondition(lambda self: self.settled)
    @rule(node=st.sampled_from(["pve1", "pve2"]), forgotten=st.booleans())
    def a_node_is_down(self, node: str, forgotten: bool) -> None:
        site, home = self.site, self.site.server.guest("one").node if self.exists else ""
        known, writes = sorted(site.server.cluster.guests), site.writes()
        site.server.kill(node, 400.0 * forgotten)
        if home and home != node:
            self.run("never")
        else:
            done = site.run(self.want, **OPTIONS)
            if home or done.get("failed"):
                # The template there has no name any more: it might be the VM of the record, which names no node.
                assert "does not answer" in done["msg"]
                assert home or (self.kind, forgotten) == ("vm", True)
                assert (sorted(site.server.cluster.guests), site.writes()) == (known, writes)
        site.server.revive(node)
        self.run("never")

    @precondition(lambda self: self.exists)
    @rule()
    def somebody_destroys_it(self) -> None:
        place = self.site.place("one")
        if "lock" in self.site.config("one"):
            self.site.wait(self.site.api("POST", f"{place}/status/start"))
        if self.site.config("one").get("protection"):
            self.site.edit("one", protection=0)
        if self.site.power("one") == "running":
            self.site.wait(self.site.api("POST", f"{place}/status/stop"))
        self.site.wait(self.site.api("DELETE", place))
        self.foreign.clear()
        self.run("never")

    @rule()
    def want_nothing(self) -> None:
        state = self.want["state"]
        self.want["state"] = "absent"
        self.run("never")
        self.want["state"] = state

    # -- what others do

    def edit(self, data: st.DataObject) -> None:
        key, value = data.draw(st.sampled_from(EDITS))
        self.site.edit("one", **{key: value})

    def set_unmanaged(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(UNMANAGED[self.kind])))
        self.foreign[key] = data.draw(st.sampled_from(UNMANAGED[self.kind][key]))
        self.site.edit("one", **{key: self.foreign[key]})

    def delete(self, data: st.DataObject) -> None:
        self.site.edit(
            "one", delete=data.draw(st.sampled_from(["tags", "nameserver", "description", "onboot"]))
        )

    def touch_interface(self, data: st.DataObject) -> None:
        net = self.site.config("one").get("net0", "")
        if net:
            kept = [part for part in net.split(",") if not part.startswith(("tag=", "type="))]
            mac = f"BC:24:11:77:77:{data.draw(st.integers(0, 255)):02X}"
            self.site.edit("one", net0=MAC.sub(mac, ",".join(kept)) + f",tag={data.draw(st.integers(1, 9))}")

    def grow(self, data: st.DataObject) -> None:
        disk = "rootfs" if self.kind == "lxc" else "scsi0"
        size = data.draw(st.integers(5, 9))
        if self.size() < size:
            path = f"{self.site.place('one')}/resize"
            self.site.wait(self.site.api("PUT", path, disk=disk, size=f"{size}G"))

    def detach(self, data: st.DataObject) -> None:
        """A data disk, which stays as a volume that is attached nowhere."""
        if SLOT[self.kind] in self.site.config("one"):
            self.site.edit("one", delete=SLOT[self.kind])

    def tidy(self, data: st.DataObject) -> None:
        """What is attached nowhere is thrown away, what waits to be detached is kept."""
        for key in self.site.config("one"):
            if key.startswith("unused"):
                self.site.edit("one", delete=key)
        if SLOT[self.kind] in self.site.pending("one"):
            self.site.edit("one", revert=SLOT[self.kind])

    def mount_elsewhere(self, data: st.DataObject) -> None:
        line = self.site.config("one").get("mp0")
        if line:
            rest = [part for part in line.split(",") if not part.startswith("mp=")]
            self.site.edit("one", mp0=",".join([*rest, "mp=/theirs"]))

    def hibernate(self, data: st.DataObject) -> None:
        if self.kind == "vm" and self.site.power("one") == "running":
            self.site.wait(self.site.api("POST", f"{self.site.place('one')}/status/suspend", todisk=1))

    def press_button(self, data: st.DataObject) -> None:
        verb = "stop" if self.site.power("one") == "running" else "start"
        self.site.wait(self.site.api("POST", f"{self.site.place('one')}/status/{verb}"))

    def elsewhere(self) -> str:
        return "pve2" if self.site.server.guest("one").node == "pve1" else "pve1"

    def migrate(self, data: st.DataObject) -> None:
        path = f"{self.site.place('one')}/migrate"
        how = {"lxc": {"restart": 1}, "vm": {"online": 1}}[self.kind]
        running = self.site.power("one") == "running"
        self.site.wait(self.site.api("POST", path, target=self.elsewhere(), **(how if running else {})))

    # -- the run

    def run(self, reboot: str) -> None:
        site = self.site
        existed, before = self.exists, site.config("one") if self.exists else {}
        writes = site.writes()
        self.settled = False
        predicted = site.run(self.want, check=True, reboot=reboot, **OPTIONS)
        assert site.writes() == writes
        done = site.run(self.want, reboot=reboot, **OPTIONS)
        if predicted.get("failed") or done.get("failed"):
            assert predicted["msg"] == done["msg"]
            assert any(refusal in done["msg"] for refusal in REFUSALS), done["msg"]
            assert site.writes() == writes
            return
        assert comparable(done) == comparable(predicted)
        assert done["changed"] is bool(outcome(done)["actions"])
        writes = site.writes()
        self.settled = True
        again = site.ok(self.want, reboot=reboot, **OPTIONS)
        assert again["changed"] is False, again["diff"]
        assert again["diff"] == []
        assert site.writes() == writes
        if self.want["state"] == "absent":
            assert not self.exists
            self.foreign.clear()
            return
        self.converged(existed, before)

    def converged(self, existed: bool, before: dict[str, Any]) -> None:
        """Read from the server with other eyes than the module's."""
        site, want = self.site, self.want
        config = site.api("GET", f"{site.place('one')}/config")
        for option, key in (
            ("cores", "cores"),
            ("memory_mb", "memory"),
            ("startup", "startup"),
            ("searchdomain", "searchdomain"),
        ):
            if option in want:
                assert str(config[key]) == str(want[option]).replace("e,b", "e b")
        for option in ("onboot", "protection"):
            if option in want:
                assert bool(int(config.get(option, 0))) is want[option]
        if "swap_mb" in want and self.kind == "lxc":
            assert int(config["swap"]) == want["swap_mb"]
        if "tags" in want:
            assert set(config.get("tags", "").split(";")) - {""} == {tag.lower() for tag in want["tags"]}
        if "description" in want:
            assert config.get("description", "").rstrip("\n") == want["description"].rstrip("\n")
        if "nameservers" in want:
            assert config.get("nameserver", "").split() == want["nameservers"]
        if "rootfs" in want:
            assert self.size() == want["rootfs"]["size_gb"]
        for disk in want.get("disks", []):
            # The size that the volume has, the place where it will be.
            assert f"size={disk['size_gb']}G" in site.config("one")[disk["slot"]].split(",")
            assert self.kind == "vm" or f"mp={disk['path']}" in config["mp0"].split(",")
        if "pool" in want:
            assert site.server.cluster.pool_of(site.server.guest("one").vmid) == want["pool"]
        for number, nic in enumerate(want.get("networks", [])):
            words = set(config[f"net{number}"].split(","))
            address = words if self.kind == "lxc" else set(config.get(f"ipconfig{number}", "").split(","))
            assert "bridge=vmbr0" in words
            if "vlan" in nic:
                assert (f"tag={nic['vlan']}" in words) is bool(nic["vlan"])
                assert nic["vlan"] or not any(word.startswith("tag=") for word in words)
            if "firewall" in nic:
                assert ("firewall=1" in words) is nic["firewall"]
            if "address" in nic:
                assert f"ip={nic['address']}" in address
            if "address6" in nic:
                assert f"ip6={nic['address6']}" in address
        if want["state"] != "present":
            assert site.power("one") == ("running" if want["state"] == "started" else "stopped")
        # The MAC stays, and so does everything that is not in the record.
        if existed and "net0" in before:
            assert MAC.search(config["net0"])[0] == MAC.search(before["net0"])[0]  # type: ignore[index]
        for key, value in self.foreign.items():
            assert set(str(value).split(",")) <= set(str(config[key]).split(",")), key

    def size(self) -> int:
        disk = self.site.config("one")["rootfs" if self.kind == "lxc" else "scsi0"]
        return int(disk.split("size=")[1].split(",")[0].rstrip("G"))


class Containers(Guests):
    kind = "lxc"


class Machines(Guests):
    kind = "vm"


MACHINES = {"lxc": Containers, "vm": Machines}


def play(kind: str) -> str:
    examples, steps = (60, 20) if LONG else (6, 10)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        MACHINES[kind],
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            # The short run meets the same sequences every time, the long one new ones.
            derandomize=not LONG,
            # Shrinking takes minutes: a sequence is told as it was found.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    return "converged"


def test_any_sequence_converges() -> None:
    results = side_by_side(play, list(MACHINES))
    assert set(results.values()) == {"converged"}, "\n".join(results.values())
