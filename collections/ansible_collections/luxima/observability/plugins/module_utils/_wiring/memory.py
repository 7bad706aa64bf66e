# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Who may use how much of a guest's memory. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

KEYS = ("weight", "percent", "least_mb", "most_mb")


class BadShares(ValueError):
    """The table cannot be used; the message names variable, key and way out."""


@dataclass(frozen=True)
class Share:
    """What one component may use: a part of all memory, or by weight of what others leave; never less than `least`."""

    weight: float = 0
    percent: float = 0
    least: float = 0
    most: float = 0


def limits(
    shares: Mapping[str, Any],
    groups: Collection[str],
    total_mb: int,
    others: Mapping[str, Any],
    system: Mapping[str, Any],
) -> dict[str, str]:
    """Limit in Go's spelling of each component among a host's groups; none where the memory is not known (0)."""
    if not isinstance(shares, Mapping) or not isinstance(others, Mapping):
        raise BadShares("platform_memory_shares and platform_memory_others: must be dictionaries")
    table = {name: _share(f"platform_memory_shares.{name}", entry) for name, entry in shares.items()}
    rest = _share("platform_memory_system", system)
    taken = {name: _number(f"platform_memory_others.{name}", value) for name, value in others.items()}
    if total_mb <= 0:
        return {}
    left = total_mb - _of(rest, total_mb)
    left -= sum(total_mb * part / 100 for name, part in taken.items() if name in groups)
    mine = {name: share for name, share in table.items() if name in groups}
    found = {name: _of(share, total_mb) for name, share in mine.items() if not share.weight}
    left -= sum(found.values())
    weights = sum(share.weight for share in mine.values())
    for name, share in mine.items():
        if share.weight:
            found[name] = _bounded(share, left * share.weight / weights)
    return {name: f"{int(found[name])}MiB" for name in mine}


def _of(share: Share, total_mb: int) -> float:
    return _bounded(share, total_mb * share.percent / 100)


def _bounded(share: Share, value: float) -> float:
    value = min(value, share.most) if share.most else value
    return max(value, share.least)


def _share(where: str, entry: Any) -> Share:
    if not isinstance(entry, Mapping):
        raise BadShares(f"{where}: must be a dictionary of {', '.join(KEYS)}, not {type(entry).__name__}")
    for key in entry:
        if key not in KEYS:
            raise BadShares(f"{where}.{key}: no such key; known are {', '.join(KEYS)}")
    values = {key: _number(f"{where}.{key}", entry[key]) for key in entry}
    if not values.get("least_mb"):
        raise BadShares(
            f"{where}.least_mb: is missing; a component that gets less than it needs at rest never starts"
        )
    return Share(
        values.get("weight", 0), values.get("percent", 0), values["least_mb"], values.get("most_mb", 0)
    )


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadShares(f"{where}: must be a number, not {value!r}")
    try:
        number = float(value)
    except ValueError:
        raise BadShares(f"{where}: must be a number, not {value!r}") from None
    if number < 0:
        raise BadShares(f"{where}: must not be negative, is {value!r}")
    return number
