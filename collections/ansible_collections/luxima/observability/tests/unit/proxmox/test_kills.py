# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A run may be killed after any of its requests: the next one ends what it began, and nothing is made twice."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from typing import Any
from urllib.parse import unquote

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.luxima.observability.plugins.modules import proxmox_guests

import lab.testing

from .conftest import KEY, Site, guest, side_by_side

LONG = bool(os.environ.get("TESTS_LONG"))
pytestmark = pytest.mark.slow
#: In the short run a kill after every so many requests.
STRIDE = 1 if LONG else 6


def nic(number: int) -> dict[str, Any]:
    return {"networks": [{"bridge": "vmbr0", "address": f"10.0.0.{number}/24"}]}


#: What there is before, and what the killed run makes of it.
COURSES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "create a container": ([], [guest("lxc", "one")]),
    "create a VM": (
        [],
        [guest("vm", "one", disks=[{"slot": "scsi1", "storage": "local-lvm", "size_gb": 1}])],
    ),
    "create three": (
        [],
        [guest("lxc", "one", **nic(1)), guest("lxc", "two", **nic(2)), guest("vm", "three", **nic(3))],
    ),
    "change and reboot": (
        [guest("lxc", "one", **nic(1)), guest("vm", "two", **nic(2))],
        [
            guest("lxc", "one", **nic(1), memory_mb=512, nameservers=["9.9.9.9"], state="restarted"),
            guest("vm", "two", **nic(2), memory_mb=4096, rootfs={"storage": "local-lvm", "size_gb": 12}),
        ],
    ),
    "destroy": (
        [guest("lxc", "one", **nic(1)), guest("vm", "two", **nic(2))],
        [guest("lxc", "one", state="absent"), guest("vm", "two", state="absent")],
    ),
}


class Standby:
    """A run of the module that waits for its arguments.

    Begun before there is a server: forked beside its threads, it may wait for ever for a lock that one of them held.
    """

    def __init__(self) -> None:
        arguments, self._arguments = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(arguments)
            return
        os.close(self._arguments)
        try:
            with os.fdopen(arguments, encoding="utf-8") as given:
                told = json.load(given)
            with patch_module_args(told), contextlib.redirect_stdout(io.StringIO()):
                proxmox_guests.main()
        finally:
            os._exit(0)

    def killed(self, site: Site, after: int, *guests: dict[str, Any]) -> bool:
        """Runs, and is killed once so many requests have taken effect, before the last is answered. Whether it lived that long."""
        site.server.faults.after(after, lambda: os.kill(self._pid, signal.SIGKILL))
        with os.fdopen(self._arguments, "w", encoding="utf-8") as told:
            json.dump(site.arguments(guests, False, {}), told)
        _pid, status = os.waitpid(self._pid, 0)
        site.server.faults.reset()
        return os.WIFSIGNALED(status)


def requests(name: str) -> int:
    """How many a course takes that nobody kills, with some to spare for answers that come later."""
    before, after = COURSES[name]
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        site = Site(server)
        if before:
            site.ok(*before)
        already = len(server.requests)
        site.ok(*after)
        return len(server.requests) - already


def course(where: tuple[str, int]) -> str:
    name, after = where
    before, wanted = COURSES[name]
    run = Standby()
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        site = Site(server)
        if before:
            site.ok(*before)
        macs = {old["name"]: site.config(old["name"])["net0"] for old in before}
        server.faults.slow(0.05)
        killed = run.killed(site, after, *wanted)
        settled = [
            {**record, "state": "started"} if record.get("state") == "restarted" else record
            for record in wanted
        ]
        site.ok(*settled)
        assert site.names() == sorted(record["name"] for record in wanted if record.get("state") != "absent")
        for record in settled:
            if record.get("state") == "absent":
                continue
            config = site.config(record["name"])
            assert "lock" not in config
            assert site.power(record["name"]) == "running"
            assert macs.get(record["name"], config["net0"]) == config["net0"]
            if record.get("kind") == "vm":
                # Given at creation only: a clone that a dead run left gets them all the same.
                assert config["ciuser"] == "root"
                assert unquote(config["sshkeys"]) == KEY
            else:
                assert (
                    server.driver.ssh_keys[server.guest(record["name"]).vmid] == record["ssh_public_keys"][0]
                )
        vmids = {vmid for vmid, found in server.cluster.guests.items() if not found.config.get("template")}
        assert set(server.driver.disks) | set(server.vm_driver.disks) == vmids
        assert site.ok(*settled)["changed"] is False
        return "killed" if killed else "ended before"


@pytest.mark.parametrize("name", COURSES)
def test_run_killed_after_any_request_is_ended_by_the_next(name: str) -> None:
    total = requests(name)
    results = side_by_side(course, [(name, number) for number in range(1, total + 1, STRIDE)])
    faults = [
        f"after request {number}: {text}"
        for (_name, number), text in results.items()
        if text.startswith("FAULT")
    ]
    assert not faults, "\n".join(faults)
    killed = sum(text == "killed" for text in results.values())
    assert killed >= len(results) * 2 // 3
