# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes/{node}/{lxc,qemu}/{vmid}/snapshot: states of a guest that it can go back to."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from lab.api.core import Request
from lab.api.guests import NOUN, both, is_running, spawn
from lab.api.power import start_now, stop_now
from lab.cluster import Cluster, digest
from lab.drivers.base import Guest, MachineDriver
from lab.errors import ParameterError, die
from lab.tasks import Task

# What a rollback leaves as it is.
_KEPT = ("lock", "parent", "protection")


def _find(guest: Guest, name: str) -> dict[str, Any]:
    found = guest.snapshots.get(name)
    if found is None:
        raise die(f"snapshot '{name}' does not exist")
    return found


def source_of_clone(guest: Guest, name: str) -> Guest:
    """The guest as it was at a snapshot; as it is for the empty name."""
    return replace(guest, config=dict(_find(guest, name)["config"])) if name else guest


@contextlib.contextmanager
def _locked(cluster: Cluster, guest: Guest, lock: str) -> Iterator[None]:
    """Hold a configuration lock while a worker works."""
    with cluster.change(guest):
        guest.config["lock"] = lock
    try:
        yield
    finally:
        with cluster.change(guest, skiplock=True):
            guest.config.pop("lock", None)


@both("GET", "/snapshot")
def index(request: Request, guest: Guest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, snapshot in sorted(guest.snapshots.items(), key=lambda item: str(item[1]["snaptime"])):
        entry = {"name": name, "description": "", **snapshot}
        del entry["config"]
        if guest.kind == "qemu":
            entry.setdefault("vmstate", 0)
        found.append(entry)
    now: dict[str, Any] = {
        "name": "current",
        "description": "You are here!",
        "running": int(is_running(request.cluster, guest)),
        "digest": digest(guest),
    }
    if guest.config.get("parent"):
        now["parent"] = guest.config["parent"]
    return [*found, now]


def _able(cluster: Cluster, guest: Guest) -> bool:
    bound = any(re.fullmatch(r"mp\d+", key) and guest.volume(key).startswith("/") for key in guest.config)
    return not bound and all(_storage_type(cluster, guest, disk) != "dir" for disk in guest.disks())


@both("GET", "/feature")
def feature(request: Request, guest: Guest) -> dict[str, Any]:
    answer: dict[str, Any] = {"hasFeature": int(_able(request.cluster, guest))}
    return answer if guest.kind == "lxc" else {**answer, "nodes": [guest.node]}


@both("POST", "/snapshot")
def take(request: Request, guest: Guest) -> str:
    cluster, params, name = request.cluster, request.params, str(request.params["snapname"])
    if name == "current":
        raise ParameterError({"snapname": "unable to use snapshot name 'current' (reserved name)"})
    if len(name) > 40:
        raise ParameterError({"snapname": "value may only be 40 characters long"})
    memory = bool(params.get("vmstate")) and is_running(cluster, guest)

    def work(task: Task) -> None:
        if guest.config.get("template"):
            raise RuntimeError("you can't take a snapshot if it's a template")
        if name in guest.snapshots:
            raise RuntimeError(f"snapshot name '{name}' already used")
        if not _able(cluster, guest):
            raise RuntimeError("snapshot feature is not available")
        with _locked(cluster, guest, "snapshot"):
            frozen = {key: value for key, value in guest.config.items() if key not in ("lock", "parent")}
            entry: dict[str, Any] = {"config": frozen, "snaptime": int(time.time())}
            if params.get("description"):
                entry["description"] = str(params["description"])
            if guest.config.get("parent"):
                entry["parent"] = guest.config["parent"]
            if memory:
                entry["vmstate"] = 1
            try:
                cluster.driver(guest).snapshot(guest, name, memory, task)
            except BaseException:
                cluster.driver(guest).drop_snapshot(guest, name, task)
                raise
            with cluster.change(guest, skiplock=True):
                guest.snapshots[name] = entry
                guest.config["parent"] = name

    cluster.require_unlocked(guest)
    return spawn(request, "snapshot", guest, work)


def _storage_type(cluster: Cluster, guest: Guest, disk: str) -> str:
    return cluster.storages[guest.volume(disk).partition(":")[0]].type


@both("GET", "/snapshot/{snapname}")
def commands(request: Request, guest: Guest) -> list[dict[str, str]]:
    _find(guest, str(request.params["snapname"]))
    return [{"cmd": "rollback"}, {"cmd": "config"}]


@both("GET", "/snapshot/{snapname}/config")
def config(request: Request, guest: Guest) -> dict[str, Any]:
    found = _find(guest, str(request.params["snapname"]))
    return {**found["config"], **{key: value for key, value in found.items() if key != "config"}}


@both("PUT", "/snapshot/{snapname}/config")
def describe(request: Request, guest: Guest) -> None:
    name = str(request.params["snapname"])
    with request.cluster.change(guest):
        _find(guest, name)
        if "description" in request.params:
            guest.snapshots[name]["description"] = str(request.params["description"])


@both("DELETE", "/snapshot/{snapname}")
def drop(request: Request, guest: Guest) -> str:
    cluster, name = request.cluster, str(request.params["snapname"])
    cluster.require_unlocked(guest)

    def work(task: Task) -> None:
        if name not in guest.snapshots:
            raise RuntimeError(f"snapshot '{name}' does not exist")
        with _locked(cluster, guest, "snapshot-delete"):
            cluster.driver(guest).drop_snapshot(guest, name, task)
            with cluster.change(guest, skiplock=True):
                parent = guest.snapshots.pop(name).get("parent")
                for child in [guest.config, *guest.snapshots.values()]:
                    if child.get("parent") == name:
                        child.pop("parent")
                        if parent:
                            child["parent"] = parent

    return spawn(request, "delsnapshot", guest, work)


@both("POST", "/snapshot/{snapname}/rollback")
def rollback(request: Request, guest: Guest) -> str:
    cluster, name = request.cluster, str(request.params["snapname"])
    found = _find(guest, name)
    cluster.require_unlocked(guest)
    if guest.config.get("template"):
        raise die(f"you can't rollback if {NOUN[guest.kind]} is a template")
    for disk in guest.disks():
        later = [entry for entry in guest.snapshots.values() if entry.get("parent") == name]
        if later and _storage_type(cluster, guest, disk) == "zfspool":
            raise die(f"can't rollback, '{name}' is not most recent snapshot on '{guest.volume(disk)}'")

    def work(task: Task) -> None:
        stop_now(cluster, guest, task)
        with _locked(cluster, guest, "rollback"):
            now = {key: value for key, value in guest.config.items() if key in _KEPT or _unused(key)}
            with cluster.change(guest, skiplock=True):
                guest.config = {**found["config"], **now, "parent": name}
                guest.pending, guest.pending_delete = {}, []
            cluster.driver(guest).rollback(guest, name, task)
        if found.get("vmstate"):
            cast("MachineDriver", cluster.driver(guest)).resume(guest, name, task)
        elif request.params.get("start"):
            start_now(cluster, guest, task)

    return spawn(request, "rollback", guest, work)


def _unused(key: str) -> bool:
    return re.fullmatch(r"unused\d+", key) is not None
