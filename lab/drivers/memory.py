# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Guests that exist only as facts, for tests of the API's clients."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from lab.drivers.base import Creation, Guest, MachineDriver, Runtime, leased, parse_nic, split_properties
from lab.tasks import Task

TEMPLATES = {
    "debian-12-standard_12.12-1_amd64.tar.zst": 126515062,
    "debian-12-docker_12-1_amd64.tar.zst": 215318101,
}
# Where guests get addresses that nobody named.
SUBNET = "192.0.2"
_LOOPBACK = {"ip": "127.0.0.1/8", "ip6": "::1/128"}


class MemoryDriver(MachineDriver):
    """Answers as a hypervisor would; `delay` seconds pass in each piece of work."""

    def __init__(self, kind: str = "lxc", delay: float = 0.0) -> None:
        self.kind = kind
        self.delay = delay
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        # vmid -> disk -> bytes; what a test looks at to see that real work was asked for.
        self.disks: dict[int, dict[str, int]] = {}
        self.applied: list[tuple[int, str]] = []
        # vmid -> snapshot -> what the disks were.
        self.kept: dict[int, dict[str, dict[str, int]]] = {}
        self.ssh_keys: dict[int, str] = {}
        # Guests that ignore a polite shutdown.
        self.deaf: set[int] = set()
        # Virtual machines whose agent does not answer.
        self.silent: set[int] = set()

    def templates(self) -> dict[str, int]:
        return dict(TEMPLATES) if self.kind == "lxc" else {}

    def create(self, guest: Guest, creation: Creation, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self.disks[guest.vmid] = {
                key: guest.disk_size(key)
                for key in guest.config
                if guest.disk_size(key) and re.fullmatch(r"rootfs|(mp|scsi|virtio|sata|ide)\d+", key)
            }
            self.ssh_keys[guest.vmid] = creation.ssh_public_keys

    def destroy(self, guest: Guest, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self._started.pop(guest.vmid, None)
            self.disks.pop(guest.vmid, None)
            self.kept.pop(guest.vmid, None)

    def start(self, guest: Guest, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self._started[guest.vmid] = time.time()

    def stop(self, guest: Guest, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self._started.pop(guest.vmid, None)

    def shutdown(self, guest: Guest, timeout: float, task: Task) -> bool:
        if guest.vmid in self.deaf:
            task.sleep(min(timeout, 0.2))
            return False
        self.stop(guest, task)
        return True

    def runtime(self, guest: Guest) -> Runtime:
        started = self._started.get(guest.vmid)
        if started is None:
            return Runtime()
        return Runtime(
            running=True, pid=1000 + guest.vmid, uptime=int(time.time() - started), cpu=0.01, mem=64 << 20
        )

    def interfaces(self, guest: Guest) -> list[dict[str, Any]]:
        if self.kind == "qemu":
            if guest.vmid in self.silent:
                raise ConnectionRefusedError
            return [_agent_interface("lo", "00:00:00:00:00:00", _LOOPBACK), *_agent_interfaces(guest)]
        found: list[dict[str, Any]] = [_interface("lo", "00:00:00:00:00:00", _LOOPBACK)]
        for key, value in sorted(guest.config.items()):
            if key.startswith("net") and key[3:].isdigit():
                net = leased(split_properties(str(value)), guest.vmid, SUBNET)
                found.append(_interface(net["name"], net.get("hwaddr", "").lower(), net))
        return found

    def apply(self, guest: Guest, key: str) -> None:
        self.applied.append((guest.vmid, key))

    def resize(self, guest: Guest, disk: str, size: int, task: Task) -> None:
        task.sleep(self.delay)
        self.disks.setdefault(guest.vmid, {})[disk] = size

    def move(self, guest: Guest, disk: str, moved: Guest, task: Task) -> None:
        task.sleep(self.delay)

    def attach(self, guest: Guest, disk: str, task: Task) -> None:
        self.disks.setdefault(guest.vmid, {})[disk] = guest.disk_size(disk)

    def snapshot(self, guest: Guest, name: str, memory: bool, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self.kept.setdefault(guest.vmid, {})[name] = dict(self.disks.get(guest.vmid, {}))

    def rollback(self, guest: Guest, name: str, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self.disks[guest.vmid] = dict(self.kept[guest.vmid][name])

    def drop_snapshot(self, guest: Guest, name: str, task: Task) -> None:
        task.sleep(self.delay)
        with self._lock:
            self.kept.get(guest.vmid, {}).pop(name, None)

    def resume(self, guest: Guest, name: str, task: Task) -> None:
        self.start(guest, task)

    def ping(self, guest: Guest) -> bool:
        return guest.vmid not in self.silent

    def node_status(self) -> dict[str, Any]:
        return {
            "cores": 8,
            "memory": 32 << 30,
            "memory_used": 4 << 30,
            "disk": 200 << 30,
            "disk_used": 20 << 30,
        }


def _addresses(net: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Version, address and prefix length of what an interface has."""
    found = []
    for version, key in (("4", "ip"), ("6", "ip6")):
        address, _, prefix = net.get(key, "").partition("/")
        if prefix:
            found.append((version, address, prefix))
    return found


def _interface(name: str, mac: str, net: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "hwaddr": mac, "hardware-address": mac, "ip-addresses": []}
    for version, address, prefix in _addresses(net):
        family = {"4": "inet", "6": "inet6"}[version]
        entry[family] = f"{address}/{prefix}"
        entry["ip-addresses"].append({"ip-address": address, "ip-address-type": family, "prefix": prefix})
    return entry


def _agent_interface(name: str, mac: str, net: Mapping[str, str]) -> dict[str, Any]:
    """An interface as the agent inside a virtual machine tells it."""
    addresses = [
        {"ip-address": address, "ip-address-type": f"ipv{version}", "prefix": int(prefix)}
        for version, address, prefix in _addresses(net)
    ]
    return {"name": name, "hardware-address": mac.lower(), "ip-addresses": addresses}


def _agent_interfaces(guest: Guest) -> list[dict[str, Any]]:
    found = []
    for key, value in sorted(guest.config.items()):
        if key.startswith("net") and key[3:].isdigit():
            ip = split_properties(str(guest.config.get(f"ipconfig{key[3:]}", "")))
            net = leased(ip, guest.vmid, SUBNET)
            found.append(_agent_interface(f"eth{key[3:]}", parse_nic(str(value))["macaddr"], net))
    return found
