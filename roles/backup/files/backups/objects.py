# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Buckets of an S3 server, object by object. Object versions are not copied: every copy is a version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobs.commands import command
from jobs.errors import JobError
from jobs.s3 import S3

from .repository import Repository
from .source import Entry, Json, Restored

WORKERS = 4
# Up to this size an object is read by one request; bytes.
WHOLE = 32 << 20
_KEPT = ("content-type", "content-encoding", "cache-control", "content-disposition")


class Objects:
    """`source`: connection (url, access_key, region, ca_file), buckets (empty: all), program (whose version is told)."""

    def __init__(self, source: Mapping[str, Any], password: str) -> None:
        self._server = S3(source["connection"], password)
        self._chosen = [str(name) for name in source.get("buckets") or []]
        self._program = str(source.get("program") or "")

    def nothing(self) -> str:
        return "there is no object in the buckets"

    def version(self) -> str:
        if not self._program:
            return ""
        try:
            words = command([self._program, "--version"]).splitlines()
        except JobError:
            return ""
        return words[0] if words else ""

    def _buckets(self) -> list[str]:
        found = self._server.buckets()
        lost = sorted(set(self._chosen) - set(found))
        if lost:
            raise JobError(
                f"backup_minio_buckets: the server has no bucket {', '.join(lost)}; it has {', '.join(found)}"
            )
        return self._chosen or found

    @contextlib.contextmanager
    def capture(self, folder: Path) -> Iterator[Iterable[Entry]]:
        yield self._entries()

    def _entries(self) -> Iterator[Entry]:
        # What is written from now on is the next copy's: an index that came later may name data that is not in this listing.
        start = self._server.now()
        for bucket in self._buckets():
            yield Entry(f"{bucket}/", "bucket", lambda: ({}, iter(())))
            for one in self._server.objects(bucket):
                if one.modified <= start and not one.key.endswith("/"):
                    yield self._entry(bucket, one.key, one.size, f"{one.etag}-{one.size}-{one.modified:.0f}")

    def _entry(self, bucket: str, key: str, size: int, version: str) -> Entry:
        return Entry(f"{bucket}/{key}", version, lambda: self._open(bucket, key, size))

    def _open(self, bucket: str, key: str, size: int) -> tuple[Json, Iterator[bytes]]:
        first = self._server.get(bucket, key, size=WHOLE if size > WHOLE else 0)
        kept = {
            name: value
            for name, value in first.headers.items()
            if name in _KEPT or name.startswith("x-amz-meta-")
        }

        def content() -> Iterator[bytes]:
            yield first.body
            etag = first.headers.get("etag", "").strip('"')
            for start in range(WHOLE, size, WHOLE):
                yield self._server.get(bucket, key, start, min(WHOLE, size - start), etag).body

        return {"headers": kept}, content()

    def restore(self, copies: Repository, manifest: Json, overwrite: bool, folder: Path) -> Restored:
        done = Restored()
        wanted: dict[str, dict[str, Json]] = {}
        for entry in manifest["files"]:
            bucket, _, key = str(entry["path"]).partition("/")
            wanted.setdefault(bucket, {})
            if key:
                wanted[bucket][key] = entry
        there = self._server.buckets()
        for bucket, entries in wanted.items():
            if bucket not in there:
                self._server.make_bucket(bucket)
            have = {one.key: one.size for one in self._server.objects(bucket)} if bucket in there else {}
            due = [(key, entry) for key, entry in entries.items() if key not in have or overwrite]
            done.kept += len(entries) - len(due)
            with ThreadPoolExecutor(WORKERS) as pool:
                for size in pool.map(lambda item: self._write(copies, bucket, *item), due):  # noqa: B023
                    done.files += 1
                    done.size += size
        return done

    def _write(self, copies: Repository, bucket: str, key: str, entry: Json) -> int:
        headers = entry["attributes"].get("headers", {})
        if len(entry["chunks"]) <= 1:
            self._server.put(bucket, key, b"".join(copies.read(entry)), headers)
        else:
            self._server.put_parts(bucket, key, copies.read(entry), headers)
        return int(entry["size"])
