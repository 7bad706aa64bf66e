# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The database of a running Grafana, copied while it is written to, and served by another Grafana."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backup.conftest import SECRET, Guest, ObjectServer, artifact
from tests.retention.conftest import Process, free_ports

PASSWORD = "of-this-test"


class Server:
    def __init__(self, home: Path, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url, self.data = f"http://127.0.0.1:{port}", folder / "data"
        environment = {
            "GF_PATHS_DATA": str(self.data),
            "GF_PATHS_LOGS": str(folder / "logs"),
            "GF_PATHS_PLUGINS": str(folder / "plugins"),
            "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_DATABASE_WAL": "true",
            "GF_SECURITY_ADMIN_PASSWORD": PASSWORD,
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        }
        command = [str(home / "bin" / "grafana"), "server", f"--homepath={home}"]
        self.process = Process("grafana", command, f"{self.url}/api/health", folder, environment)

    def ask(self, path: str, body: Any = None) -> Any:
        token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    @property
    def source(self) -> dict[str, Any]:
        return {"connection": {"url": self.url}, "database": str(self.data / "grafana.db"), "service": ""}


@pytest.fixture
def grafana(programs: Path, tmp_path: Path) -> Iterator[Any]:
    home = programs / "grafana"
    if not home.exists():
        artifact("grafana", programs)
    made: list[Server] = []

    def make(name: str) -> Server:
        folder = tmp_path / name
        folder.mkdir()
        server = Server(home, folder)
        server.process.start()
        made.append(server)
        return server

    yield make
    for server in made:
        server.process.stop()


def test_what_people_made_comes_back(grafana: Any, storage: ObjectServer, guest: Guest) -> None:
    server = grafana("first")
    for number in range(20):
        server.ask(
            "/api/dashboards/db",
            {"dashboard": {"title": f"Board {number}", "tags": ["made by hand"]}, "overwrite": True},
        )
    server.ask("/api/admin/users", {"name": "Ann", "login": "ann", "password": "secret-of-ann"})
    guest.add("grafana", server.source, storage.target("backups"), target_secret=SECRET)
    told = guest.do("run", "grafana")
    assert told["source_version"]
    # Grafana goes on writing into its own database.
    server.ask("/api/admin/users", {"name": "Bob", "login": "bob", "password": "secret-of-bob"})
    before = {one["uid"]: one["title"] for one in server.ask("/api/search?type=dash-db")}
    assert len(before) == 20

    other = grafana("second")
    assert other.ask("/api/search?type=dash-db") == []
    other.process.stop()
    new = guest.lose("new")
    new.add("grafana", other.source, storage.target("backups"), target_secret=SECRET)
    done = new.do("restore", "grafana")
    assert done["files"] == 1
    assert "the database before it is" in done["notes"][0]
    other.process.start()
    assert {one["uid"]: one["title"] for one in other.ask("/api/search?type=dash-db")} == before
    assert {one["login"] for one in other.ask("/api/users")} == {"admin", "ann"}


def test_a_damaged_database_is_not_copied(guest: Guest, tmp_path: Path) -> None:
    database = tmp_path / "grafana.db"
    database.write_bytes(b"SQLite format 3\0" + b"x" * 8192)
    source = {"connection": {"url": "http://127.0.0.1:1"}, "database": str(database), "service": ""}
    guest.add("grafana", source, {"directory": str(tmp_path / "copies")})
    guest.refused("run", "grafana")
    assert guest.do("list", "grafana") == []
    database.unlink()
    assert f"there is no database {database}" in guest.refused("run", "grafana")
