# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Databases of a PostgreSQL server: roles and settings of the cluster, and a dump of each database (custom format)."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.commands import account, command, last_words, output
from jobs.errors import JobError

from .repository import Repository
from .source import Entry, Json, Restored, fetch

GLOBALS = "globals.sql"
SUFFIX = ".dump"
# Objects of users; an extension's own do not count.
_TABLES = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm', 'S')"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)


class PostgreSQL:
    """`source`: host (empty: the local socket), port, username, databases (empty: all), user (of the system)."""

    def __init__(self, source: Mapping[str, Any], password: str) -> None:
        self._host, self._port = str(source.get("host") or ""), str(source.get("port") or 5432)
        self._name = str(source.get("username") or "postgres")
        self._chosen = [str(name) for name in source.get("databases") or []]
        self._user = str(source.get("user") or "")
        self._password = password
        self._environment: dict[str, str] = {}

    def _where(self) -> list[str]:
        return [
            *(["--host", self._host] if self._host else []),
            "--port",
            self._port,
            "--username",
            self._name,
        ]

    def _run(self, program: str, *words: str, **more: Any) -> str:
        return command(
            [program, *self._where(), "--no-password", *words], self._user, self._environment, **more
        )

    def _ask(self, statement: str, database: str = "template1") -> list[str]:
        found = self._run(
            "psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement
        )
        return [line for line in found.splitlines() if line]

    @contextlib.contextmanager
    def _ready(self, folder: Path) -> Iterator[None]:
        """With the password in a file that only the user of the commands reads."""
        self._environment = {"LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "15"}
        file = folder / "pgpass"
        if self._password:
            escaped = self._password.replace("\\", "\\\\").replace(":", "\\:")
            file.touch(mode=0o600)
            file.write_text(f"*:*:*:*:{escaped}\n")
            self._hand(file)
            self._environment["PGPASSFILE"] = str(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def _hand(self, path: Path) -> None:
        if self._user and os.geteuid() == 0:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def nothing(self) -> str:
        raise JobError("a dump is a file, and no file was copied")

    def version(self) -> str:
        return self._run(
            "psql", "--no-psqlrc", "-qAt", "-d", "template1", "-c", "SHOW server_version"
        ).strip()

    def _databases(self) -> list[str]:
        found = self._ask(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        )
        lost = sorted(set(self._chosen) - set(found))
        if lost:
            raise JobError(
                f"backup_postgresql_databases: the server has no database {', '.join(lost)}; it has {', '.join(found)}"
            )
        return self._chosen or found

    @contextlib.contextmanager
    def capture(self, folder: Path) -> Iterator[Iterable[Entry]]:
        with self._ready(folder):
            yield [
                Entry(GLOBALS, "", lambda: ({}, self._dump("pg_dumpall", "--globals-only"))),
                *[self._entry(name) for name in self._databases()],
            ]

    def _entry(self, name: str) -> Entry:
        return Entry(
            name + SUFFIX, "", lambda: ({}, self._dump("pg_dump", "--format=custom", "--dbname", name))
        )

    def _dump(self, program: str, *words: str) -> Iterator[bytes]:
        return output([program, *self._where(), "--no-password", *words], self._user, self._environment)

    def restore(self, copies: Repository, manifest: Json, overwrite: bool, folder: Path) -> Restored:
        done = Restored()
        with self._ready(folder):
            files = {entry["path"]: entry for entry in manifest["files"]}
            dumps = {path[: -len(SUFFIX)]: entry for path, entry in files.items() if path.endswith(SUFFIX)}
            there = set(self._ask("SELECT datname FROM pg_database"))
            full = [name for name in sorted(dumps) if name in there and self._ask(_TABLES, name) != ["0"]]
            if full and not overwrite:
                raise JobError(
                    f"these databases hold tables already: {', '.join(full)}; to replace them, add: -e restore_overwrite=true"
                )
            if GLOBALS in files:
                self._globals(b"".join(copies.read(files[GLOBALS])).decode(), done)
            for name, entry in sorted(dumps.items()):
                file = folder / "dump"
                fetch(copies, entry, file)
                try:
                    self._replace(name, file)
                finally:
                    file.unlink()
                done.files += 1
                done.size += entry["size"]
        return done

    def _globals(self, script: str, done: Restored) -> None:
        """Roles that exist keep existing; everything else that is refused is an error."""
        words = ["psql", *self._where(), "--no-password", "--no-psqlrc", "-q", "-d", "template1"]
        ran = subprocess.run(
            words,
            input=script,
            text=True,
            capture_output=True,
            check=False,
            cwd="/",
            env={**os.environ, **self._environment},
            **account(self._user),
        )
        wrong = [
            line
            for line in ran.stderr.splitlines()
            if "ERROR" in line and not re.search(r'role "[^"]*" already exists', line)
        ]
        if ran.returncode or wrong:
            told = last_words("\n".join(wrong) or ran.stderr)
            raise JobError(f"psql: {told}")
        done.notes.append("roles and settings of the cluster")

    def _replace(self, name: str, dump: Path) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        self._ask(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
        # Read from here, so the user of the command needs no way to the folder.
        with dump.open("rb") as stream:
            self._run("pg_restore", "--create", "--exit-on-error", "--dbname", "template1", stdin=stream)
