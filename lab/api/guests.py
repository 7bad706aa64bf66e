# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What containers and virtual machines have in common behind the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Any

from lab import schema
from lab.api.cluster import facts, shared
from lab.api.core import Request, route
from lab.cluster import Cluster, digest
from lab.drivers.base import Creation, Guest, join_properties, split_properties
from lab.errors import ParameterError, die
from lab.tasks import Task

KINDS = ("lxc", "qemu")
#: The kind of guest as names of tasks begin with it.
TASK = {"lxc": "vz", "qemu": "qm"}
NOUN = {"lxc": "CT", "qemu": "VM"}
_WORD = {"lxc": "container", "qemu": "VM"}
_STATUS = (
    *("vmid", "name", "status", "cpu", "mem", "disk", "uptime", "maxmem", "maxdisk"),
    *("netin", "netout", "diskread", "diskwrite"),
)

GuestHandler = Callable[[Request, Guest], Any]


def both(verb: str, suffix: str) -> Callable[[GuestHandler], GuestHandler]:
    """Register one handler for a method that both kinds of guests have."""

    def register(handler: GuestHandler) -> GuestHandler:
        for kind in KINDS:

            def handle(request: Request, kind: str = kind) -> Any:
                found = request.cluster.find(int(request.params["vmid"]), request.node, kind)
                return handler(request, found)

            route(verb, f"/nodes/{{node}}/{kind}/{{vmid}}{suffix}")(handle)
        return handler

    return register


def spawn(request: Request, action: str, guest: Guest, work: Callable[[Task], None]) -> str:
    """A task of the guest's kind, `start` as qmstart or vzstart."""
    kind = TASK[guest.kind] + action
    return request.cluster.tasks.spawn(guest.node, kind, str(guest.vmid), request.who.owner, work)


def listing(
    request: Request, kind: str, status: Callable[[Request, Guest], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of a kind of guest on the node of the request."""
    return [
        status(request, guest)
        for guest in list(request.cluster.guests.values())
        if guest.node == request.node
        and guest.kind == kind
        and request.cluster.access.has(request.who, f"/vms/{guest.vmid}", ["VM.Audit"])
    ]


def row(request: Request, guest: Guest) -> dict[str, Any]:
    """What a row of a listing says of a guest of any kind."""
    resource = {**shared(request.cluster, guest), **facts(request.cluster, guest)}
    entry = {key: resource[key] for key in _STATUS} | {"cpus": resource["maxcpu"]}
    entry |= {key: resource[key] for key in ("tags", "lock") if key in resource}
    runtime = request.cluster.driver(guest).runtime(guest)
    if runtime.running:
        entry["pid"] = runtime.pid
    if resource["template"]:
        entry["template"] = 1
    return entry


def making(
    request: Request, guest: Guest, pool: str, creation: Creation, fill: Callable[[], None]
) -> Callable[[Task], None]:
    """The work that turns a reserved id into a guest; nothing of it stays when it fails."""
    cluster = request.cluster
    cluster.add(guest)
    if pool:
        cluster.join_pool(pool, guest.vmid)

    def work(task: Task) -> None:
        try:
            with cluster.change(guest, skiplock=True):
                fill()
            cluster.driver(guest).create(guest, creation, task)
        except BaseException:
            cluster.driver(guest).destroy(guest, Task(task.upid, None))
            cluster.remove(guest)
            raise
        with cluster.change(guest, skiplock=True):
            guest.config.pop("lock", None)

    return work


def convert(request: Request, guest: Guest) -> str:
    """The task that makes a template of a guest."""
    cluster = request.cluster
    with cluster.change(guest):
        if guest.config.get("template"):
            raise die("you can't convert a template to a template")
        if is_running(cluster, guest):
            raise die(f"you can't convert a running {_WORD[guest.kind]} to a template")
        if guest.snapshots:
            raise die(f"unable to create template, because {NOUN[guest.kind]} contains snapshots")

    def work(_task: Task) -> None:
        with cluster.change(guest):
            guest.config["template"] = 1

    return spawn(request, "template", guest, work)


def asked_changes(
    request: Request, kind: str, beside: Container[str]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Options that a request sets, deletes and reverts; `beside`: parameters that are not options."""
    values = {key: value for key, value in request.params.items() if key not in beside}
    deleted, reverted = names(request.params.get("delete")), names(request.params.get("revert"))
    if not (values or deleted or reverted):
        raise die("no options specified")
    both = set(values) & set(deleted)
    if both:
        raise ParameterError(
            {"delete": f"you can't use '-{min(both)}' and -delete {min(both)}' at the same time"}
        )
    method = schema.load().method(f"/nodes/{{node}}/{kind}/{{vmid}}/config", "PUT")
    known = {name for name in method.properties if name not in beside} if method else set()
    for name in [*deleted, *reverted]:
        if not {name, re.sub(r"\d+$", "[n]", name)} & (known | {"unused[n]"}):
            raise ParameterError({"delete": f"unknown option '{name}'"})
    return values, deleted, reverted


def is_running(cluster: Cluster, guest: Guest) -> bool:
    return cluster.driver(guest).runtime(guest).running


def normal_tags(value: str) -> str:
    return ";".join(sorted({tag.lower() for tag in re.split(r"[;, ]+", value) if tag}))


def names(text: Any) -> list[str]:
    """Words of a list parameter."""
    return [name for name in re.split(r"[;, ]+", str(text or "")) if name]


def overlaid(guest: Guest, current: bool) -> dict[str, Any]:
    """The configuration with its digest; what is pending holds already, unless it is `current` that is asked for."""
    found = dict(guest.config)
    if not current:
        found.update(guest.pending)
        for key in list(guest.pending_delete):
            found.pop(key, None)
    found["digest"] = digest(guest)
    return found


def pending_entries(guest: Guest) -> list[dict[str, Any]]:
    now, later, gone = dict(guest.config), dict(guest.pending), list(guest.pending_delete)
    found: list[dict[str, Any]] = []
    for key in sorted({*now, *later}):
        if isinstance(now.get(key), list):
            continue  # raw lxc.* lines are never pending and not told here
        entry: dict[str, Any] = {"key": key}
        if key in now:
            entry["value"] = now[key]
        if key in later:
            entry["pending"] = later[key]
        if key in gone:
            entry["delete"] = 1
        found.append(entry)
    found.append({"key": "digest", "value": digest(guest)})
    return found


def require_startable(request: Request, guest: Guest, refusal: str) -> None:
    """A guest that is locked, or a template (`refusal`), is not started."""
    if not request.params.get("skiplock"):
        request.cluster.require_unlocked(guest)
    elif not request.who.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})
    if guest.config.get("template"):
        raise die(refusal)


def require_space(request: Request, storage: str) -> None:
    """Whether volumes may be made on a storage, or grow there."""
    request.cluster.access.require(request.who, f"/storage/{storage}", ["Datastore.AllocateSpace"])


def require_space_of_clone(request: Request, source: Guest) -> None:
    target = str(request.params.get("storage", ""))
    for storage in {target} if target else {source.volume(disk).partition(":")[0] for disk in source.disks()}:
        require_space(request, storage)


def require_allocation(request: Request, vmid: int, pool: str) -> None:
    """Whether a guest of this id may be made, in the pool or anywhere."""
    cluster, who = request.cluster, request.who
    if pool and pool not in cluster.pools:
        raise die(f"pool '{pool}' does not exist")
    if not (pool and cluster.access.has(who, f"/pool/{pool}", ["VM.Allocate"])):
        cluster.access.require(who, f"/vms/{vmid}", ["VM.Allocate"])


def apply_pending(cluster: Cluster, guest: Guest) -> None:
    """What happens to pending changes when a guest is not running any more."""
    with cluster.change(guest, skiplock=True):
        for key in guest.pending_delete:
            keep_volume(guest, key)
            guest.config.pop(key, None)
        guest.config.update({key: rescanned(guest, key, value) for key, value in guest.pending.items()})
        guest.pending, guest.pending_delete = {}, []


def rescanned(guest: Guest, key: str, value: Any) -> Any:
    """A value of a container's volume with the size that it has, whatever size was sent with it."""
    had, sent = (split_properties(str(text), "volume") for text in (guest.config.get(key, ""), value))
    if guest.kind != "lxc" or not had.get("size") or had.get("volume") != sent.get("volume"):
        return value
    return join_properties({**sent, "size": had["size"]}, "volume")


def normal_words(value: str) -> str:
    """A list of names or addresses as configurations of containers keep it."""
    return " ".join(names(value))


def require_unshared(cluster: Cluster, guest: Guest) -> None:
    """A template whose volumes linked clones refer to is not destroyed."""
    if any(other.base == guest.vmid for other in list(cluster.guests.values())) and guest.disks():
        raise RuntimeError(f"base volume '{guest.volume(guest.disks()[0])}' is still in use by linked cloned")


_SSH_KEY = re.compile(
    r"""(?:[\w\-]+(?:="(?:[^"\\]|\\.)*")?(?:,[\w\-]+(?:="(?:[^"\\]|\\.)*")?)*\s+)?"""
    r"""(?:ssh-(?:rsa|dss|ed25519)|ecdsa-\S+|sk-\S+)\s+[A-Za-z0-9+/]+=*(?:\s.*)?"""
)


def require_keys(text: str) -> None:
    """Public keys, one a line, each with or without options before it, as ssh-keygen takes them."""
    lines = [line.strip() for line in text.splitlines()]
    if not all(_SSH_KEY.fullmatch(line) for line in lines if line and not line.startswith("#")):
        raise die("SSH public key validation error")


def keep_volume(guest: Guest, key: str) -> None:
    """The volume of a disk that leaves the configuration stays in it as unused."""
    if re.fullmatch(r"(mp|scsi|virtio|sata|ide)\d+", key) and guest.disk_size(key):
        free = next(number for number in range(256) if f"unused{number}" not in guest.config)
        guest.config[f"unused{free}"] = guest.volume(key)
