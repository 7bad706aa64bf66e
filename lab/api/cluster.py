# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/cluster: what exists everywhere."""

from __future__ import annotations

import time
from typing import Any

from lab.api import nodes as node_api
from lab.api import storage as storage_api
from lab.api.core import Request, route
from lab.cluster import Cluster
from lab.drivers.base import Guest, split_properties
from lab.errors import ParameterError


def boot_disk(guest: Guest) -> str:
    """The disk a virtual machine starts from."""
    order = split_properties(str(guest.config.get("boot", ""))).get("order", "").split(";")
    return next(
        (key for key in [*order, "scsi0", "virtio0", "sata0", "ide0"] if guest.disk_size(key)), "scsi0"
    )


def _cores(cluster: Cluster, guest: Guest) -> int:
    if guest.kind == "qemu":
        return int(guest.config.get("cores", 1)) * int(guest.config.get("sockets", 1))
    return int(guest.config.get("cores", 0)) or int(cluster.driver(guest).node_status()["cores"])


def facts(cluster: Cluster, guest: Guest) -> dict[str, Any]:
    """What a guest's own node knows of it at this moment."""
    runtime = cluster.driver(guest).runtime(guest)
    memory_mb = int(split_properties(str(guest.config.get("memory", 512)), "current")["current"])
    return {
        "name": guest.name,
        "status": "running" if runtime.running else "stopped",
        "template": int(guest.config.get("template", 0)),
        "maxcpu": _cores(cluster, guest),
        "maxmem": memory_mb << 20,
        "maxdisk": guest.disk_size("rootfs" if guest.kind == "lxc" else boot_disk(guest)),
        "cpu": runtime.cpu,
        "mem": runtime.mem,
        "disk": runtime.disk,
        "uptime": runtime.uptime,
        "netin": runtime.netin,
        "netout": runtime.netout,
        "diskread": runtime.diskread,
        "diskwrite": runtime.diskwrite,
    }


def shared(cluster: Cluster, guest: Guest) -> dict[str, Any]:
    """What every node knows of a guest at this moment, because it stands in files that they share."""
    entry: dict[str, Any] = {
        "id": f"{guest.kind}/{guest.vmid}",
        "vmid": guest.vmid,
        "type": guest.kind,
        "node": guest.node,
    }
    for key, value in (
        ("pool", cluster.pool_of(guest.vmid)),
        ("tags", guest.config.get("tags")),
        ("lock", guest.config.get("lock")),
        ("hastate", cluster.ha.get(cluster.sid(guest), {}).get("state")),
    ):
        if value:
            entry[key] = value
    return entry


def guest_resource(cluster: Cluster, guest: Guest) -> dict[str, Any]:
    """A guest as the list of the cluster has it: its name, power and numbers are as old as its node's last broadcast."""
    return {**shared(cluster, guest), **(cluster.statd.told(guest.vmid) or {"status": "unknown"})}


@route("GET", "/cluster/resources")
def resources(request: Request) -> list[dict[str, Any]]:
    kind = request.params.get("type")
    access = request.cluster.access
    found: list[dict[str, Any]] = []
    if kind in (None, "vm"):
        found += [
            guest_resource(request.cluster, guest)
            for guest in list(request.cluster.guests.values())
            if access.has(request.who, f"/vms/{guest.vmid}", ["VM.Audit"])
        ]
    if kind in (None, "node"):
        found += [node_api.node_resource(request, name) for name in request.cluster.nodes]
    if kind in (None, "storage"):
        for name in request.cluster.nodes:
            for storage in request.cluster.storages.values():
                if access.has(request.who, f"/storage/{storage.id}", ["Datastore.Audit"]):
                    usage = storage_api.usage(request, storage)
                    found.append(
                        {
                            "id": f"storage/{name}/{storage.id}",
                            "type": "storage",
                            "node": name,
                            "storage": storage.id,
                            "status": "unknown" if name in request.cluster.dead else "available",
                            "plugintype": storage.type,
                            "content": ",".join(sorted(storage.content)),
                            "shared": int(storage.shared),
                            "disk": usage["used"],
                            "maxdisk": usage["total"],
                        }
                    )
    return found


@route("GET", "/cluster/nextid")
def next_id(request: Request) -> str:
    wanted = request.params.get("vmid")
    if wanted is None:
        return str(request.cluster.next_id())
    taken = request.cluster.guests.get(int(wanted))
    if taken:
        word = "CT" if taken.kind == "lxc" else "VM"
        raise ParameterError({"vmid": f"{word} {wanted} already exists"})
    return str(wanted)


@route("GET", "/cluster/status")
def status(request: Request) -> list[dict[str, Any]]:
    names = request.cluster.nodes
    found: list[dict[str, Any]] = [
        {"id": "cluster", "type": "cluster", "name": "lab", "nodes": len(names), "quorate": 1, "version": 1}
    ]
    found += [
        {
            "id": f"node/{name}",
            "type": "node",
            "name": name,
            "nodeid": number,
            "ip": "127.0.0.1",
            "online": int(name not in request.cluster.dead),
            "local": int(number == 1),
            "level": "",
        }
        for number, name in enumerate(names, 1)
    ]
    return found


@route("GET", "/cluster/tasks")
def tasks(request: Request) -> list[dict[str, Any]]:
    found = []
    for task in request.cluster.tasks.all()[:25]:
        entry = task.summary()
        if task.done.is_set():
            entry |= {"status": task.exitstatus, "endtime": task.end or int(time.time())}
        found.append(entry)
    return found
