# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The real module against the lab's API over HTTPS."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import requests
from ansible.module_utils.testing import patch_module_args
from ansible_collections.luxima.observability.plugins.modules import proxmox_guests

import lab.testing

TEMPLATE = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZv operator of db/1+2"
KINDS = ("lxc", "vm")
MAC = re.compile(r"([0-9A-F]{2}:){5}[0-9A-F]{2}")


@dataclass
class Site:
    """A hypervisor and the module that is run against it."""

    server: lab.testing.TestServer

    def run(self, *guests: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's own result, failed or not."""
        return self.module(proxmox_guests, check, guests=list(guests), **options)

    def module(self, module: Any, check: bool = False, **options: Any) -> dict[str, Any]:
        """The result of any module of the action group."""
        out = io.StringIO()
        arguments = {**self.connection(check), **options}
        with patch_module_args(arguments), contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(out.getvalue().strip().splitlines()[-1])
        return result

    def process(self, *guests: dict[str, Any]) -> subprocess.Popen[str]:
        """The same as a process of its own, which can run beside another or be killed."""
        program = (
            "import json, sys\n"
            "from ansible.module_utils.testing import patch_module_args\n"
            f"from {proxmox_guests.__name__} import main\n"
            "with patch_module_args(json.load(sys.stdin)):\n    main()\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert process.stdin
        process.stdin.write(json.dumps(self.arguments(guests, False, {})))
        process.stdin.close()
        process.stdin = None
        return process

    def arguments(
        self, guests: tuple[dict[str, Any], ...], check: bool, options: dict[str, Any]
    ) -> dict[str, Any]:
        return {**self.connection(check), "guests": list(guests), **options}

    def connection(self, check: bool = False) -> dict[str, Any]:
        """What every module is told to reach the hypervisor."""
        return {
            "api_host": self.server.host,
            "api_port": self.server.port,
            "api_user": self.server.user,
            "api_token_id": self.server.token_id,
            "api_token_secret": self.server.token_secret,
            "ca_path": self.server.ca_path,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
        }

    def ok(self, *guests: dict[str, Any], **options: Any) -> dict[str, Any]:
        result = self.run(*guests, **options)
        assert not result.get("failed"), result["msg"]
        return result

    def fails(self, *guests: dict[str, Any], **options: Any) -> str:
        result = self.run(*guests, **options)
        assert result.get("failed"), result
        return str(result["msg"])

    def names(self) -> list[str]:
        """Of all guests but the templates."""
        guests = list(self.server.cluster.guests.values())
        return sorted(guest.name for guest in guests if not guest.config.get("template"))

    def config(self, name: str) -> dict[str, Any]:
        return dict(self.server.guest(name).config)

    def place(self, name: str) -> str:
        guest = self.server.guest(name)
        return f"nodes/{guest.node}/{guest.kind}/{guest.vmid}"

    def power(self, name: str) -> str:
        return str(self.api("GET", f"{self.place(name)}/status/current")["status"])

    def pending(self, name: str) -> set[str]:
        entries = self.api("GET", f"{self.place(name)}/pending")
        return {entry["key"] for entry in entries if "pending" in entry or "delete" in entry}

    def edit(self, name: str, **values: Any) -> None:
        """A change by somebody else, through the API."""
        self.api("PUT", f"{self.place(name)}/config", **values)

    def wait(self, upid: str) -> None:
        """Until a task of somebody else has ended."""
        assert self.server.cluster.tasks.get(upid).done.wait(10)

    def store(self, name: str, values: dict[str, Any]) -> None:
        """Lines of the configuration's file as somebody else or another version wrote them; None takes one away.

        ``{mac}`` and ``{vmid}`` stand for those the guest has.
        """
        guest = self.server.guest(name)
        mac = MAC.search(str(guest.config.get("net0", "")))
        with self.server.cluster.change(guest):
            for key, value in values.items():
                if value is None:
                    guest.config.pop(key, None)
                    continue
                if isinstance(value, str):
                    value = value.replace("{vmid}", str(guest.vmid)).replace("{mac}", mac[0] if mac else "")
                guest.config[key] = value

    def writes(self) -> int:
        """Requests so far that were neither questions nor logins."""
        return sum(entry.method != "GET" for entry in self.server.requests if "/access/" not in entry.path)

    def visits(self, tasks: bool = False) -> int:
        """Requests it takes to learn the names of all guests from their nodes: one per node and kind."""
        guests = list(self.server.cluster.guests.values())
        places = {(guest.node, guest.kind) for guest in guests}
        return len(places) + (len({node for node, _ in places}) if tasks else 0)

    def api(self, method: str, path: str, **values: Any) -> Any:
        token = f"PVEAPIToken={self.server.user}!{self.server.token_id}={self.server.token_secret}"
        where = {"params": values} if method in ("GET", "DELETE") else {"data": values}
        answer = requests.request(
            method,
            f"https://{self.server.host}:{self.server.port}/api2/json/{path}",
            headers={"Authorization": token},
            verify=self.server.ca_path,
            timeout=10,
            **where,  # type: ignore[arg-type]
        )
        assert answer.ok, f"{answer.status_code} {answer.reason} {answer.text}"
        return answer.json()["data"]


@pytest.fixture
def site() -> Iterator[Site]:
    with lab.testing.server(driver="memory", nodes=("pve1", "pve2", "pve3")) as server:
        yield Site(server)


def record(name: str = "web-1", **changes: Any) -> dict[str, Any]:
    """A container as an inventory describes it."""
    result: dict[str, Any] = {
        "name": name,
        "template": TEMPLATE,
        "cores": 1,
        "memory_mb": 256,
        "swap_mb": 0,
        "rootfs": {"storage": "local-lvm", "size_gb": 4},
        "networks": [{"bridge": "vmbr0", "vlan": 0, "address": "10.0.0.11/24", "gateway": "10.0.0.1"}],
        "nameservers": ["10.0.0.1", "10.0.0.2"],
        "unprivileged": True,
        "onboot": True,
        "tags": ["dev", "luxima"],
        "description": "made by a test",
        "ssh_public_keys": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZv operator"
        ],
    }
    return {**result, **changes}


def machine(name: str = "db-1", **changes: Any) -> dict[str, Any]:
    """A VM as an inventory describes it, with what only a container has."""
    result: dict[str, Any] = {
        "name": name,
        "kind": "vm",
        "template": "debian-12-cloud",
        "cores": 2,
        "memory_mb": 2048,
        "swap_mb": 0,
        "unprivileged": True,
        "features": {},
        "rootfs": {"storage": "local-lvm", "size_gb": 8},
        "networks": [{"bridge": "vmbr0", "vlan": 0, "address": "10.0.0.21/24", "gateway": "10.0.0.1"}],
        "nameservers": ["10.0.0.1", "10.0.0.2"],
        "onboot": True,
        "tags": ["dev", "luxima"],
        "user": "root",
        "ssh_public_keys": [KEY],
    }
    return {**result, **changes}


def guest(kind: str, name: str = "one", **changes: Any) -> dict[str, Any]:
    """A record of either kind."""
    return (record if kind == "lxc" else machine)(name, **changes)


def small(kind: str, name: str = "one", **changes: Any) -> dict[str, Any]:
    """A record that manages next to nothing: what a test is about is all there is."""
    disk = {"rootfs": {"storage": "local-lvm", "size_gb": 4}}
    source = {"template": TEMPLATE, **disk} if kind == "lxc" else {"template": "debian-12-cloud"}
    return {"name": name, "kind": kind, "state": "present", **source, **changes}


@dataclass(frozen=True)
class Operation:
    """Something a run does to a guest, and the request that does it."""

    name: str
    #: What there is before; None: nothing.
    before: dict[str, Any] | None
    change: dict[str, Any]
    actions: dict[str, list[str]]
    #: Verb and path by kind.
    requests: dict[str, tuple[str, str]]
    kinds: tuple[str, ...] = KINDS

    def record(self, kind: str) -> dict[str, Any]:
        return guest(kind, **self.change)


def _each(*actions: str) -> dict[str, list[str]]:
    return {kind: list(actions) for kind in KINDS}


OPERATIONS = (
    Operation(
        "create",
        None,
        {},
        {"lxc": ["created", "started"], "vm": ["cloned", "configured", "grown", "started"]},
        {"lxc": ("POST", r"/lxc$"), "vm": ("POST", r"/qemu/\d+/clone$")},
    ),
    Operation(
        "configure a clone",
        None,
        {},
        {"vm": ["cloned", "configured", "grown", "started"]},
        {"vm": ("POST", r"/config$")},
        ("vm",),
    ),
    Operation(
        "configure",
        {},
        {"tags": ["changed"], "nameservers": ["9.9.9.9"]},
        _each("configured"),
        {"lxc": ("PUT", r"/config$"), "vm": ("POST", r"/config$")},
    ),
    Operation(
        "grow",
        {},
        {"rootfs": {"storage": "local-lvm", "size_gb": 12}},
        _each("grown"),
        dict.fromkeys(KINDS, ("PUT", r"/resize$")),
    ),
    Operation(
        "start", {"state": "stopped"}, {}, _each("started"), dict.fromkeys(KINDS, ("POST", r"/status/start$"))
    ),
    Operation(
        "stop",
        {},
        {"state": "stopped"},
        _each("stopped"),
        dict.fromkeys(KINDS, ("POST", r"/status/shutdown$")),
    ),
    Operation(
        "reboot",
        {},
        {"state": "restarted"},
        _each("rebooted"),
        dict.fromkeys(KINDS, ("POST", r"/status/reboot$")),
    ),
    Operation(
        "destroy",
        {},
        {"state": "absent"},
        _each("stopped", "destroyed"),
        dict.fromkeys(KINDS, ("DELETE", r"/(lxc|qemu)/\d+$")),
    ),
)

T = TypeVar("T")


def on_a_hypervisor(check: Callable[[Site, T], None]) -> Callable[[T], str]:
    """A check of one row of a table, on a hypervisor of its own, for :func:`side_by_side`."""

    @functools.wraps(check)
    def whole(row: T) -> str:
        with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
            check(Site(server), row)
        return ""

    return whole


def side_by_side(work: Callable[[T], str], items: Sequence[T], processes: int = 6) -> dict[T, str]:
    """``work`` for every item, each in a process of its own: most of the time is waiting. What it returned, or its error."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        futures = {item: pool.submit(work, item) for item in items}
        return {item: _told(future) for item, future in futures.items()}


def _told(future: Future[str]) -> str:
    try:
        return future.result(timeout=900)
    except Exception as error:
        return "FAULT " + "".join(traceback.format_exception(error))


def outcome(result: dict[str, Any], name: str = "") -> dict[str, Any]:
    """What became of a guest; of the only one without a name."""
    found: dict[str, Any] = result["guests"][name] if name else dict(*result["guests"].values())
    return found


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """What check mode must predict."""
    told = ("vmid", "node", "addresses", "before", "after", "actions", "needs_reboot")
    return {
        "changed": result["changed"],
        "diff": result["diff"],
        "guests": {name: {key: found[key] for key in told} for name, found in result["guests"].items()},
    }


@pytest.fixture
def both() -> Iterator[Site]:
    """A hypervisor for containers and VMs, a template of either on each node."""
    with lab.testing.server(nodes=("pve1", "pve2"), vm_templates=True) as server:
        yield Site(server)


@pytest.fixture
def web() -> dict[str, Any]:
    return record()


@pytest.fixture
def make() -> Any:
    """Records by name: ``make("web-2", cores=2)``; addresses differ by the number at the end."""

    def build(name: str, **changes: Any) -> dict[str, Any]:
        number = int(name.rpartition("-")[2])
        nic = {"bridge": "vmbr0", "address": f"10.0.0.{10 + number}/24", "gateway": "10.0.0.1"}
        return record(name, **{"networks": [nic], **changes})

    return build
