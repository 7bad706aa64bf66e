# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One table for people: what is stated of a class, where and by what it is enforced, what is in force, how old data is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .readback import Row, columns

COLUMNS = ("class", "stated", "where", "by what", "in force", "oldest data")


def explanation(
    plan: Mapping[str, Any], rows: list[Row], oldest: Callable[[str, Mapping[str, Any]], str]
) -> list[dict[str, str]]:
    """The rows of the plan's explanation with what the servers say; `oldest` answers for a store and a row of the plan."""
    found = []
    for one in plan["explanation"]:
        shown = sorted({row.in_force for row in rows if _same(row, one)})
        found.append(
            {
                "class": str(one["class"]),
                "stated": str(one["stated"]),
                "where": str(one["store"]),
                "by what": str(one["setting"]) or "nothing of the platform",
                "in force": ", ".join(shown) or str(one.get("told") or "not asked"),
                "oldest data": oldest(str(one["store"]), one) or "not asked",
            }
        )
    return found


def table(rows: list[dict[str, str]]) -> str:
    """The explanation for people, in columns."""
    return columns([COLUMNS, *(tuple(row[name] for name in COLUMNS) for row in rows)])


def _same(row: Row, one: Mapping[str, Any]) -> bool:
    return row.store == one["store"] and row.data == str(one["match"] or one["class"])
