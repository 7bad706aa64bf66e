# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Grafana's database, copied while Grafana writes to it (SQLite's own online backup)."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.commands import command
from jobs.errors import JobError
from jobs.server import Server

from .repository import Repository
from .source import Entry, Json, Restored, fetch, own, pieces, stopped

FILE = "grafana.db"
READY = "/api/health"
# Run as the user who owns the database: SQLite may make files beside it, which Grafana must be able to write.
_ONLINE = """
import sqlite3, sys
try:
    source = sqlite3.connect("file:" + sys.argv[1] + "?mode=rw", uri=True, timeout=60)
    target = sqlite3.connect(sys.argv[2])
    source.backup(target, pages=2000, sleep=0.01)
    target.close()
    source.close()
except sqlite3.Error as error:
    sys.exit(sys.argv[1] + ": " + str(error))
"""


class Grafana:
    """`source`: database (path), service (unit to stop for a restore, may be empty), connection (to ask it)."""

    def __init__(self, source: Mapping[str, Any], password: str) -> None:
        self._database = Path(str(source["database"]))
        self._service = str(source.get("service") or "")
        self._server = Server(source["connection"], password)

    def nothing(self) -> str:
        raise JobError("the database of Grafana is a file, and no file was copied")

    def version(self) -> str:
        try:
            return str(self._server.json(READY).get("version", ""))
        except JobError:
            return ""

    @contextlib.contextmanager
    def capture(self, folder: Path) -> Iterator[Iterable[Entry]]:
        if not self._database.is_file():
            raise JobError(f"there is no database {self._database}")
        # Beside the folder's own content, for that user alone.
        private = folder / "grafana"
        shutil.rmtree(private, ignore_errors=True)
        private.mkdir(mode=0o700)
        own(private, self._database)
        target = private / FILE
        try:
            command([sys.executable, "-c", _ONLINE, str(self._database), str(target)], self._database.owner())
            check(target)
            yield [Entry(FILE, "", lambda: ({}, pieces(target)))]
        finally:
            shutil.rmtree(private)

    def restore(self, copies: Repository, manifest: Json, overwrite: bool, folder: Path) -> Restored:
        (entry,) = manifest["files"]
        data = self._database.parent
        new, former = data / f".{FILE}.restored", data / f"{FILE}.before-restore"
        try:
            fetch(copies, entry, new)
            check(new)
            own(new, data)
            new.chmod(0o640)
            with stopped(self._service):
                for beside in ("-wal", "-shm"):
                    Path(f"{self._database}{beside}").unlink(missing_ok=True)
                if self._database.exists():
                    self._database.replace(former)
                new.replace(self._database)
        finally:
            new.unlink(missing_ok=True)
        notes = [f"the database before it is {former}"] if former.exists() else []
        if self._service:
            self._server.wait(READY, 120)
        return Restored(files=1, size=entry["size"], notes=notes)


def check(database: Path) -> None:
    """Raises JobError when SQLite finds the file damaged."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as opened:
            ((told,),) = opened.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.Error as error:
        told = str(error)
    if told != "ok":
        raise JobError(f"{database} is damaged: {told}")
