# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Databases, copied from one real server and put into another one that is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.backup.conftest import SECRET, Cluster, Guest, ObjectServer

ROWS = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM core.audit_log t"


def filled(cluster: Cluster) -> Cluster:
    cluster.ask("CREATE ROLE shop LOGIN PASSWORD 'of the shop'")
    cluster.ask('CREATE DATABASE "shop; DROP" OWNER shop')
    for database in ("postgres", "shop; DROP"):
        cluster.ask(
            "CREATE SCHEMA core; CREATE TABLE core.audit_log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), what text)",
            database,
        )
        cluster.ask(
            "INSERT INTO core.audit_log (what) SELECT repeat(md5(i::text), 4) FROM generate_series(1, 20000) i",
            database,
        )
    return cluster


def test_what_was_copied_is_what_comes_back(clusters: Any, storage: ObjectServer, guest: Guest) -> None:
    first = filled(clusters())
    guest.add("postgresql", first.source(), storage.target("backups"), first.password, SECRET)
    told = guest.do("run", "postgresql")
    assert told["files"] == 3
    assert told["source_version"].startswith("15.")
    before = {name: first.ask(ROWS, name) for name in ("postgres", "shop; DROP")}
    assert all(rows != [""] for rows in before.values())

    second = clusters()
    new = guest.lose("guest1-new")
    new.add("postgresql", second.source(), storage.target("backups"), second.password, SECRET)
    done = new.do("restore", "postgresql")
    assert (done["files"], done["copy"]) == (2, told["id"])
    assert {name: second.ask(ROWS, name) for name in before} == before
    assert second.ask("SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'shop'") == ["t"]
    assert second.ask("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop; DROP'") == [
        "shop"
    ]


def test_databases_with_tables_are_replaced_only_when_asked(
    clusters: Any, storage: ObjectServer, guest: Guest
) -> None:
    cluster = filled(clusters())
    guest.name = "overwriting"
    guest.add(
        "postgresql",
        cluster.source(databases=["postgres"]),
        storage.target("backups"),
        cluster.password,
        SECRET,
    )
    guest.do("run", "postgresql")
    before = cluster.ask(ROWS)
    cluster.ask("DELETE FROM core.audit_log WHERE id > 10")
    assert "add: -e restore_overwrite=true" in guest.refused("restore", "postgresql")
    # Also by a guest that knows nothing: the tables speak for themselves.
    new = guest.lose("other")
    assert "hold tables already: postgres" in new.refused("restore", "postgresql")
    assert len(cluster.ask("SELECT id FROM core.audit_log")) == 10
    guest.do("restore", "--overwrite", "postgresql")
    assert cluster.ask(ROWS) == before


def test_a_refused_password_is_said_and_measured(clusters: Any, tmp_path: Path, guest: Guest) -> None:
    cluster = clusters()
    guest.add("postgresql", cluster.source(), {"directory": str(tmp_path / "copies")}, "wrong")
    told = guest.refused("run", "postgresql")
    assert "password authentication failed" in told
    assert "wrong" not in told
    assert guest.metrics("postgresql")["last_run_success"] == 0
    assert "last_success_timestamp_seconds" not in guest.metrics("postgresql")
    assert guest.refused("restore", "postgresql").startswith("postgresql: there is no copy in")


def test_a_dump_that_breaks_off_is_no_copy(clusters: Any, tmp_path: Path, guest: Guest) -> None:
    cluster = filled(clusters())
    guest.add("postgresql", cluster.source(), {"directory": str(tmp_path / "copies")}, cluster.password)
    kept = guest.do("run", "postgresql")
    # A table whose pages cannot be read: the dump begins well and breaks off.
    (path,) = cluster.ask("SELECT pg_relation_filepath('core.audit_log')")
    cluster.stop("fast")
    with (cluster.folder / "data" / path).open("r+b") as file:
        file.seek(100 * 8192)
        file.write(b"\x55" * 8192)
    cluster.run()
    told = guest.refused("run", "postgresql")
    assert "pg_dump" in told
    assert [copy["id"] for copy in guest.do("list", "postgresql")] == [kept["id"]]
    assert guest.metrics("postgresql")["last_run_success"] == 0
