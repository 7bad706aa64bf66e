# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Copies in a store: contents by digest, shared by all copies, and a manifest per copy that is written last.

Below the prefix: ``blobs/<aa>/<sha256>`` holds at most CHUNK bytes, ``copies/<id>.json.gz`` says what a copy consists of::

    {"format": 1, "id", "component", "host", "source_version", "began", "finished" (seconds since 1970), "size" (bytes),
     "files": [{"path", "size", "sha256", "version", "attributes", "chunks": [[sha256, size], ...]}], "extra": {...}}

A copy without its manifest does not exist, so a killed run leaves nothing but contents that the next run finds again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from jobs.errors import Gone, JobError
from jobs.stores import Store

Json = dict[str, Any]
CHUNK = 16 << 20
DAY = 86400


class Repository:
    """The copies of one job. One writer at a time (the job's lock); `add` may be called by several threads."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self.prefix = prefix.strip("/")
        self._guard = threading.Lock()
        self._blobs: dict[str, int] | None = None
        self.added = 0

    @property
    def place(self) -> str:
        return self._store.place(self.prefix)

    # Contents

    def _blob(self, digest: str) -> str:
        return f"{self.prefix}/blobs/{digest[:2]}/{digest}"

    @property
    def blobs(self) -> dict[str, int]:
        """Digest and size of every content in the store."""
        if self._blobs is None:
            self._blobs = {
                name.rpartition("/")[2]: size for name, size in self._store.list(f"{self.prefix}/blobs/")
            }
        return self._blobs

    def holds(self, entry: Json) -> bool:
        """Whether all contents of a file are there whole."""
        return all(self.blobs.get(digest) == size for digest, size in entry["chunks"])

    def add(self, stream: Iterable[bytes]) -> Json:
        """Stores a stream in chunks; {size, sha256, chunks}. What is there already is not sent again."""
        whole, size, chunks = hashlib.sha256(), 0, []
        for chunk in rechunk(stream, CHUNK):
            whole.update(chunk)
            size += len(chunk)
            digest = hashlib.sha256(chunk).hexdigest()
            with self._guard:
                # Claimed before it is there: another thread may come with the same content. `commit` looks whether all arrived.
                new = self.blobs.get(digest) != len(chunk)
                self.blobs[digest] = len(chunk)
            if new:
                self._store.put(self._blob(digest), chunk)
                with self._guard:
                    self.added += len(chunk)
            chunks.append([digest, len(chunk)])
        return {"size": size, "sha256": whole.hexdigest(), "chunks": chunks}

    def read(self, entry: Json) -> Iterator[bytes]:
        """The content of a file, every chunk compared with its digest before it is handed on."""
        for digest, _size in entry["chunks"]:
            content = self._store.get(self._blob(digest))
            if hashlib.sha256(content).hexdigest() != digest:
                raise JobError(
                    f"{self._store.place(self._blob(digest))} is damaged: it is not what its name says"
                )
            yield content

    # Copies

    def _name(self, copy: str) -> str:
        return f"{self.prefix}/copies/{copy}.json.gz"

    def copies(self) -> list[str]:
        """Ids of the complete copies, oldest first."""
        suffix = ".json.gz"
        names = (name.rpartition("/")[2] for name, _size in self._store.list(f"{self.prefix}/copies/"))
        return sorted(name[: -len(suffix)] for name in names if name.endswith(suffix))

    def manifest(self, copy: str) -> Json:
        try:
            found: Json = json.loads(gzip.decompress(self._store.get(self._name(copy))))
        except Gone:
            there = ", ".join(self.copies()[-5:]) or "none"
            raise JobError(f"there is no copy {copy} in {self.place}; the newest are: {there}") from None
        except (OSError, EOFError, ValueError) as error:
            raise JobError(
                f"the manifest {self._store.place(self._name(copy))} is damaged: {error}"
            ) from None
        return found

    def newest(self) -> Json | None:
        """The newest copy whose manifest can be read."""
        for copy in reversed(self.copies()):
            try:
                return self.manifest(copy)
            except JobError:
                continue
        return None

    def commit(self, manifest: Json) -> None:
        """Makes the copy exist, after every content was seen in the store with its size."""
        self._blobs = None
        lost = [entry["path"] for entry in manifest["files"] if not self.holds(entry)]
        if lost:
            raise JobError(f"{self.place} does not hold what was written to it: {', '.join(lost[:3])}")
        content = gzip.compress(json.dumps(manifest, separators=(",", ":")).encode(), 6)
        self._store.put(self._name(manifest["id"]), content)

    def prune(self, keep_days: float, now: float) -> list[str]:
        """Removes copies older than `keep_days`, never the newest one that is whole; then contents nobody refers to."""
        copies = self.copies()
        kept: list[Json] = []
        removed: list[str] = []
        whole = False
        for copy in reversed(copies):
            try:
                manifest = self.manifest(copy)
            except JobError:
                # What cannot be read refers to contents that cannot be known: nothing is collected until it is gone.
                if whole and now - moment(copy) > keep_days * DAY:
                    removed.append(copy)
                    continue
                return []
            if whole and now - moment(copy) > keep_days * DAY:
                removed.append(copy)
                continue
            whole = whole or all(self.holds(entry) for entry in manifest["files"])
            kept.append(manifest)
        for copy in removed:
            self._store.delete(self._name(copy))
        used = {
            digest for manifest in kept for entry in manifest["files"] for digest, _size in entry["chunks"]
        }
        for digest in [digest for digest in self.blobs if digest not in used]:
            self._store.delete(self._blob(digest))
            del self.blobs[digest]
        return sorted(removed)


def identity(now: float) -> str:
    """Id of a copy: its time in UTC, so that ids sort by age."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def moment(copy: str) -> float:
    """Seconds since 1970 of a copy's id."""
    import calendar

    return calendar.timegm(time.strptime(copy, "%Y%m%dT%H%M%SZ"))


def rechunk(stream: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`; the last one may be shorter. Nothing for an empty stream."""
    held = bytearray()
    for piece in stream:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
