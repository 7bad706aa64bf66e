# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Firewalls of guests: their options, and those rules whose comment says that they are ours."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .client import Client
from .cluster import Cluster
from .companion import Companion, Course, Runner, Write
from .connection import connection_spec, settings
from .errors import Absent, Failed, Unanswered
from .formats import CONTROL, parse_properties, split_words
from .model import API_KIND, Guest, Want
from .report import Report
from .survey import Stock

#: The server takes no longer list of addresses in one rule.
LONGEST_LIST = 512
_PORTS = re.compile(r"\d{1,5}(:\d{1,5})?")
#: Names of protocols that the server knows.
_PROTOCOLS = frozenset(
    [
        *(
            "ah",
            "ax.25",
            "dccp",
            "ddp",
            "egp",
            "eigrp",
            "encap",
            "esp",
            "etherip",
            "ethernet",
            "fc",
            "ggp",
            "gre",
            "hip",
        ),
        *(
            "hmp",
            "hopopt",
            "icmp",
            "icmpv6",
            "idpr-cmtp",
            "idrp",
            "igmp",
            "igp",
            "ip",
            "ipcomp",
            "ipencap",
            "ipip",
            "ipv6",
        ),
        *(
            "ipv6-frag",
            "ipv6-icmp",
            "ipv6-nonxt",
            "ipv6-opts",
            "ipv6-route",
            "isis",
            "iso-tp4",
            "l2tp",
            "manet",
        ),
        *(
            "mobility-header",
            "mpls-in-ip",
            "ospf",
            "pim",
            "pup",
            "rdp",
            "rohc",
            "rspf",
            "rsvp",
            "sctp",
            "shim6",
            "skip",
        ),
        *("st", "tcp", "udp", "udplite", "vmtp", "vrrp", "wesp", "xns-idp", "xtp"),
    ]
)
_POLICIES = ("ACCEPT", "REJECT", "DROP")
#: What an option is as long as nobody has set it.
_DEFAULTS = {"enable": "0", "dhcp": "0", "policy_in": "DROP", "policy_out": "ACCEPT"}


@dataclass(frozen=True, order=True)
class Rule:
    """A rule as it is compared; lists are sorted, empty text means any."""

    comment: str
    type: str = "in"
    action: str = "ACCEPT"
    proto: str = ""
    dport: str = ""
    source: tuple[str, ...] = ()
    log: str = ""
    enable: str = "1"
    #: Anything else that somebody gave one of our rules by hand: it never equals a wanted one.
    rest: tuple[tuple[str, str], ...] = ()

    def wire(self) -> dict[str, Any]:
        given = {
            "type": self.type,
            "action": self.action,
            "proto": self.proto,
            "dport": self.dport,
            "source": ",".join(self.source),
            "log": self.log,
            "comment": self.comment,
        }
        return {"enable": 1, **{key: value for key, value in given.items() if value}}

    def told(self) -> str:
        """The rule in one line, for diffs."""
        parts = [self.type, self.action, self.proto, self.dport and f"port {self.dport}"]
        parts += ["from " + ",".join(self.source) if self.source else "", self.log and f"log {self.log}"]
        parts += ["" if self.enable == "1" else "(disabled)", *(f"{key}={value}" for key, value in self.rest)]
        return " ".join(filter(None, [*parts, f"# {self.comment}"]))


def read_rule(row: Mapping[str, Any]) -> Rule:
    """A rule of the server's list."""
    known = {"type", "action", "proto", "dport", "source", "log", "enable", "comment"}
    rest = {
        key: str(value) for key, value in row.items() if key not in {*known, "pos", "digest", "ipversion"}
    }
    log = str(row.get("log") or "")
    return Rule(
        str(row.get("comment") or "").strip(),
        str(row.get("type") or ""),
        str(row.get("action") or ""),
        str(row.get("proto") or ""),
        str(row.get("dport") or ""),
        tuple(sorted(split_words(str(row.get("source") or "")))),
        "" if log == "nolog" else log,
        str(int(row.get("enable") or 0)),
        tuple(sorted(rest.items())),
    )


def want_rules(record: Mapping[str, Any], owner: str) -> list[Rule]:
    """The server's rules for one record: one per family of addresses, more where the list is too long."""
    base = Rule(
        f"{owner}: {record.get('comment') or ''}".strip(),
        str(record.get("direction") or "in"),
        str(record.get("action") or "ACCEPT"),
        str(record.get("proto") or "").lower(),
        ",".join(str(port) for port in record.get("ports") or []),
        log="" if record.get("log") in (None, "nolog") else str(record["log"]),
    )
    sources = [str(source) for source in record.get("sources") or []]
    if not sources:
        return [base]
    found: list[Rule] = []
    for version in (4, 6):
        chunk: list[str] = []
        for source in sorted({canonical(source) for source in sources if family(source) == version}):
            if chunk and len(",".join([*chunk, source])) > LONGEST_LIST:
                found.append(replace(base, source=tuple(chunk)))
                chunk = []
            chunk.append(source)
        if chunk:
            found.append(replace(base, source=tuple(chunk)))
    return found


def family(source: str) -> int:
    """4 or 6. ValueError: not an address."""
    return ipaddress.ip_network(source, strict=False).version


def canonical(source: str) -> str:
    """An address as the server shows it: without the prefix of a single host."""
    network = ipaddress.ip_network(source, strict=False)
    return str(network.network_address) if network.num_addresses == 1 else str(network)


# -- one step towards the wanted list


@dataclass(frozen=True)
class Step:
    """``put``: overwrite position ``at``. ``add``: on top. ``move``: before position ``to``. ``drop``: remove."""

    word: str
    at: int = 0
    rule: Rule | None = None
    to: int = 0

    def apply(self, rules: Sequence[Rule]) -> list[Rule]:
        """The server's list afterwards. Pure."""
        result = list(rules)
        if self.word == "drop":
            del result[self.at]
        elif self.word == "move":
            moved = result[self.at]
            result.insert(self.to, moved)
            del result[self.at if self.to > self.at else self.at + 1]
        elif self.rule is not None and self.word == "put":
            result[self.at] = self.rule
        elif self.rule is not None:
            result.insert(0, self.rule)
        return result


def next_step(rules: Sequence[Rule], ours: Callable[[Rule], bool], wanted: Sequence[Rule]) -> Step | None:
    """The next change that brings our rules among ``rules`` nearer to ``wanted``; None: they are it. Pure.

    The server adds rules on top only, so the list is compared from its end. Rules of others are never touched.
    """
    have = [(position, rule) for position, rule in enumerate(rules) if ours(rule)]
    want = list(wanted)
    while have and want and have[-1][1] == want[-1]:
        have.pop()
        want.pop()
    if not want:
        return Step("drop", have[-1][0]) if have else None
    if not have:
        return Step("add", rule=want[-1])
    position, rule = have[-1]
    elsewhere = next((at for at, other in reversed(have) if other == want[-1]), None)
    if rule not in want:
        return Step("put", position, want[-1]) if elsewhere is None else Step("drop", position)
    return Step("add", rule=want[-1]) if elsewhere is None else Step("move", elsewhere, to=position + 1)


def steps(rules: Sequence[Rule], ours: Callable[[Rule], bool], wanted: Sequence[Rule]) -> list[Step]:
    """All changes, in order."""
    found: list[Step] = []
    present = list(rules)
    while (step := next_step(present, ours, wanted)) is not None:
        found.append(step)
        present = step.apply(present)
    return found


# -- what is managed


@dataclass(frozen=True)
class State:
    """What the server says: options, all rules, each with a digest of its own, whether a card of the guest is unfiltered."""

    options: Mapping[str, Any]
    rules: tuple[Rule, ...] = ()
    #: Of the rules; that of the options is among these.
    digest: str = ""
    unfiltered: bool = False


def _options(wanted: Mapping[str, str], have: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Wanted options beside what they are."""
    before = {key: str(have.get(key, _DEFAULTS.get(key, ""))) for key in wanted}
    return before, dict(wanted)


@dataclass(frozen=True)
class GuestFirewall:
    """A record. ``guest`` None: it does not exist (yet)."""

    name: str
    owner: str
    options: Mapping[str, str]
    rules: tuple[Rule, ...] | None
    guest: Guest | None
    #: Whether the firewall of the datacenter is on, without which nothing is filtered.
    in_force: bool = True

    @property
    def label(self) -> str:
        return f"firewall of {self.name}"

    @property
    def base(self) -> str:
        assert self.guest
        return f"nodes/{self.guest.node}/{API_KIND[self.guest.kind]}/{self.guest.vmid}"

    def look(self, client: Client) -> State | None:
        if self.guest is None:
            return None
        options = client.get(f"{self.base}/firewall/options", f"read {self.label}")
        rows = client.get(f"{self.base}/firewall/rules", f"read {self.label}")
        config = client.get(f"{self.base}/config", f"read {self.label}")
        cards = [str(raw) for key, raw in config.items() if re.fullmatch(r"net\d+", key)]
        return State(
            options,
            tuple(read_rule(row) for row in sorted(rows, key=lambda row: int(row["pos"]))),
            # Each row tells that of the whole list; an empty list has nothing to be protected.
            next((str(row["digest"]) for row in rows if row.get("digest")), ""),
            any(parse_properties(card).get("firewall") != "1" for card in cards),
        )

    def _ours(self, rule: Rule) -> bool:
        return rule.comment == f"{self.owner}:" or rule.comment.startswith(f"{self.owner}: ")

    def plan(self, have: State | None) -> Course:
        now = have or State({})
        before, after = _options(self.options, now.options)
        writes = []
        digest = {"digest": now.digest} if now.digest else {}
        base = f"{self.base}/firewall" if self.guest else "firewall"
        if self.rules is not None:
            before["rules"] = [rule.told() for rule in now.rules if self._ours(rule)]
            after["rules"] = [rule.told() for rule in self.rules]
            for step in steps(now.rules, self._ours, self.rules):
                writes.append(_write(step, base, digest))
        # Rules first: a firewall that is on and has none keeps everybody out.
        changed = {key: value for key, value in after.items() if key != "rules" and before[key] != value}
        if changed:
            known = {"digest": now.options["digest"]} if now.options.get("digest") else {}
            writes.append(Write("configured", "PUT", f"{base}/options", {**changed, **known}))
        return Course(tuple(writes), before, after, warnings=tuple(self._warnings(now)))

    def _warnings(self, now: State) -> Iterable[str]:
        if self.options.get("enable") != "1" or self.guest is None:
            return
        if not self.in_force:
            yield "the datacenter's firewall is off, so nothing is filtered: set datacenter_enabled, or switch it on there"
        if now.unfiltered:
            yield "an interface of the guest has firewall=0, so nothing is filtered there: set it at the guest's networks"

    def lacks(self, stock: Stock, have: State | None) -> Iterable[str]:
        if self.guest:
            paths = [f"/vms/{self.guest.vmid}"]
            yield stock.privilege_fault("VM.Config.Network", paths)


def _write(step: Step, base: str, digest: Mapping[str, str]) -> Write:
    one = f"{base}/rules/{step.at}"
    if step.word == "drop":
        return Write("rules removed", "DELETE", one, digest)
    if step.word == "move":
        return Write("rules moved", "PUT", one, {"moveto": step.to, **digest})
    assert step.rule
    wire = step.rule.wire()
    if step.word == "add":
        return Write("rules added", "POST", f"{base}/rules", {**wire, **digest})
    optional = {"proto", "dport", "source", "log", "sport", "dest", "macro", "iface", "icmp-type"}
    gone = ",".join(sorted(optional - wire.keys()))
    return Write("rules changed", "PUT", one, {**wire, "delete": gone, **digest})


@dataclass(frozen=True)
class Unanswering:
    """A record whose guest is, or may be, on a node that does not answer. Others do not wait for it."""

    name: str
    why: Unanswered

    @property
    def label(self) -> str:
        return f"firewall of {self.name}"

    def look(self, client: Client) -> None:
        raise self.why

    def plan(self, have: None) -> Course:
        return Course()

    def lacks(self, stock: Stock, have: None) -> Iterable[str]:
        return ()


@dataclass(frozen=True)
class Datacenter:
    """The switch without which no guest's firewall works."""

    enabled: bool
    name: str = "datacenter"
    label: str = "firewall of the datacenter"

    def look(self, client: Client) -> Mapping[str, Any]:
        return dict(client.get("cluster/firewall/options", f"read the {self.label}"))

    def plan(self, have: Mapping[str, Any]) -> Course:
        before, after = _options({"enable": str(int(self.enabled))}, have)
        digest = {"digest": have["digest"]} if have.get("digest") else {}
        writes = (Write("configured", "PUT", "cluster/firewall/options", {**after, **digest}),)
        return Course(writes if before != after else (), before, after)

    def lacks(self, stock: Stock, have: Mapping[str, Any]) -> Iterable[str]:
        yield stock.privilege_fault("Sys.Modify", ["/"])


# -- the module


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module."""
    strings = {"type": "list", "elements": "str"}
    levels = ["nolog", "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
    rule = {
        "comment": {"type": "str", "required": True},
        "action": {"type": "str", "choices": list(_POLICIES), "default": "ACCEPT"},
        "direction": {"type": "str", "choices": ["in", "out"], "default": "in"},
        "proto": {"type": "str"},
        "ports": strings,
        "sources": strings,
        "log": {"type": "str", "choices": levels, "default": "nolog"},
    }
    options = {
        "name": {"type": "str", "required": True},
        "vmid": {"type": "int"},
        "enabled": {"type": "bool", "default": True},
        "dhcp": {"type": "bool"},
        "policy_in": {"type": "str", "choices": list(_POLICIES), "default": "DROP"},
        "policy_out": {"type": "str", "choices": list(_POLICIES), "default": "ACCEPT"},
        "rules": {"type": "list", "elements": "dict", "options": rule},
    }
    return {
        **connection_spec(env_fallback),
        "owner": {"type": "str", "default": "ansible"},
        "datacenter_enabled": {"type": "bool"},
        "guests": {"type": "list", "elements": "dict", "required": True, "options": options},
    }


def faults(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the records, whatever the hypervisor looks like."""
    found, seen = [], set()
    for record in records:
        name = str(record["name"])
        if name in seen:
            found.append(f"{name}: listed twice")
        seen.add(name)
        for position, rule in enumerate(record["rules"] or []):
            where = f"{name}: rules[{position}]"
            ports = [str(port) for port in rule["ports"] or []]
            proto = str(rule["proto"] or "").lower()
            if proto and proto not in _PROTOCOLS and not (proto.isdigit() and int(proto) < 256):
                found.append(
                    f"{where}.proto: {rule['proto']!r} is no protocol: write tcp, udp, icmp, another name of /etc/protocols "
                    "in small letters, or its number"
                )
            if CONTROL.search(str(rule["comment"])):
                found.append(f"{where}.comment: {rule['comment']!r} must be one line")
            found += [
                f"{where}.ports: {port!r} is neither a port nor a range such as 6000:6010"
                for port in ports
                if not _PORTS.fullmatch(port) or not all(0 < int(n) < 65536 for n in port.split(":"))
            ]
            if ports and proto not in ("tcp", "udp", "sctp", "dccp", "udplite"):
                found.append(f"{where}.proto: ports need a protocol that has them, such as tcp")
            for source in rule["sources"] or []:
                try:
                    family(str(source))
                except ValueError:
                    found.append(f"{where}.sources: {source!r} is not an address or a network")
    return found


def run(params: Mapping[str, Any], check: bool) -> Report:
    """The module: its parameters in, a report out."""
    records, owner = params["guests"], str(params["owner"])
    wrong = faults(records)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", owner):
        wrong.append(f"owner: {owner!r} may hold letters, digits and . _ - only")
    if wrong:
        raise Failed("guests:\n" + "\n".join(f"- {fault}" for fault in wrong))
    runner = Runner(settings(params, {}))
    if not records and params["datacenter_enabled"] is None:
        return Report()
    cluster = Cluster(runner.client)
    in_force = _in_force(runner.client, params["datacenter_enabled"]) if records else True
    things: list[GuestFirewall | Unanswering] = []
    for record in records:
        try:
            guest = _find(cluster, record)
        except Unanswered as unanswered:
            things.append(Unanswering(str(record["name"]), unanswered))
            continue
        except Failed as failed:
            wrong.append(str(failed))
            continue
        if guest is None and not check:
            wrong.append(f"{record['name']}: there is no such guest: correct name, or make it first")
        options = {
            "enable": str(int(record["enabled"])),
            "policy_in": str(record["policy_in"]),
            "policy_out": str(record["policy_out"]),
        }
        if record["dhcp"] is not None:
            options["dhcp"] = str(int(record["dhcp"]))
        listed = record["rules"]
        rules = None if listed is None else tuple(r for entry in listed for r in want_rules(entry, owner))
        things.append(GuestFirewall(str(record["name"]), owner, options, rules, guest, in_force))
    if wrong:
        raise Failed("nothing was changed, because of this:\n" + "\n".join(f"- {fault}" for fault in wrong))
    last: list[Companion[Any]] = []
    if params["datacenter_enabled"] is not None:
        last.append(Datacenter(bool(params["datacenter_enabled"])))
    return runner.run(check, things, last)


def _find(cluster: Cluster, record: Mapping[str, Any]) -> Guest | None:
    """The guest of a record, of either kind."""
    vmid = int(record["vmid"] or 0)
    named = [guest for guest in cluster.called(str(record["name"])) if not guest.template]
    kind = next((g.kind for g in cluster.guests if g.vmid == vmid), "") if vmid else ""
    kind = kind or (named[0].kind if named else "lxc")
    return cluster.find(Want(str(record["name"]), kind, "present", vmid))


def _in_force(client: Client, wanted: bool | None) -> bool:
    """Whether the datacenter's firewall is, or will be, on; believed when it may not be read."""
    if wanted is not None:
        return wanted
    try:
        return (
            str(client.get("cluster/firewall/options", "read the datacenter's firewall").get("enable", 0))
            != "0"
        )
    except (Absent, Failed):
        return True
