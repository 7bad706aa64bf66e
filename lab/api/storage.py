# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/storage and what lies on the storages of a node."""

from __future__ import annotations

import re
from typing import Any

from lab.api.core import Request, route
from lab.cluster import Storage, volumes
from lab.errors import ParameterError, die


def usage(request: Request, _storage: Storage) -> dict[str, int]:
    machine = request.cluster.drivers["lxc"].node_status()
    return {
        "total": machine["disk"],
        "used": machine["disk_used"],
        "avail": machine["disk"] - machine["disk_used"],
    }


def require_storage(request: Request, name: str, content: str = "") -> Storage:
    storage = request.cluster.storages.get(name)
    if storage is None:
        raise die(f"storage '{name}' does not exist")
    if content and content not in storage.content:
        raise die(f"storage '{name}' does not support content-type '{content}'")
    return storage


@route("GET", "/storage")
def index(request: Request) -> list[dict[str, Any]]:
    kind = request.params.get("type")
    return [
        storage.settings()
        for storage in request.cluster.storages.values()
        if kind in (None, storage.type)
        and request.cluster.access.has(
            request.who, f"/storage/{storage.id}", ["Datastore.Audit", "Datastore.AllocateSpace"], any_of=True
        )
    ]


@route("GET", "/storage/{storage}")
def read(request: Request) -> dict[str, Any]:
    return require_storage(request, str(request.params["storage"])).settings()


def _node_entry(request: Request, storage: Storage) -> dict[str, Any]:
    numbers = usage(request, storage)
    return {
        "storage": storage.id,
        "type": storage.type,
        "content": ",".join(sorted(storage.content)),
        "active": 1,
        "enabled": 1,
        "shared": int(storage.shared),
        "used_fraction": numbers["used"] / max(1, numbers["total"]),
        **numbers,
    }


@route("GET", "/nodes/{node}/storage")
def on_node(request: Request) -> list[dict[str, Any]]:
    wanted = set(filter(None, re.split(r"[;, ]+", str(request.params.get("content", "")))))
    name = request.params.get("storage")
    return [
        _node_entry(request, storage)
        for storage in request.cluster.storages.values()
        if (not wanted or wanted & set(storage.content))
        and name in (None, storage.id)
        and request.cluster.access.has(
            request.who, f"/storage/{storage.id}", ["Datastore.Audit", "Datastore.AllocateSpace"], any_of=True
        )
    ]


@route("GET", "/nodes/{node}/storage/{storage}/status")
def status(request: Request) -> dict[str, Any]:
    entry = _node_entry(request, require_storage(request, str(request.params["storage"])))
    del entry["storage"], entry["used_fraction"]
    return entry


@route("GET", "/nodes/{node}/storage/{storage}/content")
def content(request: Request) -> list[dict[str, Any]]:
    storage = require_storage(request, str(request.params["storage"]))
    wanted, vmid = request.params.get("content"), request.params.get("vmid")
    found: list[dict[str, Any]] = []
    if "vztmpl" in storage.content and wanted in (None, "vztmpl") and vmid is None:
        for driver in request.cluster.drivers.values():
            for name, size in sorted(driver.templates().items()):
                found.append(
                    {
                        "volid": f"{storage.id}:vztmpl/{name}",
                        "content": "vztmpl",
                        "format": "t" + name.rsplit(".", 1)[-1],
                        "size": size,
                        "ctime": int(request.cluster.started),
                    }
                )
    if {"rootdir", "images"} & set(storage.content) and wanted in (None, "rootdir", "images"):
        for guest in list(request.cluster.guests.values()):
            kind = "rootdir" if guest.kind == "lxc" else "images"
            if (
                guest.node != request.params["node"]
                or vmid not in (None, guest.vmid)
                or wanted not in (None, kind)
            ):
                continue
            for key in guest.config:
                volume = guest.volume(key) if key != "description" else ""
                if volume in volumes(guest) and volume.startswith(storage.id + ":"):
                    found.append(
                        {
                            "volid": volume,
                            "content": kind,
                            "format": "subvol" if storage.type == "zfspool" and kind == "rootdir" else "raw",
                            "size": guest.disk_size(key),
                            "vmid": guest.vmid,
                            "ctime": int(request.cluster.started),
                        }
                    )
    if "backup" in storage.content and wanted in (None, "backup"):
        found += _archives(request, storage, vmid)
    return found


def _archives(request: Request, storage: Storage, vmid: Any) -> list[dict[str, Any]]:
    entries = request.cluster.documents["archives"]
    return [
        {
            "volid": name,
            "content": "backup",
            "format": name.partition(".")[2],
            "size": 1,
            "subtype": name.split("-")[1],
            **{key: entry[key] for key in ("vmid", "ctime", "notes", "protected")},
        }
        for name, entry in sorted(entries.items())
        if entry["storage"] == storage.id
        and (storage.shared or entry["node"] == request.params["node"])
        and vmid in (None, entry["vmid"])
    ]


@route("GET", "/nodes/{node}/aplinfo")
def appliances(request: Request) -> list[dict[str, Any]]:
    found = []
    for name in sorted(request.cluster.drivers["lxc"].templates()):
        package, version, rest = name.split("_", 2)
        found.append(
            {
                "template": name,
                "package": package,
                "version": version,
                "architecture": rest.split(".", 1)[0],
                "os": "debian-12",
                "section": "system",
                "type": "lxc",
                "headline": package,
            }
        )
    return found


@route("POST", "/nodes/{node}/aplinfo")
def download_appliance(request: Request) -> str:
    name = str(request.params["template"])
    storage = require_storage(request, str(request.params["storage"]), "vztmpl")
    if name not in request.cluster.drivers["lxc"].templates():
        raise ParameterError({"template": "no such template"})
    return request.cluster.tasks.spawn(
        str(request.params["node"]),
        "download",
        name,
        request.who.owner,
        lambda task: task.log(f"{storage.id}:vztmpl/{name}: already there"),
    )
