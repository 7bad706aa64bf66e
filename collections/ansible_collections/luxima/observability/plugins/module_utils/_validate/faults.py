# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A fault and how a list of them reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What is wrong with which variable (or group, or tag) of which host, and the way out. Host "" is the whole inventory."""

    variable: str
    host: str
    text: str


def merged(faults: Iterable[Fault]) -> list[tuple[str, str, list[str]]]:
    """(variable, text, hosts): a value of a group is one fault, not one per host."""
    table: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        hosts = table.setdefault((fault.variable, fault.text), [])
        if fault.host and fault.host not in hosts:
            hosts.append(fault.host)
    return [(variable, text, hosts) for (variable, text), hosts in table.items()]


def report(faults: Iterable[Fault], places: Callable[[str], list[str]]) -> str:
    """The list as people read it; places(variable) says where it is written."""
    entries = merged(faults)
    noun = "fault" if len(entries) == 1 else "faults"
    lines = [f"{len(entries)} {noun} in the inventory; nothing was touched."]
    for variable, text, hosts in entries:
        of = ""
        if hosts:
            shown = ", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")
            of = f" of host{'s' if len(hosts) > 1 else ''} {shown}"
        written = places(variable)
        at = f" ({', '.join(written[:3])})" if written else ""
        lines.append(f"- {variable}{of}{at}: {text}")
    return "\n".join(lines)
