# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Blocks of a Prometheus: a snapshot that the server makes, the newest hours included; or what it has written to blocks.

The interface for snapshots also deletes series, for whoever reaches the port. Where it is closed, blocks are linked as they
are: they never change, and a link outlives their compaction. The newest two or three hours are in no block yet.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.errors import JobError
from jobs.server import Server

from .repository import Repository
from .source import Entry, Json, Restored, fetch, own, pieces, stopped

READY = "/-/ready"
# Prometheus removes directories of this name when it starts, so a killed restore leaves nothing.
_HALF = ".tmp-for-creation"
_BLOCK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}\Z")
_MARK = "prometheus-snapshot"
# The first block is written when the samples in memory span three hours; the rest is patience.
_FIRST_BLOCK = 4 * 3600
# How often blocks are linked anew because one of them went meanwhile.
_ROUNDS = 5


class Prometheus:
    """`source`: data_dir, service (unit to stop for a restore, may be empty), connection, snapshot (whether to ask for one)."""

    def __init__(self, source: Mapping[str, Any], password: str) -> None:
        self._data = Path(str(source["data_dir"]))
        self._service = str(source.get("service") or "")
        self._asks = bool(source.get("snapshot"))
        self._server = Server(source["connection"], password)

    def version(self) -> str:
        return str(self._server.json("/api/v1/status/buildinfo")["data"]["version"])

    @contextlib.contextmanager
    def capture(self, folder: Path) -> Iterator[Iterable[Entry]]:
        mark = folder / _MARK
        if mark.exists():
            # Of a run that was killed.
            self._remove(mark.read_text())
        name = self._snapshot() if self._asks else f"backup-{time.time_ns()}"
        mark.write_text(name)
        try:
            if not self._asks:
                self._link(self._data / "snapshots" / name)
            yield self._entries(self._data / "snapshots" / name)
        finally:
            self._remove(name)
            mark.unlink()

    def _snapshot(self) -> str:
        try:
            return str(self._server.json("/api/v1/admin/tsdb/snapshot", "POST", 600)["data"]["name"])
        except JobError as error:
            hint = "; prometheus_admin_api opens it" if "admin APIs disabled" in str(error) else ""
            raise JobError(f"{error}{hint}") from None

    def _link(self, snapshot: Path) -> None:
        """The blocks there are, as one state: when one goes meanwhile, what replaced it is there, and all are linked again."""
        if not snapshot.parent.exists():
            snapshot.parent.mkdir(mode=0o750)
            own(snapshot.parent, self._data)
        for _round in range(_ROUNDS):
            shutil.rmtree(snapshot, ignore_errors=True)
            snapshot.mkdir(mode=0o700)
            blocks = [path for path in self._data.iterdir() if _BLOCK.match(path.name)]
            try:
                for block in blocks:
                    shutil.copytree(block, snapshot / block.name, copy_function=os.link)
                return
            except (FileNotFoundError, shutil.Error):
                continue
        raise JobError(f"blocks of {self._data} came and went {_ROUNDS} times while they were linked")

    def nothing(self) -> str:
        loaded = re.search(
            r"^prometheus_tsdb_blocks_loaded (\S+)", self._server.ask("/metrics"), re.MULTILINE
        )
        if loaded and float(loaded[1]):
            raise JobError(
                f"no block was found in {self._data}, and {self._server.url} has {float(loaded[1]):.0f}; is that the server's folder (prometheus_data_dir)?"
            )
        head = self._server.json("/api/v1/status/tsdb")["data"]["headStats"]
        age = time.time() - float(head["minTime"]) / 1000 if int(head["numSeries"]) else 0.0
        if self._asks and age > 60:
            raise JobError(f"the snapshot of {self._server.url} holds nothing, and the server has samples")
        if age > _FIRST_BLOCK:
            raise JobError(
                f"{self._server.url} has samples of the last {age / 3600:.0f} hours and has written no block; journalctl -u prometheus says why. Nothing of it is copied"
            )
        return "Prometheus has written no block yet, which it does three hours after its first sample; prometheus_admin_api lets copies hold the newest hours too"

    def _remove(self, name: str) -> None:
        if name and "/" not in name:
            shutil.rmtree(self._data / "snapshots" / name, ignore_errors=True)

    def _entries(self, snapshot: Path) -> Iterator[Entry]:
        for path in sorted(path for path in snapshot.rglob("*") if path.is_file()):
            stamp = path.stat()
            version = f"{stamp.st_size}-{stamp.st_mtime_ns}"
            yield Entry(str(path.relative_to(snapshot)), version, lambda path=path: ({}, pieces(path)))  # type: ignore[misc]

    def restore(self, copies: Repository, manifest: Json, overwrite: bool, folder: Path) -> Restored:
        done = Restored()
        blocks = {
            block: list(entries)
            for block, entries in itertools.groupby(
                sorted(manifest["files"], key=lambda entry: str(entry["path"])),
                lambda entry: str(entry["path"]).partition("/")[0],
            )
            if _BLOCK.match(block)
        }
        with stopped(self._service):
            for block, entries in blocks.items():
                if (self._data / block).exists():
                    # A block's name is unique and its content never changes.
                    done.kept += len(entries)
                    continue
                half = self._data / (block + _HALF)
                shutil.rmtree(half, ignore_errors=True)
                for entry in entries:
                    path = half / str(entry["path"]).partition("/")[2]
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
                    fetch(copies, entry, path)
                    done.files += 1
                    done.size += entry["size"]
                own(half, self._data)
                half.rename(self._data / block)
        if self._service:
            self._server.wait(READY, 300)
        return done
