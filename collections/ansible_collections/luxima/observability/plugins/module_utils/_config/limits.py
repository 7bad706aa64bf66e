# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a server reads later than it starts, in a form that is checked and proven at once. Pure.

Loki and Tempo read the limits of single tenants from a file of their own, which their checkers do not open. Put in the place of
everybody's limits in a configuration that is never activated, the same limits are read by the checker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .overlay import merged

_PLAIN = re.compile(r"[^A-Za-z0-9_-]")


def tenant_checks(
    config: Mapping[str, Any], tenants: Mapping[str, Any], section: Sequence[str]
) -> list[dict[str, Any]]:
    """A file of role `component` per tenant; `section` is the path of everybody's limits in the configuration."""
    return [
        {
            "path": f"check/{number}-{_PLAIN.sub('_', str(tenant))[:60]}.yml",
            "content": _placed(config, section, limits),
            "on_change": "none",
        }
        for number, (tenant, limits) in enumerate(tenants.items(), 1)
    ]


def _placed(config: Mapping[str, Any], section: Sequence[str], limits: Any) -> dict[str, Any]:
    first, *rest = section
    inner = config.get(first)
    if rest:
        return {**config, first: _placed(inner if isinstance(inner, Mapping) else {}, rest, limits)}
    if isinstance(inner, Mapping) and isinstance(limits, Mapping):
        return {**config, first: merged(inner, limits)}
    return {**config, first: limits}


def rule_names(groups: Iterable[Any]) -> list[dict[str, Any]]:
    """Groups and rules by name, as the API of a server with rules shows those that it has loaded."""
    return [
        {
            "name": str(group.get("name", "")),
            "rules": [{"name": _name(rule)} for rule in group.get("rules") or []],
        }
        for group in groups
        if isinstance(group, Mapping)
    ]


def _name(rule: Any) -> str:
    return str(rule.get("alert") or rule.get("record") or "") if isinstance(rule, Mapping) else ""


# Settings of a tenant that decide when its data is deleted.
_PERIODS = {
    "loki": (("retention_period",), ("retention_stream",)),
    "tempo": (("compaction", "block_retention"),),
}


def periods(role: str, tenants: Any) -> list[tuple[str, str]]:
    """(place, what is wrong) of limits that decide periods: those follow from the policy, which is compared and protected."""
    found = []
    for tenant, own in tenants.items() if isinstance(tenants, Mapping) else ():
        for keys in _PERIODS.get(role, ()):
            value: Any = own
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                where = ".".join([f"{role}_tenant_limits", str(tenant), *keys])
                found.append(
                    (where, f"follows from platform_retention; write platform_retention_tenants.{tenant}")
                )
    return found
