# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Sources of log lines that cannot be read, or that would choose for themselves what is not theirs to choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._logs import scrapes
from .._retention import policy as retention
from .faults import Fault

_SOURCES = ("files", "extra_files", "units", "containers", "extra_scrape_configs", "config")


def check(values: Mapping[str, Mapping[str, Any]], hosts: list[str]) -> list[Fault]:
    """C(values) are the evaluated variables of each host; those that failed are left out and told elsewhere."""
    faults = []
    for host in hosts:
        have = values.get(host, {})
        if "promtail_files" not in have or not have.get("platform_retention"):
            continue
        sources = {name: have.get(f"promtail_{name}") for name in _SOURCES}
        settings = {
            "classes": sorted(
                retention.kept_in(
                    "loki", have["platform_retention"], have.get("platform_retention_overrides")
                )
            ),
            "reserved_classes": have.get("promtail_reserved_classes"),
        }
        try:
            found = scrapes.problems(sources, settings)
        except (AttributeError, KeyError, TypeError, ValueError):
            # Of a wrong type or without a required key, which its argument spec says.
            continue
        faults += [Fault(variable, host, text) for variable, text in found]
    return faults
