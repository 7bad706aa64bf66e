# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A template of each guest per deployed version, and none that is older than wanted.

A template is made from a snapshot, so the guest goes on running. Which ones are ours is written in their notes.
"""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .client import Client
from .cluster import Cluster
from .companion import Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Absent, Failed
from .formats import NAME, split_words
from .model import API_KIND, Guest
from .report import Report
from .snapshots import DAY, TASK, find_guests
from .survey import Stock

#: Full copies at a time: more than a few end in time-outs of the storage's lock.
WORKERS = 2
TAG = "deployed-version"
_NOTE = "deployed version {version} of {name} ({vmid}), {time}"
_NOTES = re.compile(
    r"^deployed version (?P<version>\S+) of (?P<name>\S+) \((?P<vmid>\d+)\), (?P<time>\S+Z)$", re.M
)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Entry:
    """A version that is kept. ``made``: seconds since 1970. ``settled``: it is tagged as one of ours."""

    version: str
    vmid: int
    node: str
    made: float
    template: bool
    settled: bool


@dataclass(frozen=True)
class State:
    entries: tuple[Entry, ...] = ()
    #: Notes of a guest that has the name of the template and is not ours.
    stranger: str = ""
    snapshot: bool = False
    tags: tuple[str, ...] = ()
    free: int = 0


@dataclass(frozen=True)
class Versions:
    """A guest, the version that it now has, and how long templates of earlier ones are kept."""

    guest: Guest
    version: str
    state: str = "present"
    storage: str = ""
    keep: int = 1
    max_age: float | None = None
    now: float = 0.0
    seconds: float = 1800.0

    @property
    def name(self) -> str:
        return self.guest.name

    @property
    def label(self) -> str:
        return f"{self.guest.name} ({self.guest.vmid} on {self.guest.node})"

    @property
    def _template(self) -> str:
        return f"{self.guest.name}-{self.version}"

    @property
    def _snapshot(self) -> str:
        return f"making-{hashlib.sha256(self.version.encode()).hexdigest()[:12]}"

    def _path(self, vmid: int, node: str = "") -> str:
        return f"nodes/{node or self.guest.node}/{API_KIND[self.guest.kind]}/{vmid}"

    def _task(self, action: str) -> str:
        return TASK[self.guest.kind] + action

    # -- what is there

    def look(self, client: Client) -> State:
        entries, stranger = [], ""
        for row in Cluster(client).guests:
            if row.kind != self.guest.kind or not row.name.startswith(f"{self.guest.name}-"):
                continue
            entry = self._read(client, row)
            if entry is not None:
                entries.append(entry)
            elif row.name == self._template:
                stranger = f"{row.vmid} on {row.node}"
        if self.state != "present" or not self.version:
            return State(tuple(entries), stranger)
        rows = client.get(f"{self._path(self.guest.vmid)}/snapshot", f"list the snapshots of {self.label}")
        config = client.get(f"{self._path(self.guest.vmid)}/config", f"read {self.label}")
        free = 0
        if not any(entry.version == self.version for entry in entries):
            free = int(client.get("cluster/nextid", "ask for a free id"))
        return State(
            tuple(sorted(entries, key=lambda entry: entry.made)),
            stranger,
            self._snapshot in [row["name"] for row in rows],
            tuple(split_words(str(config.get("tags") or ""))),
            free,
        )

    def _read(self, client: Client, row: Guest) -> Entry | None:
        """The entry of a guest, None when its notes do not say that it is one of this guest."""
        path, subject = self._path(row.vmid, row.node), f"read {row.name}"
        try:
            config: Mapping[str, Any] = client.get(f"{path}/config", subject)
            match = _NOTES.search(str(config.get("description") or ""))
            # The id of a guest that is gone may be that of another one by now.
            if match is None or (match["name"], int(match["vmid"])) != (self.guest.name, self.guest.vmid):
                return None
            if not int(config.get("template") or 0):
                # Converting a container is a task that nobody is told of.
                tasks = client.get(
                    f"nodes/{row.node}/tasks",
                    subject,
                    vmid=row.vmid,
                    typefilter=self._task("template"),
                    source="active",
                )
                for task in tasks:
                    client.wait(task["upid"], subject, self.seconds)
                config = client.get(f"{path}/config", subject) if tasks else config
        except Absent:
            return None
        try:
            made = float(calendar.timegm(time.strptime(match["time"], _TIME)))
        except ValueError:
            return None
        settled = TAG in split_words(str(config.get("tags") or ""))
        return Entry(
            match["version"], row.vmid, row.node, made, bool(int(config.get("template") or 0)), settled
        )

    # -- what is wanted

    def plan(self, have: State) -> Course:
        writes: list[Write] = []
        refusals: list[str] = []
        names = [entry.version for entry in have.entries]
        after = list(names)
        if self.state == "present" and self.version:
            if have.stranger:
                refusals.append(
                    f"{have.stranger} is called {self._template} and is none of its versions: rename or remove it"
                )
            writes += self._make(have)
            after = [*after, *([] if self.version in after else [self.version])]
        gone = self._surplus(have)
        writes += [
            Write(
                "removed",
                "DELETE",
                self._path(entry.vmid, entry.node),
                {"purge": 1},
                self._task("destroy"),
                self.seconds,
            )
            for entry in gone
        ]
        left = [version for version in after if version not in [entry.version for entry in gone]]
        return Course(tuple(writes), {"versions": names}, {"versions": left}, tuple(refusals))

    def _make(self, have: State) -> list[Write]:
        source = self._path(self.guest.vmid)
        entry = next((entry for entry in have.entries if entry.version == self.version), None)
        snapshot = f"{source}/snapshot"
        writes = []
        if entry is None:
            if not have.snapshot:
                data = {"snapname": self._snapshot, "description": f"for the template {self._template}"}
                writes.append(
                    Write("snapshot_taken", "POST", snapshot, data, self._task("snapshot"), self.seconds)
                )
            writes.append(
                Write(
                    "cloned", "POST", f"{source}/clone", self._clone(have), self._task("clone"), self.seconds
                )
            )
        copy = self._path(entry.vmid if entry else have.free, entry.node if entry else "")
        if entry is None or not entry.settled:
            tags = ";".join(sorted({*have.tags, TAG}))
            writes.append(
                Write("configured", "PUT", f"{copy}/config", {"tags": tags, "onboot": 0, "protection": 0})
            )
        if entry is None or not entry.template:
            # That of a container answers without telling its task.
            task = self._task("template") if self.guest.kind == "vm" else ""
            writes.append(Write("templated", "POST", f"{copy}/template", {}, task, self.seconds))
        if entry is None or have.snapshot:
            path = f"{snapshot}/{self._snapshot}"
            writes.append(
                Write("snapshot_removed", "DELETE", path, {}, self._task("delsnapshot"), self.seconds)
            )
        return writes

    def _clone(self, have: State) -> dict[str, Any]:
        moment = time.strftime(_TIME, time.gmtime(self.now))
        note = _NOTE.format(version=self.version, name=self.guest.name, vmid=self.guest.vmid, time=moment)
        return {
            "newid": have.free,
            "hostname" if self.guest.kind == "lxc" else "name": self._template,
            "full": 1,
            "snapname": self._snapshot,
            "description": note,
            **({"storage": self.storage} if self.storage else {}),
        }

    def _surplus(self, have: State) -> list[Entry]:
        """What goes, oldest first."""
        if self.state == "absent" and self.version:
            return [entry for entry in have.entries if entry.version == self.version]
        if self.max_age is None:
            return []
        versions = [(entry.made, entry.version) for entry in have.entries]
        if self.version and self.version not in [entry.version for entry in have.entries]:
            versions.append((self.now, self.version))
        newest = {version for _made, version in sorted(versions)[max(0, len(versions) - self.keep) :]}
        limit = self.now - DAY * self.max_age
        return [
            entry
            for entry in have.entries
            if entry.made < limit and entry.version != self.version and entry.version not in newest
        ]

    def lacks(self, stock: Stock, have: State) -> Iterable[str]:
        place = [f"/vms/{self.guest.vmid}"]
        if self.guest.pool:
            place.append(f"/pool/{self.guest.pool}")
        if self.state == "present" and self.version:
            for privilege in ("VM.Snapshot", "VM.Clone"):
                yield stock.privilege_fault(privilege, place)
            for storage in [self.storage] if self.storage else stock.storages_of(self.guest):
                yield stock.storage_fault(
                    self.guest.node, storage, "rootdir" if self.guest.kind == "lxc" else "images"
                )
                yield stock.privilege_fault("Datastore.AllocateSpace", [f"/storage/{storage}"])
            for bridge, tag in stock.bridges_of(self.guest):
                yield stock.bridge_privilege_fault(self.guest.node, bridge, tag)
        yield stock.privilege_fault("VM.Allocate", ["/vms"])
        yield stock.privilege_fault("VM.Config.Options", ["/vms"])


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    return {
        **connection_spec(env_fallback),
        "guests": {"type": "list", "elements": "str", "required": True},
        "version": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "storage": {"type": "str"},
        "keep": {"type": "int", "default": 1},
        "max_age_days": {"type": "float"},
        "deadline": {"type": "int", "default": 1800},
    }


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    version = str(params["version"] or "")
    if not version and params["max_age_days"] is None:
        raise Failed("version is missing: name the deployed version, or set max_age_days to remove old ones")
    for option in ("keep", "max_age_days"):
        if params[option] is not None and params[option] < 0:
            raise Failed(f"{option}: {params[option]} is below 0")
    reached = settings(params, {})
    runner = Runner(reached, WORKERS)
    guests = find_guests(Cluster(runner.client), params["guests"])
    for guest in guests:
        if version and not NAME.fullmatch(f"{guest.name}-{version}"):
            raise Failed(
                f"version: {version!r} cannot be part of a host name, which the template "
                f"{guest.name}-{version} needs: use letters, digits, . and -"
            )
    wanted = [
        Versions(
            guest,
            version,
            str(params["state"]),
            str(params["storage"] or ""),
            int(params["keep"]),
            params["max_age_days"],
            time.time(),
            float(params["deadline"]),
        )
        for guest in guests
    ]
    return runner.run(check, wanted)
