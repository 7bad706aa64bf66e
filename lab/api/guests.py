# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What containers and virtual machines have in common behind the API."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lab.api.core import Request, route
from lab.cluster import Cluster, digest
from lab.drivers.base import Guest
from lab.errors import ParameterError, die
from lab.tasks import Task

KINDS = ("lxc", "qemu")
#: The kind of guest as names of tasks begin with it.
TASK = {"lxc": "vz", "qemu": "qm"}
NOUN = {"lxc": "CT", "qemu": "VM"}

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


def require_allocation(request: Request, vmid: int, pool: str) -> None:
    """Whether a guest of this id may be made, in the pool or anywhere."""
    cluster, who = request.cluster, request.who
    if pool and pool not in cluster.pools:
        raise die(f"pool '{pool}' does not exist")
    if not (pool and cluster.access.has(who, f"/pool/{pool}", ["VM.Allocate"])):
        cluster.access.require(who, f"/vms/{vmid}", ["VM.Allocate"])


def require_no_snapshots(guest: Guest) -> None:
    """Templates have none."""
    if guest.snapshots:
        raise die(f"unable to create template, because {NOUN[guest.kind]} contains snapshots")


def apply_pending(cluster: Cluster, guest: Guest) -> None:
    """What happens to pending changes when a guest is not running any more."""
    with cluster.change(guest, skiplock=True):
        for key in guest.pending_delete:
            keep_volume(guest, key)
            guest.config.pop(key, None)
        guest.config.update(guest.pending)
        guest.pending, guest.pending_delete = {}, []


def keep_volume(guest: Guest, key: str) -> None:
    """The volume of a disk that leaves the configuration stays in it as unused."""
    if re.fullmatch(r"(mp|scsi|virtio|sata|ide)\d+", key) and guest.disk_size(key):
        free = next(number for number in range(256) if f"unused{number}" not in guest.config)
        guest.config[f"unused{free}"] = guest.volume(key)
