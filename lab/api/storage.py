# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/storage and what lies on the storages of a node."""

from __future__ import annotations

import re
import ssl
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from lab.api.core import Request, route
from lab.cluster import Storage, volumes
from lab.errors import ParameterError, die
from lab.files import ENDINGS, FOLDERS
from lab.tasks import Task


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
    for kind in FOLDERS if vmid is None else ():
        if kind in storage.content and wanted in (None, kind):
            found += _files(request, storage, kind)
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


def _files(request: Request, storage: Storage, kind: str) -> list[dict[str, Any]]:
    """Uploaded and downloaded files, and those that every storage has from the start."""
    node = str(request.params["node"])
    paths = request.cluster.files.listing(node, storage.id, kind)
    sizes = {path.name: path.stat().st_size for path in paths}
    if kind == "vztmpl":
        sizes = {**request.cluster.drivers["lxc"].templates(), **sizes}
    return [
        {
            "volid": f"{storage.id}:{kind}/{name}",
            "content": kind,
            "format": ("t" if kind == "vztmpl" else "") + name.rsplit(".", 1)[-1],
            "size": size,
            "ctime": int(request.cluster.started),
        }
        for name, size in sorted(sizes.items())
    ]


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


# -- files


def _target(request: Request) -> tuple[Storage, Path]:
    """Storage and path of the file that a request puts there; what has no place there is refused."""
    params = request.params
    kind, name = str(params["content"]), str(params["filename"])
    storage = require_storage(request, str(params["storage"]), kind)
    if not name.endswith(ENDINGS[kind]) or not re.fullmatch(r"[\w.+-]+", name):
        raise ParameterError({"filename": f"wrong file extension: '{name}'"})
    return storage, request.cluster.files.path(str(params["node"]), storage.id, kind, name)


def _finish(request: Request, source: Path, target: Path, task: Task) -> None:
    algorithm = request.params.get("checksum-algorithm")
    if algorithm:
        task.log("calculating checksum...")
        request.cluster.files.verify(source, str(request.params["checksum"]), str(algorithm))
        task.log("OK, checksum verified")
    request.cluster.files.keep(source, target)
    task.log(f"{target.name}: {target.stat().st_size} bytes")


@route("POST", "/nodes/{node}/storage/{storage}/upload")
def upload(request: Request) -> str:
    if "tmpfilename" not in request.params:
        raise ParameterError({"filename": "no file was sent"})
    _storage, target = _target(request)
    # The server removes what it received when this request has been answered.
    received = Path(str(request.params["tmpfilename"]))
    source = received.rename(received.with_name(received.name + "-kept"))

    def work(task: Task) -> None:
        try:
            _finish(request, source, target, task)
        finally:
            source.unlink(missing_ok=True)

    return request.cluster.tasks.spawn(request.node, "imgcopy", "", request.who.owner, work)


@route("POST", "/nodes/{node}/storage/{storage}/download-url")
def download(request: Request) -> str:
    storage, target = _target(request)
    if target.exists():
        raise die(f"refusing to override existing file '{target.name}'")
    context = ssl.create_default_context()
    if not request.params.get("verify-certificates", 1):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def work(task: Task) -> None:
        url = str(request.params["url"])
        task.log(f"downloading {url} to {storage.id}")
        with tempfile.TemporaryDirectory(prefix="lab-download-") as folder:
            source = Path(folder) / target.name
            # The schema lets only http and https through.
            with urllib.request.urlopen(url, timeout=30, context=context) as answer, source.open("wb") as out:  # noqa: S310
                while chunk := answer.read(1 << 20):
                    out.write(chunk)
                    task.sleep(0)
            _finish(request, source, target, task)

    return request.cluster.tasks.spawn(request.node, "download", target.name, request.who.owner, work)


def _volume(request: Request) -> tuple[str, str]:
    """Kind and name of the file that the path names."""
    text = str(request.params["volume"])
    name = text.removeprefix(f"{request.params['storage']}:")
    kind, _, file = name.partition("/")
    if kind not in FOLDERS or not file:
        raise ParameterError({"volume": f"unable to parse volume ID '{text}'"})
    return kind, file


@route("GET", "/nodes/{node}/storage/{storage}/content/{volume}")
def volume(request: Request) -> dict[str, Any]:
    kind, name = _volume(request)
    path = request.cluster.files.find(request.node, str(request.params["storage"]), kind, name)
    if path is None:
        raise die(f"volume '{request.params['volume']}' does not exist")
    size = path.stat().st_size
    return {"path": str(path), "size": size, "used": size, "format": name.rsplit(".", 1)[-1]}


@route("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}")
def remove(request: Request) -> str:
    kind, name = _volume(request)
    storage = str(request.params["storage"])
    request.cluster.access.require(request.who, f"/storage/{storage}", ["Datastore.Allocate"])
    path = request.cluster.files.find(request.node, storage, kind, name)
    if path is None:
        raise die(f"volume '{storage}:{kind}/{name}' does not exist")

    def work(task: Task) -> None:
        path.unlink(missing_ok=True)
        task.log(f"Removed volume '{storage}:{kind}/{name}'")

    return request.cluster.tasks.spawn(request.node, "imgdel", f"{storage}@{name}", request.who.owner, work)
