# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One table for people: what is stated of a class, where and by what it is enforced, what is in force, how old data is."""

from __future__ import annotations

import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

from . import durations
from .readback import Row, columns

COLUMNS = ("class", "stated", "where", "by what", "in force", "oldest data")
# Loki answers for at most this long at once.
_WINDOW = 29 * durations.DAY
_LOWEST = re.compile(r"^prometheus_tsdb_lowest_timestamp_seconds (\S+)$", re.MULTILINE)


class Reader(Protocol):
    """What is asked of a server."""

    url: str

    def get_json(self, path: str, headers: Mapping[str, str] | None = None) -> Any: ...

    def get_text(self, path: str) -> str: ...


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
                "in force": ", ".join(shown) or "not asked",
                "oldest data": oldest(str(one["store"]), one) or "not asked",
            }
        )
    return found


def table(rows: list[dict[str, str]]) -> str:
    """The explanation for people, in columns."""
    return columns([COLUMNS, *(tuple(row[name] for name in COLUMNS) for row in rows)])


def _same(row: Row, one: Mapping[str, Any]) -> bool:
    return row.store == one["store"] and row.data == str(one["match"] or one["class"])


def oldest_metrics(server: Reader) -> str:
    """The first sample that Prometheus has."""
    match = _LOWEST.search(server.get_text("/metrics"))
    seconds = float(match[1]) if match else 0.0
    # An empty store says the largest number there is.
    return _date(seconds) if 0 < seconds < 1e11 else "none"


def oldest_line(server: Reader, selector: str, period: int, tenant: str = "") -> str:
    """The first line of the streams in Loki, not older than twice the period; asked window by window, oldest first."""
    now = time.time()
    start = now - 2 * period - durations.DAY
    while start < now:
        end = min(start + _WINDOW, now)
        query = urllib.parse.urlencode(
            {
                "query": selector,
                "start": int(start * 1e9),
                "end": int(end * 1e9),
                "limit": 1,
                "direction": "forward",
            }
        )
        headers = {"X-Scope-OrgID": tenant} if tenant else {}
        result = server.get_json(f"/loki/api/v1/query_range?{query}", headers)["data"]["result"]
        first = [int(value[0]) for stream in result for value in stream["values"]]
        if first:
            return _date(min(first) / 1e9)
        start = end
    return "none"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")
