# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Rows of a real PostgreSQL: each table keeps what its period says, in batches, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import JOBS, free_ports, until

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"))


class Server:
    """A PostgreSQL of Debian's package on a socket of its own, run by its own user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)

    def as_owner(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["runuser", "-u", "postgres", "--", *words],
            cwd="/",
            check=True,
            capture_output=True,
            text=True,
            **more,
        )

    def start(self) -> None:
        data = str(self.folder / "data")
        self.as_owner(str(BIN / "initdb"), "-D", data, "--auth=peer", "--no-sync", "-U", "postgres")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -p {self.port}"
        log = str(self.folder / "log")
        self.as_owner(str(BIN / "pg_ctl"), "-D", data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        self.as_owner(str(BIN / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def sql(self, text: str) -> list[str]:
        words = ["psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port)]
        return self.as_owner(*words, input=text).stdout.split()


SETUP = """
CREATE SCHEMA core; CREATE SCHEMA internal; CREATE SCHEMA elsewhere;
CREATE TABLE core.audit_log (id serial, created_at timestamptz NOT NULL, words text);
CREATE TABLE core.users (id serial, created_at timestamptz NOT NULL);
CREATE TABLE elsewhere.audit_log (id serial, created_at timestamptz NOT NULL);
CREATE TABLE internal.alert_logs (id serial, created_at timestamp NOT NULL);
CREATE TABLE internal."Audit Deploy" (id serial, created_at date NOT NULL);
CREATE TABLE internal.events (created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at);
CREATE TABLE internal.events_old PARTITION OF internal.events FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE internal.events_new PARTITION OF internal.events FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');
INSERT INTO core.audit_log (created_at) SELECT now() - make_interval(hours => n) FROM generate_series(1, 24 * 100) n;
INSERT INTO core.users (created_at) SELECT created_at FROM core.audit_log;
INSERT INTO elsewhere.audit_log (created_at) SELECT created_at FROM core.audit_log;
INSERT INTO internal.alert_logs (created_at) SELECT created_at AT TIME ZONE 'UTC' FROM core.audit_log;
INSERT INTO internal."Audit Deploy" (created_at) SELECT now()::date - n FROM generate_series(0, 99) n;
INSERT INTO internal.events SELECT created_at FROM core.audit_log;
INSERT INTO internal.events SELECT timestamp '2010-01-01' + make_interval(days => n) FROM generate_series(1, 50) n;
"""
# Hours of 90 and of 30 days that are over; a row of exactly that age is a second younger than its period.
KEPT = {"core.audit_log": 24 * 90, "core.users": 2400, "elsewhere.audit_log": 2400}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not BIN.exists() or os.geteuid() != 0:
        pytest.skip("Debian's postgresql, and root to run it as its user")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/var/tmp"))
    shutil.chown(folder, "postgres", "postgres")
    made = Server(folder)
    try:
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Path:
    """The folder of the job, over a database as it is at the beginning."""
    server.sql("DROP SCHEMA IF EXISTS core, internal, elsewhere CASCADE;" + SETUP)
    write(server, tmp_path)
    (tmp_path / "textfile").mkdir()
    return tmp_path


def write(server: Server, home: Path, *tables: dict[str, Any], batch: int = 100) -> None:
    own = list(tables) or [
        {"table": "internal.*", "column": "created_at", "days": 30},
        {"table": "core.audit_log", "column": "created_at", "days": 90},
    ]
    database = {"host": str(server.folder), "port": server.port, "username": "postgres", "name": "postgres", "user": "postgres"}  # fmt: skip
    job = {"database": database, "tables": own, "batch": batch, "pause": 0, "schedule": "daily", "delay": "0", "max_age": 97200}  # fmt: skip
    config = {
        "state_dir": str(home / "state"),
        "textfile_dir": str(home / "textfile"),
        "jobs": {"tables": job},
    }
    (home / "retention.json").write_text(json.dumps(config))
    (home / "secrets.json").write_text("{}")


def upkeep(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "upkeep", "--folder", str(home), *words],
        env=JOBS,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def count(server: Server, table: str) -> int:
    return int(server.sql(f"SELECT count(*) FROM {table}")[0])


def test_every_table_keeps_and_loses_what_it_must(server: Server, home: Path) -> None:
    done = upkeep(home, "run", "tables")
    assert done.returncode == 0, done.stderr
    found = {name: count(server, name) for name in KEPT}
    # The run takes some seconds, in which the next hour may fall due.
    assert {name: KEPT[name] - found[name] for name in KEPT} == {
        "core.audit_log": 1,
        "core.users": 0,
        "elsewhere.audit_log": 0,
    }
    assert count(server, "internal.alert_logs") == 24 * 30 - 1
    assert count(server, "internal.events") == 24 * 30 - 1
    assert count(server, 'internal."Audit Deploy"') in (30, 31)
    oldest = server.sql("SELECT extract(epoch FROM now() - min(created_at)) FROM core.audit_log")[0]
    assert 89 * 86400 < float(oldest) < 90 * 86400
    # In batches: 241 rows of one table by a hundred.
    assert json.loads(done.stdout)["rows"] > 3000
    assert json.loads(upkeep(home, "run", "tables").stdout)["rows"] == 0
    told = (home / "textfile" / "retention-tables.prom").read_text()
    assert 'platform_retention_last_run_success{job_name="tables"} 1' in told


def keep(home: Path, *tables: dict[str, Any]) -> None:
    config = json.loads((home / "retention.json").read_text())
    config["jobs"]["tables"]["keep"] = list(tables)
    (home / "retention.json").write_text(json.dumps(config))


def test_no_pattern_takes_a_table_that_is_kept_for_ever(server: Server, home: Path) -> None:
    keep(
        home,
        {"table": "internal.alert_logs", "column": "created_at"},
        # A partition, a table without that column, and one that is made later.
        {"table": "internal.events_old", "column": "created_at"},
        {"table": "internal.notes", "column": "nothing"},
        {"table": "internal.later", "column": "created_at"},
    )
    server.sql(
        "CREATE TABLE internal.notes (created_at timestamptz); INSERT INTO internal.notes VALUES ('2001-01-01')"
    )
    done = upkeep(home, "run", "tables")
    assert done.returncode == 0, done.stderr
    assert count(server, "internal.alert_logs") == 2400
    assert count(server, "internal.events_old") == 50
    assert count(server, "internal.events_new") == 24 * 30 - 1
    assert count(server, "internal.notes") == 1
    told = json.loads(upkeep(home, "report", "--period", "internal.events_old=10d").stdout)["tables"]
    rows = {one["pattern"]: one for one in told}
    assert (rows["internal.alert_logs"]["period"], rows["internal.alert_logs"]["beyond"]) == ("forever", None)
    assert rows["internal.events_old"]["beyond"] == 50
    assert set(rows["internal.*"]["tables"]) == {'internal."Audit Deploy"', "internal.events_new"}


def test_a_named_table_is_kept_longer_than_the_partitioned_one_it_is_part_of(
    server: Server, home: Path
) -> None:
    write(server, home, {"table": "internal.events", "column": "created_at", "days": 30})
    keep(home, {"table": "internal.events_old", "column": "created_at"})
    assert upkeep(home, "run", "tables").returncode == 0
    assert (count(server, "internal.events_old"), count(server, "internal.events_new")) == (50, 24 * 30 - 1)


def test_no_pattern_takes_a_named_table_that_is_wrong(server: Server, home: Path) -> None:
    write(
        server,
        home,
        {"table": "internal.*", "column": "created_at", "days": 30},
        {"table": "internal.alert_logs", "column": "made", "days": 400},
    )
    done = upkeep(home, "run", "tables")
    assert done.returncode == 1
    assert "internal.alert_logs: column made does not exist" in done.stderr
    assert count(server, "internal.alert_logs") == 2400


def test_the_report_says_periods_age_and_what_a_shorter_one_would_take(server: Server, home: Path) -> None:
    done = upkeep(home, "report", "--period", "core.audit_log=10d")
    assert done.returncode == 0, done.stderr
    rows = {one["pattern"]: one for one in json.loads(done.stdout)["tables"]}
    assert rows["core.audit_log"]["period"] == "90d"
    assert rows["core.audit_log"]["beyond"] == 24 * 90 + 1
    assert abs(time.time() - 100 * 86400 - rows["core.audit_log"]["oldest"]) < 600
    assert set(rows["internal.*"]["tables"]) == {
        "internal.alert_logs",
        'internal."Audit Deploy"',
        "internal.events_new",
        "internal.events_old",
    }


def test_a_run_that_is_killed_is_finished_by_the_next_and_never_runs_twice(
    server: Server, home: Path
) -> None:
    write(server, home, {"table": "core.audit_log", "column": "created_at", "days": 1}, batch=20)
    before = count(server, "core.audit_log")
    running = subprocess.Popen(
        [sys.executable, "-B", "-m", "upkeep", "--folder", str(home), "run", "tables"], env=JOBS
    )
    until("the first batches", lambda: count(server, "core.audit_log") < before, 20)
    second = upkeep(home, "run", "tables")
    assert second.returncode == 1
    assert "another run of tables is under way" in second.stderr
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = count(server, "core.audit_log")
    assert 24 < left < before
    assert upkeep(home, "run", "tables").returncode == 0
    assert count(server, "core.audit_log") == 23


def test_rows_that_somebody_holds_are_left_for_the_next_run(server: Server, home: Path) -> None:
    holder = threading.Thread(
        target=server.sql,
        args=("BEGIN; SELECT 1 FROM core.audit_log ORDER BY created_at LIMIT 5 FOR UPDATE; SELECT pg_sleep(6); COMMIT;",),
    )  # fmt: skip
    holder.start()
    time.sleep(1)
    assert upkeep(home, "run", "tables").returncode == 0
    assert count(server, "core.audit_log") == KEPT["core.audit_log"] - 1 + 5
    holder.join()
    assert upkeep(home, "run", "tables").returncode == 0
    assert count(server, "core.audit_log") == KEPT["core.audit_log"] - 1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"table": "core.audit", "column": "created_at", "days": 9}, "core.audit: there is no such table"),
        ({"table": "core.users", "column": "made", "days": 9}, "core.users: column made does not exist"),
        ({"table": "core.users", "column": "id", "days": 9}, "core.users: column id is integer"),
    ],
)
def test_a_table_that_cannot_be_kept_is_named_and_the_others_are(
    server: Server, home: Path, entry: dict[str, Any], words: str
) -> None:
    write(server, home, entry, {"table": "core.audit_log", "column": "created_at", "days": 90})
    done = upkeep(home, "run", "tables")
    assert done.returncode == 1
    assert words in done.stderr
    assert count(server, "core.audit_log") == KEPT["core.audit_log"] - 1
    assert count(server, "core.users") == KEPT["core.users"]
    told = (home / "textfile" / "retention-tables.prom").read_text()
    assert 'platform_retention_last_run_success{job_name="tables"} 0' in told


def test_a_server_that_is_away_is_said_so(server: Server, home: Path) -> None:
    config = json.loads((home / "retention.json").read_text())
    config["jobs"]["tables"]["database"]["port"] = 9
    (home / "retention.json").write_text(json.dumps(config))
    done = upkeep(home, "run", "tables")
    assert done.returncode == 1
    assert "database postgres: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
