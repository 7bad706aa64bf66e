# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Migration: the configuration moves to another node when all else has been done, and is not where it was."""

from __future__ import annotations

from lab.api.core import Request
from lab.api.guests import NOUN, both, is_running
from lab.drivers.base import Guest
from lab.errors import ParameterError, die
from lab.tasks import Task

_TASK = {"lxc": "vzmigrate", "qemu": "qmigrate"}


@both("POST", "/migrate")
def migrate(request: Request, guest: Guest) -> str:
    cluster, params = request.cluster, request.params
    target = str(params["target"])
    if target == guest.node:
        raise ParameterError({"target": "target is local node."})
    if target not in cluster.nodes:
        raise die(f"no such cluster node '{target}'")
    cluster.require_unlocked(guest)
    running = is_running(cluster, guest)
    if running and not (params.get("online") or (guest.kind == "lxc" and params.get("restart"))):
        raise die(
            "can't migrate running container without --online or --restart"
            if guest.kind == "lxc"
            else "can't migrate running VM without --online"
        )

    def work(task: Task) -> None:
        driver = cluster.driver(guest)
        with cluster.change(guest):
            guest.config["lock"] = "migrate"
        try:
            if target in cluster.dead:
                raise RuntimeError(f"Can't connect to destination address of node '{target}'")
            task.sleep(cluster.faults.task_delay("moving"))
            again = running and guest.kind == "lxc"
            if again:
                driver.stop(guest, task)
            with cluster.change(guest, skiplock=True):
                guest.node = target
            if again:
                driver.start(guest, task)
            task.log(f"migration of {NOUN[guest.kind]} {guest.vmid} finished")
        finally:
            with cluster.change(guest, skiplock=True):
                guest.config.pop("lock", None)

    # On the node that it leaves, whatever becomes of it.
    node = guest.node
    return cluster.tasks.spawn(node, _TASK[guest.kind], str(guest.vmid), request.who.owner, work)
