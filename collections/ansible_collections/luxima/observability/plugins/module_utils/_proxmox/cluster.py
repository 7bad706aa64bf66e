# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""All guests of the cluster: where they are, as every node knows it, and what they are called, as their own nodes say.

The cluster's list is exact about node, kind, lock, tags and pool. Names and power in it are as old as the last broadcast
of each node: seconds as a rule, missing for what was just made, and missing for good when a node is down. So it is never
believed about a name while the node itself can be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from .client import Client
from .errors import Conflict, Failed, Unanswered, Unreachable
from .formats import split_words
from .model import API_KIND, Guest, Want

A = TypeVar("A")
B = TypeVar("B")

_KIND = {"lxc": "lxc", "qemu": "vm"}
_SWITCHES = {f"{kind}{verb}" for kind in ("vz", "qm") for verb in ("start", "stop", "shutdown", "reboot")}
#: How often guests that are not on the node where they were listed are looked for, and seconds between.
LOOKS = 4
PAUSE = 0.3


class Each(Protocol):
    """Does a piece of work for every item, with a session that belongs to whoever does it."""

    def __call__(self, work: Callable[[Client, A], B], items: list[A]) -> list[B]: ...


def in_turn(client: Client) -> Each:
    def each(work: Callable[[Client, A], B], items: list[A]) -> list[B]:
        return [work(client, item) for item in items]

    return each


def places(client: Client) -> dict[int, Guest]:
    """Guests by id, by one request. Node, kind, lock, tags, pool and HA are those of now; the name is what was last told."""
    rows = client.get("cluster/resources", "list the guests", type="vm")
    return {
        int(row["vmid"]): Guest(
            vmid=int(row["vmid"]),
            name=str(row.get("name") or ""),
            kind=_KIND.get(str(row.get("type")), "vm"),
            node=str(row.get("node", "")),
            running=row.get("status") == "running",
            template=bool(int(row.get("template") or 0)),
            pool=str(row.get("pool") or ""),
            lock=str(row.get("lock") or ""),
            ha=str(row.get("hastate") or ""),
            config={"tags": row.get("tags") or ""},
        )
        for row in rows
        if row.get("vmid") is not None
    }


def located(client: Client, guest: Guest) -> Guest | None:
    """The guest with the node it is on now; None: there is none of this id and kind any more."""
    found = places(client).get(guest.vmid)
    return replace(guest, node=found.node) if found is not None and found.kind == guest.kind else None


def switching(client: Client, node: str) -> dict[int, list[str]]:
    """The tasks under way on a node that switch a guest on or off, by vmid: no lock tells of them."""
    rows = client.get(f"nodes/{node}/tasks", f"list the tasks of {node}", source="active", limit=1000)
    found: dict[int, list[str]] = {}
    for row in rows:
        if str(row.get("type", "")) in _SWITCHES and str(row.get("id", "")).isdigit():
            found.setdefault(int(row["id"]), []).append(str(row["upid"]))
    return found


@dataclass
class _Visit:
    """What a node says of its guests."""

    node: str
    rows: dict[int, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    busy: dict[int, list[str]] = field(default_factory=dict)
    silent: str = ""


def _visit(client: Client, node: str, kinds: Iterable[str], tasks: bool) -> _Visit:
    """Tasks first: what is not under way any more has its effect in the answers that follow."""
    found = _Visit(node)
    try:
        found.busy = switching(client, node) if tasks else {}
        for kind in kinds:
            rows = client.get(f"nodes/{node}/{API_KIND[kind]}", f"list the guests of {node}")
            found.rows.update({int(row["vmid"]): (kind, row) for row in rows})
    except Unreachable as error:
        found.silent = error.reason
    except Conflict as error:
        if error.reason != "lost":
            raise
        found.silent = str(error)
    return found


class Cluster:
    """All guests, without configuration.

    ``rows``: what their nodes said of them just now, by id. ``busy``: tasks that switch them on or off, by id, when
    ``tasks`` were asked for. ``silent``: nodes that do not answer, and why; their guests have the name that was last told,
    or none. ``only``: the nodes that matter; others are not asked. ``claimed``: names of the records, when guests are made
    of them: a guest with none of these names may have been renamed just before its node fell silent.
    """

    claimed: frozenset[str] = frozenset()

    def __init__(
        self, client: Client, each: Each | None = None, tasks: bool = False, only: Iterable[str] | None = None
    ) -> None:
        self.silent: dict[str, str] = {}
        self.rows: dict[int, Mapping[str, Any]] = {}
        self.busy: dict[int, list[str]] = {}
        nodes = None if only is None else set(only)
        told, told_by = places(client), dict[int, tuple[str, str]]()
        for look in range(LOOKS):
            unseen = self._unseen(told, nodes)
            if unseen and look:
                # Moved, made or destroyed at this moment.
                time.sleep(PAUSE * (look - 1))
                told = places(client)
                unseen = self._unseen(told, nodes)
            if not unseen:
                break
            asked = sorted({guest.node for guest in unseen})
            kinds = {node: sorted({g.kind for g in unseen if g.node == node}) for node in asked}

            def visit(session: Client, node: str, kinds: Mapping[str, list[str]] = kinds) -> _Visit:
                return _visit(session, node, kinds[node], tasks)

            for found in (each or in_turn(client))(visit, asked):
                if found.silent:
                    self.silent[found.node] = found.silent
                self.busy.update(found.busy)
                for vmid, (kind, row) in found.rows.items():
                    self.rows[vmid], told_by[vmid] = row, (found.node, kind)
        self.guests = [self._merged(told.get(vmid), vmid, *told_by[vmid]) for vmid in self.rows]
        self.guests += [guest for vmid, guest in told.items() if vmid not in self.rows]
        self.guests.sort(key=lambda guest: guest.vmid)

    def _unseen(self, told: Mapping[int, Guest], nodes: set[str] | None) -> list[Guest]:
        return [
            guest
            for guest in told.values()
            if guest.vmid not in self.rows
            and guest.node not in self.silent
            and (nodes is None or guest.node in nodes)
        ]

    def _merged(self, told: Guest | None, vmid: int, node: str, kind: str) -> Guest:
        """What the cluster's list says of a guest, corrected by its node."""
        row = self.rows[vmid]
        return replace(
            told or Guest(vmid, "", kind, node, config={"tags": row.get("tags") or ""}),
            name=str(row.get("name") or ""),
            kind=kind,
            node=node,
            running=row.get("status") == "running",
            template=bool(int(row.get("template") or 0)),
            lock=str(row.get("lock") or ""),
        )

    @property
    def vmids(self) -> set[int]:
        return {guest.vmid for guest in self.guests}

    def nameless(self, among: Collection[int] | None = None) -> bool:
        """Whether a guest (one of these ids) is being made whose name the server does not tell yet."""
        return any(
            (among is None or guest.vmid in among)
            and guest.lock in ("create", "clone")
            and guest.name in ("", f"CT{guest.vmid}", f"VM {guest.vmid}")
            and self.answers(guest)
            for guest in self.guests
        )

    def counts(self) -> dict[str, int]:
        """Guests per node."""
        result: dict[str, int] = {}
        for guest in self.guests:
            result[guest.node] = result.get(guest.node, 0) + 1
        return result

    def answers(self, guest: Guest) -> bool:
        return guest.node not in self.silent

    def hidden(self) -> list[Guest]:
        """Guests whose names nobody tells, because their nodes do not answer."""
        return [guest for guest in self.guests if not guest.name and not self.answers(guest)]

    def unknown(self, name: str) -> str:
        """Why it cannot be said that there is no guest of this name; empty: it can."""
        hidden = self.hidden()
        if not hidden:
            return ""
        ids = ", ".join(f"{guest.vmid} on {guest.node}" for guest in hidden)
        nodes = " and ".join(sorted({guest.node for guest in hidden}))
        return f"whether {name} is one of {ids} is not known, because {nodes} does not answer"

    def called(self, name: str) -> list[Guest]:
        """The guests of a name. Capitals do not make another host of it; one that has them as they are comes first."""
        exact = [guest for guest in self.guests if guest.name == name]
        return exact or [guest for guest in self.guests if guest.name.lower() == name.lower()]

    def find(self, want: Want) -> Guest | None:
        """The guest of a record: by vmid, else by its name, which must be unique. Failed says what is unclear."""
        named = self.called(want.name)
        if want.state not in ("absent", "template"):
            # A template is never what such a record means, as long as there is a guest.
            named = [guest for guest in named if not guest.template] or named
        if not want.vmid:
            if len(named) > 1:
                ids = ", ".join(
                    f"{guest.vmid} on {guest.node}" for guest in sorted(named, key=lambda guest: guest.vmid)
                )
                raise Failed(
                    f"{want.name}: {len(named)} guests have this name ({ids}): set vmid in the record to the one that is meant"
                )
            if not named:
                self._refuse_hidden(want)
            return self._reached(want, named[0]) if named else None
        found = next((guest for guest in self.guests if guest.vmid == want.vmid), None)
        if found is None:
            if named and want.state != "absent":
                raise Failed(other_id(want, named[0]))
            return None
        if (
            found.name.lower() != want.name.lower()
            and not _ours(want, found)
            and (found.name or self.answers(found))
        ):
            raise Failed(
                f"{want.name}: vmid {want.vmid} belongs to {found.name!r} on {found.node}, which does not carry the "
                "record's tags, so it is left alone: correct vmid, or rename that guest"
            )
        return self._reached(want, found)

    def _reached(self, want: Want, found: Guest) -> Guest:
        if found.kind != want.kind:
            raise Failed(
                f"{want.name}: {found.vmid} on {found.node} is of kind {found.kind}, the record says {want.kind}: "
                "choose another name, or remove that guest"
            )
        if not self.answers(found):
            raise Unanswered(
                f"{want.label} ({found.vmid})",
                found.node,
                self.silent[found.node],
                "left as it is: run again when that node is back",
            )
        return found

    def _refuse_hidden(self, want: Want) -> None:
        """Nothing is made under a name that a guest may have which nobody can be asked about."""
        named = {guest.vmid for guest in self.guests if guest.name and not self.answers(guest)}
        renamed = [
            guest
            for guest in self.guests
            if self.claimed and guest.vmid in named and guest.name not in self.claimed and not guest.template
        ]
        candidates = [guest for guest in [*self.hidden(), *renamed] if _may_be(want, guest)]
        if candidates:
            node = candidates[0].node
            mine = ", ".join(str(guest.vmid) for guest in candidates if guest.node == node)
            raise Unanswered(
                want.label,
                node,
                self.silent[node],
                f"there is no other guest of this name, and {mine} there may be it: nothing is made or destroyed under "
                "this name until that node is back; or set vmid in the record to the id the guest has or shall have"
                + ("" if want.node else ", or node to where it is to be made"),
            )


def other_id(want: Want, found: Guest) -> str:
    """The refusal to make a guest under the id of its record while there is one of its name under another."""
    return (
        f"{want.name}: the record says vmid {want.vmid}, but the guest of this name has {found.vmid} "
        f"(on {found.node}): correct or remove vmid"
    )


def _tags(guest: Guest) -> set[str]:
    return {tag.lower() for tag in split_words(str(guest.config.get("tags") or ""))}


def _wanted_tags(want: Want) -> set[str]:
    return {str(tag).lower() for tag in want.options.get("tags", [])}


def _may_be(want: Want, hidden: Guest) -> bool:
    """Whether a guest without a name can be that of a record. Kind, node, tags, pool and lock are known even so.

    Neither is enough to tell them apart: tags are edited, a clone has them only when it was configured, and guests move.
    So it is another one only if it is of the other kind, or if it is on another node than the record names and has no tag
    in common with it.
    """
    if hidden.kind != want.kind:
        return False
    wanted, pool = _wanted_tags(want), str(want.options.get("pool") or "")
    alike = not wanted or bool(wanted & _tags(hidden)) or bool(pool and hidden.pool == pool)
    return alike or hidden.lock in ("create", "clone") or want.node in ("", hidden.node)


def _ours(want: Want, found: Guest) -> bool:
    """Whether a guest with another name may be renamed: it carries every tag of the record, and nothing is destroyed."""
    wanted = _wanted_tags(want)
    return want.state != "absent" and bool(wanted) and wanted <= _tags(found)


def marked(want: Want, found: Guest) -> bool:
    """Whether more than its name says that a guest is the one of a record: its id, its pool or all the tags."""
    wanted, pool = _wanted_tags(want), str(want.options.get("pool") or "")
    return bool(want.vmid) or bool(pool and found.pool == pool) or bool(wanted and wanted <= _tags(found))


def unmarked(want: Want, found: Guest) -> str:
    """The refusal to destroy a guest that has only its name in common with a record, or to make a template of it."""
    done = "destroyed" if want.state == "absent" else "stopped and made a template"
    tags = ", ".join(sorted(_tags(found))) or "none"
    wanted = ", ".join(sorted(_wanted_tags(want))) or "none"
    return (
        f"{want.label}: {found.vmid} on {found.node} has this name and nothing else of the record (its tags: {tags}; the "
        f"record's: {wanted}), so it is not {done}: give the record the tags, the pool or the vmid of that guest, or set "
        "destroy_by_name: true"
    )
