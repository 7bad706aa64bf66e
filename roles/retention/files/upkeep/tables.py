# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Deletes rows past their period from tables of PostgreSQL, in batches, with the server's own psql."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from jobs.commands import command
from jobs.errors import JobError
from jobs.job import Json

# Leaves of a partitioned table are tables of their own: a row's place is only unique in its leaf.
_LEAVES = """
SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname || '.' || p.relname
FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace
CROSS JOIN LATERAL (SELECT p.oid AS leaf WHERE p.relkind = 'r' UNION SELECT t.relid FROM pg_partition_tree(p.oid) t WHERE t.isleaf) l
JOIN pg_class c ON c.oid = l.leaf
WHERE p.relkind IN ('r', 'p') AND n.nspname = :'schema' AND (:'name' = '*' AND NOT p.relispartition OR p.relname = :'name')
ORDER BY 2
"""
_COLUMN = "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = :'table'::oid AND attname = :'column' AND NOT attisdropped"
# Names are given to psql in quotes already, or quoted by it.
_DELETE = """
WITH gone AS (DELETE FROM :table WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM :table WHERE :"column" < now() - make_interval(days => :days) LIMIT :batch FOR UPDATE SKIP LOCKED
)) RETURNING 1) SELECT count(*) FROM gone
"""
_AGES = """
SELECT extract(epoch FROM min(:"column")), count(*) FILTER (WHERE :"column" < now() - make_interval(days => :days)) FROM :table
"""
_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")


@dataclass(frozen=True)
class Table:
    """One table (or leaf of a partitioned one); `sql` is its quoted name, `days` its period, None when it is kept for ever."""

    pattern: str
    sql: str
    column: str
    days: int | None


class Database:
    """One database: `host` (empty: the local socket), port, username, name, user (of the system), password."""

    def __init__(self, config: Mapping[str, Any], password: str = "") -> None:
        self._config = config
        self._password = password

    def ask(self, statement: str, **values: Any) -> list[list[str]]:
        """Rows of a statement; values are given to psql, which quotes them. Raises JobError with the server's words."""
        config = self._config
        words = ["psql", "--no-psqlrc", "-qAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "--no-password"]
        words += ["--host", str(config["host"])] if config.get("host") else []
        words += ["--port", str(config.get("port") or 5432), "--username", str(config["username"])]
        words += ["--dbname", str(config["name"])]
        for name, value in values.items():
            words += ["-v", f"{name}={value}"]
        environment = {"PGCONNECT_TIMEOUT": "15", "PGTZ": "UTC", "LC_ALL": "C.UTF-8"}
        environment["PGOPTIONS"] = "-c lock_timeout=10s -c statement_timeout=300s"
        if self._password:
            # The environment of a process is read by its own user and root only, unlike its arguments.
            environment["PGPASSWORD"] = self._password
        try:
            told = command(words, str(config.get("user") or ""), environment, input=statement)
        except JobError as error:
            raise JobError(f"database {config['name']}: {error}") from None
        return [line.split("\t") for line in told.splitlines() if line]


def _entries(config: Mapping[str, Any]) -> list[Json]:
    """Those with a period, and those that are kept for ever, which have no days."""
    return [*config["tables"], *config.get("keep", [])]


def found(database: Database, config: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """The tables that the patterns mean, and what is wrong with some of them.

    A named table goes before `schema.*`, also one that is kept or wrong: no other class takes it.
    """
    taken: dict[str, Table] = {}
    claimed: set[str] = set()
    faults = []
    # In doubt, such as a partition of its own class, data is kept.
    order = sorted(_entries(config), key=lambda one: (str(one["table"]).endswith("*"), "days" in one))
    for entry in order:
        kept = entry.get("days") is None
        pattern, column = str(entry["table"]), str(entry["column"])
        schema, _, name = pattern.partition(".")
        rows = database.ask(_LEAVES, schema=schema, name=name)
        if not rows and name != "*" and not kept:
            faults.append(f"{pattern}: there is no such table in database {config['database']['name']}")
        for oid, sql, _parent in rows:
            if sql in claimed:
                continue
            claimed.add(sql)
            kinds = database.ask(_COLUMN, table=oid, column=column)
            if not kinds or kinds[0][0] not in _TIMES:
                if kept:
                    continue
                kind = f"is {kinds[0][0]}" if kinds else "does not exist"
                faults.append(
                    f"{sql}: column {column} {kind}; platform_retention_tables names one with a time"
                )
                continue
            taken[sql] = Table(pattern, sql, column, None if kept else int(entry["days"]))
    return list(taken.values()), faults


def run(config: Json, password: str, say: Callable[[str], None] = print) -> Json:
    """Deletes what is past its period; returns rows by table. Raises JobError at the end for what could not be done."""
    database = Database(config["database"], password)
    every, faults = found(database, config)
    tables = [table for table in every if table.days is not None]
    deleted: dict[str, int] = {}
    for table in tables:
        try:
            for count in _batches(database, table, int(config["batch"]), float(config["pause"])):
                deleted[table.sql] = deleted.get(table.sql, 0) + count
        except JobError as error:
            faults.append(f"{table.sql}: {error}")
        if deleted.get(table.sql):
            say(f"{table.sql}: {deleted[table.sql]} rows older than {table.days} days deleted")
    if faults:
        raise JobError("; ".join(faults))
    return {"rows": sum(deleted.values()), "tables": len(tables)}


def _batches(database: Database, table: Table, batch: int, pause: float) -> Iterator[int]:
    """Counts of the batches; each is a transaction of its own, so that a kill loses one and nobody waits long for a lock."""
    while True:
        rows = database.ask(_DELETE, table=table.sql, column=table.column, days=table.days, batch=batch)
        count = int(rows[0][0])
        yield count
        if count < batch:
            return
        time.sleep(pause)


def report(config: Json, password: str, wanted: Mapping[str, int]) -> list[Json]:
    """Per pattern: period, tables, time of the oldest row, rows older than the wanted days (its own when not given).

    Of what is kept for ever nothing is counted (None) unless days are wanted.
    """
    database = Database(config["database"], password)
    tables, _faults = found(database, config)
    shown = []
    for entry in _entries(config):
        pattern, period = str(entry["table"]), entry.get("days")
        own = [one for one in tables if one.pattern == pattern]
        counted = wanted.get(pattern, period)
        days = 0 if counted is None else int(counted)
        rows = [database.ask(_AGES, table=one.sql, column=one.column, days=days)[0] for one in own]
        shown.append(
            {
                "pattern": pattern,
                "period": "forever" if period is None else f"{period}d",
                "tables": [one.sql for one in own],
                "oldest": min((float(row[0]) for row in rows if row[0]), default=None),
                "beyond": None if counted is None else sum(int(row[1]) for row in rows),
            }
        )
    return shown


def validate(config: Mapping[str, Any]) -> None:
    json.dumps(config["database"])
    for entry in config["tables"]:
        if int(entry["days"]) < 1:
            raise JobError(f"{entry['table']}: a period of {entry['days']} days would empty the table")
