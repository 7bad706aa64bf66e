# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From declared connections to the rules of each guest's firewall: what is not declared is not let in. Pure.

A connection is declared in one of three places: ``platform_connections`` (component to ports and the groups that may
open them), ``platform_metrics`` (Prometheus scrapes every component) and targets of ``platform_scrape_jobs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import address as addresses

#: Stands for people and the controller in ``from``, beside the names of groups.
OPERATORS = "operators"
#: Who scrapes, and who probes by ICMP.
SCRAPER, PROBER = "prometheus", "blackbox_exporter"


class Unreachable(ValueError):
    """A rule cannot be written; the text names every variable and host."""


@dataclass(frozen=True)
class Site:
    """The inventory: groups, and ``platform_address`` by host."""

    groups: Mapping[str, Sequence[str]]
    addresses: Mapping[str, str]


@dataclass
class _Firewall:
    """The rules of one guest while they are collected."""

    name: str
    site: Site
    operators: Sequence[str]
    rules: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def allow(self, what: str, callers: Iterable[str], proto: str, ports: Iterable[object] = ()) -> None:
        """Let callers in, if there are any: a rule without sources would let everybody in."""
        callers = list(dict.fromkeys(callers))
        sources = {source for caller in callers for source in self._sources(caller)}
        parts = {proto: sources}
        if proto == "icmp":
            # The protocol of IPv6 is another one.
            parts = {
                "icmp": {source for source in sources if ":" not in source},
                "ipv6-icmp": {source for source in sources if ":" in source},
            }
        self.rules += [
            {
                "comment": f"{what} for {', '.join(callers)}",
                "proto": name,
                "ports": sorted({str(port) for port in ports}, key=int),
                "sources": sorted(found),
            }
            for name, found in parts.items()
            if found
        ]

    def _sources(self, caller: str) -> list[str]:
        if caller == OPERATORS:
            return [str(network) for network in self.operators]
        if caller not in self.site.groups:
            self.faults.append(f"platform_connections: {caller!r} is neither a group nor {OPERATORS}")
            return []
        found = []
        for host in self.site.groups[caller]:
            address = addresses.bare(self.site.addresses.get(host, ""))
            if host == self.name:
                continue
            if addresses.is_address(address):
                found.append(address)
            else:
                self.faults.append(
                    f"platform_address of {host} is {address!r}, and a firewall needs an address: set ansible_host there"
                )
        return found


def scraped(name: str, address: str, jobs: Iterable[Mapping[str, Any]]) -> set[int]:
    """Ports of a host that further scrape jobs name."""
    targets = [
        str(target)
        for job in jobs
        for entry in job.get("static_configs") or []
        for target in entry.get("targets") or []
    ]
    pairs = [addresses.parted(target) for target in targets]
    return {int(port) for host, port in pairs if host in (name, addresses.bare(address)) and port}


def firewall(record: Mapping[str, Any], site: Site) -> dict[str, Any]:
    """One entry of the module's ``guests``, from ``platform_guest_firewall`` of its host. Raises Unreachable."""
    name = str(record["name"])
    entry = {"name": name, "vmid": int(record.get("vmid") or 0), "enabled": record["mode"] == "closed"}
    entry["dhcp"] = record.get("address") == "dhcp"
    if not entry["enabled"]:
        return {**entry, "rules": []}
    wall = _Firewall(name, site, record.get("operators") or [])
    if not wall.operators:
        wall.faults.append(
            f"platform_operator_networks is empty, and nobody could log in to {name} any more: name the networks of the "
            "people and of this controller, or set guest_firewall: leave"
        )
    mine = [group for group, hosts in site.groups.items() if name in hosts]
    wall.allow("log in", [OPERATORS], "tcp", [record.get("ssh_port") or 22])
    wall.allow("echo", [OPERATORS, *(g for g in (PROBER,) if g in site.groups)], "icmp")
    metrics = record.get("metrics") or {}
    ports = {int(entry["port"]) for component, entry in metrics.items() if component in mine}
    ports |= scraped(name, str(site.addresses.get(name, "")), record.get("jobs") or [])
    if ports and SCRAPER in site.groups:
        wall.allow("metrics", [SCRAPER], "tcp", ports)
    for component, listeners in sorted((record.get("connections") or {}).items()):
        for listener in listeners if component in mine else []:
            for proto in listener.get("protocols") or ["tcp"]:
                wall.allow(component, listener["from"], proto, [listener["port"]])
    if wall.faults:
        raise Unreachable("; ".join(dict.fromkeys(wall.faults)))
    return {**entry, "rules": [*wall.rules, *(record.get("rules") or [])]}


def firewalls(records: Iterable[Mapping[str, Any]], site: Site) -> list[dict[str, Any]]:
    """All firewalls that are managed. Raises Unreachable naming every fault once."""
    result, faults = [], []
    for record in records:
        if record["mode"] == "leave" or record.get("state") == "absent":
            continue
        try:
            result.append(firewall(record, site))
        except Unreachable as fault:
            faults += str(fault).split("; ")
    if faults:
        raise Unreachable("\n".join(f"- {fault}" for fault in dict.fromkeys(faults)))
    return result
