# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes/{node}/qemu/{vmid}/move_disk and .../lxc/{vmid}/move_volume: a disk to another storage."""

from __future__ import annotations

from dataclasses import replace

from lab.api.core import Request, route
from lab.api.guests import TASK, is_running
from lab.api.storage import require_storage
from lab.cluster import volumes
from lab.drivers.base import Guest, join_properties, split_properties
from lab.errors import ApiError, ParameterError, die
from lab.tasks import Task

_CONTENT = {"lxc": "rootdir", "qemu": "images"}


def _move(request: Request, guest: Guest, disk: str) -> str:
    cluster, params = request.cluster, request.params
    if "target-vmid" in params or not params.get("storage") or not params.get("delete"):
        raise ApiError(501, "only moves to another storage that delete the original are implemented")
    target = require_storage(request, str(params["storage"]), _CONTENT[guest.kind])
    cluster.access.require(request.who, f"/storage/{target.id}", ["Datastore.AllocateSpace"])
    with cluster.change(guest, params.get("digest")):
        if not guest.disk_size(disk):
            raise die(f"disk '{disk}' does not exist")
        if guest.volume(disk).partition(":")[0] == target.id:
            raise ParameterError({"storage": "you can't move to the same storage with same format"})
        if is_running(cluster, guest):
            raise ApiError(501, "moving a disk of a running guest is not implemented")

    def work(task: Task) -> None:
        key = "volume" if guest.kind == "lxc" else "file"
        with cluster.change(guest):
            entry = split_properties(str(guest.config[disk]), key)
            entry[key] = cluster.allocate(guest, target.id, volumes(guest))
            moved = replace(guest, config={**guest.config, disk: join_properties(entry, key)})
            cluster.driver(guest).move(guest, disk, moved, task)
            guest.config = moved.config

    kind = {"lxc": "move_volume", "qemu": TASK["qemu"] + "move"}[guest.kind]
    return cluster.tasks.spawn(guest.node, kind, str(guest.vmid), request.who.owner, work)


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(request: Request) -> str:
    guest = request.cluster.find(int(request.params["vmid"]), request.node, "qemu")
    return _move(request, guest, str(request.params["disk"]))


@route("POST", "/nodes/{node}/lxc/{vmid}/move_volume")
def move_volume(request: Request) -> str:
    guest = request.cluster.find(int(request.params["vmid"]), request.node, "lxc")
    return _move(request, guest, str(request.params["volume"]))
