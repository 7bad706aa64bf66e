# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Every declared connection gets in, and nothing else does."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.filter.wiring import guest_firewalls
from ansible_collections.luxima.observability.plugins.module_utils._wiring.address import hostport
from ansible_collections.luxima.observability.plugins.module_utils._wiring.firewall import Site, firewalls
from hypothesis import given
from hypothesis import strategies as st

# Two of them have IPv6 only, written in two ways.
HOSTS = {**{f"h{n}": f"10.0.0.{n}" for n in range(1, 5)}, "h5": "2001:db8::5", "h6": "2001:DB8:0::6"}
GROUPS = ("prometheus", "loki", "grafana", "blackbox_exporter", "apps")
OFFICE = "192.0.2.0/24"
STRANGER = "203.0.113.9"


def admits(entry: dict[str, Any], source: str, proto: str, port: int) -> bool:
    """What the hypervisor does with a packet: the first rule that fits, and there are only permissions."""
    name = "ipv6-icmp" if proto == "icmp" and ":" in source else proto
    return any(
        rule["proto"] == name
        and (proto == "icmp" or str(port) in rule["ports"])
        and any(ipaddress.ip_address(source) in ipaddress.ip_network(n) for n in rule["sources"])
        for rule in entry["rules"]
    )


@st.composite
def sites(draw: st.DrawFn) -> dict[str, Any]:
    members = st.lists(st.sampled_from(sorted(HOSTS)), unique=True)
    callers = st.lists(st.sampled_from([*GROUPS, "operators"]), min_size=1, unique=True)
    listener = st.fixed_dictionaries(
        {"port": st.integers(1000, 1005), "from": callers},
        optional={"protocols": st.lists(st.sampled_from(["tcp", "udp"]), min_size=1, unique=True)},
    )
    return {
        "groups": {name: draw(members) for name in GROUPS},
        "connections": draw(st.dictionaries(st.sampled_from(GROUPS), st.lists(listener, max_size=3))),
        "metrics": draw(
            st.dictionaries(st.sampled_from(GROUPS), st.integers(2000, 2003).map(lambda port: {"port": port}))
        ),
        "jobs": draw(
            st.lists(
                st.tuples(st.sampled_from(sorted(HOSTS)), st.booleans(), st.integers(3000, 3002)), max_size=3
            )
        ),
    }


def declared(site: dict[str, Any], source: str, target: str, proto: str, port: int) -> bool:
    """The specification: may `source` (a host, or "office" or "stranger") reach this port of `target`?"""
    groups = site["groups"]

    def is_in(name: str) -> bool:
        return source == "office" if name == "operators" else source in groups[name]

    if proto == "icmp":
        return source == "office" or is_in("blackbox_exporter")
    if proto == "tcp" and port == 22:
        return source == "office"
    wired = any(
        target in groups[component]
        and listener["port"] == port
        and proto in listener.get("protocols", ["tcp"])
        and any(is_in(caller) for caller in listener["from"])
        for component, listeners in site["connections"].items()
        for listener in listeners
    )
    scraped = any(target in groups[name] and entry["port"] == port for name, entry in site["metrics"].items())
    scraped |= any(host == target and number == port for host, _, number in site["jobs"])
    return wired or (proto == "tcp" and scraped and is_in("prometheus"))


@given(sites())
def test_exactly_what_is_declared_gets_in(site: dict[str, Any]) -> None:
    jobs = [
        {"static_configs": [{"targets": [hostport(HOSTS[host] if by_address else host, port)]}]}
        for host, by_address, port in site["jobs"]
    ]
    records = [
        {
            "name": name,
            "mode": "closed",
            "metrics": site["metrics"],
            "connections": site["connections"],
            "operators": [OFFICE],
            "jobs": jobs,
        }
        for name in HOSTS
    ]
    entries = firewalls(records, Site(site["groups"], HOSTS))
    sources = {**HOSTS, "office": "192.0.2.77", "stranger": STRANGER}
    ports = [22, 80, *range(1000, 1006), *range(2000, 2004), *range(3000, 3003)]
    for entry in entries:
        assert all(rule["sources"] for rule in entry["rules"])
        for source, address in sources.items():
            for proto in ("tcp", "udp", "icmp"):
                for port in ports:
                    if source != entry["name"]:
                        expected = declared(site, source, entry["name"], proto, port)
                        assert admits(entry, address, proto, port) == expected, (source, entry, proto, port)


def record(**changes: Any) -> dict[str, Any]:
    return {"name": "h1", "mode": "closed", "metrics": {}, "connections": {}, **changes}


def test_left_alone_and_switched_off() -> None:
    site = {"groups": {}, "addresses": {}}
    assert guest_firewalls([record(mode="leave"), record(state="absent")], **site) == []
    assert guest_firewalls([record(mode="open", vmid=7, address="dhcp")], **site) == [
        {"name": "h1", "vmid": 7, "enabled": False, "dhcp": True, "rules": []}
    ]


def test_own_rules_follow_and_the_port_of_ssh_is_the_hosts() -> None:
    own = {"comment": "shop", "proto": "tcp", "ports": ["443"]}
    (entry,) = guest_firewalls([record(rules=[own], ssh_port=2222, operators=[OFFICE])], {}, {})
    assert entry["rules"][0] == {
        "comment": "log in for operators",
        "proto": "tcp",
        "ports": ["2222"],
        "sources": [OFFICE],
    }
    assert entry["rules"][-1] == own


def test_every_fault_is_told_once() -> None:
    connections = {"loki": [{"port": 1, "from": ["promtail", "prom"]}]}
    groups = {"loki": ["h1", "h2"], "promtail": ["h1", "h2", "named"]}
    records = [record(connections=connections), record(name="h2", connections=connections)]
    with pytest.raises(AnsibleFilterError) as caught:
        guest_firewalls(records, groups, {**HOSTS, "named": "named.example.org"})
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "platform_operator_networks is empty, and nobody could log in to h1" in lines[1]
    assert "- platform_address of named is 'named.example.org', and a firewall needs an address" in lines[2]
    assert "platform_connections: 'prom' is neither a group nor operators" in lines[3]
