# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Carries plans out. One guest at a time per worker, many workers; every surprise is answered by reading and planning again."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .allocate import Ids
from .client import Client, Settings
from .cluster import Cluster, located, other_id, places
from .errors import Absent, Conflict, Failed
from .model import (
    API_KIND,
    Change,
    Clone,
    Configure,
    Convert,
    Create,
    Destroy,
    Grow,
    Guard,
    Guest,
    Join,
    Move,
    Plan,
    Reboot,
    Start,
    Stop,
    Unguard,
    Want,
)
from .options import BESIDE
from .patience import Patience
from .plan import plan
from .survey import read

#: At a time: new containers per storage (each unpacks a whole file system), clones per template and storage (each
#: copies a disk under locks that wait one second only).
CREATES_PER_STORAGE = 4
CLONES_PER_TEMPLATE = 2
#: What the server says of a guest that was asked to end and did not.
_DEAF = re.compile(r"quit/powerdown failed|did not stop")
#: How often one guest is planned anew before somebody else's changes are called a fight.
ROUNDS = 12
#: Seconds a request may still be under way after its reply was lost.
GRACE = 3.0

DEADLINES: Mapping[str, int] = {
    "create": 900,
    "clone": 1800,
    "configure": 120,
    "resize": 300,
    "start": 180,
    "stop": 120,
    "destroy": 300,
    "lock": 180,
    "address": 120,
}


def locked(want: Want, found: Guest, seconds: float) -> Failed:
    """The error for a guest that somebody else has worked on for too long."""
    way_out = "let that operation end, or raise deadlines.lock"
    if found.lock in ("create", "clone"):
        way_out += "; if nothing works on it any more, destroy what is left of it on the hypervisor"
    return Failed(
        f"{want.label}: {found.vmid} on {found.node} is locked ({found.lock}) for more than {seconds:g} s: {way_out}"
    )


def another(want: Want, found: Guest) -> Failed:
    """The error for a guest that has another name than a moment ago: its id may belong to another one by now."""
    return Failed(
        f"{want.label}: {found.vmid} on {found.node} is called {found.name!r} by now, so it is left alone: it was renamed, or the "
        "id was given away again while this ran: run again"
    )


@dataclass
class Outcome:
    """What became of one guest."""

    want: Want
    plan: Plan
    have: Guest | None = None
    actions: list[str] = field(default_factory=list)
    upids: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    def did(self, change: Change) -> None:
        if change.action not in self.actions:
            self.actions.append(change.action)


class Slots:
    """Counting locks by name, shared by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[object, threading.Semaphore] = {}

    @contextlib.contextmanager
    def held(self, key: object, size: int) -> Iterator[None]:
        with self._lock:
            slot = self._slots.setdefault(key, threading.Semaphore(size))
        with slot:
            yield


class Writer:
    """Applies plans. ``ids`` and ``slots`` are shared; the session belongs to the calling thread."""

    def __init__(self, settings: Settings, ids: Ids, reboot: str) -> None:
        self._settings = settings
        self.ids = ids
        self.slots = Slots()
        self.reboot = reboot
        self._threads = threading.local()

    @property
    def client(self) -> Client:
        """This thread's session: proxmoxer's are not thread-safe."""
        if not hasattr(self._threads, "client"):
            self._threads.client = Client(self._settings)
        client: Client = self._threads.client
        return client

    def converge(self, want: Want, have: Guest | None, source: Guest | None, first: Plan) -> Outcome:
        """Make one guest what its record says and read it back. Errors end up in the outcome, none is raised."""
        started = time.monotonic()
        outcome = Outcome(want, first, have)
        course = _Course(self, outcome, source)
        try:
            course.run()
        except (Failed, Absent, Conflict) as error:
            outcome.error = str(error)
            outcome.have = course.reached
        outcome.seconds = round(time.monotonic() - started, 2)
        return outcome

    def deadline(self, name: str) -> float:
        return float(self._settings.deadlines.get(name, DEADLINES[name]))


class _Course:
    """The way of one guest from what it is to what it should be."""

    def __init__(self, writer: Writer, outcome: Outcome, source: Guest | None) -> None:
        self._writer = writer
        self._outcome = outcome
        self._want = outcome.want
        self._source = source
        # Where it is, or will be: known before the first request, so that a lost reply can be looked up.
        want, vmid = outcome.want, outcome.want.vmid or int(outcome.plan.after.get("vmid", 0))
        self._at = outcome.have or Guest(vmid, want.name, want.kind, want.node)
        self._made = False
        self._rounds = ROUNDS
        # Whether nothing was done since the guest was read.
        self._fresh = True
        # When to stop waiting for what others hold locked; 0: nothing is waited for.
        self._until = 0.0

    @property
    def reached(self) -> Guest | None:
        """The guest as far as it is known, for the report of a failure."""
        return self._at if self._made or self._outcome.have else None

    def run(self) -> None:
        want, outcome, writer = self._want, self._outcome, self._writer
        have, current = outcome.have, outcome.plan
        lost: Change | None = None
        unanswered = clean = False
        pauses: dict[str, int] = defaultdict(int)
        while self._rounds > 0:
            self._rounds -= 1
            if lost is not None and not any(type(change) is type(lost) for change in current.changes):
                outcome.did(lost)
            lost, unanswered, self._fresh = None, False, True
            if current.refusals:
                raise Failed(f"{want.label}: " + "; ".join(current.refusals))
            if not current.changes:
                break
            if clean:
                before, after = current.difference()
                raise Failed(
                    f"{want.label}: the server took every change, but reads back {before} instead of {after}"
                )
            clean = True
            for change in current.changes:
                tasks = len(outcome.upids)
                try:
                    self._apply(change, have)
                    outcome.did(change)
                    self._until, self._fresh = 0.0, False
                except Conflict as conflict:
                    clean = False
                    unanswered = conflict.reason == "lost"
                    # Without an answer, or ended by an error on its way: it may have happened all the same.
                    lost = change if unanswered or len(outcome.upids) > tasks else None
                    # A round in which nothing was done but wait is none.
                    self._rounds += conflict.reason == "lock" and change is current.changes[0]
                    self._pause(conflict, pauses)
                    break
                except Absent as gone:
                    # It may have moved to another node meanwhile: then it is looked for there.
                    pauses["absent"] += 1
                    if pauses["absent"] > 4 or not self._somewhere(change):
                        raise gone
                    clean = False
                    break
                if isinstance(change, Clone) or self._stale(change, current):
                    clean = False  # what the clone got, its MAC included, is read before it is configured
                    break
            if want.state == "restarted" and self._restarted():
                want = replace(want, state="started")
            have = self._read(retry=unanswered)
            current = plan(want, have, self._source, writer.reboot, fresh=self._made)
        else:
            raise Failed(
                f"{want.label}: changed by someone else {ROUNDS} times while it was being changed: run again when that has ended"
            )
        outcome.have = have

    @staticmethod
    def _stale(change: Change, current: Plan) -> bool:
        """Whether a configuration that is to be written has changed by what was just done, so that it is read again."""
        later = current.changes[current.changes.index(change) + 1 :]
        return isinstance(change, (Move, Grow, Start)) and any(isinstance(step, Configure) for step in later)

    def _restarted(self) -> bool:
        """Whether the guest has begun anew in this run; a VM that was hibernated goes on where it was."""
        resumed = bool(self._outcome.have and self._outcome.have.asleep)
        return "rebooted" in self._outcome.actions or ("started" in self._outcome.actions and not resumed)

    def _pause(self, conflict: Conflict, pauses: dict[str, int]) -> None:
        """Wait a little longer each time; raise when waiting has no end in sight."""
        reason = conflict.reason
        if reason == "lock":
            self._until = self._until or time.monotonic() + self._writer.deadline("lock")
        if reason == "lock" and time.monotonic() > self._until:
            raise Failed(
                f"{conflict}; waited {self._writer.deadline('lock'):g} s: let that operation end, or raise deadlines.lock"
            )
        pauses[reason] += 1
        if reason not in ("lock", "exists") and pauses[reason] > 4:
            raise Failed(f"{conflict}; tried {pauses[reason]} times")
        if reason != "exists":
            time.sleep(min(0.2 * 1.6 ** pauses[reason], 5.0))

    def _read(self, retry: bool) -> Guest | None:
        """The guest as it is now, when nothing else works on it any more."""
        if not self._at.vmid:
            return None
        patience = Patience(self._writer.deadline("lock"))
        grace = Patience(GRACE if retry and not self._outcome.have else 0)
        while True:
            found = read(self._writer.client, self._at, renamed=self._want.name)
            if found is None and grace.again():
                continue
            if found is None:
                self._made = False
                return None
            if not found.lock or found.asleep:
                if not self._outcome.have and found.name != self._want.name and not self._named_ours(found):
                    # Someone else took the id while our request was on its way.
                    self._at = replace(self._at, vmid=0)
                    return None
                if found.name not in (self._at.name, self._want.name) and not self._named_ours(found):
                    raise another(self._want, found)
                self._at = self._beside(found)
                return self._at
            if not patience.again():
                raise locked(self._want, found, self._writer.deadline("lock"))

    def _somewhere(self, change: Change) -> bool:
        """Whether something that was not there is to be looked for; what is gone needs no end any more."""
        if isinstance(change, (Destroy, Stop)):
            return True
        found = located(self._writer.client, self._at) if self._at.vmid else None
        return found is not None and found.node != self._at.node

    def _named_ours(self, found: Guest) -> bool:
        return self._made and found.vmid == self._at.vmid

    def _beside(self, found: Guest) -> Guest:
        """With pool and HA, which are not part of a configuration; only asked for where they matter."""
        row: Guest | None = self._at
        if self._at.ha or any(self._want.options.get(name) is not None for name in BESIDE):
            row = places(self._writer.client).get(found.vmid)
        return replace(found, pool=row.pool if row else "", ha=row.ha if row else "")

    def _apply(self, change: Change, have: Guest | None) -> None:
        handlers: dict[type[Change], Callable[[Any, Guest | None], None]] = {
            Create: self._create,
            Clone: self._clone,
            Configure: self._configure,
            Move: self._move,
            Grow: self._grow,
            Join: self._join,
            Guard: self._guard,
            Unguard: self._unguard,
            Convert: self._convert,
            Start: self._power,
            Stop: self._power,
            Reboot: self._power,
            Destroy: self._destroy,
        }
        handlers[type(change)](change, have)

    def _subject(self, change: Change) -> str:
        place = f" ({self._at.vmid} on {self._at.node})" if self._at.vmid else f" (on {self._at.node})"
        return f"{change.verb} {self._want.label}{place}"

    def _base(self) -> str:
        return f"nodes/{self._at.node}/{API_KIND[self._at.kind]}/{self._at.vmid}"

    def _send(self, change: Change, method: str, path: str, **data: Any) -> str:
        """One write and the end of its task, whose type it returns."""
        client, subject = self._writer.client, self._subject(change)
        upid = client.write(method, path, subject, **data)
        if isinstance(upid, str) and upid.startswith("UPID:"):
            self._outcome.upids.append(upid)
        self._outcome.warnings += client.wait(upid, subject, self._writer.deadline(change.deadline))
        return upid.split(":")[5] if isinstance(upid, str) and upid.startswith("UPID:") else ""

    def _new_id(self) -> None:
        if self._at.vmid:
            return
        client = self._writer.client
        floor = int(client.get("cluster/nextid", "ask for a free id"))
        self._at = replace(self._at, vmid=self._writer.ids.take(floor))

    def _claim(self, change: Create | Clone, send: Callable[[], str]) -> None:
        """Make a guest under an id that may turn out to be taken."""
        self._new_id()
        twin = self._twin()
        if twin is not None:
            if self._want.vmid:
                raise Failed(other_id(self._want, twin))
            self._at = replace(self._at, vmid=twin.vmid, node=twin.node)
            raise Conflict(f"{self._subject(change)}: another run has just made it", "exists")
        try:
            send()
        except Conflict as conflict:
            if conflict.reason != "exists":
                raise
            holder = self._holder()
            if holder is not None and holder.name == self._want.name:
                # The guest that has the id is the one an earlier, unanswered request made.
                raise Conflict(str(conflict), "lost") from conflict
            if self._want.vmid and holder is None:
                raise Failed(
                    f"{conflict}; no guest has the id {self._want.vmid}, so this is left of one that is gone: remove it on the "
                    "hypervisor (its storage, Content), or choose another vmid"
                ) from conflict
            if self._want.vmid:
                raise Failed(
                    f"{conflict}; the record asks for this id: correct vmid, or remove that guest"
                ) from conflict
            self._at = replace(self._at, vmid=0)
            raise
        self._made = True

    def _twin(self) -> Guest | None:
        """The guest of this name that was not there when this run looked: another run has made it, or is making it."""
        writer = self._writer
        patience = Patience(writer.deadline("lock"))
        while True:
            listed = places(writer.client)
            new = writer.ids.foreign(listed)
            if not new:
                return None
            cluster = Cluster(writer.client, only={listed[vmid].node for vmid in new})
            found = [guest for guest in cluster.called(self._want.name) if guest.vmid in new]
            if found or not cluster.nameless(new) or not patience.again():
                return found[0] if found else None

    def _holder(self) -> Guest | None:
        """The guest that has the id now, with the name in its configuration; one that is being made has none at first."""
        patience = Patience(self._writer.deadline("lock"))
        while True:
            there = places(self._writer.client).get(self._at.vmid)
            found = read(self._writer.client, there) if there else None
            if found is None:
                return None
            name = str(found.config.get("hostname" if found.kind == "lxc" else "name", ""))
            if name == self._want.name or found.lock not in ("create", "clone") or not patience.again():
                return replace(found, name=name)

    def _create(self, change: Create, have: Guest | None) -> None:
        with self._writer.slots.held(("create", self._at.node, change.storage), CREATES_PER_STORAGE):
            path = f"nodes/{self._at.node}/lxc"
            self._claim(change, lambda: self._send(change, "POST", path, vmid=self._at.vmid, **change.params))

    def _clone(self, change: Clone, have: Guest | None) -> None:
        params = dict(change.params)
        if self._at.node != change.source_node:
            params["target"] = self._at.node
        with self._writer.slots.held(("clone", change.source, change.storage), CLONES_PER_TEMPLATE):
            path = f"nodes/{change.source_node}/{API_KIND[self._at.kind]}/{change.source}/clone"
            self._claim(change, lambda: self._send(change, "POST", path, newid=self._at.vmid, **params))

    def _configure(self, change: Configure, have: Guest | None) -> None:
        data: dict[str, Any] = dict(change.values)
        if change.delete:
            data["delete"] = ",".join(change.delete)
        digest = have.digest if have else ""
        if not digest:
            digest = str(
                self._writer.client.get(f"{self._base()}/config", self._subject(change)).get("digest", "")
            )
        if digest:
            data["digest"] = digest
        # The asynchronous form of a VM's call waits for hotplug and disks.
        self._send(change, "POST" if self._at.kind == "vm" else "PUT", f"{self._base()}/config", **data)

    def _move(self, change: Move, have: Guest | None) -> None:
        verb, disk = ("move_volume", "volume") if self._at.kind == "lxc" else ("move_disk", "disk")
        path = f"{self._base()}/{verb}"
        data = {disk: change.disk, "storage": change.storage, "delete": 1, **self._unchanged(have)}
        self._send(change, "POST", path, **data)

    def _grow(self, change: Grow, have: Guest | None) -> None:
        data = {"disk": change.disk, "size": f"{change.size_gb}G", **self._unchanged(have)}
        self._send(change, "PUT", f"{self._base()}/resize", **data)

    def _unchanged(self, have: Guest | None) -> dict[str, str]:
        """What keeps a volume from being touched that somebody put in the place of the one that was read."""
        return {"digest": have.digest} if self._fresh and have and have.digest else {}

    def _join(self, change: Join, have: Guest | None) -> None:
        self._send(
            change, "PUT", "pools", **{"poolid": change.pool, "vms": str(self._at.vmid), "allow-move": 1}
        )

    def _sid(self) -> str:
        return f"{'ct' if self._at.kind == 'lxc' else 'vm'}:{self._at.vmid}"

    def _guard(self, change: Guard, have: Guest | None) -> None:
        self._send(change, "POST", "cluster/ha/resources", sid=self._sid(), state=change.state)

    def _unguard(self, change: Unguard, have: Guest | None) -> None:
        self._send(change, "DELETE", f"cluster/ha/resources/{self._sid()}")

    def _convert(self, change: Convert, have: Guest | None) -> None:
        """A container's task is not told: its configuration is looked at."""
        self._look_again()
        self._send(change, "POST", f"{self._base()}/template")
        self._watch(change, "config", lambda found: str(found.get("template", "0")) == "1")

    def _watch(self, change: Change, what: str, done: Callable[[Mapping[str, Any]], bool]) -> None:
        """Ask until something that has no task of its own has happened."""
        seconds = self._writer.deadline(change.deadline)
        patience = Patience(seconds)
        while not done(self._writer.client.get(f"{self._base()}/{what}", self._subject(change))):
            if not patience.again():
                raise Failed(
                    f"{self._subject(change)}: not finished after {seconds:g} s: look at its tasks on the hypervisor, "
                    f"or raise deadlines.{change.deadline}"
                )

    def _power(self, change: Start | Stop | Reboot, have: Guest | None) -> None:
        base, seconds = f"{self._base()}/status", int(self._writer.deadline("stop"))
        if isinstance(change, Start):
            kind = self._send(change, "POST", f"{base}/start")
        elif isinstance(change, Reboot):
            kind = self._reboot(change, base, max(1, seconds * 2 // 3))
        elif change.hard:
            kind = self._send(change, "POST", f"{base}/stop")
        else:
            kind = self._send(
                change, "POST", f"{base}/shutdown", timeout=max(1, seconds * 2 // 3), forceStop=1
            )
        if kind.startswith("ha"):
            # The task was the request to the HA manager, which obeys when it next looks.
            aim = "running" if isinstance(change, Start) else "stopped"
            self._watch(change, "status/current", lambda found: found.get("status") == aim)

    def _reboot(self, change: Reboot, base: str, seconds: int) -> str:
        """A VM that does not end by itself in time is stopped and started: a reboot has no such switch."""
        try:
            return self._send(change, "POST", f"{base}/reboot", timeout=seconds)
        except Failed as failed:
            if not _DEAF.search(str(failed)):
                raise
        self._power(Stop(hard=True), None)
        self._outcome.warnings.append(
            f"{self._want.label}: did not obey for {seconds} s when asked to reboot, so it was stopped and started"
        )
        self._power(Start(), None)
        return ""

    def _look_again(self) -> None:
        """Before what nobody can take back: the id may have been given to another guest since this one was read or stopped."""
        found = read(self._writer.client, self._at, renamed=self._want.name)
        if found is None:
            raise Absent(f"{self._want.label}: {self._at.vmid} on {self._at.node} is gone")
        if found.name not in (self._at.name, self._want.name) and not self._named_ours(found):
            raise another(self._want, found)
        self._at = replace(self._at, node=found.node)

    def _destroy(self, change: Destroy, have: Guest | None) -> None:
        self._look_again()
        self._send(change, "DELETE", self._base(), purge=1)
