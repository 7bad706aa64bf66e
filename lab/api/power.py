# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes/{node}/{lxc,qemu}/{vmid}/status: switching guests on and off."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import cast

from lab.api.core import Request, route
from lab.api.guests import NOUN, TASK, apply_pending, both, is_running, require_startable, spawn
from lab.cluster import Cluster
from lab.drivers.base import Guest, MachineDriver
from lab.errors import ApiError, die
from lab.tasks import Task


@dataclass(frozen=True)
class _Words:
    """How the two kinds differ. `strict`: the wrong state is refused before there is a task."""

    strict: bool
    template: str
    deaf: str
    forced: str
    patience: float
    #: Whether a guest that does not end in time is stopped all the same when it is to reboot.
    reboot_forced: bool


_WORDS = {
    "lxc": _Words(
        True,
        "you can't start a container that is a template",
        "container did not stop",
        "container did not stop in time, stopping it",
        60,
        True,
    ),
    "qemu": _Words(
        False,
        "you can't start a vm if it's a template",
        "VM quit/powerdown failed - got timeout",
        "VM quit/powerdown failed - terminating now with SIGTERM",
        180,
        False,
    ),
}
# What the state of a machine that sleeps on disk is called.
_SLEEP = "suspend"
# Seconds until the HA manager's next look at a service.
_HA_ROUND = 0.3


def start_now(cluster: Cluster, guest: Guest, task: Task) -> None:
    if is_running(cluster, guest):
        raise RuntimeError(f"{NOUN[guest.kind]} {guest.vmid} already running")
    if guest.config.get("lock") == "suspended":
        _resume_now(cluster, guest, task)
        return
    apply_pending(cluster, guest)
    cluster.driver(guest).start(guest, task)


def _suspend_now(cluster: Cluster, guest: Guest, task: Task) -> None:
    """Its memory goes to a disk, and it takes no change until it is started again."""
    with cluster.change(guest):
        guest.config["lock"] = "suspending"
    cluster.driver(guest).snapshot(guest, _SLEEP, True, task)
    cluster.driver(guest).stop(guest, task)
    with cluster.change(guest, skiplock=True):
        storage = guest.volume(guest.disks()[0]).partition(":")[0]
        guest.config |= {"lock": "suspended", "vmstate": f"{storage}:vm-{guest.vmid}-state-{_SLEEP}"}


def _resume_now(cluster: Cluster, guest: Guest, task: Task) -> None:
    driver = cast("MachineDriver", cluster.driver(guest))
    driver.resume(guest, _SLEEP, task)
    driver.drop_snapshot(guest, _SLEEP, task)
    with cluster.change(guest, skiplock=True):
        for key in ("lock", "vmstate"):
            guest.config.pop(key, None)


def stop_now(cluster: Cluster, guest: Guest, task: Task) -> None:
    if is_running(cluster, guest):
        cluster.driver(guest).stop(guest, task)
        apply_pending(cluster, guest)


def _ask_to_end(cluster: Cluster, guest: Guest, seconds: float, force: bool, task: Task) -> None:
    driver, words = cluster.driver(guest), _WORDS[guest.kind]
    if guest.vmid in cluster.faults.deaf:
        task.sleep(seconds)
        obeyed = False
    else:
        obeyed = driver.shutdown(guest, seconds, task)
    if not obeyed:
        if not force:
            raise RuntimeError(words.deaf)
        task.log(words.forced)
        driver.stop(guest, task)
    apply_pending(cluster, guest)


# -- the HA manager


def ask_ha(request: Request, guest: Guest, state: str) -> str:
    """The task ends when the request is made; the manager obeys later."""
    cluster = request.cluster

    def work(_task: Task) -> None:
        cluster.set_ha(guest, {"state": state})
        obey_ha(cluster, guest)

    kind = "hastart" if state == "started" else "hastop"
    return cluster.tasks.spawn(guest.node, kind, str(guest.vmid), request.who.owner, work)


def obey_ha(cluster: Cluster, guest: Guest) -> None:
    """Bring a guest to the state its HA resource asks for, a little later."""

    def manage() -> None:
        time.sleep(_HA_ROUND)
        wanted = cluster.ha.get(cluster.sid(guest), {}).get("state")
        if guest.vmid not in cluster.guests or guest.config.get("template"):
            return
        if wanted == "started" and not is_running(cluster, guest):
            action, work = "start", start_now
        elif wanted in ("stopped", "disabled") and is_running(cluster, guest):
            action, work = "shutdown", stop_now
        else:
            return
        kind = TASK[guest.kind] + action
        cluster.tasks.spawn(
            guest.node, kind, str(guest.vmid), "root@pam", lambda task: work(cluster, guest, task)
        )

    threading.Thread(target=manage, name=f"ha-{guest.vmid}", daemon=True).start()


# -- the API


@both("GET", "/status")
def index(_request: Request, guest: Guest) -> list[dict[str, str]]:
    more = ["reset"] if guest.kind == "qemu" else []
    return [{"subdir": name} for name in ("current", "start", "stop", "shutdown", "reboot", *more)]


def _require_running(request: Request, guest: Guest) -> None:
    if not is_running(request.cluster, guest):
        raise die(f"{NOUN[guest.kind]} {guest.vmid} not running")


@both("POST", "/status/start")
def start(request: Request, guest: Guest) -> str:
    cluster, words = request.cluster, _WORDS[guest.kind]
    if guest.config.get("lock") != "suspended":
        require_startable(request, guest, words.template)
    if cluster.sid(guest) in cluster.ha:
        return ask_ha(request, guest, "started")
    if words.strict and is_running(cluster, guest):
        raise die(f"{NOUN[guest.kind]} {guest.vmid} already running")
    return spawn(request, "start", guest, lambda task: start_now(cluster, guest, task))


@both("POST", "/status/stop")
def stop(request: Request, guest: Guest) -> str:
    cluster = request.cluster
    cluster.require_unlocked(guest)
    if cluster.sid(guest) in cluster.ha:
        return ask_ha(request, guest, "stopped")
    if _WORDS[guest.kind].strict:
        _require_running(request, guest)
    return spawn(request, "stop", guest, lambda task: stop_now(cluster, guest, task))


@both("POST", "/status/shutdown")
def shutdown(request: Request, guest: Guest) -> str:
    cluster, params, words = request.cluster, request.params, _WORDS[guest.kind]
    cluster.require_unlocked(guest)
    if cluster.sid(guest) in cluster.ha:
        return ask_ha(request, guest, "stopped")
    if words.strict:
        _require_running(request, guest)
    seconds, force = float(params.get("timeout", words.patience)), bool(params.get("forceStop"))

    def work(task: Task) -> None:
        if is_running(cluster, guest):
            _ask_to_end(cluster, guest, seconds, force, task)

    return spawn(request, "shutdown", guest, work)


@both("POST", "/status/reboot")
def reboot(request: Request, guest: Guest) -> str:
    cluster = request.cluster
    cluster.require_unlocked(guest)
    _require_running(request, guest)
    seconds = float(request.params.get("timeout", _WORDS[guest.kind].patience))

    def work(task: Task) -> None:
        _ask_to_end(cluster, guest, seconds, _WORDS[guest.kind].reboot_forced, task)
        time.sleep(0.1)
        cluster.driver(guest).start(guest, task)

    return spawn(request, "reboot", guest, work)


@route("POST", "/nodes/{node}/qemu/{vmid}/status/suspend")
def suspend(request: Request) -> str:
    cluster = request.cluster
    guest = cluster.find(int(request.params["vmid"]), request.node, "qemu")
    if not request.params.get("todisk"):
        raise ApiError(501, "pausing a machine is not implemented")
    cluster.access.require(request.who, f"/vms/{guest.vmid}", ["VM.Config.Disk"])
    cluster.require_unlocked(guest)
    _require_running(request, guest)
    return spawn(request, "suspend", guest, lambda task: _suspend_now(cluster, guest, task))
