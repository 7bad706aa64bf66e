# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the API needs from whatever really runs guests; one driver per kind of guest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lab.errors import die
from lab.instance import prefix6

if TYPE_CHECKING:
    from lab.tasks import Task

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_size(text: str) -> int:
    """Bytes of `8G`, `512M`, `1.5T` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if match is None:
        raise die(f"invalid size string '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])


def format_size(size: int) -> str:
    """The shortest exact spelling, as configurations have it."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def split_properties(text: str, default_key: str = "") -> dict[str, str]:
    """`a=1,b=2` as a mapping; a part without `=` belongs to `default_key`."""
    result: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("=")
        if sign:
            result[key] = value
        else:
            result[default_key] = part
    return result


def join_properties(values: dict[str, Any], default_key: str = "") -> str:
    """The reverse; the default key first and bare, the rest sorted."""
    parts = [str(values[default_key])] if default_key in values else []
    parts += [f"{key}={values[key]}" for key in sorted(values) if key != default_key]
    return ",".join(parts)


def leased(net: Mapping[str, str], vmid: int, subnet: str) -> dict[str, str]:
    """With addresses in place of `dhcp` and `auto`: nobody gives any here, so they are computed, and always the same."""
    result = dict(net)
    if net.get("ip") == "dhcp":
        result["ip"] = f"{subnet}.{100 + vmid % 150}/24"
        result.setdefault("gw", f"{subnet}.1")
    if net.get("ip6") in ("auto", "dhcp"):
        result["ip6"] = f"{prefix6(subnet)}{vmid:x}/64"
    return result


_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def parse_nic(text: str) -> dict[str, str]:
    """`virtio=BC:..,bridge=vmbr0` of a virtual machine; model and address as `model` and `macaddr`."""
    found: dict[str, str] = {}
    for key, value in split_properties(text, "model").items():
        if key not in ("macaddr", "model") and _MAC.fullmatch(value):
            found["model"], found["macaddr"] = key, value.upper()
        else:
            found[key] = value
    return found


@dataclass
class Guest:
    """One guest as its configuration file has it."""

    vmid: int
    node: str
    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    pending_delete: list[str] = field(default_factory=list)
    # name -> {"config", "snaptime", "description", "parent", "vmstate"}; what is empty is left out.
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Id of the template whose volumes those of this guest refer to; 0: none.
    base: int = 0

    @property
    def name(self) -> str:
        key = "hostname" if self.kind == "lxc" else "name"
        return str(self.config.get(key, f"{'CT' if self.kind == 'lxc' else 'VM '}{self.vmid}"))

    def volume(self, disk: str) -> str:
        """The volume of a disk, `local-lvm:vm-100-disk-0`; "" when there is no such disk."""
        key = "volume" if self.kind == "lxc" else "file"
        return split_properties(str(self.config.get(disk, "")), key).get(key, "")

    def disks(self) -> list[str]:
        """Keys of the volumes that hold data."""
        return [
            key
            for key in sorted(self.config)
            if re.fullmatch(r"rootfs|(mp|scsi|virtio|sata|ide)\d+", key) and self.disk_size(key)
        ]

    def disk_size(self, disk: str) -> int:
        text = split_properties(str(self.config.get(disk, ""))).get("size", "")
        return parse_size(text) if text else 0


@dataclass(frozen=True)
class Creation:
    """What a new guest is made from; never stored in its configuration."""

    template: str = ""
    source: Guest | None = None
    # The disks refer to those of the source instead of copying them.
    linked: bool = False
    # The disks are those of this snapshot of the source.
    snapshot: str = ""
    ssh_public_keys: str = ""
    password: str = ""
    # The file of the template, when a client put it there.
    archive: Path | None = None
    # Disk images that disks are copied from, by the key of the disk.
    images: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """What a guest uses now: bytes, seconds, share of its cores."""

    running: bool = False
    pid: int = 0
    uptime: int = 0
    cpu: float = 0.0
    mem: int = 0
    swap: int = 0
    disk: int = 0
    netin: int = 0
    netout: int = 0
    diskread: int = 0
    diskwrite: int = 0


class Driver(Protocol):
    """Makes and runs guests of one kind. Faults are RuntimeError or OSError with one line of text."""

    kind: str

    def templates(self) -> dict[str, int]:
        """File names of templates that are at hand, with their sizes in bytes."""

    def create(self, guest: Guest, creation: Creation, task: Task) -> None:
        """Make the guest's disks as its configuration says, filled and ready to start."""

    def destroy(self, guest: Guest, task: Task) -> None:
        """Remove everything the guest has; what is missing already is no fault."""

    def start(self, guest: Guest, task: Task) -> None: ...

    def stop(self, guest: Guest, task: Task) -> None:
        """At once, without asking the guest."""

    def shutdown(self, guest: Guest, timeout: float, task: Task) -> bool:
        """Ask the guest; False when it still runs after `timeout` seconds."""

    def runtime(self, guest: Guest) -> Runtime: ...

    def interfaces(self, guest: Guest) -> list[dict[str, Any]]:
        """Network interfaces as seen inside a running guest, in the API's form."""

    def apply(self, guest: Guest, key: str) -> None:
        """Make a running guest obey the option `key` of its configuration (absent: the default)."""

    def resize(self, guest: Guest, disk: str, size: int, task: Task) -> None:
        """Grow a disk to `size` bytes; of a container, the file system on it, too."""

    def move(self, guest: Guest, disk: str, moved: Guest, task: Task) -> None:
        """Bring a disk of a stopped guest to the place that `moved`, the same guest afterwards, has for it."""

    def snapshot(self, guest: Guest, name: str, memory: bool, task: Task) -> None:
        """Keep the disks as they are now, and the memory of a running virtual machine."""

    def rollback(self, guest: Guest, name: str, task: Task) -> None:
        """Give the disks of a stopped guest the contents they had."""

    def drop_snapshot(self, guest: Guest, name: str, task: Task) -> None:
        """Forget a snapshot; what is missing already is no fault."""

    def node_status(self) -> dict[str, Any]:
        """cpu, cores, memory and disk of the machine below."""


class MachineDriver(Driver, Protocol):
    """What only virtual machines can do."""

    def attach(self, guest: Guest, disk: str, task: Task) -> None:
        """Make a further disk of a virtual machine and give it to one that runs."""

    def resume(self, guest: Guest, name: str, task: Task) -> None:
        """Start a virtual machine where its memory was when the snapshot was taken."""

    def ping(self, guest: Guest) -> bool:
        """Whether the agent inside a virtual machine answers."""
