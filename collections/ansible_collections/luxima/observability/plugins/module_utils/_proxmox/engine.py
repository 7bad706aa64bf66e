# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One call for a whole environment: records in, a report out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .allocate import Ids, spread
from .client import Client, Settings
from .cluster import Cluster, marked, unmarked
from .connection import settings
from .errors import Failed, ProxmoxError, Unanswered
from .formats import NAME, VOLUME, storage_of
from .model import NOUN, Guest, Plan, Want
from .options import BESIDE, FAMILIES, TABLES, faults
from .patience import Patience
from .plan import plan
from .privileges import lacking
from .report import Report
from .survey import NO_AGENT, Stock, addresses, read
from .writer import DEADLINES, Outcome, Writer, another, locked

T = TypeVar("T")
R = TypeVar("R")

#: Seconds to wait for a guest without a name before others than ours are believed to be making it.
SETTLE = 60.0


#: What a VM template that is still to be made will be like, as far as a prediction needs it.
PROMISED = Guest(
    0,
    "",
    "vm",
    "",
    template=True,
    config={
        "boot": "order=scsi0",
        "scsi0": "local:base-0-disk-0,size=1M",
        "ide2": "local:vm-0-cloudinit,media=cdrom",
    },
)


def wants(records: Iterable[Mapping[str, Any]]) -> list[Want]:
    """Records as the module received them, checked. Failed lists every fault of every record."""
    result: list[Want] = []
    found: list[str] = []
    owners: dict[tuple[str, ...], str] = {}
    for record in records:
        name = str(record["name"])
        own = (
            []
            if NAME.fullmatch(name)
            else [f"name: {name!r} is not a host name (letters, digits and - only)"]
        )
        given = {key: value for key, value in record.items() if value is not None}
        identity = ("name", "kind", "state", "vmid", "node", "template", "clone_of", "linked")
        options = {key: value for key, value in given.items() if key not in identity and value != ""}
        vmid = int(given.get("vmid") or 0)
        if vmid and not 100 <= vmid <= 999999999:
            own.append(f"vmid: {vmid} is below 100 (leave it out for the next free one)")
        checked = {key: value for key, value in options.items() if key not in BESIDE}
        # One inventory describes both kinds; what only the other one has says nothing about this one.
        known = {option.name for option in TABLES[str(record["kind"])]} | set(BESIDE)
        options = {key: value for key, value in options.items() if key in known}
        checked = {key: value for key, value in checked.items() if key in known}
        own += faults(str(record["kind"]), checked)
        if given["state"] == "template" and options.get("ha"):
            own.append("ha: the HA manager keeps no templates: set ha to false, or choose another state")
        claims: list[tuple[str, ...]] = [("name", name.lower()), ("vmid", str(vmid) if vmid else "")]
        # Networks that are apart may have the same addresses.
        claims += [
            (family.address, family.fixed(nic), str(nic.get("bridge")), str(nic.get("vlan") or ""))
            for nic in options.get("networks", [])
            for family in FAMILIES
        ]
        claims += [("mac", str(nic.get("mac") or "").upper()) for nic in options.get("networks", [])]
        if given["state"] != "absent":
            for claim in claims:
                if not claim[1]:
                    continue
                if claim in owners:
                    own.append(f"{claim[0]}: {claim[1]} is also that of {owners[claim]}")
                owners.setdefault(claim, name)
        found += [f"{name}: {fault}" for fault in own]
        template = str(given.get("clone_of") or given.get("template") or "")
        result.append(
            Want(
                name,
                str(record["kind"]),
                str(record["state"]),
                vmid,
                str(given.get("node") or ""),
                template,
                clone=bool(given.get("clone_of")),
                linked=bool(given.get("linked")),
                options=options,
            )
        )
    if found:
        raise Failed("guests:\n" + "\n".join(f"- {fault}" for fault in found))
    return result


@dataclass
class _Case:
    """One record on its way: what there is, what is to be done, what went wrong."""

    want: Want
    have: Guest | None = None
    source: Guest | None = None
    plan: Plan = field(default_factory=Plan)
    error: str = ""
    #: The node that it is or may be on does not answer.
    unanswered: Unanswered | None = None
    seconds: float = 0.0

    def fail(self, failed: ProxmoxError) -> None:
        self.error = str(failed)
        self.unanswered = failed if isinstance(failed, Unanswered) else None


class Engine:
    def __init__(
        self,
        settings: Settings,
        workers: int,
        reboot: str,
        promised: Iterable[str] = (),
        destroy_by_name: bool = False,
    ) -> None:
        """``promised``: pools and templates that count as there; nothing is made with them.

        ``destroy_by_name``: whether a guest that has only its name in common with a record is destroyed with it.
        """
        self._destroy_by_name = destroy_by_name
        self._settings = settings
        self._promised = frozenset(promised)
        self._workers = max(1, workers)
        self._reboot = reboot
        self._client = Client(settings)

    def run(self, records: list[Mapping[str, Any]], check: bool) -> Report:
        """Failed is raised for what concerns the whole call; what concerns one guest is in the report."""
        listed = wants(records)
        if not listed:
            return Report()
        ids = Ids(100, {want.vmid for want in listed if want.vmid})
        writer = Writer(self._settings, ids, self._reboot)
        cluster = self._survey(listed, writer)
        ids.taken(cluster.vmids)
        cases = [_Case(want) for want in listed]
        self._look(cases, cluster, writer)
        self._place(cases, cluster)
        for case in cases:
            if not case.error:
                case.plan = plan(case.want, case.have, case.source, self._reboot)
                if case.plan.refusals:
                    case.error = f"{case.want.label}: " + "; ".join(case.plan.refusals)
        self._number(cases, ids)
        if check:
            outcomes = [
                Outcome(
                    case.want, case.plan, case.have, [] if case.error else case.plan.actions, error=case.error
                )
                for case in cases
            ]
        else:
            outcomes = self._parallel(lambda case: self._converge(writer, case), cases)
        return self._report(cases, outcomes, writer, check)

    def _survey(self, listed: list[Want], writer: Writer) -> Cluster:
        """All guests. One that is being made has no name at first: it may be ours, left by a run that was killed."""
        patience = Patience(SETTLE)

        def each(work: Callable[[Client, T], R], items: list[T]) -> list[R]:
            return self._parallel(lambda item: work(writer.client, item), items)

        while True:
            cluster = Cluster(self._client, each, tasks=True)
            cluster.claimed = frozenset(want.name for want in listed)
            names = {guest.name for guest in cluster.guests}
            missing = any(want.state != "absent" and want.name not in names for want in listed)
            if not (missing and cluster.nameless() and patience.again()):
                return cluster

    def _parallel(self, work: Callable[[T], R], items: list[T]) -> list[R]:
        with ThreadPoolExecutor(min(self._workers, max(1, len(items)))) as pool:
            return list(pool.map(work, items))

    def _look(self, cases: list[_Case], cluster: Cluster, writer: Writer) -> None:
        """Find every guest: one request per guest, side by side."""
        for case in cases:
            try:
                case.have = cluster.find(case.want)
                # One that runs and becomes a template is gone as well.
                gone = case.have is not None and (
                    case.want.state == "absent" or (case.want.state == "template" and case.have.running)
                )
                if case.have and gone and not self._destroy_by_name and not marked(case.want, case.have):
                    raise Failed(unmarked(case.want, case.have))
            except Failed as failed:
                case.fail(failed)
        _distinguish(cases, cluster)

        def fill(case: _Case) -> None:
            if case.have is None or case.error:
                return
            began = time.monotonic()
            try:
                upids = cluster.busy.get(case.have.vmid, [])
                for upid in upids:
                    writer.client.outlast(upid, f"wait for {case.want.label}", writer.deadline("lock"))
                row = None if upids else cluster.rows.get(case.have.vmid)
                case.have = self._made(writer, case.want, read(writer.client, case.have, row), case.have.name)
            except ProxmoxError as failed:
                case.fail(failed)
            case.seconds = time.monotonic() - began

        self._parallel(fill, cases)

    @staticmethod
    def _made(writer: Writer, want: Want, found: Guest | None, name: str) -> Guest | None:
        """The guest, when whoever makes it has ended: until then its configuration says little. ``name``: what it was listed as."""
        patience = Patience(writer.deadline("lock"))
        while found is not None and found.lock in ("create", "clone"):
            if not patience.again():
                raise locked(want, found, writer.deadline("lock"))
            found = read(writer.client, found)
        if found is not None and found.name not in (name or found.name, want.name):
            raise another(want, found)
        return found

    def _place(self, cases: list[_Case], cluster: Cluster) -> None:
        """Choose nodes for new guests and check all they need. Failed lists every fault of every guest."""
        new = [case for case in cases if case.have is None and case.want.state != "absent" and not case.error]
        changed = [
            case
            for case in cases
            if case.have is not None
            and not case.error
            and plan(case.want, case.have, None, self._reboot).changes
        ]
        if not new and not changed:
            return
        stock = Stock(self._client, self._settings.identity, self._promised, cluster.silent)
        counts = cluster.counts()
        found: dict[str, list[str]] = {}

        def report(name: str, faults: Iterable[str]) -> None:
            for fault in filter(None, faults):
                found.setdefault(fault, []).append(name)

        for case in new:
            if not self._made_of(case, cluster, stock, counts, report):
                continue
            node = self._choose_node(case, stock, counts, report, cluster)
            if case.error:
                continue
            case.want = replace(case.want, node=node)
            counts[node] = counts.get(node, 0) + 1
            if case.want.options.get("pool"):
                report(case.want.name, [stock.pool_fault(case.want.options["pool"])])
            report(case.want.name, self._privilege_faults(case, stock))
        for case in changed:
            assert case.have is not None
            nics = case.want.options.get("networks", []) if case.want.state != "absent" else []
            faults = [stock.bridge_fault(case.have.node, nic["bridge"]) for nic in nics]
            if not stock.nodes.get(case.have.node, True):
                way_out = "left as it is: run again when that node is back"
                case.fail(Unanswered(case.want.label, case.have.node, "it fell silent", way_out))
                continue
            report(case.want.name, [*faults, *self._privilege_faults(case, stock)])
        if found:
            lines = [f"- {fault} (for {', '.join(dict.fromkeys(names))})" for fault, names in found.items()]
            raise Failed(
                "nothing was changed, because this is missing on the hypervisor:\n" + "\n".join(lines)
            )

    def _made_of(
        self,
        case: _Case,
        cluster: Cluster,
        stock: Stock,
        counts: Mapping[str, int],
        report: Callable[[str, Iterable[str]], None],
    ) -> bool:
        """Whether there is something to make the guest of; what is missing is reported."""
        want = case.want
        if not want.template:
            missing = f"template is missing: there is no {want.label} yet, and nothing to make it from"
            report(want.name, [missing])
            return False
        if not want.cloned:
            return True
        self._choose_source(case, cluster, counts)
        if case.source is None and want.template in self._promised:
            node = want.node or spread(stock.nodes, counts)
            case.source = replace(PROMISED, name=want.template, kind=want.kind, node=node)
        if case.source is None and not case.error:
            report(want.name, [_no_source(want, cluster)])
        return case.source is not None and not case.error

    def _choose_source(self, case: _Case, cluster: Cluster, counts: Mapping[str, int]) -> None:
        """The VM to clone. A name may stand for a copy per node: that on the record's node, else on the emptiest."""
        want = case.want
        known = {
            guest.node: guest
            for guest in cluster.guests
            if want.template in (guest.name, str(guest.vmid)) and guest.kind == want.kind
        }
        matches = {node: guest for node, guest in known.items() if cluster.answers(guest)}
        if known and not matches:
            (node, source), *_ = sorted(known.items())
            case.fail(
                Unanswered(
                    want.label,
                    node,
                    cluster.silent[node],
                    f"{want.template} ({source.vmid}) is there only, and nothing can be made of it until that node is back",
                )
            )
            return
        many = [guest for guest in cluster.guests if guest.kind == want.kind and guest.name == want.template]
        doubled = sorted(str(guest.vmid) for guest in many if [g.node for g in many].count(guest.node) > 1)
        if doubled:
            case.error = (
                f"{want.label}: {NOUN[want.kind]}s {', '.join(doubled)} on one node are all called {want.template!r}: "
                "name the one to clone by its id in template or clone_of"
            )
        elif matches:
            # A guest that merely has the name of a template is none.
            matches = {node: guest for node, guest in matches.items() if guest.template} or matches
            node = want.node if want.node in matches else spread(matches, counts)
            case.source = read(self._client, matches[node])

    def _choose_node(
        self,
        case: _Case,
        stock: Stock,
        counts: Mapping[str, int],
        report: Callable[[str, Iterable[str]], None],
        cluster: Cluster,
    ) -> str:
        """The record's node, else the emptiest that has everything; faults are reported, and some node returned."""
        want = case.want
        if want.node:
            fault = stock.node_fault(want.node)
            faults = [fault] if fault else self._node_faults(case, stock, want.node)
            # It may have fallen silent while it was asked.
            if want.node in stock.nodes and stock.node_fault(want.node):
                reason = cluster.silent.get(want.node, "the cluster calls it offline, or it does not answer")
                case.fail(Unanswered(want.label, want.node, reason, "cannot be made until that node is back"))
            else:
                report(want.name, faults)
            return want.node
        online = [node for node, up in stock.nodes.items() if up]
        if case.source is not None:
            online = [case.source.node] if case.source.node in online else online
        lacking = {node: self._node_faults(case, stock, node) for node in online}
        fitting = [node for node, faults in lacking.items() if not faults]
        if fitting:
            return spread(fitting, counts)
        report(want.name, [fault for faults in lacking.values() for fault in faults] or ["no node is online"])
        return spread(stock.nodes, counts)

    @staticmethod
    def _node_faults(case: _Case, stock: Stock, node: str) -> list[str]:
        want = case.want
        content = "rootdir" if want.kind == "lxc" else "images"
        volumes = [want.options.get("rootfs") or {}, *want.options.get("disks", [])]
        storages = dict.fromkeys(volume.get("storage") for volume in volumes if volume.get("storage"))
        if want.kind == "lxc" and not want.cloned and not volumes[0].get("storage"):
            storages["local"] = None  # what the server takes for a root file system without one
        result = [stock.storage_fault(node, storage, content) for storage in storages if storage]
        result += [
            stock.bridge_fault(node, bridge)
            for bridge in dict.fromkeys(nic["bridge"] for nic in want.options.get("networks", []))
        ]
        if not want.cloned:
            result.append(stock.template_fault(node, want.template))
        elif case.source is not None and case.source.node != node:
            result.append(_clone_fault(stock, case.source, want, node))
        return [fault for fault in result if fault]

    def _privilege_faults(self, case: _Case, stock: Stock) -> list[str]:
        """Privileges the plan needs and this identity lacks; asked of the server once."""
        planned = plan(case.want, case.have, case.source, self._reboot)
        return list(lacking(stock, case.want, case.have, case.source, planned, self._settings.identity))

    def _number(self, cases: list[_Case], ids: Ids) -> None:
        """Ids for all new guests together, before the first is made."""
        new = [
            case
            for case in cases
            if case.have is None and case.want.state != "absent" and not case.want.vmid and not case.error
        ]
        if not new:
            return
        first = int(self._client.get("cluster/nextid", "ask for a free id"))
        for case in new:
            case.plan = replace(case.plan, after={**case.plan.after, "vmid": ids.take(first)})

    @staticmethod
    def _converge(writer: Writer, case: _Case) -> Outcome:
        if case.error or not case.plan.changes:
            return Outcome(case.want, case.plan, case.have, error=case.error, seconds=round(case.seconds, 2))
        return writer.converge(case.want, case.have, case.source, case.plan)

    def _report(self, cases: list[_Case], outcomes: list[Outcome], writer: Writer, check: bool) -> Report:
        report = Report()
        found = self._parallel(lambda outcome: self._addresses(writer, outcome, check), outcomes)
        for case, outcome, known in zip(cases, outcomes, found):
            want, have = outcome.want, outcome.have
            before, after = dict(case.plan.before), dict(case.plan.after)
            known_as = have or case.have
            vmid = known_as.vmid if known_as else after.get("vmid") or want.vmid or None
            node = known_as.node if known_as else want.node
            if case.have is None and after:
                after.update(vmid=vmid, node=node)
            settled = have is not None and not check and bool(outcome.actions)
            needs_reboot = bool(have and have.running and have.pending) if settled else case.plan.needs_reboot
            report.objects[want.name] = {
                "exists": have is not None,
                "vmid": vmid,
                "node": node or None,
                "addresses": known,
                "before": before,
                "after": after,
                "actions": outcome.actions,
                "needs_reboot": needs_reboot,
                "pending": sorted(have.pending) if have and needs_reboot else [],
                "error": outcome.error,
                "upids": outcome.upids,
                "seconds": outcome.seconds,
                "changed": bool(outcome.actions),
            }
            report.warnings += [f"{want.label}: {text}" for text in case.plan.warnings] + outcome.warnings
            if outcome.error and case.unanswered is None:
                report.failures.append(outcome.error)
            if outcome.actions:
                old, new = replace(case.plan, before=before, after=after).difference()
                report.diff.append(
                    {"before_header": want.name, "after_header": want.name, "before": old, "after": new}
                )
        report.failures += _silent_nodes([case.unanswered for case in cases if case.unanswered])
        report.failed = sum(bool(outcome.error) for outcome in outcomes)
        return report

    @staticmethod
    def _addresses(writer: Writer, outcome: Outcome, check: bool) -> list[str]:
        """Static addresses as the record gives them; the others are asked of the running guest.

        An address by DHCP is waited for. One of IPv6 only where it would be the only one: who announces a network
        is not the hypervisor's business.
        """
        nics = outcome.want.options.get("networks", [])
        static = [address for family in FAMILIES for nic in nics if (address := family.fixed(nic))]
        leased = any(nic.get("address") == "dhcp" for nic in nics)
        leased6 = any(nic.get("address6") in ("auto", "dhcp") for nic in nics)
        have, planned = outcome.have, outcome.plan
        before, after = planned.difference()
        moved = any(label.startswith("networks.") for label in {**before, **after})
        unknown = check and (moved or planned.after.get("state") != "running")
        if outcome.error or not (leased or leased6) or unknown or have is None or not have.running:
            return static
        fresh = {"started", "rebooted"} & set(outcome.actions) and not check
        # A guest that has run for long has its address, or nobody can tell it.
        limit = writer.deadline("address")
        patience = Patience(limit if fresh else max(0.0, limit - have.uptime), longest=1.0)
        while True:
            found, reason = addresses(writer.client, have)
            told = [address for address in found if (leased6 if ":" in address else leased)]
            known = sorted(dict.fromkeys([*static, *told]), key=lambda address: ":" in address)
            if any("." in address for address in told) if leased else known:
                return known
            if check or reason == NO_AGENT or not patience.again():
                break
        if not check:
            outcome.warnings.append(
                f"{outcome.want.label}: its address by {'DHCP' if leased else 'IPv6'} is not known ({reason or 'it has none yet'})"
            )
        return known


def _distinguish(cases: Iterable[_Case], cluster: Cluster) -> None:
    """What several records mean is left alone, and so is a guest that would get the name of another one."""
    found = [case for case in cases if case.have is not None]
    meant = {id(case): case.have.vmid for case in found if case.have}
    leaving = {case.have.vmid for case in found if case.have and case.have.name != case.want.name}
    for case in found:
        have, want = case.have, case.want
        others = [
            other.want.name for other in found if other is not case and meant[id(other)] == meant[id(case)]
        ]
        if have is None or case.error:
            continue
        if others:
            case.error = (
                f"{want.label}: {have.vmid} on {have.node} is also the guest of the record {', '.join(others)}, so it is left "
                "alone: keep one of the records, or give each the vmid of its own guest"
            )
            continue
        namesakes = [
            guest for guest in cluster.guests if guest.name == want.name and guest.vmid not in leaving
        ]
        if have.name and have.name != want.name and namesakes:
            case.error = (
                f"{want.label}: the record says vmid {have.vmid}, which is {have.name!r} on {have.node}, and another guest has "
                f"the record's name ({namesakes[0].vmid} on {namesakes[0].node}), so it is left alone: correct vmid, or rename "
                "that guest"
            )


def _silent_nodes(unanswered: Iterable[Unanswered]) -> list[str]:
    """One line per node that does not answer and what that means, with all records it concerns."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for failed in unanswered:
        lines.setdefault((failed.node, failed.reason, failed.way_out), []).append(failed.who)
    return [
        f"{node} does not answer ({reason}), {', '.join(who)}: {way_out}"
        for (node, reason, way_out), who in lines.items()
    ]


def _no_source(want: Want, cluster: Cluster) -> str:
    """The fault of a record whose source is nowhere."""
    unknown = cluster.unknown(want.template)
    option = "clone_of" if want.clone else "template"
    fault = f"there is no {NOUN[want.kind]} {want.template!r} to clone: correct {option}, or make it first"
    return f"{fault} ({unknown})" if unknown else fault


def _clone_fault(stock: Stock, source: Guest, want: Want, node: str) -> str:
    """A clone lands on another node only when all its volumes lie on storages that both share."""
    used = {storage_of(str(raw)) for key, raw in source.config.items() if VOLUME.fullmatch(key)} - {""}
    for storage in sorted(used):
        if stock.storage_fault(
            source.node, storage, "rootdir" if source.kind == "lxc" else "images"
        ) or not stock.shared(source.node, storage):
            return (
                f"template {want.template!r} is on node {source.node} and storage {storage!r} is not shared, so it cannot be "
                f"cloned to {node}: make a template of this name there, or set node to {source.node}"
            )
    return ""


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    given = {key: value for key, value in (params["deadlines"] or {}).items() if value is not None}
    reached = settings(params, {**DEADLINES, **given})
    made = params["promised"] or {}
    promised = [*(made.get("pools") or []), *(made.get("templates") or [])] if check else []
    by_name = bool(params["destroy_by_name"])
    engine = Engine(reached, int(params["workers"]), str(params["reboot"]), promised, by_name)
    return engine.run(list(params["guests"]), check)
