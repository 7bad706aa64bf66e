# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The cluster's memory: nodes, storages, pools and the guests' configurations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.access import Access
from lab.documents import Documents
from lab.drivers.base import Driver, Guest
from lab.errors import ApiError, die
from lab.faults import Faults, checked
from lab.files import Files
from lab.statd import PERIOD, Statd
from lab.tasks import Tasks

VERSION = {"version": "9.1.4", "release": "9.1", "repoid": "5ac30304265fbd8e"}
LOWEST_ID, HIGHEST_ID = 100, 1000000
# Seconds that a writer waits for another one of the same guest.
LOCK_TIMEOUT = 10.0
FIRST_TEMPLATE = 9001


def template(vmid: int, node: str) -> Guest:
    """The ready-made virtual machine, whose disk the lab builds when it is first cloned."""
    mac = "BC:24:11:" + ":".join(f"{byte:02X}" for byte in vmid.to_bytes(3, "big"))
    return Guest(
        vmid,
        node,
        "qemu",
        {
            "agent": "enabled=1",
            "boot": "order=scsi0",
            "cores": 1,
            "ide2": f"local-lvm:vm-{vmid}-cloudinit,media=cdrom",
            "memory": "1024",
            "name": "debian-12-cloud",
            "net0": f"virtio={mac},bridge=vmbr0",
            "ostype": "l26",
            "scsi0": f"local-lvm:base-{vmid}-disk-0,size=3G",
            "scsihw": "virtio-scsi-pci",
            "serial0": "socket",
            "template": 1,
            "vga": "serial0",
        },
    )


# What a storage says that has a volume of this name already, by its type.
_LEFT = {
    "lvmthin": 'lvcreate \'pve/{name}\' error:   Logical Volume "{name}" already exists in volume group "pve"',
    "zfspool": "zfs error: cannot create 'rpool/data/{name}': dataset already exists",
}
# What a storage without space says, by its type.
_FULL = {
    "lvmthin": "lvcreate '{storage}/vm-{vmid}-disk-0' error:   Volume group \"pve\" has insufficient free space (0 extents): 1 required.",
    "zfspool": "zfs error: cannot create '{storage}/vm-{vmid}-disk-0': out of space",
}


@dataclass
class Storage:
    id: str
    type: str
    content: tuple[str, ...]
    shared: bool = False
    path: str = ""

    def settings(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "storage": self.id,
            "type": self.type,
            "content": ",".join(sorted(self.content)),
            "shared": int(self.shared),
        }
        if self.path:
            entry["path"] = self.path
        entry["digest"] = hashlib.sha1(json.dumps(entry, sort_keys=True).encode()).hexdigest()  # noqa: S324
        return entry


@dataclass
class Pool:
    comment: str = ""
    members: list[int] = field(default_factory=list)
    storages: list[str] = field(default_factory=list)


def render(guest: Guest) -> str:
    """The configuration as its file would read; the digest is that of this text."""
    lines = [f"{key}: {value}" for key, value in sorted(guest.config.items())]
    if guest.pending or guest.pending_delete:
        lines += ["", "[pve:pending]"]
        if guest.pending_delete:
            lines.append("delete: " + ",".join(guest.pending_delete))
        lines += [f"{key}: {value}" for key, value in sorted(guest.pending.items())]
    for name, snapshot in sorted(guest.snapshots.items()):
        lines += ["", f"[{name}]"]
        lines += [f"{key}: {value}" for key, value in sorted(snapshot["config"].items())]
        lines += [f"{key}: {value}" for key, value in sorted(snapshot.items()) if key != "config"]
    return "\n".join(lines) + "\n"


def digest(guest: Guest) -> str:
    return hashlib.sha1(render(guest).encode()).hexdigest()  # noqa: S324


class Cluster:
    """All state of the API. Every change of a guest happens inside `change()`."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        drivers: Mapping[str, Driver],
        access: Access,
        faults: Faults | None = None,
        state: Path | None = None,
        lag: float = PERIOD,
    ) -> None:
        """`lag`: seconds between two broadcasts of what the nodes know of their guests."""
        self.nodes = nodes
        # Nodes that are down: they are known, and none of them answers.
        self.dead: set[str] = set()
        self.statd = Statd(lag)
        self.drivers = drivers
        self.access = access
        self.faults = faults or Faults()
        self.started = time.time()
        # Whether an answer that is not what the schema declares is an error: for tests.
        self.conform = False
        self.lock = threading.RLock()
        self.guests: dict[int, Guest] = {}
        self._file_locks: dict[int, threading.RLock] = {}
        self.pools: dict[str, Pool] = {}
        # Services of the HA manager by their id, ct:100 or vm:100, and the rules about them.
        self.ha: dict[str, dict[str, Any]] = {}
        self.ha_rules: dict[str, dict[str, Any]] = {}
        self.storages = {
            "local": Storage(
                "local", "dir", ("backup", "import", "iso", "snippets", "vztmpl"), path="/var/lib/vz"
            ),
            "local-lvm": Storage("local-lvm", "lvmthin", ("images", "rootdir")),
            "local-zfs": Storage("local-zfs", "zfspool", ("images", "rootdir")),
            "backup": Storage("backup", "dir", ("backup",), path="/mnt/backup"),
        }
        self._state = state
        self.documents = Documents(state / "documents" if state else None)
        self.files = Files(state / "files" if state else None)
        if state:
            (state / "guests").mkdir(parents=True, exist_ok=True)
            for path in sorted((state / "guests").glob("*.json")):
                guest = Guest(**json.loads(path.read_text(encoding="utf-8")))
                self.guests[guest.vmid] = guest
            with contextlib.suppress(FileNotFoundError):
                pools = json.loads((state / "pools.json").read_text(encoding="utf-8"))
                self.pools = {name: Pool(**pool) for name, pool in pools.items()}
            with contextlib.suppress(FileNotFoundError):
                known = json.loads((state / "ha.json").read_text(encoding="utf-8"))
                self.ha, self.ha_rules = known["resources"], known["rules"]
        self.tasks = Tasks(self.faults, state / "tasks" if state else None)

    # -- persistence

    @staticmethod
    def _write(path: Path, document: object) -> None:
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        scratch.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
        scratch.replace(path)

    def save(self, guest: Guest) -> None:
        if self._state:
            self._write(self._state / "guests" / f"{guest.vmid}.json", asdict(guest))

    def save_pools(self) -> None:
        if self._state:
            self._write(self._state / "pools.json", {name: asdict(pool) for name, pool in self.pools.items()})

    def save_ha(self) -> None:
        if self._state:
            self._write(self._state / "ha.json", {"resources": self.ha, "rules": self.ha_rules})

    # -- faults

    def switch(self, name: str, given: dict[str, Any], on: bool) -> None:
        """Switch a fault of `lab.faults.SWITCHES`; ValueError says what is wrong with it."""
        if not on and not name:
            self.faults.reset()
            self.dead.clear()
            self.statd.silent.clear()
            return
        values = checked(name, given)
        if name == "expired-ticket":
            self.access.expire_tickets()
        elif name in ("dead-node", "silent-statd"):
            self._silence(name, str(values["node"]), on)
        elif name == "lock-held":
            guest = self.guests.get(values["vmid"])
            if guest is None:
                raise ValueError(f"lock-held: there is no guest {values['vmid']}; add vmid=<id>")
            with self.change(guest, skiplock=True):
                guest.config.pop("lock", None)
                if on:
                    guest.config["lock"] = values["lock"]
        else:
            self.faults.switch(name, values, on)

    def _silence(self, fault: str, node: str, on: bool) -> None:
        if node not in self.nodes:
            raise ValueError(f"{fault}: there is no node {node!r}; add node=<{'|'.join(self.nodes)}>")
        for nodes in [self.dead, self.statd.silent] if fault == "dead-node" else [self.statd.silent]:
            (nodes.add if on else nodes.discard)(node)

    def troubles(self) -> list[str]:
        """Faults that are on, in words."""
        quiet = self.statd.silent - self.dead
        found = [f"dead-node node={node}" for node in sorted(self.dead)]
        return [*found, *(f"silent-statd node={node}" for node in sorted(quiet)), *self.faults.active()]

    # -- services of the HA manager

    @staticmethod
    def sid(guest: Guest) -> str:
        return f"{'ct' if guest.kind == 'lxc' else 'vm'}:{guest.vmid}"

    def set_ha(self, guest: Guest, values: dict[str, Any]) -> None:
        with self.lock:
            if self.sid(guest) in self.ha:
                self.ha[self.sid(guest)].update(values)
                self.save_ha()

    def ha_status(self, guest: Guest) -> dict[str, Any]:
        found = self.ha.get(self.sid(guest))
        return {"managed": 1, "state": found["state"]} if found else {"managed": 0}

    def require_no_ha(self, guest: Guest, purge: bool) -> None:
        if self.sid(guest) in self.ha and not purge:
            noun = "CT" if guest.kind == "lxc" else "VM"
            raise die(
                f"unable to remove {noun} {guest.vmid} - used in HA resources and purge parameter not set."
            )

    # -- guests

    def node(self, name: str) -> str:
        if name not in self.nodes:
            # A request for a node nobody knows ends at the proxy.
            raise ApiError(
                500,
                f"hostname lookup '{name}' failed - failed to get address info for: {name}: Name or service not known",
            )
        if name in self.dead:
            raise ApiError(595, "Errors during connection establishment, proxy handshake: No route to host")
        return name

    def find(self, vmid: int, node: str, kind: str) -> Guest:
        guest = self.guests.get(vmid)
        if guest is None or guest.node != node or guest.kind != kind:
            folder = "lxc" if kind == "lxc" else "qemu-server"
            raise die(f"Configuration file 'nodes/{node}/{folder}/{vmid}.conf' does not exist")
        return guest

    def provide_templates(self) -> None:
        """A virtual machine to clone on every node, as an operator of real nodes without shared storage has it."""
        for number, node in enumerate(self.nodes, FIRST_TEMPLATE):
            if number not in self.guests:
                self.guests[number] = template(number, node)

    def require_free(self, vmid: int, kind: str) -> None:
        other = self.guests.get(vmid)
        if other:
            word = "CT" if other.kind == "lxc" else "VM"
            prefix = f"unable to create VM {vmid} - " if kind == "qemu" else ""
            raise die(f"{prefix}{word} {vmid} already exists on node '{other.node}'")

    def add(self, guest: Guest) -> None:
        """Reserve the id; the configuration appears at once, locked by whoever makes it."""
        with self.lock:
            self.require_free(guest.vmid, guest.kind)
            self.guests[guest.vmid] = guest
            self.save(guest)

    def remove(self, guest: Guest) -> None:
        with self.lock:
            self.guests.pop(guest.vmid, None)
            if self.documents["firewall"].pop(str(guest.vmid), None):
                self.documents.save("firewall")
            for pool in self.pools.values():
                if guest.vmid in pool.members:
                    pool.members.remove(guest.vmid)
            self.save_pools()
            if self.ha.pop(self.sid(guest), None):
                self.save_ha()
            if self._state:
                (self._state / "guests" / f"{guest.vmid}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def change(self, guest: Guest, expected: str | None = None, skiplock: bool = False) -> Iterator[Guest]:
        """Hold the guest's file lock, refuse a stale digest or a locked guest, save afterwards."""
        with self.lock:
            held = self._file_locks.setdefault(guest.vmid, threading.RLock())
        if self.faults.take("file_lock") or not held.acquire(timeout=LOCK_TIMEOUT):
            folder = "lxc" if guest.kind == "lxc" else "qemu-server"
            raise die(f"can't lock file '/run/lock/{folder}/{self.lock_file(guest)}' - got timeout")
        try:
            if guest.vmid not in self.guests:
                raise die(
                    f"Configuration file 'nodes/{guest.node}/{guest.kind}/{guest.vmid}.conf' does not exist"
                )
            if expected and expected != digest(guest):
                raise die(
                    "detected modified configuration - file changed by other user? Try again."
                    if guest.kind == "lxc"
                    else "checksum mismatch (file change by other user?)"
                )
            if not skiplock:
                self.require_unlocked(guest)
            yield guest
            self.save(guest)
        finally:
            held.release()

    @staticmethod
    def lock_file(guest: Guest) -> str:
        return f"pve-config-{guest.vmid}.lock" if guest.kind == "lxc" else f"lock-{guest.vmid}.conf"

    @staticmethod
    def require_unlocked(guest: Guest) -> None:
        held = guest.config.get("lock")
        if held:
            raise die(f"{'CT' if guest.kind == 'lxc' else 'VM'} is locked ({held})")

    def driver(self, guest: Guest) -> Driver:
        return self.drivers[guest.kind]

    def join_pool(self, pool: str, vmid: int) -> None:
        with self.lock:
            self.pools[pool].members.append(vmid)
            self.save_pools()

    def pool_of(self, vmid: int) -> str:
        return next((name for name, pool in self.pools.items() if vmid in pool.members), "")

    # -- identities

    def next_id(self) -> int:
        with self.lock:
            return next(number for number in range(LOWEST_ID, HIGHEST_ID) if number not in self.guests)

    @staticmethod
    def new_mac() -> str:
        tail = os.urandom(3)
        return "BC:24:11:" + ":".join(f"{byte:02X}" for byte in tail)

    def allocate(self, guest: Guest, storage: str, taken: set[str]) -> str:
        """A free volume id for the guest; fails like a busy storage when the fault says so."""
        if self.faults.take("storage_lock"):
            raise RuntimeError(f"cfs-lock 'storage-{storage}' error: got lock request timeout")
        kind = self.storages[storage].type
        if self.faults.take("quota_full"):
            raise RuntimeError(
                _FULL.get(kind, "No space left on device").format(storage=storage, vmid=guest.vmid)
            )
        if self.faults.take("volume_left"):
            name = f"vm-{guest.vmid}-disk-0"
            words = "disk image '/var/lib/vz/images/{vmid}/{name}.raw' already exists"
            raise RuntimeError(_LEFT.get(kind, words).format(name=name, vmid=guest.vmid))
        for index in range(1000):
            if kind == "zfspool" and guest.kind == "lxc":
                volume = f"{storage}:subvol-{guest.vmid}-disk-{index}"
            elif kind == "dir":
                volume = f"{storage}:{guest.vmid}/vm-{guest.vmid}-disk-{index}.raw"
            else:
                volume = f"{storage}:vm-{guest.vmid}-disk-{index}"
            if volume not in taken:
                return volume
        raise RuntimeError(f"unable to allocate an image name for VM {guest.vmid} in storage '{storage}'")


def volumes(guest: Guest) -> set[str]:
    """Every volume a configuration refers to."""
    found = set()
    for key in guest.config:
        if re.fullmatch(r"rootfs|mp\d+|unused\d+|(scsi|virtio|sata|ide)\d+", key):
            volume = guest.volume(key)
            if ":" in volume:
                found.add(volume)
    return found
