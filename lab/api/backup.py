# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Backup jobs, and backups as state: an archive is an entry in the list of its storage, with nothing in it."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from lab.api.core import Request, route
from lab.api.guests import names
from lab.api.storage import require_storage
from lab.documents import trimmed
from lab.drivers.base import Guest, split_properties
from lab.errors import ParameterError, die
from lab.tasks import Task

_NOT_JOB = {"id", "delete"}
_CALENDAR = re.compile(r"[a-z0-9*:.,/ -]+", re.I)


def _jobs(request: Request) -> dict[str, Any]:
    return request.cluster.documents["jobs"]


def _job(request: Request) -> dict[str, Any]:
    name = str(request.params["id"])
    found: dict[str, Any] | None = _jobs(request).get(name)
    if found is None:
        raise ParameterError({"id": f"No such job '{name}'"})
    return found


def _shown(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """As the server keeps it, with what it parses in parts."""
    entry = {"id": name, "type": "vzdump", "enabled": 1, **job}
    if "prune-backups" in job:
        entry["prune-backups"] = split_properties(str(job["prune-backups"]))
    return entry


def _checked(request: Request, job: dict[str, Any]) -> dict[str, Any]:
    """A whole job; what contradicts itself is refused."""
    if not job.get("schedule") and not job.get("starttime"):
        raise ParameterError({"schedule": "Missing parameter: 'schedule' or 'starttime'"})
    if job.get("schedule") and job.get("starttime"):
        raise ParameterError({"starttime": "'starttime' and 'schedule' cannot both be set"})
    if job.get("schedule") and not _CALENDAR.fullmatch(str(job["schedule"])):
        raise ParameterError({"schedule": f"unable to parse calendar event - {job['schedule']}"})
    if not any(job.get(key) for key in ("vmid", "all", "pool", "exclude")):
        raise ParameterError({"vmid": "property is missing and it is not optional"})
    if job.get("exclude") and not job.get("pool"):
        job["all"] = 1
    require_storage(request, str(job.get("storage", "local")), "backup")
    if job.get("pool") and job["pool"] not in request.cluster.pools:
        raise die(f"pool '{job['pool']}' does not exist")
    return job


@route("GET", "/cluster/backup")
def index(request: Request) -> list[dict[str, Any]]:
    return [_shown(name, job) for name, job in sorted(_jobs(request).items())]


@route("POST", "/cluster/backup")
def create(request: Request) -> None:
    name = str(request.params.get("id") or f"backup-{secrets.token_hex(4)}-{secrets.token_hex(2)}")
    with request.cluster.lock:
        if name in _jobs(request):
            raise die(f"Job '{name}' already exists")
        job = trimmed({key: value for key, value in request.params.items() if key not in _NOT_JOB})
        _jobs(request)[name] = _checked(request, job)
        request.cluster.documents.save("jobs")


@route("GET", "/cluster/backup/{id}")
def read(request: Request) -> dict[str, Any]:
    return _shown(str(request.params["id"]), _job(request))


@route("PUT", "/cluster/backup/{id}")
def update(request: Request) -> None:
    params = request.params
    with request.cluster.lock:
        job = dict(_job(request))
        for key in names(params.get("delete")):
            job.pop(key, None)
        job.update(trimmed({key: value for key, value in params.items() if key not in _NOT_JOB}))
        if "vmid" in params:
            others = ["all", "exclude", "pool"]
        elif params.get("all"):
            others = ["vmid", "pool"]
        elif "pool" in params:
            others = ["vmid", "all", "exclude"]
        else:
            others = []
        for key in others:
            job.pop(key, None)
        _jobs(request)[str(params["id"])] = _checked(request, job)
        request.cluster.documents.save("jobs")


@route("DELETE", "/cluster/backup/{id}")
def remove(request: Request) -> None:
    with request.cluster.lock:
        _job(request)
        del _jobs(request)[str(request.params["id"])]
        request.cluster.documents.save("jobs")


# -- backups now


def _selected(request: Request) -> list[Guest]:
    params, guests = request.params, request.cluster.guests
    here = [guest for guest in guests.values() if guest.node == request.node]
    excluded = {int(vmid) for vmid in names(params.get("exclude"))}
    if params.get("pool"):
        members = request.cluster.pools[str(params["pool"])].members
        return [guest for guest in here if guest.vmid in members]
    if params.get("all"):
        return [guest for guest in here if guest.vmid not in excluded]
    return [guests[int(vmid)] for vmid in names(params.get("vmid")) if int(vmid) in guests]


def _prune(request: Request, storage: str, guest: Guest, task: Task) -> None:
    """Only `keep-last` is obeyed; archives that are protected stay."""
    keep = split_properties(str(request.params.get("prune-backups", ""))).get("keep-last")
    archives = request.cluster.documents["archives"]
    own = [
        name
        for name, entry in archives.items()
        if entry["vmid"] == guest.vmid and entry["storage"] == storage
    ]
    unprotected = sorted((name for name in own if not archives[name].get("protected")), reverse=True)
    for name in unprotected[int(keep) :] if keep else []:
        task.log(f"INFO: removing backup '{name}'")
        del archives[name]


@route("POST", "/nodes/{node}/vzdump")
def vzdump(request: Request) -> str:
    storage = require_storage(request, str(request.params.get("storage", "local")), "backup").id
    chosen = _selected(request)
    for guest in chosen:
        request.cluster.access.require(request.who, f"/vms/{guest.vmid}", ["VM.Backup"])
    request.cluster.access.require(request.who, f"/storage/{storage}", ["Datastore.AllocateSpace"])

    def save(guest: Guest, task: Task) -> None:
        cluster = request.cluster
        with cluster.change(guest):
            guest.config["lock"] = "backup"
        try:
            task.log(f"INFO: Starting Backup of VM {guest.vmid} ({guest.kind})")
            stamp = time.strftime("%Y_%m_%d-%H_%M_%S")
            name = f"{storage}:backup/vzdump-{guest.kind}-{guest.vmid}-{stamp}"
            name += ".tar.zst" if guest.kind == "lxc" else ".vma.zst"
            with cluster.lock:
                cluster.documents["archives"][name] = {
                    "storage": storage,
                    "node": guest.node,
                    "vmid": guest.vmid,
                    "ctime": int(time.time()),
                    "protected": int(request.params.get("protected", 0)),
                    "notes": str(request.params.get("notes-template", "")).replace(
                        "{{guestname}}", guest.name
                    ),
                }
                _prune(request, storage, guest, task)
                cluster.documents.save("archives")
            task.log(f"INFO: Finished Backup of VM {guest.vmid} (00:00:00)")
        finally:
            with cluster.change(guest, skiplock=True):
                guest.config.pop("lock", None)

    def work(task: Task) -> None:
        failed = 0
        for guest in chosen:
            try:
                save(guest, task)
            except Exception as error:
                failed += 1
                task.log(f"ERROR: Backup of VM {guest.vmid} failed - {error}")
        if failed:
            raise RuntimeError("job errors")

    owner = str(chosen[0].vmid) if len(chosen) == 1 else ""
    return request.cluster.tasks.spawn(request.node, "vzdump", owner, request.who.owner, work)
