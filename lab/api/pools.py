# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/pools."""

from __future__ import annotations

import re
from typing import Any

from lab.api.cluster import guest_resource
from lab.api.core import Request, route
from lab.cluster import Pool
from lab.errors import die


def _entry(request: Request, name: str, pool: Pool, members: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"poolid": name}
    if pool.comment:
        entry["comment"] = pool.comment
    if members:
        found = [guest_resource(request.cluster, request.cluster.guests[vmid]) for vmid in pool.members]
        # A storage is shown as the node that answers sees it.
        node = next(iter(request.cluster.nodes))
        found += [
            {"id": f"storage/{node}/{name}", "type": "storage", "node": node, "storage": name}
            for name in pool.storages
        ]
        entry["members"] = found
    return entry


def _pool(request: Request) -> Pool:
    name = str(request.params["poolid"])
    pool = request.cluster.pools.get(name)
    if pool is None:
        raise die(f"pool '{name}' does not exist")
    return pool


@route("GET", "/pools")
def index(request: Request) -> list[dict[str, Any]]:
    wanted = request.params.get("poolid")
    if wanted:
        request.cluster.access.require(request.who, f"/pool/{wanted}", ["Pool.Audit"])
        return [_entry(request, str(wanted), _pool(request), members=True)]
    return [
        _entry(request, name, pool, members=False)
        for name, pool in sorted(request.cluster.pools.items())
        if request.cluster.access.has(request.who, f"/pool/{name}", ["Pool.Audit"])
    ]


@route("GET", "/pools/{poolid}")
def read(request: Request) -> dict[str, Any]:
    entry = _entry(request, str(request.params["poolid"]), _pool(request), members=True)
    del entry["poolid"]
    return entry


@route("POST", "/pools")
def create(request: Request) -> None:
    name = str(request.params["poolid"])
    with request.cluster.lock:
        if name in request.cluster.pools:
            raise die(f"create pool failed: pool '{name}' already exists")
        request.cluster.pools[name] = Pool(comment=str(request.params.get("comment", "")))
        request.cluster.save_pools()


@route("PUT", "/pools")
def update(request: Request) -> None:
    cluster, params = request.cluster, request.params
    with cluster.lock:
        pool = _pool(request)
        remove = bool(params.get("delete"))
        if "comment" in params:
            pool.comment = str(params["comment"])
        for text in filter(None, re.split(r"[;, ]+", str(params.get("vms", "")))):
            vmid = int(text)
            if remove:
                if vmid not in pool.members:
                    raise die(f"update pools failed: VM {vmid} is not a pool member")
                pool.members.remove(vmid)
                continue
            if vmid not in cluster.guests:
                raise die(f"update pools failed: VM {vmid} does not exist")
            current = cluster.pool_of(vmid)
            if current and current != params["poolid"] and not params.get("allow-move"):
                raise die(
                    f"update pools failed: VM {vmid} belongs already to pool '{current}' and 'allow-move' is not set"
                )
            for other in cluster.pools.values():
                if vmid in other.members:
                    other.members.remove(vmid)
            pool.members.append(vmid)
        for name in filter(None, re.split(r"[;, ]+", str(params.get("storage", "")))):
            if remove and name in pool.storages:
                pool.storages.remove(name)
            elif not remove and name not in pool.storages:
                pool.storages.append(name)
        cluster.save_pools()


@route("DELETE", "/pools")
def delete(request: Request) -> None:
    with request.cluster.lock:
        pool = _pool(request)
        if pool.members or pool.storages:
            raise die(f"delete pool failed: pool '{request.params['poolid']}' is not empty")
        del request.cluster.pools[str(request.params["poolid"])]
        request.cluster.save_pools()
