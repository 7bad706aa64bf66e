# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Pools: made, commented, given storages, removed when empty. Which guests are in one is the guests' affair."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .client import Client
from .companion import Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Absent, Failed
from .report import Report
from .survey import Stock

_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}")


@dataclass(frozen=True)
class Pool:
    """A record. ``comment`` and ``storages`` None: not managed."""

    name: str
    state: str = "present"
    comment: str | None = None
    storages: tuple[str, ...] | None = None
    #: Pools that are made before this one.
    promised: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"pool {self.name}"

    def look(self, client: Client) -> Mapping[str, Any] | None:
        try:
            (entry,) = client.get("pools", f"read {self.label}", poolid=self.name)
        except Absent:
            return None
        return dict(entry)

    def plan(self, have: Mapping[str, Any] | None) -> Course:
        key = {"poolid": self.name}
        if self.state == "absent":
            if have is None:
                return Course()
            members = [str(member.get("id")) for member in have.get("members") or []]
            refusals = [f"is not empty (it holds {', '.join(sorted(members))}): take these out of it first"]
            return Course(
                (Write("removed", "DELETE", "pools", key),),
                {"state": "present"},
                {"state": "absent"},
                tuple(refusals) if members else (),
            )
        comment = {} if self.comment is None else {"comment": self.comment}
        before, after = _managed(self, have), _managed(self, None)
        writes = []
        if have is None:
            before, after = {"state": "absent"}, {"state": "present", **after}
            writes.append(Write("created", "POST", "pools", {**key, **comment}))
        elif comment and before["comment"] != after["comment"]:
            writes.append(Write("configured", "PUT", "pools", {**key, **comment}))
        there, wanted = set(before.get("storages", [])), set(self.storages or ())
        if wanted - there:
            added = ",".join(sorted(wanted - there))
            writes.append(Write("configured", "PUT", "pools", {**key, "storage": added}))
        if there - wanted:
            removed = ",".join(sorted(there - wanted))
            writes.append(Write("configured", "PUT", "pools", {**key, "storage": removed, "delete": 1}))
        return Course(tuple(writes), before, after)

    def lacks(self, stock: Stock, have: Mapping[str, Any] | None) -> Iterable[str]:
        yield stock.privilege_fault("Pool.Allocate", [f"/pool/{self.name}"])
        parent = self.name.rpartition("/")[0]
        if parent and parent not in self.promised and have is None and self.state == "present":
            yield stock.pool_fault(parent)


def _managed(pool: Pool, have: Mapping[str, Any] | None) -> dict[str, Any]:
    """The managed part of what is there; without it, of what is wanted."""
    members = (have or {}).get("members") or []
    there = sorted(str(member["storage"]) for member in members if member.get("type") == "storage")
    result: dict[str, Any] = {}
    if pool.comment is not None:
        result["comment"] = str(have.get("comment") or "") if have is not None else pool.comment
    if pool.storages is not None:
        result["storages"] = there if have is not None else sorted(pool.storages)
    return result


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    options = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "comment": {"type": "str"},
        "storages": {"type": "list", "elements": "str"},
    }
    return {
        **connection_spec(env_fallback),
        "pools": {"type": "list", "elements": "dict", "required": True, "options": options},
    }


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    records = params["pools"]
    promised = frozenset(str(record["name"]) for record in records if record["state"] == "present")
    wanted = [
        Pool(
            str(record["name"]),
            str(record["state"]),
            record["comment"],
            None if record["storages"] is None else tuple(record["storages"]),
            promised,
        )
        for record in records
    ]
    names = [pool.name for pool in wanted]
    faults = [f"{name}: listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [
        f"{name!r}: not a name of a pool (letters, digits and . _ -, at most three levels joined by /)"
        for name in names
        if not _NAME.fullmatch(name)
    ]
    if faults:
        raise Failed("pools:\n" + "\n".join(f"- {fault}" for fault in faults))
    # A parent is there before its children, and they are gone before it.
    depths = sorted({pool.name.count("/") for pool in wanted})
    gone = [[p for p in wanted if p.state == "absent" and p.name.count("/") == d] for d in reversed(depths)]
    made = [[p for p in wanted if p.state == "present" and p.name.count("/") == d] for d in depths]
    return Runner(settings(params, {})).run(check, *gone, *made)
