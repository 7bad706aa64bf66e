# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What guests are made from: files on storages, and virtual machines that are cloned. All by the API alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import Client
from .cluster import Cluster
from .companion import Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Failed, Unanswered
from .formats import NAME, TAG
from .report import Report
from .survey import Stock

#: Kinds of files, with the endings that the server takes.
ENDINGS = {
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"),
    "iso": (".iso", ".img"),
    "import": (".qcow2", ".raw", ".vmdk", ".ova"),
}
_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_CHECKSUM = re.compile(rf"({'|'.join(_ALGORITHMS)}):([0-9a-fA-F]+)")
_IMAGE = re.compile(r"[A-Za-z][\w.-]*:import/[\w.+-]+")
#: Begins the line of a VM's notes that says which image it was made from, and that it was made here.
_ORIGIN = "image: "
_VM_PRIVILEGES = [
    f"VM.{name}"
    for name in (
        "Allocate",
        *(
            f"Config.{part}"
            for part in ["CDROM", "CPU", "Cloudinit", "Disk", "HWType", "Memory", "Network", "Options"]
        ),
    )
]


@dataclass(frozen=True)
class File:
    """A file on one storage of one node. ``size`` is that of ``src`` in bytes."""

    file: str
    kind: str
    storage: str
    node: str
    state: str = "present"
    src: str = ""
    url: str = ""
    checksum: str = ""
    size: int = 0
    verify_certificates: bool = True
    deadline: int = 1800

    @property
    def name(self) -> str:
        return f"{self.volume} on {self.node}"

    @property
    def label(self) -> str:
        return f"template {self.name}"

    @property
    def volume(self) -> str:
        return f"{self.storage}:{self.kind}/{self.file}"

    def look(self, client: Client) -> Mapping[str, Any] | None:
        path = f"nodes/{self.node}/storage/{self.storage}/content"
        rows = client.get(path, f"list what is on {self.storage}", content=self.kind)
        return next((row for row in rows if row["volid"] == self.volume), None)

    def plan(self, have: Mapping[str, Any] | None) -> Course:
        path = f"nodes/{self.node}/storage/{self.storage}"
        if self.state == "absent":
            if have is None:
                return Course()
            gone = Write("removed", "DELETE", f"{path}/content/{self.volume}", task="imgdel")
            return Course((gone,), {"state": "present"}, {"state": "absent"})
        before: dict[str, Any] = {"state": "present" if have else "absent"}
        after: dict[str, Any] = {"state": "present"}
        data: dict[str, Any] = {"content": self.kind, "filename": self.file}
        if self.checksum:
            algorithm, _, value = self.checksum.partition(":")
            data |= {"checksum-algorithm": algorithm, "checksum": value}
        if self.src:
            if have is not None and int(have.get("size") or 0) == self.size:
                return Course((), before, after)
            before |= {"size": int(have.get("size") or 0)} if have else {}
            after |= {"size": self.size}
            word = "replaced" if have else "uploaded"
            upload = Write(word, "POST", f"{path}/upload", data, "imgcopy", self.deadline, self.src)
            return Course((upload,), before, after)
        if have is not None:
            return Course((), before, after)
        if not self.url:
            return Course((), before, after, ("is not there, and the record has neither src nor url",))
        data |= {"url": self.url, "verify-certificates": int(self.verify_certificates)}
        fetch = Write("downloaded", "POST", f"{path}/download-url", data, "download", self.deadline)
        return Course((fetch,), before, after)

    def lacks(self, stock: Stock, have: Mapping[str, Any] | None) -> Iterable[str]:
        yield stock.node_fault(self.node) or stock.storage_fault(self.node, self.storage, self.kind)
        needed = "Datastore.AllocateTemplate" if self.state == "present" else "Datastore.Allocate"
        yield stock.privilege_fault(needed, [f"/storage/{self.storage}"])
        if self.state == "present" and self.url and not self.src:
            whole = [stock.privilege_fault(name, ["/"]) for name in ("Sys.Audit", "Sys.Modify")]
            if any(whole):
                yield stock.privilege_fault("Sys.AccessNetwork", [f"/nodes/{self.node}"])
        if self.src and self.checksum:
            found = digest(self.src, self.checksum.partition(":")[0])
            if found != self.checksum.lower():
                yield f"{self.src} has the checksum {found}, and the record says {self.checksum}"


def digest(path: str, algorithm: str) -> str:
    """``sha256:...`` of a file."""
    with Path(path).open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


@dataclass(frozen=True)
class Machines:
    """What is known for a VM template: the VM of its name on its node, with configuration, and ids that are free."""

    vmid: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    template: bool = False
    free: int = 0


@dataclass(frozen=True)
class Machine:
    """A virtual machine with a cloud-init drive, made from an image and never started."""

    vm: str
    node: str
    storage: str
    image: str
    state: str = "present"
    vmid: int = 0
    #: Position among the VM templates of this call, so that no two of them try the same id.
    turn: int = 0
    cores: int = 1
    memory_mb: int = 1024
    bridge: str = "vmbr0"
    tags: tuple[str, ...] = ()
    pool: str = ""
    deadline: int = 1800
    #: Volumes that are made before, by this call.
    promised: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.vm} on {self.node}"

    @property
    def label(self) -> str:
        return f"VM template {self.name}"

    def look(self, client: Client) -> Machines:
        cluster = Cluster(client, only=[self.node])
        if self.node in cluster.silent:
            raise Unanswered(self.label, self.node, cluster.silent[self.node], "left as it is")
        mine = [guest for guest in cluster.guests if guest.name == self.vm and guest.node == self.node]
        if len(mine) > 1:
            ids = ", ".join(sorted(str(guest.vmid) for guest in mine))
            raise Failed(f"{self.label}: {ids} have this name: rename all but one")
        if not mine:
            return Machines(free=self._free(client, cluster.vmids))
        (guest,) = mine
        if guest.kind != "vm":
            raise Failed(f"{self.label}: {guest.vmid} has this name and is a container: choose another name")
        config = client.get(f"nodes/{self.node}/qemu/{guest.vmid}/config", f"read {self.label}")
        return Machines(guest.vmid, config, str(config.get("template", 0)) == "1")

    def _free(self, client: Client, taken: set[int]) -> int:
        if self.vmid:
            return self.vmid
        number = int(client.get("cluster/nextid", "ask for a free id"))
        for _ in range(self.turn + 1):
            while number in taken:
                number += 1
            taken.add(number)
        return number

    def plan(self, have: Machines) -> Course:
        base = f"nodes/{self.node}/qemu"
        origin = _origin(have.config)
        if self.state == "absent":
            if not have.vmid:
                return Course()
            refusals = () if have.template else (f"{have.vmid} has this name and is no template: left alone",)
            if have.template and not origin and have.vmid != self.vmid:
                refusals = (
                    f"{have.vmid} has this name and was not made here (its notes name no image), so it is left alone: give the "
                    "record its vmid, or remove it on the hypervisor",
                )
            gone = Write("removed", "DELETE", f"{base}/{have.vmid}", {"purge": 1}, "qmdestroy", 300)
            return Course((gone,), {"state": "present", "vmid": have.vmid}, {"state": "absent"}, refusals)
        convert = Write(
            "converted", "POST", f"{base}/{have.vmid or have.free}/template", {}, "qmtemplate", 300
        )
        if not have.vmid:
            after = {"state": "present", "image": self.image, "vmid": have.free}
            create = Write("created", "POST", base, self._wire(have.free), "qmcreate", self.deadline)
            return Course((create, convert), {"state": "absent"}, after)
        before = {"state": "present", "image": origin, "vmid": have.vmid}
        after = {**before, "image": self.image}
        if not have.template:
            refusals = (
                () if origin else (f"{have.vmid} has this name and is no template: choose another name",)
            )
            return Course((convert,), {**before, "state": "half made"}, after, refusals)
        if origin and origin != self.image:
            return Course(
                (),
                before,
                after,
                (
                    f"{have.vmid} was made from {origin}, and the record says {self.image}; guests may have been cloned from "
                    "it: give the new template another name, or remove the old one (state: absent)",
                ),
            )
        return Course((), before, {**after, "image": origin})

    def _wire(self, vmid: int) -> dict[str, Any]:
        data: dict[str, Any] = {
            "vmid": vmid,
            "name": self.vm,
            "description": f"{_ORIGIN}{self.image}",
            "cores": self.cores,
            "memory": self.memory_mb,
            "ostype": "l26",
            "agent": "enabled=1",
            "scsihw": "virtio-scsi-pci",
            "scsi0": f"{self.storage}:0,import-from={self.image}",
            "ide2": f"{self.storage}:cloudinit",
            "boot": "order=scsi0",
            "net0": f"virtio,bridge={self.bridge}",
            # Cloud images write to the serial console.
            "serial0": "socket",
            "vga": "serial0",
        }
        optional = {"tags": ";".join(sorted(self.tags)), "pool": self.pool}
        return {**data, **{key: value for key, value in optional.items() if value}}

    def lacks(self, stock: Stock, have: Machines) -> Iterable[str]:
        offline = stock.node_fault(self.node)
        if offline:
            yield offline
            return
        vmid = have.vmid or have.free
        paths = [f"/vms/{vmid}", *([f"/pool/{self.pool}"] if self.pool else [])]
        if self.state == "absent" or have.vmid:
            yield stock.privilege_fault("VM.Allocate", paths)
            return
        yield from (stock.privilege_fault(name, paths) for name in _VM_PRIVILEGES)
        yield stock.privilege_fault("Datastore.AllocateSpace", [f"/storage/{self.storage}"])
        yield stock.storage_fault(self.node, self.storage, "images")
        yield stock.bridge_fault(self.node, self.bridge) or stock.bridge_privilege_fault(
            self.node, self.bridge, ""
        )
        if self.pool:
            yield stock.pool_fault(self.pool)
        if f"{self.image} on {self.node}" not in self.promised:
            yield stock.volume_fault(self.node, self.image, "import")


def _origin(config: Mapping[str, Any]) -> str:
    """The image a VM was made from, by its notes."""
    lines = str(config.get("description") or "").splitlines()
    return next((line[len(_ORIGIN) :].strip() for line in lines if line.startswith(_ORIGIN)), "")


# -- the module


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    options = {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": [*ENDINGS, "vm"], "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "storage": {"type": "str"},
        "nodes": {"type": "list", "elements": "str"},
        "src": {"type": "path"},
        "url": {"type": "str"},
        "checksum": {"type": "str"},
        "verify_certificates": {"type": "bool", "default": True},
        "image": {"type": "str"},
        "vmid": {"type": "int"},
        "cores": {"type": "int", "default": 1},
        "memory_mb": {"type": "int", "default": 1024},
        "bridge": {"type": "str", "default": "vmbr0"},
        "tags": {"type": "list", "elements": "str", "default": []},
        "pool": {"type": "str"},
    }
    return {
        **connection_spec(env_fallback),
        "deadline": {"type": "int", "default": 1800},
        "templates": {"type": "list", "elements": "dict", "required": True, "options": options},
    }


def faults(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the records, whatever the hypervisor looks like."""
    found, seen = [], set()
    for record in records:
        name, kind = str(record["name"]), str(record["kind"])
        identity = (name, kind, record["storage"] if kind != "vm" else "", tuple(record["nodes"] or ()))
        if identity in seen:
            found.append(f"{name}: listed twice")
        seen.add(identity)
        found += [f"{name}: {text}" for text in _record_faults(record, name, kind)]
    return found


def _record_faults(record: Mapping[str, Any], name: str, kind: str) -> Iterable[str]:
    present = record["state"] == "present"
    if kind == "vm":
        if not NAME.fullmatch(name):
            yield "is not a host name (letters, digits and - only)"
        if present and not _IMAGE.fullmatch(record["image"] or ""):
            yield f"image: {record['image']!r} is not a volume such as local:import/debian-12.qcow2"
        if present and not record["storage"]:
            yield "storage: is missing; it says where the disk goes"
        yield from (f"tags: {tag!r} is no tag" for tag in record["tags"] if not TAG.fullmatch(tag.lower()))
        return
    if not name.endswith(ENDINGS[kind]) or not re.fullmatch(r"[\w.+-]+", name):
        yield f"is not a file name that ends in one of {', '.join(ENDINGS[kind])}"
    if record["src"] and record["url"]:
        yield "src and url: keep one"
    if record["src"] and present and not Path(record["src"]).is_file():
        yield f"src: {record['src']} is not a file on the controller"
    if record["checksum"] and not _CHECKSUM.fullmatch(record["checksum"]):
        yield f"checksum: {record['checksum']!r} is not of the form sha256:<hexadecimal>"
    if present and record["url"] and not record["checksum"]:
        yield "checksum: is missing; what comes from a url is checked by it (sha256:<hexadecimal>)"


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    records = params["templates"]
    found = faults(records)
    if found:
        raise Failed("templates:\n" + "\n".join(f"- {fault}" for fault in found))
    if not records:
        return Report()
    reached = settings(params, {})
    runner = Runner(reached)
    stock = Stock(runner.client, reached.identity)
    files = [
        _file(record, node, int(params["deadline"]))
        for record in records
        if record["kind"] != "vm"
        for node in _nodes(stock, record, str(record["storage"] or "local"), str(record["kind"]))
    ]
    promised = frozenset(file.name for file in files if file.state == "present")
    machines: list[Machine] = []
    for record in (record for record in records if record["kind"] == "vm"):
        nodes = _nodes(stock, record, str(record["storage"] or ""), "images")
        if len(nodes) < len(stock.nodes) and not record["nodes"]:
            nodes = _there(runner.client, stock, record, nodes)
        for offset, node in enumerate(nodes):
            machines.append(
                Machine(
                    str(record["name"]),
                    node,
                    str(record["storage"] or ""),
                    str(record["image"] or ""),
                    str(record["state"]),
                    int(record["vmid"] or 0) + offset if record["vmid"] else 0,
                    len(machines),
                    int(record["cores"]),
                    int(record["memory_mb"]),
                    str(record["bridge"]),
                    tuple(tag.lower() for tag in record["tags"]),
                    str(record["pool"] or ""),
                    int(params["deadline"]),
                    promised,
                )
            )
    # VMs that go may refer to files that go.
    gone: list[Any] = [thing for thing in machines if thing.state == "absent"]
    made: list[Any] = [thing for thing in machines if thing.state == "present"]
    return runner.run(check, gone, files, made)


def _file(record: Mapping[str, Any], node: str, deadline: int) -> File:
    src = str(record["src"] or "") if record["state"] == "present" else ""
    return File(
        str(record["name"]),
        str(record["kind"]),
        str(record["storage"] or "local"),
        node,
        str(record["state"]),
        src,
        str(record["url"] or ""),
        str(record["checksum"] or ""),
        Path(src).stat().st_size if src else 0,
        bool(record["verify_certificates"]),
        deadline,
    )


def _there(client: Client, stock: Stock, record: Mapping[str, Any], nodes: list[str]) -> list[str]:
    """Where nodes share a storage, one machine is enough: that which is there, wherever it is."""
    storage = str(record["storage"] or "")
    if not storage or not stock.shared(nodes[0], storage):
        return nodes
    name, cluster = str(record["name"]), Cluster(client)
    found = [guest for guest in cluster.guests if guest.name == name and guest.kind == "vm"]
    there = sorted({guest.node for guest in found if cluster.answers(guest)} - {""})
    if there:
        return there[:1]
    away = [guest for guest in found or cluster.hidden() if guest.kind == "vm" and not cluster.answers(guest)]
    if away:
        raise Unanswered(
            f"VM template {name}",
            away[0].node,
            cluster.silent[away[0].node],
            f"{', '.join(str(guest.vmid) for guest in away)} is it, or may be it: left as it is; or name nodes in the record",
        )
    return nodes


def _nodes(stock: Stock, record: Mapping[str, Any], storage: str, content: str) -> list[str]:
    """The record's nodes, else every one that has the storage; one of them when they share it."""
    if record["nodes"]:
        return [str(node) for node in record["nodes"]]
    online = [node for node, up in sorted(stock.nodes.items()) if up]
    if not storage:
        return online
    having = [node for node in online if not stock.storage_fault(node, storage, content)]
    if not having:
        raise Failed(f"{record['name']}: {stock.storage_fault(online[0], storage, content)}")
    return having[:1] if stock.shared(having[0], storage) else having
