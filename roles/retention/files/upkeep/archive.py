# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Copies the lines of each class from Loki into the archive: a folder per day (or hour), its manifest written last.

Nothing is ever deleted here: the periods of the archive are the lifecycle of its bucket. A folder with a manifest is
complete and left alone; one without is made again, so a run that was killed goes on where it ended.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Callable

from jobs.errors import JobError
from jobs.job import Json
from jobs.server import Server
from jobs.stores import Lock, Store

PARTITIONS = {"day": 86400, "hour": 3600}
# Compressed bytes after which a file is full: what is held in memory at once.
FILE_BYTES = 16 << 20
MANIFEST = "manifest.json"
LOCKS = ("governance", "compliance")
_NANO = 10**9


class Loki:
    """`connection`: url, ca_file, username; `tenant` when Loki asks for one."""

    def __init__(self, connection: Mapping[str, Any], password: str, tenant: str, page: int) -> None:
        self._server = Server(connection, password, {"X-Scope-OrgID": tenant} if tenant else {})
        self.url = self._server.url
        self._page = page

    def _ask(self, path: str, **query: Any) -> Any:
        return self._server.json(f"{path}?{urllib.parse.urlencode(query)}", timeout=120)

    def version(self) -> str:
        return str(self._ask("/loki/api/v1/status/buildinfo").get("version", ""))

    def lines(self, selector: str, start: int, end: int) -> Iterator[Json]:
        """Every line from start to before end (nanoseconds), in order, page by page."""
        seen: set[tuple[str, str]] = set()
        while True:
            answer = self._ask(
                "/loki/api/v1/query_range",
                query=selector,
                start=start,
                end=end,
                limit=self._page,
                direction="forward",
            )
            page = [
                (int(value[0]), json.dumps(stream["stream"], sort_keys=True), value[1])
                for stream in answer["data"]["result"]
                for value in stream["values"]
            ]
            page.sort()
            new = [one for one in page if one[0] > start or one[1:] not in seen]
            for stamp, labels, line in new:
                yield {"timestamp": str(stamp), "labels": json.loads(labels), "line": line}
            if len(page) < self._page:
                return
            last = page[-1][0]
            if not new:
                raise JobError(
                    f"{self.url}: more than {self._page} lines of {selector} at {last} ns; raise retention_archive_page and loki_max_entries"
                )
            # The next page begins with the lines of the same nanosecond, which may continue there.
            seen = (seen if last == start else set()) | {one[1:] for one in page if one[0] == last}
            start = last


def partitions(length: int, since: float, until: float) -> Iterator[int]:
    """Starts (seconds) of the whole days or hours that are over."""
    start = -(-int(since) // length) * length
    while start + length <= until:
        yield start
        start += length


def folder(name: str, tenant: str, start: int, length: int) -> str:
    """Where a partition lies: the class first, for the lifecycle goes by it."""
    layout = "%Y/%m/%d" if length == PARTITIONS["day"] else "%Y/%m/%d/%H"
    day = datetime.fromtimestamp(start, timezone.utc).strftime(layout)
    return "/".join([name, *([tenant] if tenant else []), day])


def validate(config: Json) -> None:
    """Raises JobError for settings that could not work."""
    if config["partition"] not in PARTITIONS:
        raise JobError(f"retention_archive_partition: {config['partition']!r} is neither day nor hour")
    for name, mode in config["locks"].items():
        if mode not in LOCKS:
            raise JobError(f"platform_archive_locks.{name}: {mode!r} is neither {' nor '.join(LOCKS)}")
        if not config["classes"].get(name, {}).get("kept_days"):
            there = ", ".join(sorted(config["classes"]))
            raise JobError(
                f"platform_archive_locks.{name}: the archive keeps no such class; it keeps {there}"
            )


def run(config: Json, password: str, store: Store, say: Callable[[str], None] = print) -> Json:
    """Copies what is not yet in the archive; returns counts. Raises JobError at the end for classes that could not be read."""
    length = PARTITIONS[config["partition"]]
    done = {"partitions": 0, "lines": 0, "bytes": 0}
    faults = []
    until = time.time() - float(config["settle"])
    for tenant in config["tenants"] or [""]:
        loki = Loki(config["loki"], password, tenant, int(config["page"]))
        for name, one in config["classes"].items():
            # Of a day at the edge of Loki's period a part is gone already.
            since = time.time() - int(one["days"]) * 86400
            try:
                there = {
                    key.rpartition("/")[0]
                    for key, _size in store.list(f"{name}/")
                    if key.endswith("/" + MANIFEST)
                }
                for start in partitions(length, since, until):
                    place = folder(name, tenant, start, length)
                    if place not in there:
                        lock = _lock(config["locks"].get(name, ""), one)
                        manifest = _copy(
                            loki, store, place, name, tenant, one["selector"], start, length, lock
                        )
                        done["partitions"] += 1
                        done["lines"] += manifest["lines"]
                        done["bytes"] += sum(file["size"] for file in manifest["files"])
                        if manifest["lines"]:
                            say(f"{place}: {manifest['lines']} lines")
            except JobError as error:
                faults.append(f"{name}: {error}")
    if faults:
        raise JobError("; ".join(faults))
    return done


def _lock(mode: str, one: Json) -> Lock | None:
    """Until the lifecycle of the bucket removes the class."""
    return Lock(mode, time.time() + int(one["kept_days"]) * 86400) if mode else None


def _copy(
    loki: Loki,
    store: Store,
    place: str,
    name: str,
    tenant: str,
    selector: str,
    start: int,
    length: int,
    lock: Lock | None,
) -> Json:
    files: list[Json] = []
    lines = 0
    for content, count in _files(loki.lines(selector, start * _NANO, (start + length) * _NANO)):
        key = f"{place}/{len(files) + 1:04d}.jsonl.gz"
        store.put(key, content, lock)
        lines += count
        digest = hashlib.sha256(content).hexdigest()
        files.append({"name": key.rpartition("/")[2], "size": len(content), "sha256": digest, "lines": count})
    manifest: Json = {
        "format": 1,
        "class": name,
        "tenant": tenant,
        "selector": selector,
        "from": _iso(start),
        "to": _iso(start + length),
        "made": _iso(int(time.time())),
        "source": f"{loki.url} (Loki {loki.version()})",
        "lines": lines,
        "files": files,
    }
    store.put(f"{place}/{MANIFEST}", json.dumps(manifest, indent=1).encode(), lock)
    return manifest


def _files(lines: Iterator[Json]) -> Iterator[tuple[bytes, int]]:
    """Compressed files of lines, each with its count; without lines no file."""
    buffer, count = io.BytesIO(), 0
    writer = gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0)
    for line in lines:
        writer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        count += 1
        if buffer.tell() > FILE_BYTES:
            writer.close()
            yield buffer.getvalue(), count
            buffer, count = io.BytesIO(), 0
            writer = gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0)
    writer.close()
    if count:
        yield buffer.getvalue(), count


def check(store: Store, prefix: str) -> Json:
    """Reads every manifest below a prefix and compares the digests of its files. Raises JobError naming the first that differs."""
    found = {"partitions": 0, "files": 0, "lines": 0}
    for key, _size in store.list(prefix):
        if not key.endswith("/" + MANIFEST):
            continue
        manifest = json.loads(store.get(key))
        for file in manifest["files"]:
            place = f"{key.rpartition('/')[0]}/{file['name']}"
            content = store.get(place)
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise JobError(f"{place} is not what its manifest says")
            if gzip.decompress(content).count(b"\n") != file["lines"]:
                raise JobError(f"{place} has another number of lines than its manifest says")
        found = {
            "partitions": found["partitions"] + 1,
            "files": found["files"] + len(manifest["files"]),
            "lines": found["lines"] + manifest["lines"],
        }
    return found


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
