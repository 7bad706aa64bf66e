# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Backup jobs of the datacenter: when, what, where to, and what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .client import Client
from .cluster import Cluster
from .companion import Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Absent, Failed
from .formats import CONTROL, format_properties, parse_properties, split_words
from .report import Report
from .survey import Stock

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,49}")
_PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
#: Option of the record, key on the wire, what a job without it does.
_TEXT = (
    ("schedule", "schedule", ""),
    ("storage", "storage", "local"),
    ("mode", "mode", "snapshot"),
    ("compress", "compress", "0"),
    ("node", "node", ""),
    ("comment", "comment", ""),
    ("notes_template", "notes-template", ""),
)
_FLAGS = (("enabled", "enabled", True), ("repeat_missed", "repeat-missed", False))
#: Keys that say which guests are saved; a job has one way of saying it.
_SELECTION = ("all", "pool", "vmid", "exclude")


@dataclass(frozen=True)
class Job:
    """A record. ``options`` holds managed values as they are compared; ``guests`` are ids."""

    name: str
    state: str
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"backup job {self.name}"

    def look(self, client: Client) -> Mapping[str, Any] | None:
        try:
            return dict(client.get(f"cluster/backup/{self.name}", f"read {self.label}"))
        except Absent:
            return None

    def plan(self, have: Mapping[str, Any] | None) -> Course:
        path = f"cluster/backup/{self.name}"
        if self.state == "absent":
            if have is None:
                return Course()
            return Course((Write("removed", "DELETE", path),), {"state": "present"}, {"state": "absent"})
        after = dict(self.options)
        if have is None:
            missing = [name for name in ("schedule", "selection") if not after.get(name)]
            refusals = [f"{' and '.join(missing)} missing: a new job needs both"] if missing else []
            data = {"id": self.name, **_wire(after)}
            create = Write("created", "POST", "cluster/backup", data)
            return Course((create,), {"state": "absent"}, {"state": "present", **after}, tuple(refusals))
        before = {key: value for key, value in _read(have).items() if key in after}
        differing = {key: value for key, value in after.items() if before[key] != value}
        if not differing:
            return Course((), before, after)
        data = _wire(differing)
        # An older job has times of its own beside the schedule, and an empty value is one that is not there.
        gone = {key for key in ("starttime", "dow") if key in have and "schedule" in differing}
        gone |= {key for key in _SELECTION if key in have and "selection" in differing}
        gone |= {key for key in data if data[key] == "" and key in have}
        data = {key: value for key, value in data.items() if value != ""}
        # The server takes no template of notes without a storage beside it.
        if "notes-template" in data:
            data.setdefault("storage", after.get("storage") or have.get("storage") or "local")
        if gone - data.keys():
            data["delete"] = ",".join(sorted(gone - data.keys()))
        return Course((Write("configured", "PUT", path, data),), before, after)

    def lacks(self, stock: Stock, have: Mapping[str, Any] | None) -> Iterable[str]:
        yield stock.privilege_fault("Sys.Modify", ["/"])
        if self.state == "absent":
            return
        node, storage = str(self.options.get("node") or ""), str(self.options.get("storage") or "")
        if node:
            yield stock.node_fault(node)
        if storage and (not node or not stock.node_fault(node)):
            places = [node] if node else [name for name, online in stock.nodes.items() if online]
            yield from (stock.storage_fault(place, storage, "backup") for place in places)


def _read(have: Mapping[str, Any]) -> dict[str, Any]:
    """A job of the server in the record's words; what is not set is the server's default."""
    found: dict[str, Any] = {name: str(have.get(key, default)) for name, key, default in _TEXT}
    found |= {name: bool(int(have.get(key, default))) for name, key, default in _FLAGS}
    keep = have.get("prune-backups") or {}
    found["keep"] = _keep(keep if isinstance(keep, Mapping) else parse_properties(str(keep)))
    exclude = sorted(int(vmid) for vmid in split_words(str(have.get("exclude") or "")))
    if have.get("pool"):
        found["selection"] = {"pool": str(have["pool"])}
    elif have.get("vmid"):
        found["selection"] = {"guests": sorted(int(vmid) for vmid in split_words(str(have["vmid"])))}
    else:
        found["selection"] = {"all": True}
    if exclude:
        found["selection"]["exclude"] = exclude
    return found


def _keep(properties: Mapping[str, Any]) -> dict[str, int]:
    """``{"daily": 7}`` of ``{"keep-daily": "7"}``; a period that keeps nothing is as good as none."""
    found = {name: int(properties.get(f"keep-{name}") or 0) for name in _PERIODS}
    if int(properties.get("keep-all") or 0) or not any(found.values()):
        return {"all": 1}
    return {name: number for name, number in found.items() if number}


def _wire(options: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {key: options[name] for name, key, _ in _TEXT if name in options}
    data |= {key: int(options[name]) for name, key, _ in _FLAGS if name in options}
    if "keep" in options:
        data["prune-backups"] = format_properties({f"keep-{k}": n for k, n in options["keep"].items()})
    selection = options.get("selection") or {}
    if "pool" in selection:
        data["pool"] = selection["pool"]
    elif "guests" in selection:
        data["vmid"] = ",".join(map(str, selection["guests"]))
    elif selection:
        data["all"] = 1
    if selection.get("exclude"):
        data["exclude"] = ",".join(map(str, selection["exclude"]))
    return data


# -- the module


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    strings = {"type": "list", "elements": "str"}
    options = {
        "id": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "schedule": {"type": "str"},
        "storage": {"type": "str"},
        "guests": strings,
        "pool": {"type": "str"},
        "all": {"type": "bool"},
        "exclude": strings,
        "mode": {"type": "str", "choices": ["snapshot", "suspend", "stop"]},
        "compress": {"type": "str", "choices": ["0", "gzip", "lzo", "zstd"]},
        "keep": {"type": "dict", "options": {name: {"type": "int"} for name in _PERIODS}},
        "node": {"type": "str"},
        "enabled": {"type": "bool"},
        "repeat_missed": {"type": "bool"},
        "comment": {"type": "str"},
        "notes_template": {"type": "str"},
    }
    return {
        **connection_spec(env_fallback),
        "jobs": {"type": "list", "elements": "dict", "required": True, "options": options},
    }


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    records = params["jobs"]
    found = _faults(records)
    if found:
        raise Failed("jobs:\n" + "\n".join(f"- {fault}" for fault in found))
    runner = Runner(settings(params, {}))
    named = any(record["guests"] or record["exclude"] for record in records)
    cluster = Cluster(runner.client) if named else None
    pools = {str(record["pool"]) for record in records if record["pool"] and record["state"] == "present"}
    known = {str(row["poolid"]) for row in runner.client.get("pools", "list the pools")} if pools else pools
    # What this run would have made before is not there while it only checks.
    found = [] if check else [f"pool {pool!r} does not exist" for pool in sorted(pools - known)]
    jobs = []
    for record in records:
        ids: dict[str, list[int]] = {}
        for key in ("guests", "exclude"):
            numbers = [(_number(cluster, str(word)), word) for word in record[key] or []]
            ids[key] = sorted({number for number, _ in numbers if number})
            unknown = [str(word) for number, word in numbers if not number]
            if unknown and not check:
                reasons = [cluster.unknown(word) for word in unknown] if cluster else []
                found.append(
                    "; ".join(
                        [
                            f"{record['id']}: {key}: there is no guest {', '.join(unknown)}",
                            *filter(None, reasons),
                        ]
                    )
                )
        jobs.append(Job(str(record["id"]), str(record["state"]), _options(record, ids)))
    if found:
        raise Failed("nothing was changed, because of this:\n" + "\n".join(f"- {fault}" for fault in found))
    return runner.run(check, jobs)


def _faults(records: Iterable[Mapping[str, Any]]) -> list[str]:
    found, seen = [], set()
    for record in records:
        name = str(record["id"])
        if name in seen:
            found.append(f"{name}: listed twice")
        seen.add(name)
        if not _ID.fullmatch(name):
            found.append(f"{name!r}: not an id of a job (a letter, then letters, digits and _ -, at most 50)")
        ways = [key for key in ("guests", "pool", "all") if record[key]]
        if record["guests"] == [] and not ways and record["state"] == "present":
            found.append(f"{name}: guests is empty: name those to save, or say state: absent")
        if len(ways) > 1:
            found.append(f"{name}: {' and '.join(ways)} say differently which guests are saved: keep one")
        if record["exclude"] and ways and ways != ["all"]:
            found.append(f"{name}: exclude belongs to all: true")
        found += [
            f"{name}: {key}: {record[key]!r} must be one line"
            + (", written with \\n for a line feed" if key == "notes_template" else "")
            for key in ("comment", "notes_template")
            if CONTROL.search(str(record[key] or ""))
        ]
        keep = {key: value for key, value in (record["keep"] or {}).items() if value is not None}
        found += [f"{name}: keep.{key}: {value} is below 0" for key, value in keep.items() if value < 0]
    return found


def _number(cluster: Cluster | None, word: str) -> int:
    """Id of a guest by name or id; 0 when there is none, or more than one of that name."""
    guests = cluster.guests if cluster else []
    found = [guest.vmid for guest in guests if word in (guest.name, str(guest.vmid))]
    return found[0] if len(found) == 1 else 0


def _options(record: Mapping[str, Any], ids: Mapping[str, list[int]]) -> dict[str, Any]:
    """The managed values of a record as they are compared."""
    names = [name for name, _, _ in (*_TEXT, *_FLAGS)]
    found = {name: record[name] for name in names if record[name] is not None}
    # Blanks around a value are lost on the server.
    found = {name: value.strip() if isinstance(value, str) else value for name, value in found.items()}
    if record["keep"] is not None:
        found["keep"] = _keep({f"keep-{name}": number for name, number in record["keep"].items()})
    if record["pool"]:
        found["selection"] = {"pool": str(record["pool"])}
    elif record["guests"] is not None:
        found["selection"] = {"guests": ids["guests"]}
    elif record["all"] or record["exclude"]:
        found["selection"] = {"all": True}
        if ids["exclude"]:
            found["selection"]["exclude"] = ids["exclude"]
    return found
