# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How old the data of a store is, and how much of it is older than a moment. Asks, changes nothing."""

from __future__ import annotations

import json
import re
import secrets
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from .._bucket.server import Stored
from . import durations

# Loki answers for at most this long at once.
_WINDOW = 29 * durations.DAY
_LOWEST = re.compile(r"^prometheus_tsdb_lowest_timestamp_seconds (\S+)$", re.MULTILINE)
_BLOCK_BYTES = re.compile(r"^prometheus_tsdb_storage_blocks_bytes (\S+)$", re.MULTILINE)


class Reader(Protocol):
    """What is asked of a server."""

    url: str

    def get_json(self, path: str, tenant: str = "") -> Any: ...

    def get_text(self, path: str) -> str: ...


class Storage(Protocol):
    """What is asked of object storage."""

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Stored]: ...

    def replaced(self, bucket: str, prefix: str = "") -> Iterator[Stored]: ...

    def content(self, bucket: str, name: str) -> bytes: ...


@dataclass(frozen=True)
class Block:
    """A block of traces; times in seconds."""

    tenant: str
    start: float
    end: float
    size: int
    traces: int


def date(seconds: float | None) -> str:
    """For people, to the minute, in UTC; `none` without data."""
    if seconds is None:
        return "none"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def words(amount: Mapping[str, int]) -> str:
    """For people: `3 blocks, 1200 samples, 4.1 MiB`."""
    if not any(amount.values()):
        return "nothing"
    parts = [f"{count} {unit}" for unit, count in amount.items() if unit != "bytes"]
    return ", ".join(parts + ([size(amount["bytes"])] if "bytes" in amount else []))


def size(count: float) -> str:
    """Bytes for people: `4.1 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def oldest_metrics(server: Reader) -> float | None:
    """The time of the first sample that Prometheus has."""
    seconds = _number(_LOWEST, server.get_text("/metrics"))
    # An empty store says the largest number there is.
    return seconds if 0 < seconds < 1e11 else None


def metrics_beyond(server: Reader, period: int) -> dict[str, int]:
    """Blocks whose newest sample is older than the period, counted from the newest block, as Prometheus deletes them."""
    blocks = server.get_json("/api/v1/status/tsdb/blocks")["data"]["blocks"] or []
    newest = max((int(one["maxTime"]) for one in blocks), default=0)
    gone = [one for one in blocks if newest - int(one["maxTime"]) >= period * 1000]
    stats = [one.get("stats") or {} for one in gone]
    return {
        "blocks": len(gone),
        "series": max((int(one.get("numSeries", 0)) for one in stats), default=0),
        "samples": sum(int(one.get("numSamples", 0)) for one in stats),
    }


def metrics_above(server: Reader, bound: int) -> dict[str, int]:
    """Bytes of blocks above a bound of size."""
    have = int(_number(_BLOCK_BYTES, server.get_text("/metrics")))
    return {"bytes": max(0, have - bound)}


def oldest_line(server: Reader, selector: str, period: int, tenant: str = "") -> float | None:
    """The time of the first line of the streams, not older than twice the period; asked window by window, oldest first."""
    now = time.time()
    for start, end in _windows(now - 2 * period - durations.DAY, now):
        # The index knows at once that a window is empty; a query would look into every hour of it.
        if not _counted(server, selector, start, end, tenant)["chunks"]:
            continue
        query = {"query": _anew(selector), "start": start, "end": end, "limit": "1", "direction": "forward"}
        answer = server.get_json(f"/loki/api/v1/query_range?{urllib.parse.urlencode(query)}", tenant)
        first = [int(value[0]) for stream in answer["data"]["result"] for value in stream["values"]]
        if first:
            return min(first) / 1e9
    return None


def lines_beyond(server: Reader, selector: str, old: int, new: int, tenant: str = "") -> dict[str, int]:
    """What the index counts of the streams between two periods back from now; chunks on the edge count whole."""
    now = time.time()
    found = {"streams": 0, "chunks": 0, "entries": 0, "bytes": 0}
    for start, end in _windows(now - old - durations.DAY, now - new):
        answer = _counted(server, selector, start, end, tenant)
        for unit in found:
            # A stream is there in every window.
            both = found[unit], answer[unit]
            found[unit] = max(both) if unit == "streams" else sum(both)
    return {("lines" if unit == "entries" else unit): count for unit, count in found.items()}


def _counted(server: Reader, selector: str, start: int, end: int, tenant: str) -> dict[str, int]:
    query = urllib.parse.urlencode({"query": _anew(selector), "start": start, "end": end})
    answer = server.get_json(f"/loki/api/v1/index/stats?{query}", tenant)
    return {unit: int(answer.get(unit) or 0) for unit in ("streams", "chunks", "entries", "bytes")}


def _anew(selector: str) -> str:
    """The same streams by another text. Loki remembers its answers by the text, and gives old ones when lines have come since."""
    return f'{selector.rstrip().removesuffix("}")}, asked!="{secrets.token_hex(8)}"}}'


def blocks(storage: Storage, bucket: str) -> list[Block]:
    """The blocks of traces that are stored and not already replaced by a compacted one."""
    sizes: dict[str, int] = {}
    metas: list[str] = []
    for one in storage.listed(bucket):
        folder, _, file = one.name.rpartition("/")
        sizes[folder] = sizes.get(folder, 0) + one.size
        if file == "meta.json":
            metas.append(one.name)

    def read(name: str) -> Block:
        meta = json.loads(storage.content(bucket, name))
        return Block(
            name.split("/")[0],
            _seconds(str(meta["startTime"])),
            _seconds(str(meta["endTime"])),
            sizes[name.rpartition("/")[0]],
            int(meta.get("totalObjects") or 0),
        )

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, metas))


def traces_beyond(found: Iterable[Block], period: int, tenants: set[str] | None) -> dict[str, int]:
    """Blocks whose newest trace is older than the period; of some tenants, or of all."""
    edge = time.time() - period
    gone = [one for one in found if one.end < edge and (tenants is None or one.tenant in tenants)]
    return {
        "blocks": len(gone),
        "traces": sum(one.traces for one in gone),
        "bytes": sum(one.size for one in gone),
    }


def oldest_object(storage: Storage, bucket: str, prefix: str) -> float | None:
    """The time of the oldest object below a prefix."""
    return min((one.modified for one in storage.listed(bucket, prefix)), default=None)


def objects_beyond(storage: Storage, bucket: str, prefix: str, period: int) -> dict[str, int]:
    """Objects below a prefix that are older than the period."""
    edge = time.time() - period
    gone = [one.size for one in storage.listed(bucket, prefix) if one.modified < edge]
    return {"objects": len(gone), "bytes": sum(gone)}


def versions_beyond(storage: Storage, bucket: str, prefix: str, period: int) -> dict[str, int]:
    """Versions below a prefix that were replaced longer ago than the period."""
    edge = time.time() - period
    gone = [one.size for one in storage.replaced(bucket, prefix) if one.modified < edge]
    return {"versions": len(gone), "bytes": sum(gone)}


def _windows(start: float, end: float) -> Iterator[tuple[int, int]]:
    """Nanoseconds of windows that Loki answers for, oldest first."""
    while start < end:
        stop = min(start + _WINDOW, end)
        yield int(start * 1e9), int(stop * 1e9)
        start = stop


def _number(pattern: re.Pattern[str], text: str) -> float:
    match = pattern.search(text)
    return float(match[1]) if match else 0.0


def _seconds(text: str) -> float:
    """A time as Go writes it, with up to nine digits of a second."""
    return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
