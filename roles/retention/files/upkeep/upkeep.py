# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The jobs of this host, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jobs.commands import said
from jobs.job import Job, Json
from jobs.stores import Store, store

from . import archive, tables


class Upkeep(Job):
    """The archive of logs, or the rows of tables (see roles/retention/vars/main.yml)."""

    program, role, label = "upkeep", "retention", "job_name"
    told: ClassVar[Mapping[str, tuple[str, str]]] = {
        "rows": ("deleted_rows", "Rows that the last run deleted."),
        "partitions": ("archived_partitions", "Days or hours of a class that the last run copied."),
        "lines": ("archived_lines", "Lines that the last run copied."),
        "bytes": ("archived_bytes", "Compressed bytes that the last run wrote."),
    }

    @property
    def description(self) -> str:
        return {"archive": "Copies of logs into the archive", "tables": "Deletion of old rows"}[self.name]

    def check_settings(self) -> None:
        if self.name == "tables":
            tables.validate(self.settings)
        else:
            archive.validate(self.settings)

    def store(self) -> Store:
        """Where the archive is."""
        return store(self.settings["target"], self.secret("target"))

    def run(self) -> Json:
        """Does the work; returns counts."""
        with self._counted() as news:
            if self.name == "tables":
                done = tables.run(self.settings, self.secret("source"), self.say)
            else:
                done = archive.run(self.settings, self.secret("source"), self.store(), self.say)
            news.update(done)
            return done


def report(config: Json, secrets: Json, wanted: dict[str, int]) -> Json:
    """What this host keeps and how: for the controller."""
    found: Json = {"jobs": {name: Upkeep(config, secrets, name).state() for name in config["jobs"]}}
    if "tables" in config["jobs"]:
        job = Upkeep(config, secrets, "tables")
        found["tables"] = tables.report(job.settings, job.secret("source"), wanted)
        found["timer"] = said("systemctl", "is-active", "retention-tables.timer")
    return found
