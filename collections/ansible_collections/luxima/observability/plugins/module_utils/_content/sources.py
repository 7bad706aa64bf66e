# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Data sources that an inventory adds to those of the platform. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .faults import Problem, kind

VARIABLE = "grafana_datasources"


def problems(further: Any, servers: Mapping[str, Sequence[Any]]) -> list[Problem]:
    """What Grafana refuses at its start, or takes silently in place of another. `servers`: those of the platform by kind."""
    if not isinstance(further, (list, tuple)):
        return [(VARIABLE, f"is {kind(further)}; write a list of data sources")]
    taken = _taken(servers)
    found: list[Problem] = []
    default = bool(servers.get("prometheus"))
    for index, entry in enumerate(further):
        where = f"{VARIABLE}[{index}]"
        if not isinstance(entry, Mapping):
            found.append((where, f"is {kind(entry)}; write a mapping with name and type"))
            continue
        for key in ("name", "type"):
            if not isinstance(entry.get(key), str) or not entry[key]:
                found.append((f"{where}.{key}", "is missing, and Grafana does not start without it"))
        if "$" in str(entry.get("name")).replace("$$", ""):
            found.append((f"{where}.name", "holds a dollar, which names a variable; write $$ for a dollar"))
        for key, users in taken.items():
            value = str(entry.get(key) or "")
            if value in users:
                found.append((f"{where}.{key}", f"{value} is that of {users[value]} too; choose another one"))
            elif value:
                users[value] = where
        if entry.get("isDefault") and default:
            found.append(
                (f"{where}.isDefault", "there is a default already, and Grafana does not start with two")
            )
        default = default or bool(entry.get("isDefault"))
    return found


def _taken(servers: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, str]]:
    """Uids and names of the platform's own data sources, and whose they are."""
    taken: dict[str, dict[str, str]] = {"uid": {}, "name": {}}
    for name, entries in servers.items():
        for number in range(1, len(entries) + 1):
            taken["uid"][name if number == 1 else f"{name}-{number}"] = "a data source of this role"
            title = name.capitalize() if number == 1 else f"{name.capitalize()} {number}"
            taken["name"][title] = "a data source of this role"
    return taken
