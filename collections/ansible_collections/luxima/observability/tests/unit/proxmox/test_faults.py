# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Every way the hypervisor can misbehave, in every operation, for both kinds of guest.

The right state, or a clear error and a run that ends it; nothing orphaned, nothing of others touched.
What became of each is written to reports/guest-faults.txt.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lab.testing
from lab.faults import SWITCHES

from .conftest import KINDS, OPERATIONS, Operation, Site, guest, outcome, side_by_side

REPORT = next(path for path in Path(__file__).resolve().parents if (path / "lab").is_dir()) / "reports"
LONG = bool(os.environ.get("TESTS_LONG"))
pytestmark = pytest.mark.slow
ALL = tuple(operation.name for operation in OPERATIONS)
EXISTING = tuple(operation.name for operation in OPERATIONS if operation.before is not None)
DEADLINES = {"lock": 2, "stop": 6}

Inject = Callable[[Site, str, Operation], Any]


@dataclass(frozen=True)
class Fault:
    name: str
    inject: Inject
    operations: tuple[str, ...] = ALL
    #: Parts of the error; empty: the run succeeds.
    error: tuple[str, ...] = ()
    #: By password: what concerns tickets.
    password: bool = False
    #: Met in every operation by the short run too.
    always: bool = False
    kinds: tuple[str, ...] = KINDS
    #: What a running hypervisor of the lab calls it.
    switch: str = ""


def answers(status: int, text: str, times: int = 1) -> Inject:
    """The request is refused and has no effect."""

    def inject(site: Site, kind: str, operation: Operation) -> None:
        site.server.faults.fail(*operation.requests[kind], status, text, times)

    return inject


def switch(name: str, value: Any) -> Inject:
    def inject(site: Site, kind: str, operation: Operation) -> None:
        setattr(site.server.faults, name, value)

    return inject


def lost(site: Site, kind: str, operation: Operation) -> None:
    site.server.faults.drop_reply(*operation.requests[kind])


def lost_questions(site: Site, kind: str, operation: Operation) -> None:
    site.server.faults.drop_reply("GET", ".", times=2)


def locked(name: str, seconds: float = 0.0) -> Inject:
    """Somebody else works on the guest; for good without ``seconds``."""

    def inject(site: Site, kind: str, operation: Operation) -> None:
        vmid = site.server.guest("one").vmid
        site.server.lock_guest(vmid, name)
        if seconds:
            threading.Timer(seconds, site.server.lock_guest, (vmid, "")).start()

    return inject


def template_locked(site: Site, kind: str, operation: Operation) -> None:
    for vmid in (9001, 9002):
        site.server.lock_guest(vmid, "backup")
        threading.Timer(0.5, site.server.lock_guest, (vmid, "")).start()


def expired(site: Site, kind: str, operation: Operation) -> None:
    """Every ticket ends while the run is under way."""
    site.server.faults.after(6, site.server.expire_tickets)


def deaf(site: Site, kind: str, operation: Operation) -> None:
    site.server.faults.switch("deaf", {"vmid": site.server.guest("one").vmid}, True)


def ends(text: str, *types: str) -> Inject:
    """Every task of these types ends with an error."""

    def inject(site: Site, kind: str, operation: Operation) -> None:
        site.server.faults.fail_task(text, types, 99)

    return inject


def dead(site: Site, kind: str, operation: Operation) -> None:
    """The node of the guest, or the one it might have been made on, is down for so long that nobody knows its guests' names."""
    found = [guest.node for guest in site.server.cluster.guests.values() if guest.name == "one"]
    site.server.kill(*(found or [site.server.guest("theirs-lxc").node]), silent=400)


def normalising(site: Site, kind: str, operation: Operation) -> None:
    site.server.cluster.switch("normalise", {}, True)


def silent(site: Site, kind: str, operation: Operation) -> None:
    """All nodes answer, and none tells the others what its guests are called."""
    for node in site.server.cluster.nodes:
        site.server.cluster.switch("silent-statd", {"node": node}, True)
    site.server.cluster.statd.skip(400)


def slow(site: Site, kind: str, operation: Operation) -> None:
    site.server.faults.slow(0.4)


FILE_LOCK = {
    "lxc": "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout",
    "vm": "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
}
DIGEST = {
    "lxc": "detected modified configuration - file changed by other user? Try again.",
    "vm": "checksum mismatch (file change by other user?)",
}


def said(texts: dict[str, str], times: int = 1) -> Inject:
    """Refused in the words of the kind of guest."""

    def inject(site: Site, kind: str, operation: Operation) -> None:
        site.server.faults.fail(*operation.requests[kind], 500, texts[kind], times)

    return inject


FAULTS = (
    Fault("slow tasks", slow, switch="slow-task"),
    Fault("tasks that end with warnings", switch("task_warnings", 9), switch="task-warnings"),
    Fault("reply lost after the effect", lost, always=True, switch="drop-reply"),
    Fault("request lost on the way", answers(596, "Connection timed out"), always=True, switch="no-reply"),
    Fault("answers to questions lost", lost_questions, EXISTING),
    Fault(
        "requests always lost", answers(596, "Connection timed out", 99), error=("no reply from the node",)
    ),
    Fault("node unreachable", answers(595, "No route to host"), error=("the node cannot be reached",)),
    Fault(
        "storage busy in the task",
        switch("storage_lock", 1),
        ("create", "configure a clone"),
        switch="storage-lock",
    ),
    Fault(
        "storage busy",
        answers(500, "cfs-lock 'storage-local-lvm' error: got lock request timeout"),
        ("create", "grow"),
    ),
    Fault(
        "file lock held a moment",
        switch("file_lock", 1),
        ("create", "configure", "grow", "destroy"),
        switch="file-lock",
    ),
    Fault("file lock held", said(FILE_LOCK, 2)),
    Fault("file lock held for good", said(FILE_LOCK, 99), error=("can't lock file", "deadlines.lock")),
    Fault("locked by a backup that ends", locked("backup", 0.5), EXISTING, switch="lock-held"),
    Fault("locked by a snapshot that ends", locked("snapshot", 0.5), ("configure", "destroy")),
    Fault(
        "locked for good",
        locked("migrate"),
        ("configure", "grow", "start", "stop", "destroy"),
        ("locked", "migrate", "deadlines.lock"),
    ),
    Fault("template locked a moment", template_locked, ("create",), kinds=("vm",)),
    Fault("configuration changed by others", said(DIGEST), ("configure a clone", "configure")),
    Fault(
        "configuration always changed by others",
        said(DIGEST, 99),
        ("configure a clone", "configure"),
        ("by other user",),
    ),
    Fault(
        "id taken by others",
        said(
            {
                "lxc": "unable to create CT 100 - CT 100 already exists on node 'pve2'",
                "vm": "unable to create VM 100: config file already exists",
            }
        ),
        ("create",),
    ),
    Fault(
        "privilege missing",
        answers(403, "Permission check failed (/vms/100, VM.Something)", 99),
        error=("lacks a privilege", "/vms/100, VM.Something"),
    ),
    Fault(
        "storage full in the task",
        switch("quota_full", 99),
        ("create", "configure a clone"),
        error=("space",),
        switch="quota-full",
    ),
    Fault(
        "refused for lack of space",
        answers(500, "lvcreate failed: insufficient free space: quota exceeded", 99),
        error=("quota exceeded",),
    ),
    Fault("guest that ignores being switched off", deaf, ("stop", "reboot"), always=True, switch="deaf"),
    Fault("volume left of a guest that is gone", switch("volume_left", 1), ("create",), switch="volume-left"),
    Fault(
        "start that fails",
        ends("start failed: command '/usr/bin/kvm' failed: got timeout", "qmstart", "vzstart"),
        ("create", "start"),
        error=("start failed: command '/usr/bin/kvm' failed: got timeout",),
        switch="task-error",
    ),
    Fault(
        "node dead",
        dead,
        error=("does not answer", "until that node is back"),
        switch="dead-node",
        always=True,
    ),
    Fault(
        "values kept in another form",
        normalising,
        ("configure",),
        ("the server took every change, but reads back",),
        switch="normalise",
    ),
    Fault("names late", silent, switch="silent-statd"),
    Fault("ticket expired", expired, password=True, switch="expired-ticket"),
)
CELLS = [
    (fault.name, kind, operation.name)
    for fault in FAULTS
    for operation in OPERATIONS
    if operation.name in fault.operations
    for kind in operation.kinds
    if kind in fault.kinds
    if LONG
    or fault.always
    or operation.name == next(n for n in ("create", "configure", *ALL) if n in fault.operations)
]


def others(site: Site) -> dict[str, Any]:
    """All there is of guests that are not ours, volumes included."""
    cluster = site.server.cluster
    return {
        other.name + str(vmid): (dict(other.config), cluster.driver(other).runtime(other).running)
        for vmid, other in cluster.guests.items()
        if other.name != "one"
    }


def intact(site: Site, foreign: dict[str, Any]) -> None:
    """Nothing orphaned, nothing doubled, nothing of others changed."""
    cluster = site.server.cluster
    site.server.cluster.tasks.wait_idle(10)
    assert others(site) == foreign
    ours = [found for found in cluster.guests.values() if found.name == "one"]
    assert len(ours) <= 1
    for driver in (site.server.driver, site.server.vm_driver):
        known = {vmid for vmid, found in cluster.guests.items() if cluster.drivers[found.kind] is driver}
        assert set(driver.disks) <= known, "disks without a guest"
    for found in ours:
        assert not any(key.startswith("unused") for key in found.config)


def reached(site: Site, operation: Operation, kind: str) -> None:
    wanted = operation.record(kind)
    if wanted.get("state") == "absent":
        assert "one" not in site.names()
        return
    config = site.config("one")
    assert set(config["tags"].split(";")) == set(wanted["tags"])
    assert config["nameserver" if site.pending("one") == set() else "tags"]
    assert f"size={wanted['rootfs']['size_gb']}G" in config["rootfs" if kind == "lxc" else "scsi0"]
    assert site.power("one") == ("stopped" if wanted.get("state") == "stopped" else "running")
    assert "lock" not in config


def cell(where: tuple[str, str, str]) -> str:
    """Meet one fault; what the run said."""
    name, kind, which = where
    fault = next(fault for fault in FAULTS if fault.name == name)
    operation = next(operation for operation in OPERATIONS if operation.name == which)
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        site = Site(server)
        nic = {"bridge": "vmbr0", "address": "10.0.0.99/24"}
        for number, other in enumerate(KINDS, 700):
            site.ok(
                guest(
                    other,
                    f"theirs-{other}",
                    vmid=number,
                    networks=[{**nic, "address": f"10.0.1.{number - 600}/24"}],
                )
            )
        if operation.before is not None:
            site.ok(guest(kind, **operation.before))
        foreign = others(site)
        login = (
            {"api_password": server.password, "api_token_id": "", "api_token_secret": ""}
            if fault.password
            else {}
        )
        fault.inject(site, kind, operation)
        began = time.monotonic()
        result = site.run(operation.record(kind), deadlines=DEADLINES, **login)
        seconds = time.monotonic() - began
        intact(site, foreign)
        if fault.error:
            assert result.get("failed"), "the run should have failed"
            missing = [part for part in fault.error if part not in result["msg"]]
            assert not missing, f"{missing} not in {result['msg']}"
            assert " one" in result["msg"]
        else:
            assert not result.get("failed"), result["msg"]
            assert outcome(result)["actions"] == operation.actions[kind]
            reached(site, operation, kind)
        told = f"error after {seconds:.1f} s" if fault.error else f"done in {seconds:.1f} s"
        # The fault is over: another run ends what is left, and a third finds nothing to do.
        server.cluster.switch("", {}, False)
        for found in list(server.cluster.guests.values()):
            if found.config.get("lock"):
                server.lock_guest(found.vmid, "")
        record = {**operation.record(kind)}
        if record.get("state") == "restarted":
            record["state"] = "started"
        site.ok(record)
        reached(site, operation, kind)
        intact(site, foreign)
        assert site.ok(record)["changed"] is False
        return told


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str, str], str]:
    results = side_by_side(cell, CELLS)
    REPORT.mkdir(exist_ok=True)
    (REPORT / "guest-faults.txt").write_text(table(results), encoding="utf-8")
    return results


def table(results: dict[tuple[str, str, str], str]) -> str:
    """One line per fault and kind, one column per operation."""
    lines = [f"{'fault':<42}{'kind':<6}" + "".join(f"{name:<21}" for name in ALL)]
    for fault in FAULTS:
        for kind in KINDS:
            row = [results.get((fault.name, kind, name), "-") for name in ALL]
            if set(row) == {"-"}:
                continue
            words = ["WRONG" if text.startswith("FAULT") else text for text in row]
            lines.append(f"{fault.name:<42}{kind:<6}" + "".join(f"{text:<21}" for text in words))
    wrong = sum(text.startswith("FAULT") for text in results.values())
    lines.append(
        f"{len(results)} combinations, {wrong} wrong; after each a second run ended what was left, a third changed nothing"
    )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("where", CELLS, ids=" / ".join)
def test_fault_ends_well(found: dict[tuple[str, str, str], str], where: tuple[str, str, str]) -> None:
    assert not found[where].startswith("FAULT"), found[where]


def test_every_switch_of_the_lab_is_met() -> None:
    met = {fault.switch for fault in FAULTS}
    # A slow clone is a slow task of one kind.
    assert set(SWITCHES) - {"slow-clone"} == met - {""}
