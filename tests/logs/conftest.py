# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The platform's own Promtail and a Loki as processes on loopback: what a role renders is what runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, into: Path) -> str:
    artifact = Store(str(CACHE)).lookup(name, "amd64")
    if artifact is None:
        pytest.skip(f"{name} is not in the artifact cache: `python tests/suite.py artifacts` puts it there")
    target = into / name
    shutil.copy(artifact.path, target)
    target.chmod(0o755)
    return str(target)


def until(what: str, holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline, last = time.monotonic() + seconds, "it does not hold"
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except (urllib.error.URLError, OSError) as error:
            last = str(error)
        time.sleep(0.2)
    pytest.fail(f"{what}: not within {seconds:.0f} s ({last})")


@contextlib.contextmanager
def running(command: list[str], folder: Path, log: str) -> Iterator[None]:
    with (folder / log).open("wb") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@dataclass(frozen=True)
class Line:
    text: str
    labels: dict[str, str]
    metadata: dict[str, str]


@dataclass
class Logs:
    """What a Loki has for one tenant."""

    url: str
    tenant: str

    def lines(self) -> list[Line]:
        query = urllib.parse.urlencode({"query": '{host=~".+"}', "since": "24h", "limit": 5000})
        request = urllib.request.Request(
            f"{self.url}/loki/api/v1/query_range?{query}",
            headers={
                "X-Loki-Response-Encoding-Flags": "categorize-labels",
                "X-Scope-OrgID": self.tenant,
            },
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            streams = json.load(answer)["data"]["result"]
        found = []
        for stream in streams:
            for _, text, *rest in stream["values"]:
                kept = (rest[0] if rest else {}).get("structuredMetadata", {})
                found.append(Line(text, stream["stream"], kept))
        return found

    def having(self, word: str) -> Line:
        """The one line with this word."""
        found: list[Line] = until(
            f"a line with {word}", lambda: [line for line in self.lines() if word in line.text], 30
        )
        assert len(found) == 1, found
        return found[0]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bin")
    return {name: program(name, folder) for name in ("loki", "promtail")}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, programs: dict[str, str]) -> Iterator[str]:
    tmp_path = tmp_path_factory.mktemp("loki")
    port, grpc = free_port(), free_port()
    config = {
        "auth_enabled": True,
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": port,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": grpc,
        },
        "common": {
            "path_prefix": str(tmp_path / "loki"),
            "replication_factor": 1,
            "instance_addr": "127.0.0.1",
            "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": "127.0.0.1"},
            "storage": {
                "filesystem": {"chunks_directory": str(tmp_path / "chunks"), "rules_directory": str(tmp_path)}
            },
        },
        "frontend": {"scheduler_address": f"127.0.0.1:{grpc}", "address": "127.0.0.1"},
        "frontend_worker": {"scheduler_address": f"127.0.0.1:{grpc}"},
        "ingester": {"lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"}},
        "schema_config": {
            "configs": [
                {
                    "from": "2024-04-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        # What Loki itself would add to a line.
        "limits_config": {"discover_service_name": [], "discover_log_levels": False},
        "analytics": {"reporting_enabled": False},
    }
    path = tmp_path / "loki.yml"
    path.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    with running([programs["loki"], f"-config.file={path}"], tmp_path, "loki.log"):
        until(
            "Loki is ready",
            lambda: Logs(url, "nobody").lines() == [] and urllib.request.urlopen(f"{url}/ready", timeout=5),
        )
        yield url


@pytest.fixture
def loki(server: str, request: pytest.FixtureRequest) -> Logs:
    """Each test has a tenant of its own."""
    return Logs(server, request.node.name)


def rendered(folder: Path, inventory: str = "staging", **variables: Any) -> dict[str, Any]:
    """Promtail's configuration on a host of a shipped inventory."""
    given = folder / "variables.json"
    given.write_text(json.dumps({"platform_render_dir": str(folder / "render"), **variables}))
    done = subprocess.run(
        [
            str(BIN / "ansible-playbook"),
            "playbooks/deploy.yml",
            *("-i", f"inventories/{inventory}", "-e", f"@{given}", "--tags", "promtail"),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = sorted((folder / "render").glob("*/promtail/etc/promtail.yml"))[0]
    assert "&id" not in path.read_text(), "a part of the configuration refers to another one"
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@contextlib.contextmanager
def shipping(config: dict[str, Any], folder: Path, programs: dict[str, str], loki: Logs) -> Iterator[None]:
    """A Promtail that runs a rendered configuration; only where it listens, sends and remembers is changed."""
    path = folder / "promtail.yml"
    changed = {
        **config,
        "positions": {"filename": str(folder / "positions.yml")},
        "clients": [
            {
                **config["clients"][0],
                "url": f"{loki.url}/loki/api/v1/push",
                "tenant_id": loki.tenant,
                "batchwait": "100ms",
            }
        ],
    }
    path.write_text(yaml.safe_dump(changed))
    command = [
        programs["promtail"],
        f"-config.file={path}",
        "-server.http-listen-address=127.0.0.1",
        f"-server.http-listen-port={free_port()}",
        "-server.grpc-listen-address=127.0.0.1",
        "-server.grpc-listen-port=0",
    ]
    with running(command, folder, "promtail.log"):
        yield
