# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Snapshots of guests: taken once, gone back to, removed by name, number and age."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .client import Client
from .cluster import Cluster
from .companion import Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Failed
from .model import API_KIND, Guest
from .report import Report
from .survey import Stock

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,39}")
DAY = 86400.0
#: How tasks of a kind of guest begin.
TASK = {"lxc": "vz", "vm": "qm"}


@dataclass(frozen=True)
class Pruning:
    """Which snapshots go: those of the prefix that are not among the newest ``keep`` and older than ``max_age`` days."""

    prefix: str = ""
    keep: int | None = None
    max_age: float | None = None
    now: float = 0.0

    def surplus(self, entries: Iterable[Mapping[str, Any]], spared: str) -> list[str]:
        """Names, oldest first; ``spared`` stays whatever its age."""
        if self.keep is None and self.max_age is None:
            return []
        named = [entry for entry in entries if str(entry["name"]).startswith(self.prefix)]
        named.sort(key=lambda entry: (float(entry.get("snaptime") or 0), str(entry["name"])))
        newest = {str(entry["name"]) for entry in named[len(named) - self.keep :]} if self.keep else set()
        limit = self.now - DAY * self.max_age if self.max_age is not None else None
        return [
            str(entry["name"])
            for entry in named
            if entry["name"] not in newest
            and entry["name"] != spared
            and (limit is None or float(entry.get("snaptime") or 0) < limit)
        ]


@dataclass(frozen=True)
class State:
    """What a guest has. ``rollbacks``: ids of its finished rollbacks."""

    entries: tuple[Mapping[str, Any], ...] = ()
    running: bool = False
    able: bool = True
    rollbacks: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        return [str(entry["name"]) for entry in self.entries]


@dataclass
class Snapshots:
    """A guest and what is wanted of its snapshots. ``start``: its power after a rollback, None as it was before."""

    guest: Guest
    wanted: str = ""
    state: str = "present"
    description: str | None = None
    memory: bool = False
    start: bool | None = None
    pruning: Pruning = field(default_factory=Pruning)
    seconds: float = 600.0
    # Rollbacks that were there before this run, and whether the guest ran.
    _first: State | None = None
    _first_node: str = ""

    @property
    def name(self) -> str:
        return self.guest.name

    @property
    def label(self) -> str:
        return f"{self.guest.name} ({self.guest.vmid} on {self.guest.node})"

    @property
    def _base(self) -> str:
        return f"nodes/{self.guest.node}/{API_KIND[self.guest.kind]}/{self.guest.vmid}"

    def look(self, client: Client) -> State:
        rows = client.get(f"{self._base}/snapshot", f"list the snapshots of {self.label}")
        entries = [row for row in rows if row["name"] != "current"]
        entries.sort(key=lambda row: (float(row.get("snaptime") or 0), str(row["name"])))
        now: Mapping[str, Any] = next((row for row in rows if row["name"] == "current"), {})
        able, rollbacks = True, frozenset[str]()
        missing = self.wanted not in [row["name"] for row in entries]
        if self.state == "present" and self.wanted and missing:
            answer = client.get(
                f"{self._base}/feature", f"ask {self.label} for snapshots", feature="snapshot"
            )
            able = bool(int(answer.get("hasFeature") or 0))
        if self.state == "rollback":
            tasks = client.get(
                f"nodes/{self.guest.node}/tasks",
                f"list the rollbacks of {self.label}",
                vmid=self.guest.vmid,
                typefilter=f"{TASK[self.guest.kind]}rollback",
                source="all",
            )
            rollbacks = frozenset(
                str(row["upid"]) for row in tasks if str(row.get("status", "")).startswith(("OK", "WARN"))
            )
        found = State(tuple(entries), bool(int(now.get("running") or 0)), able, rollbacks)
        if self._first is None:
            self._first, self._first_node = found, self.guest.node
        elif self._first_node != self.guest.node:
            # It moved, and another node knows of other rollbacks: those of former days.
            self._first, self._first_node = replace(found, running=self._first.running), self.guest.node
        return found

    def plan(self, have: State) -> Course:
        if self.state == "rollback":
            return self._back(have)
        writes: list[Write] = []
        refusals: list[str] = []
        after = have.names
        present = self.wanted in after
        if self.state == "present" and self.wanted and not present:
            if not have.able:
                refusals.append(
                    "a volume of it lies on a storage without snapshots: move it, or leave this guest out"
                )
            writes.append(self._take())
            after = [*after, self.wanted]
        described: dict[str, Any] = {}
        if present and self.state == "present" and self.description is not None:
            entry = next(entry for entry in have.entries if entry["name"] == self.wanted)
            described = {"description": str(entry.get("description") or "").rstrip("\n")}
            if described["description"] != self.description:
                path = f"{self._base}/snapshot/{self.wanted}/config"
                writes.append(Write("described", "PUT", path, {"description": self.description}))
        gone = [self.wanted] if present and self.state == "absent" else []
        entries = list(have.entries)
        if self.state == "present" and self.wanted and not present:
            entries.append({"name": self.wanted, "snaptime": self.pruning.now})
        gone += [
            name
            for name in self.pruning.surplus(entries, self.wanted if self.state == "present" else "")
            if name not in gone
        ]
        writes += [self._drop(name) for name in gone]
        before = {"snapshots": have.names, **described}
        result: dict[str, Any] = {"snapshots": [name for name in after if name not in gone]}
        if described:
            result["description"] = self.description
        return Course(tuple(writes), before, result, tuple(refusals))

    def _take(self) -> Write:
        data: dict[str, Any] = {"snapname": self.wanted}
        if self.description:
            data["description"] = self.description
        if self.memory and self.guest.kind == "vm":
            data["vmstate"] = 1
        task = f"{TASK[self.guest.kind]}snapshot"
        return Write("taken", "POST", f"{self._base}/snapshot", data, task, self.seconds)

    def _drop(self, name: str) -> Write:
        task = f"{TASK[self.guest.kind]}delsnapshot"
        return Write("removed", "DELETE", f"{self._base}/snapshot/{name}", {}, task, self.seconds)

    def _back(self, have: State) -> Course:
        first = self._first or have
        if have.rollbacks - first.rollbacks:
            return Course()
        if self.wanted not in have.names:
            known = ", ".join(have.names) or "none"
            return Course(refusals=(f"there is no snapshot {self.wanted!r} (it has {known}): correct name",))
        run = first.running if self.start is None else self.start
        path = f"{self._base}/snapshot/{self.wanted}/rollback"
        task = f"{TASK[self.guest.kind]}rollback"
        write = Write("rolled_back", "POST", path, {"start": int(run)}, task, self.seconds)
        power = {True: "running", False: "stopped"}
        return Course(
            (write,),
            {"rolled_back": False, "power": power[first.running]},
            {"rolled_back": True, "power": power[run], "snapshot": self.wanted},
        )

    def lacks(self, stock: Stock, have: State) -> Iterable[str]:
        place = [f"/vms/{self.guest.vmid}"]
        if self.guest.pool:
            place.append(f"/pool/{self.guest.pool}")
        yield stock.privilege_fault("VM.Snapshot", place)
        if self.state == "rollback":
            later = have.names[have.names.index(self.wanted) + 1 :]
            for storage in stock.storages_of(self.guest) if later else ():
                if stock.storage_type(self.guest.node, storage) == "zfspool":
                    yield (
                        f"storage {storage!r} goes back to the newest snapshot only, and {self.name} has later ones than "
                        f"{self.wanted}: remove {', '.join(later)} first"
                    )


def find_guests(cluster: Cluster, texts: Iterable[Any]) -> list[Guest]:
    """Guests by name or id, templates excepted. Failed names everything that is unclear."""
    result: list[Guest] = []
    faults: list[str] = []
    for text in map(str, texts):
        found = [guest for guest in cluster.guests if text in (guest.name, str(guest.vmid))]
        if not found:
            faults.append(f"{text}: {cluster.unknown(text) or 'there is no such guest'}")
        elif len(found) > 1:
            places = ", ".join(f"{guest.vmid} on {guest.node}" for guest in found)
            faults.append(
                f"{text}: {len(found)} guests are called so ({places}): name the one that is meant by its id"
            )
        elif found[0].template:
            faults.append(f"{text}: is a template, which has no snapshots")
        elif found[0] in result:
            faults.append(f"{text}: listed twice")
        else:
            result.append(found[0])
    if faults:
        raise Failed("guests:\n" + "\n".join(f"- {fault}" for fault in faults))
    return result


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    return {
        **connection_spec(env_fallback),
        "guests": {"type": "list", "elements": "str", "required": True},
        "name": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent", "rollback"], "default": "present"},
        "description": {"type": "str"},
        "vmstate": {"type": "bool", "default": False},
        "start": {"type": "bool"},
        "prefix": {"type": "str", "default": ""},
        "keep": {"type": "int"},
        "max_age_days": {"type": "float"},
        "deadline": {"type": "int", "default": 600},
    }


def _faults(params: Mapping[str, Any]) -> Iterable[str]:
    name, state = str(params["name"] or ""), str(params["state"])
    prunes = params["keep"] is not None or params["max_age_days"] is not None
    if name and (not NAME.fullmatch(name) or name == "current"):
        yield f"name: {name!r} must begin with a letter and hold 2 to 40 letters, digits, - and _"
    if not name and state == "rollback":
        yield "name is missing: which snapshot to go back to"
    if not name and not prunes:
        yield "name is missing: name a snapshot, or set keep or max_age_days to remove old ones"
    if prunes and state == "rollback":
        yield "keep and max_age_days belong to state present and absent"
    if prunes and not params["prefix"]:
        yield "prefix is missing: it says which snapshots keep and max_age_days may remove"
    for option in ("keep", "max_age_days"):
        if params[option] is not None and params[option] < 0:
            yield f"{option}: {params[option]} is below 0"


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    faults = list(_faults(params))
    if faults:
        raise Failed("; ".join(faults))
    reached = settings(params, {})
    runner = Runner(reached)
    pruning = Pruning(str(params["prefix"]), params["keep"], params["max_age_days"], time.time())
    description = params["description"]
    wanted = [
        Snapshots(
            guest,
            str(params["name"] or ""),
            str(params["state"]),
            None if description is None else str(description).rstrip("\n"),
            bool(params["vmstate"]),
            params["start"],
            pruning,
            float(params["deadline"]),
        )
        for guest in find_guests(Cluster(runner.client), params["guests"])
    ]
    return runner.run(check, wanted)
