# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One job on this host: take a copy, put one back, read one through; a killed run is gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, ClassVar

from jobs.errors import Gone, JobError
from jobs.job import Job
from jobs.stores import store

from .grafana import Grafana
from .objects import Objects
from .postgresql import PostgreSQL
from .prometheus import Prometheus
from .repository import Repository, identity, moment
from .source import Entry, Json, Source

SOURCES: dict[str, Callable[[Mapping[str, Any], str], Source]] = {
    "postgresql": PostgreSQL,
    "minio": Objects,
    "prometheus": Prometheus,
    "grafana": Grafana,
}
WORKERS = 4
SAY_EVERY = 5.0
# An object that vanished since it was listed means that the listing is no state any more: list again, this often.
ROUNDS = 3


class Backup(Job):
    """Copies of one kind of data on this host (see roles/backup/vars/main.yml)."""

    program, role, label = "backups", "backup", "backup"
    told: ClassVar[Mapping[str, tuple[str, str]]] = {
        "size": ("size_bytes", "What the newest copy holds."),
        "added": ("added_bytes", "What the newest copy added to the store."),
        "copies": ("copies", "Complete copies in the store."),
        "oldest": ("oldest_timestamp_seconds", "Time of the oldest complete copy."),
        "last_restore": ("last_restore_timestamp_seconds", "When a copy was last put back here."),
    }

    def __init__(self, config: Json, secrets: Json, name: str, say: Callable[[str], None] = print) -> None:
        super().__init__(config, secrets, name, say)
        self._host = str(config["host"])

    @property
    def description(self) -> str:
        return f"Backup of {self.name}"

    def _make_folder(self) -> None:
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Passed through, not read, by users that commands run as.
            folder.chmod(0o711)

    def _repository(self, host: str = "") -> Repository:
        place = store(self.settings["target"], self.secret("target"))
        return Repository(place, f"{self.name}/{host or self._host}")

    def _source(self) -> Source:
        return SOURCES[self.name](self.settings["source"], self.secret("source"))

    # Take

    def run(self, adopt: bool = False) -> Json:
        """Takes a copy; returns its manifest without the files. Raises JobError; metrics say so either way."""
        with self._counted() as news:
            manifest, copies = self._take(adopt)
            there = copies.copies()
            news.update(
                last_success=manifest["finished"],
                size=manifest["size"],
                added=copies.added,
                place=copies.place,
                copies=len(there),
                oldest=moment(there[0]),
            )
            return _short(manifest, copies)

    def _take(self, adopt: bool) -> tuple[Json, Repository]:
        copies, source = self._repository(), self._source()
        there = copies.copies()
        began = time.time()
        if there and not self.state().get("series") and not adopt:
            raise JobError(
                f"this guest has taken no copy yet, but {copies.place} holds {len(there)} of the one before it, the newest of {there[-1]}. "
                f"Put it back: playbooks/restore.yml -e component={self.name}; or go on without it: playbooks/backup.yml -e component={self.name} -e backup_adopt=true"
            )
        known = self.state()
        if not there and known.get("copies") and known.get("place") == copies.place and not adopt:
            raise JobError(
                f"{copies.place} held {known['copies']} copies after the last run and holds none now. If a disk is not mounted there, mount it; "
                f"if they are gone, begin anew: playbooks/backup.yml -e component={self.name} -e backup_adopt=true"
            )
        while there and identity(began) == there[-1]:
            # A copy is named after its second.
            time.sleep(0.1)
            began = time.time()
        if there and identity(began) < there[-1]:
            raise JobError(
                f"the newest copy is of {there[-1]}, later than this host's clock ({identity(began)})"
            )
        self._remember(series=self.state().get("series") or identity(began))
        read = self._known(copies)
        with (self._folder / "progress.jsonl").open("a") as journal:
            journal.write("\n")  # a killed run may have left half a line
            for _round in range(ROUNDS):
                with source.capture(self._folder) as entries:
                    version = source.version()
                    files, gone = self._copy(copies, entries, read, journal)
                if not gone:
                    break
                self.say(f"{self.name}: {len(gone)} objects vanished while they were read; looking again")
        note = ""
        if not files:
            # Before it is the newest copy, which a restore would take.
            note = f"the copy holds NOTHING: {source.nothing()}"
            self.say(f"{self.name}: {note}")
        manifest: Json = {
            "format": 1,
            "id": identity(began),
            "component": self.name,
            "host": self._host,
            "source_version": version,
            "began": round(began, 3),
            "finished": round(time.time(), 3),
            "size": sum(entry["size"] for entry in files),
            "note": note,
            "files": sorted(files, key=lambda entry: str(entry["path"])),
        }
        copies.commit(manifest)
        (self._folder / "progress.jsonl").unlink()
        removed = copies.prune(float(self.settings["keep_days"]), began)
        if removed:
            self.say(
                f"{self.name}: removed {len(removed)} copies older than {self.settings['keep_days']} days"
            )
        return manifest, copies

    def _known(self, copies: Repository) -> dict[tuple[str, str], Json]:
        """Files that need not be read again: of the newest copy, and of a run that was killed since."""
        found: dict[tuple[str, str], Json] = {}
        newest = copies.newest()
        entries = list(newest["files"]) if newest else []
        journal = self._folder / "progress.jsonl"
        for line in journal.read_text().splitlines() if journal.exists() else []:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        for entry in entries:
            if entry["version"]:
                found[entry["path"], entry["version"]] = entry
        return found

    def _copy(
        self, copies: Repository, entries: Any, known: dict[tuple[str, str], Json], journal: Any
    ) -> tuple[list[Json], list[str]]:
        """All files of one state, read by several threads; and those that vanished meanwhile."""
        files: list[Json] = []
        gone: list[str] = []
        said = time.monotonic()
        _ = copies.blobs  # listed once, before threads share it
        guard = threading.Lock()

        def one(entry: Entry) -> None:
            had = known.get((entry.path, entry.version)) if entry.version else None
            if had is None or not copies.holds(had):
                try:
                    attributes, content = entry.open()
                    had = {
                        "path": entry.path,
                        "version": entry.version,
                        "attributes": attributes,
                        **copies.add(content),
                    }
                except Gone:
                    with guard:
                        gone.append(entry.path)
                    return
                with guard:
                    journal.write(json.dumps(had) + "\n")
                    journal.flush()
                    if entry.version:
                        known[entry.path, entry.version] = had
            with guard:
                files.append(had)

        with ThreadPoolExecutor(WORKERS) as pool:
            running: set[Future[None]] = set()
            try:
                for entry in entries:
                    running.add(pool.submit(one, entry))
                    if len(running) >= 4 * WORKERS:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                    if time.monotonic() - said > SAY_EVERY:
                        said = time.monotonic()
                        self.say(f"{self.name}: {len(files)} files, {copies.added >> 20} MB new")
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return files, gone

    # Give back

    def copies(self, host: str = "") -> list[Json]:
        """The complete copies, oldest first, without their files."""
        repository = self._repository(host)
        return [_short(repository.manifest(copy), repository) for copy in repository.copies()]

    def _chosen(self, copies: Repository, copy: str) -> Json:
        there = copies.copies()
        if not there:
            raise JobError(f"there is no copy in {copies.place}; copies of another host: -e backup_of=<host>")
        return copies.manifest(copy or there[-1])

    def restore(self, copy: str = "", host: str = "", overwrite: bool = False) -> Json:
        """Puts a copy in place (the newest, when none is named) and says what was done."""
        with self._locked():
            began = time.time()
            copies = self._repository(host)
            manifest = self._chosen(copies, copy)
            if self.state().get("series") and not overwrite:
                raise JobError(
                    f"this guest has data of its own: copies have been taken of it since {self.state()['series']}. "
                    f"To replace them by the copy of {manifest['id']}, add: -e restore_overwrite=true"
                )
            lost = [entry["path"] for entry in manifest["files"] if not copies.holds(entry)]
            if lost:
                raise JobError(
                    f"copy {manifest['id']} is not whole, {len(lost)} files lack contents, the first {lost[0]}; take another: -e backup_copy=<id>"
                )
            self.say(
                f"{self.name}: putting back {manifest['id']}, {len(manifest['files'])} files, {manifest['size'] >> 20} MB"
            )
            done = self._source().restore(copies, manifest, overwrite, self._folder)
            seconds = time.time() - began
            self._remember(series=self.state().get("series") or identity(began), last_restore=time.time())
            return {
                "component": self.name,
                "copy": manifest["id"],
                "from": copies.place,
                "files": done.files,
                "size": done.size,
                "kept": done.kept,
                "notes": done.notes,
                "seconds": round(seconds, 2),
            }

    def check(self, copy: str = "", host: str = "") -> Json:
        """Reads a copy through and compares every digest."""
        copies = self._repository(host)
        manifest = self._chosen(copies, copy)
        for entry in manifest["files"]:
            digest = hashlib.sha256()
            for chunk in copies.read(entry):
                digest.update(chunk)
            if digest.hexdigest() != entry["sha256"]:
                raise JobError(f"{entry['path']} of copy {manifest['id']} is damaged: its digest differs")
        return _short(manifest, copies)


def _short(manifest: Json, copies: Repository) -> Json:
    """A manifest for people: how many files instead of which; `added` are the bytes this run sent."""
    return {**manifest, "files": len(manifest["files"]), "added": copies.added, "place": copies.place}
