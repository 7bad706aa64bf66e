# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What hosts and the components on them must not have in common, and addresses that mean another host everywhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from .._wiring.address import bare
from .._wiring.memory import BadShares, limits
from .faults import Fault

_EVERYWHERE = ("", str(ipaddress.IPv4Address(0)), "::")


def check(
    values: Mapping[str, Mapping[str, Any]],
    raw: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, list[str]],
    components: Iterable[str],
    ports: Iterable[str],
) -> list[Fault]:
    """C(values) are evaluated variables, C(raw) those of the inventory, C(ports) the names of listeners' ports."""
    components, ports = list(components), list(ports)
    faults = _own_addresses(values, raw, groups, components)
    for host, have in values.items():
        mine = [name for name in components if host in groups.get(name, [])]
        faults += _ports(
            host, have, [name for name in ports if name.startswith(tuple(f"{one}_" for one in mine))]
        )
    return faults


def is_loopback(address: str) -> bool:
    text = bare(address).lower().rstrip(".")
    if text == "localhost" or text.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _own_addresses(
    values: Mapping[str, Mapping[str, Any]],
    raw: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, list[str]],
    components: list[str],
) -> list[Fault]:
    """An address that every host has for itself, where there is more than one host."""
    members = list(dict.fromkeys(host for name in components for host in groups.get(name, [])))
    if len(members) < 2:
        return []
    found = []
    for host in members:
        address = str(values.get(host, {}).get("platform_address") or "")
        local = raw.get(host, {}).get("ansible_connection") == "local" and address == host
        if address and (is_loopback(address) or local):
            others = len(members) - 1
            text = (
                f"{address} is what {'every host calls itself' if not local else 'only this machine knows of itself'}, and "
                f"{others} other host{'s' if others > 1 else ''} would not reach this one; set platform_address to an address that they reach"
            )
            found.append(Fault("platform_address", host, text))
    return found


def _ports(host: str, have: Mapping[str, Any], names: list[str]) -> list[Fault]:
    """Two listeners of one host on one port."""
    found = []
    taken: dict[int, str] = {}
    for name in names:
        value = str(have.get(name, ""))
        if not value.isdigit():
            continue
        other = taken.setdefault(int(value), name)
        if other != name and not _apart(have, name, other):
            found.append(Fault(name, host, f"{value} is also {other}; give one of them another port"))
    return found


def _apart(have: Mapping[str, Any], *names: str) -> bool:
    """Whether both listen on addresses of their own."""
    addresses = [bare(str(have.get(name.removesuffix("port") + "listen_address", ""))) for name in names]
    return addresses[0] != addresses[1] and not set(addresses) & set(_EVERYWHERE)


def memory(host: str, values: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with the shares of memory, told once and not for each limit that follows from them."""
    if not {"platform_memory_shares", "platform_memory_others", "platform_memory_system"} <= values.keys():
        return []
    given = (values[f"platform_memory_{name}"] for name in ("shares", "others", "system"))
    shares, others, system = given
    try:
        limits(shares, (), 1, others, system)
    except BadShares as error:
        where, _, text = str(error).partition(": ")
        return [Fault(where, host, text)]
    return []
