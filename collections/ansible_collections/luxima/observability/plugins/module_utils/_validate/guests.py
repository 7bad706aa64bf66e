# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What guests must not have in common, and what the hypervisor refuses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from .._wiring.address import bare
from .faults import Fault

_DNS = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TAG = re.compile(r"[a-z0-9_][a-z0-9_\-+.]*")
# States of a guest that shall not run: nothing is deployed to it and nothing is expected of it.
OFF = ("absent", "stopped")
VMID_MIN, VMID_MAX = 100, 999_999_999


def check(values: Mapping[str, Mapping[str, Any]], guests: list[str]) -> list[Fault]:
    """Faults among hosts; C(values) are the evaluated variables of every host, those that failed left out."""
    there = [name for name in values if values[name].get("guest_state") != "absent"]
    faults = _shared(values, there, "platform_address", "address", "set another ansible_host")
    faults += _shared(values, guests, "guest_vmid", "id", "set another one, or 0 for the next free id")
    for name in guests:
        faults += _guest(name, values.get(name, {}))
    return faults


def still_expected(
    values: Mapping[str, Mapping[str, Any]], groups: Mapping[str, list[str]], components: list[str]
) -> list[Fault]:
    """Guests that shall not run, in groups of components all the same."""
    faults = []
    for name in groups.get("guests", []):
        state = str(values.get(name, {}).get("guest_state"))
        having = [component for component in components if name in groups.get(component, [])]
        if state in OFF and having:
            text = (
                f"is {state}, and the host is in group{'s' if len(having) > 1 else ''} {', '.join(having)}, which expect it to run; "
                "add the file zz-running.yml with `plugin: luxima.observability.running` as the last source of the inventory, "
                "which takes such guests out of their groups, or take it out by hand"
            )
            faults.append(Fault("guest_state", name, text))
    return faults


def risks(values: Mapping[str, Mapping[str, Any]], guests: list[str]) -> list[Fault]:
    """What works only with a template that knows more than the inventory."""
    text = (
        "is empty: nobody can log in to a guest that is made, unless its template contains somebody's key (Debian's own does not); "
        "name the public keys of the operators"
    )
    return [
        Fault("guest_ssh_public_keys", name, text)
        for name in guests
        if values.get(name, {}).get("guest_ssh_public_keys") == []
        and values[name].get("guest_state") not in ("absent", "stopped")
    ]


def _shared(
    values: Mapping[str, Mapping[str, Any]], hosts: list[str], variable: str, noun: str, way_out: str
) -> list[Fault]:
    owners: dict[str, list[str]] = {}
    for host in hosts:
        value = bare(str(values.get(host, {}).get(variable) or ""))
        if value not in ("", "0"):
            owners.setdefault(value, []).append(host)
    return [
        Fault(variable, host, f"the {noun} {value} belongs to {' and '.join(sorted(having))}; {way_out}")
        for value, having in owners.items()
        if len(having) > 1
        for host in sorted(having)
    ]


def _guest(name: str, values: Mapping[str, Any]) -> list[Fault]:
    faults = []
    if not _DNS.fullmatch(name):
        faults.append(
            Fault(
                "inventory_hostname",
                name,
                "is no DNS name, and Proxmox VE refuses it as a guest's name; use letters, digits and hyphens",
            )
        )
    vmid = str(values.get("guest_vmid") or "0")
    if vmid.isdigit() and int(vmid) and not VMID_MIN <= int(vmid) <= VMID_MAX:
        faults.append(
            Fault(
                "guest_vmid",
                name,
                f"{vmid} is not between {VMID_MIN} and {VMID_MAX}; 0 takes the next free id",
            )
        )
    faults += _addresses(name, values)
    if values.get("guest_firewall") == "closed" and not values.get("platform_operator_networks"):
        faults.append(
            Fault(
                "platform_operator_networks",
                name,
                "is empty, and with guest_firewall: closed nobody could log in; name the networks of the people and the controller",
            )
        )
    tags = [values.get("platform_environment", "x"), *(values.get("guest_tags") or [])]
    faults += [
        Fault(
            "guest_tags",
            name,
            f"{tag!r} is no tag of Proxmox VE; use lower-case letters, digits, and _ - + . inside",
        )
        for tag in tags
        if not _TAG.fullmatch(str(tag))
    ]
    return faults


def _addresses(name: str, values: Mapping[str, Any]) -> list[Fault]:
    """Of each family an address, a word, or nothing; of one of them something."""
    found = []
    four, six = values.get("guest_address", "dhcp"), values.get("guest_address6", "")
    if four not in ("", "dhcp") and not _is_interface(four, 4):
        text = f"{four!r} is neither dhcp nor an address with its prefix such as 192.0.2.11/24; see ansible_host and platform_subnet"
        found.append(Fault("guest_address", name, text))
    if six not in ("", "auto", "dhcp") and not _is_interface(six, 6):
        text = f"{six!r} is neither auto, dhcp nor an address with its prefix such as 2001:db8::11/64; see ansible_host and platform_subnet6"
        found.append(Fault("guest_address6", name, text))
    if not four and not six:
        text = "is empty, and so is guest_address6: nobody could reach the guest; set ansible_host, or one of them to dhcp"
        found.append(Fault("guest_address", name, text))
    return found


def _is_interface(text: object, version: int) -> bool:
    if not isinstance(text, str) or "/" not in text:
        return False
    try:
        return ipaddress.ip_interface(text).version == version
    except ValueError:
        return False
