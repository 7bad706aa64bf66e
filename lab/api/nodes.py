# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes: the nodes themselves, their networks and tasks."""

from __future__ import annotations

import os
import time
from typing import Any

from lab.api.core import Request, route
from lab.api.networks import visible
from lab.cluster import VERSION
from lab.errors import ParameterError
from lab.tasks import UPID, Task


def node_resource(request: Request, name: str) -> dict[str, Any]:
    machine = request.cluster.drivers["lxc"].node_status()
    return {
        "id": f"node/{name}",
        "type": "node",
        "node": name,
        "status": "offline" if name in request.cluster.dead else "online",
        "maxcpu": machine["cores"],
        "cpu": 0.05,
        "maxmem": machine["memory"],
        "mem": machine["memory_used"],
        "maxdisk": machine["disk"],
        "disk": machine["disk_used"],
        "uptime": int(time.time() - request.cluster.started),
        "level": "",
    }


@route("GET", "/nodes")
def index(request: Request) -> list[dict[str, Any]]:
    return [node_resource(request, name) for name in request.cluster.nodes]


def _kernel() -> tuple[str, str, str, str]:
    found = os.uname()
    return found.sysname, found.release, found.version, found.machine


@route("GET", "/nodes/{node}/status")
def status(request: Request) -> dict[str, Any]:
    machine = request.cluster.drivers["lxc"].node_status()
    memory, used = machine["memory"], machine["memory_used"]
    return {
        "uptime": int(time.time() - request.cluster.started),
        "cpu": 0.05,
        "loadavg": ["0.10", "0.10", "0.10"],
        "pveversion": f"pve-manager/{VERSION['version']}/{VERSION['repoid']}",
        "cpuinfo": {"cpus": machine["cores"], "sockets": 1, "cores": machine["cores"], "model": "lab"},
        "boot-info": {"mode": "efi", "secureboot": 0},
        "current-kernel": dict(zip(("sysname", "release", "version", "machine"), _kernel())),
        "memory": {"total": memory, "used": used, "free": memory - used, "available": memory - used},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {
            "total": machine["disk"],
            "used": machine["disk_used"],
            "avail": machine["disk"] - machine["disk_used"],
            "free": machine["disk"] - machine["disk_used"],
        },
    }


@route("GET", "/nodes/{node}/version")
def version(_request: Request) -> dict[str, str]:
    return dict(VERSION)


@route("GET", "/nodes/{node}/network")
def networks(request: Request) -> list[dict[str, Any]]:
    kind = request.params.get("type")
    # A list without a type shows everything to whoever may read the node.
    if kind is not None and not visible(request.cluster, request.who, "vmbr0"):
        return []
    if kind not in (None, "bridge", "any_bridge", "any_local_bridge", "include_sdn"):
        return []
    return [
        {
            "iface": "vmbr0",
            "type": "bridge",
            "active": 1,
            "autostart": 1,
            "method": "manual",
            "families": ["inet"],
            "bridge_ports": "",
            "priority": 1,
        }
    ]


# -- tasks


def _task(request: Request) -> Task:
    upid = str(request.params["upid"])
    if not UPID.fullmatch(upid):
        raise ParameterError({"upid": f"unable to parse worker upid '{upid}'"})
    task = request.cluster.tasks.get(upid)
    if task.fields["node"] != request.params["node"]:
        raise ParameterError({"upid": "no such task"})
    if task.owner not in (request.who.owner, request.who.user):
        request.cluster.access.require(request.who, f"/nodes/{request.params['node']}", ["Sys.Audit"])
    return task


@route("GET", "/nodes/{node}/tasks")
def task_list(request: Request) -> list[dict[str, Any]]:
    params = request.params
    found = []
    for task in request.cluster.tasks.all():
        wanted = params.get("vmid")
        if task.fields["node"] != params["node"] or (wanted and task.fields["id"] != str(wanted)):
            continue
        if params.get("typefilter") and task.fields["type"] != params["typefilter"]:
            continue
        entry = task.summary()
        if task.done.is_set():
            if params.get("source") == "active":
                continue
            entry |= {"status": task.exitstatus, "endtime": task.end}
        elif params.get("source", "archive") == "archive":
            continue
        if params.get("errors") and entry.get("status") == "OK":
            continue
        found.append(entry)
    start = int(params.get("start", 0))
    return found[start : start + int(params.get("limit", 50))]


@route("GET", "/nodes/{node}/tasks/{upid}/status")
def task_status(request: Request) -> dict[str, Any]:
    return _task(request).status()


@route("GET", "/nodes/{node}/tasks/{upid}/log")
def task_log(request: Request) -> list[dict[str, Any]]:
    lines = list(_task(request).lines)
    start, limit = int(request.params.get("start", 0)), int(request.params.get("limit", 50))
    last = start + limit if limit else None
    found = [{"n": number, "t": text} for number, text in enumerate(lines, 1)][start:last]
    return found or [{"n": 1, "t": "no content"}]


@route("DELETE", "/nodes/{node}/tasks/{upid}")
def task_stop(request: Request) -> None:
    upid = str(request.params["upid"])
    task = request.cluster.tasks.get(upid)
    if task.owner not in (request.who.owner, request.who.user):
        request.cluster.access.require(request.who, f"/nodes/{request.params['node']}", ["Sys.Modify"])
    task.cancelled.set()
