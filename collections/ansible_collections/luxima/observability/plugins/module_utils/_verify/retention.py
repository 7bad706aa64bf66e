# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of retention: the periods the servers say they enforce are those of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import yaml

from .._retention import durations
from .client import Client, Refused
from .model import Check, NotYet, Wanted

_HINT = "run site.yml again; retention comes from `platform_retention` and its overrides"


def checks(wanted: Wanted) -> list[Check]:
    readers: dict[str, Callable[[Client, Mapping[str, Any]], str]] = {
        "prometheus": prometheus,
        "loki": loki,
        "tempo": tempo,
    }
    return [
        Check(
            "retention",
            str(connection["url"]),
            frozenset({kind}),
            partial(read, Client(connection), wanted.retention[kind]),
            _HINT,
        )
        for kind, read in readers.items()
        if wanted.retention.get(kind)
        for connection in wanted.of(kind)
    ]


def prometheus(client: Client, plan: Mapping[str, Any]) -> str:
    """Time and size; the server shows them as "30d or 20GB"."""
    shown = str(client.json("/api/v1/status/runtimeinfo")["data"]["storageRetention"])
    parts = [part.strip() for part in shown.split(" or ")]
    faults = []
    if not any(_same(part, plan["time"]) for part in parts):
        faults.append(f"keeps {shown}, configured {plan['time']}")
    if plan.get("size") and not any(_bytes(part) == _bytes(plan["size"]) for part in parts):
        faults.append(f"is bounded by {shown}, configured {plan['size']}")
    return _verdict(faults, f"keeps {shown}")


def loki(client: Client, plan: Mapping[str, Any]) -> str:
    """The global period, every class, and that the compactor deletes at all."""
    config = _yaml(client, "/config")
    limits = config.get("limits_config") or {}
    faults = []
    if not (config.get("compactor") or {}).get("retention_enabled"):
        faults.append("deletes nothing: compactor.retention_enabled is false")
    if not _same(limits.get("retention_period"), plan["retention_period"]):
        faults.append(f"keeps {limits.get('retention_period')}, configured {plan['retention_period']}")
    have = {_selector(s["selector"]): str(s["period"]) for s in limits.get("retention_stream") or []}
    want = {_selector(s["selector"]): str(s["period"]) for s in plan.get("retention_stream") or []}
    for selector, period in want.items():
        if selector not in have:
            faults.append(f"has no period for {selector}, configured {period}")
        elif not _same(have[selector], period):
            faults.append(f"keeps {selector} for {have[selector]}, configured {period}")
    faults += [f"keeps {s} for {p}, which nobody configured" for s, p in have.items() if s not in want]
    return _verdict(faults, f"keeps {limits.get('retention_period')}, {len(want)} classes")


def tempo(client: Client, plan: Mapping[str, Any]) -> str:
    """The period of all blocks."""
    shown = ((_yaml(client, "/status/config").get("compactor") or {}).get("compaction") or {}).get(
        "block_retention"
    )
    faults = (
        []
        if _same(shown, plan["block_retention"])
        else [f"keeps {shown}, configured {plan['block_retention']}"]
    )
    return _verdict(faults, f"keeps {shown}")


def _verdict(faults: list[str], good: str) -> str:
    # A server that reloads shows the old period for a moment, so it is asked again.
    if faults:
        raise NotYet("; ".join(faults))
    return good


def _yaml(client: Client, path: str) -> Mapping[str, Any]:
    answer = client.text(path)
    # Tempo writes a heading before the document.
    _, _, document = answer.partition("---\n") if "---\n" in answer else ("", "", answer)
    try:
        config = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise Refused("GET", client.url + path, 200, f"not YAML: {error}") from error
    return config if isinstance(config, Mapping) else {}


def _same(left: Any, right: Any) -> bool:
    try:
        return durations.parse(left) == durations.parse(right)
    except ValueError:
        return False


def _bytes(text: Any) -> float:
    units = {"EB": 60, "PB": 50, "TB": 40, "GB": 30, "MB": 20, "KB": 10, "B": 0}
    value = str(text).replace("iB", "B").replace(" ", "")
    for unit, power in units.items():
        if value.endswith(unit):
            try:
                return float(value[: -len(unit)]) * float(2**power)
            except ValueError:
                return -1
    return -1


def _selector(text: str) -> str:
    return "".join(str(text).split())
