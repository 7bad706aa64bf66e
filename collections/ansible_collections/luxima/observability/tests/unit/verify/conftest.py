# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A whole small platform of real servers on loopback, started once, and the module run against it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store
from ansible_collections.luxima.observability.plugins.module_utils._servers.client import Client
from ansible_collections.luxima.observability.plugins.modules import verify

ENVIRONMENT = "unit"


def binary(name: str) -> str:
    """A server's program: from LUXIMA_TEST_BIN_DIR, else from the artifact cache. Missing is a failure, not a skip."""
    folder = os.environ.get("LUXIMA_TEST_BIN_DIR", "")
    if folder and (Path(folder) / name).is_file():
        return str(Path(folder) / name)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
    found = Store(str(cache)).lookup(name, "amd64")
    if found is None:
        pytest.fail(
            f"{name} is neither in LUXIMA_TEST_BIN_DIR={folder!r} nor in {cache}; run `make artifacts`"
        )
    path = Path(found.path)
    if os.access(path, os.X_OK):
        return str(path)
    # The store keeps content, not modes.
    copy = Path(os.environ["PYTEST_VERIFY_BIN"]) / name
    if not copy.exists():
        shutil.copyfile(path, copy)
        copy.chmod(0o755)
    return str(copy)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{url} never answered; {log.name} says:\n{log.read_text()[-2000:]}")


class Platform:
    """Real servers, by name; each has its port, and can be started with any configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.processes: list[subprocess.Popen[bytes]] = []

    def port(self, name: str) -> int:
        return self.ports.setdefault(name, free_port())

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port(name)}"

    def start(self, name: str, command: list[str], ready: str, **environment: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=self.folder,
            )
        self.processes.append(process)
        wait_for(ready, process, log)
        return process

    def write(self, name: str, content: Any) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def stop(self) -> None:
        # Nobody reads their data again.
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def start_prometheus(platform: Platform, name: str, targets: list[str], rules: list[dict[str, Any]]) -> None:
    """A Prometheus that scrapes itself as `prometheus` and the given targets as `extra`."""
    port = platform.port(name)
    rule_file = platform.write(f"{name}-rules.yml", {"groups": rules})
    jobs = [
        {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
        {
            "job_name": "alertmanager",
            "static_configs": [{"targets": [f"127.0.0.1:{platform.port('alertmanager')}"]}],
        },
    ]
    if targets:
        jobs.append({"job_name": "extra", "static_configs": [{"targets": targets}]})
    alertmanagers = [{"static_configs": [{"targets": [f"127.0.0.1:{platform.port('alertmanager')}"]}]}]
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"environment": ENVIRONMENT},
        },
        "rule_files": [rule_file] if rules else [],
        "alerting": {"alertmanagers": alertmanagers},
        "scrape_configs": jobs,
    }
    platform.start(
        name,
        [
            binary("prometheus"),
            f"--config.file={platform.write(f'{name}.yml', config)}",
            f"--storage.tsdb.path={platform.folder / name}",
            "--storage.tsdb.retention.time=30d",
            f"--web.listen-address=127.0.0.1:{port}",
            # An alert that fires before Alertmanager was discovered is lost, and said again only after this.
            "--rules.alert.resend-delay=1s",
        ],
        f"{platform.url(name)}/-/ready",
    )


WATCHDOG = {
    "name": "platform",
    "rules": [{"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "none"}}],
}


def _start_all(platform: Platform) -> None:
    minio = platform.start(
        "minio",
        [
            binary("minio"),
            "server",
            str(platform.folder / "minio"),
            "--address",
            f"127.0.0.1:{platform.port('minio')}",
            "--console-address",
            f"127.0.0.1:{platform.port('console')}",
        ],
        f"{platform.url('minio')}/minio/health/ready",
        MINIO_ROOT_USER="lab-root",
        MINIO_ROOT_PASSWORD="lab-root-password",
    )
    assert minio.poll() is None
    from minio import Minio

    client = Minio(platform.url("minio")[7:], "lab-root", "lab-root-password", secure=False)
    for name in ("loki", "tempo", "empty"):
        client.make_bucket(bucket_name=name)
    s3 = {"access_key_id": "lab-root", "secret_access_key": "lab-root-password"}
    amconfig = {"route": {"receiver": "nobody", "group_wait": "30s"}, "receivers": [{"name": "nobody"}]}
    platform.start(
        "alertmanager",
        [
            binary("alertmanager"),
            f"--config.file={platform.write('alertmanager.yml', amconfig)}",
            f"--storage.path={platform.folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{platform.port('alertmanager')}",
            "--cluster.listen-address=",
        ],
        f"{platform.url('alertmanager')}/-/ready",
    )
    start_prometheus(platform, "prometheus", [], [WATCHDOG])
    dead = f"127.0.0.1:{platform.port('dead')}"
    broken = {"name": "broken", "rules": [{"record": "bad", "expr": "up * on() group_left() up"}]}
    start_prometheus(platform, "sick", [dead], [broken])
    start_prometheus(platform, "bare", [], [])
    loki = {
        "auth_enabled": False,
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": platform.port("loki"),
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": platform.port("loki-grpc"),
        },
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": str(platform.folder / "loki"),
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": "127.0.0.1"},
        },
        "frontend": {"address": "127.0.0.1"},
        "ingester": {"lifecycler": {"min_ready_duration": "0s"}},
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": "s3",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "storage_config": {
            "aws": {
                **s3,
                "endpoint": platform.url("minio")[7:],
                "bucketnames": "loki",
                "insecure": True,
                "s3forcepathstyle": True,
                "region": "us-east-1",
            }
        },
        "compactor": {
            "retention_enabled": True,
            "delete_request_store": "s3",
            "working_directory": str(platform.folder / "compactor"),
        },
        "limits_config": {
            "retention_period": "720h",
            "retention_stream": [{"selector": '{log_class="audit"}', "priority": 10, "period": "2160h"}],
        },
        "analytics": {"reporting_enabled": False},
    }
    platform.start(
        "loki",
        [binary("loki"), f"-config.file={platform.write('loki.yml', loki)}"],
        f"{platform.url('loki')}/ready",
    )
    tempo = {
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": platform.port("tempo"),
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": platform.port("tempo-grpc"),
        },
        "distributor": {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "http": {"endpoint": f"127.0.0.1:{platform.port('otlp-http')}"},
                        "grpc": {"endpoint": f"127.0.0.1:{platform.port('otlp-grpc')}"},
                    }
                }
            }
        },
        "ingester": {
            "lifecycler": {
                "address": "127.0.0.1",
                "min_ready_duration": "0s",
                "ring": {"kvstore": {"store": "inmemory"}, "replication_factor": 1},
            }
        },
        "query_frontend": {},
        "querier": {"frontend_worker": {"frontend_address": f"127.0.0.1:{platform.port('tempo-grpc')}"}},
        # A ring here would make the start wait a minute for its stability.
        "compactor": {"compaction": {"block_retention": "168h"}},
        "storage": {
            "trace": {
                "backend": "s3",
                "wal": {"path": str(platform.folder / "tempo-wal")},
                "s3": {
                    "bucket": "tempo",
                    "endpoint": platform.url("minio")[7:],
                    "insecure": True,
                    "access_key": "lab-root",
                    "secret_key": "lab-root-password",
                },
            }
        },
        "usage_report": {"reporting_enabled": False},
    }
    platform.start(
        "tempo",
        [binary("tempo"), f"-config.file={platform.write('tempo.yml', tempo)}"],
        f"{platform.url('tempo')}/ready",
    )


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    programs = tmp_path_factory.mktemp("programs")
    os.environ["PYTEST_VERIFY_BIN"] = str(programs)
    running = Platform(folder)
    try:
        _start_all(running)
        yield running
    finally:
        running.stop()


Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    """Runs the real module with these arguments and returns what it prints."""

    def call(check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments = {"environment": ENVIRONMENT, **arguments, "_ansible_check_mode": check_mode}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            verify.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return answer

    return call


@pytest.fixture
def connections(platform: Platform) -> dict[str, Any]:
    """Arguments for the healthy platform, without Grafana."""
    secret = {"access_key": "lab-root", "secret_key": "lab-root-password"}
    return {
        "prometheus": [{"url": platform.url("prometheus")}],
        "alertmanager": [{"url": platform.url("alertmanager")}],
        "loki": [{"url": platform.url("loki")}],
        "tempo": [
            {
                "url": platform.url("tempo"),
                "otlp_http_url": platform.url("otlp-http"),
                "otlp_grpc_endpoint": f"127.0.0.1:{platform.port('otlp-grpc')}",
            }
        ],
        "minio": {"url": platform.url("minio")},
        "buckets": [{"name": name, "consumer": name, **secret} for name in ("loki", "tempo")],
        "expected_targets": [
            {"component": name, "address": f"127.0.0.1:{platform.port(name)}"}
            for name in ("prometheus", "alertmanager")
        ],
        "retention": {
            "prometheus": {"time": "30d", "size": ""},
            "loki": {
                "deletion_delay": "2h",
                "retention_period": "30d",
                "retention_stream": [{"selector": '{log_class="audit"}', "priority": 10, "period": "90d"}],
                "overrides": {},
                "tenants": ["fake"],
            },
            "tempo": {"block_retention": "168h", "overrides": {}},
        },
    }


@pytest.fixture(scope="session")
def grafana(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real Grafana with data sources for the platform; `broken` is one whose server is down. Returns its address."""
    home = tmp_path_factory.mktemp("grafana")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
    found = Store(str(cache)).lookup("grafana", "amd64")
    if found is None:
        pytest.fail(f"grafana is not in {cache}; run `make artifacts`")
    subprocess.run(["tar", "-xf", found.path, "-C", str(home)], check=True)
    kinds = ("prometheus", "loki", "tempo", "alertmanager")
    sources = [
        {"name": kind, "type": kind, "uid": kind, "url": platform.url(kind), "access": "proxy"}
        for kind in kinds
    ]
    sources[3]["jsonData"] = {"implementation": "prometheus"}  # type: ignore[assignment]
    folder = home / "provisioning" / "datasources"
    folder.mkdir(parents=True)
    (folder / "all.yml").write_text(yaml.safe_dump({"apiVersion": 1, "datasources": sources}))
    boards = home / "boards"
    (home / "provisioning" / "dashboards").mkdir()
    provider = {"name": "all", "type": "file", "options": {"path": str(boards)}}
    text = yaml.safe_dump({"apiVersion": 1, "providers": [provider]})
    (home / "provisioning" / "dashboards" / "all.yml").write_text(text)
    boards.mkdir()
    (boards / "there.json").write_text(json.dumps({"uid": "there", "title": "There", "panels": []}))
    program = next(path for path in (home / "bin" / "grafana", home / "grafana") if path.exists())
    program.chmod(0o755)
    platform.start(
        "grafana",
        [str(program), "server", "--homepath", str(home)],
        f"{platform.url('grafana')}/api/health",
        GF_SERVER_HTTP_ADDR="127.0.0.1",
        GF_SERVER_HTTP_PORT=str(platform.port("grafana")),
        GF_SECURITY_ADMIN_PASSWORD="lab-admin-password",
        GF_PATHS_DATA=str(home / "data"),
        GF_PATHS_PROVISIONING=str(home / "provisioning"),
        GF_ANALYTICS_REPORTING_ENABLED="false",
        GF_ANALYTICS_CHECK_FOR_UPDATES="false",
        GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES="false",
    )
    by_hand = {"dashboard": {"uid": "by-hand", "title": "By hand", "panels": []}}
    client = Client({"url": platform.url("grafana"), "username": "admin", "password": "lab-admin-password"})
    client.text("/api/dashboards/db", body=by_hand)
    return platform.url("grafana")
