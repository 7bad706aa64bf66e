# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The platform's stores as processes on loopback: the real binaries, run with what the roles render.

Only speed is changed, and only through configuration: intervals of compaction, polling and scanning.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
# For programs that guests run: the folders whose content lies together there.
JOBS = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        str(ROOT / "roles" / role / "files") for role in ("platform", "backup", "retention")
    ),
}
ROOT_USER, PASSWORD = "administrator", "a password for this test"
# The shipped periods, shortened where the clock of a store counts from the newest data it has.
OVERRIDES = {"audit": {"period": "90d"}, "application": {"period": "30d"}}
TENANTS = {"tenant_001": {"application": "60d", "traces": "3d"}, "tenant_002": {"web": "3d"}}


def binary(sha256: str, into: Path) -> str:
    """The artifact that the role installs, as a program."""
    path = CACHE / "objects" / sha256
    if not path.exists():
        pytest.skip(f"no {path}: `python tests/suite.py artifacts` puts it there")
    program = into / sha256
    if not program.exists():
        shutil.copy(path, program)
        program.chmod(0o755)
    return str(program)


def module(name: str, **arguments: Any) -> dict[str, Any]:
    """One of the collection's modules, run as Ansible runs it on the controller."""
    starter = (
        "import json,runpy,sys\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "with patch_module_args(json.load(sys.stdin)):\n"
        f"    runpy.run_module('ansible_collections.luxima.observability.plugins.modules.{name}', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def loopback() -> str:
    """IPv6 where the machine has it: what works with its brackets works with others."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return "127.0.0.1"
    return "::1"


LOOPBACK = loopback()
# The same in URLs.
PLACE = f"[{LOOPBACK}]" if ":" in LOOPBACK else LOOPBACK


def free_ports(count: int) -> list[int]:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    probes = [socket.create_server(("", 0), family=family, dualstack_ipv6=dual) for _ in range(count)]
    try:
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> str:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def until(what: str, holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Asks until the answer is true; says what was waited for, and the last words, when it never is."""
    deadline, last = time.monotonic() + seconds, "it does not hold"
    while time.monotonic() < deadline:
        try:
            found = holds()
            if found:
                return found
        except (urllib.error.URLError, OSError, AssertionError, KeyError, ValueError) as error:
            last = f"{type(error).__name__}: {error}"
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds:.0f} s ({last})")


@dataclass
class Process:
    """One server; stopped as its service manager would."""

    name: str
    command: list[str]
    ready: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    _running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.stop()
        # Nothing of the caller's surroundings decides how a server behaves.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._running = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        until(f"{self.name} ready", lambda: self.alive() and ask(self.ready) is not None, 60)

    def alive(self) -> bool:
        assert self._running is not None
        if self._running.poll() is not None:
            pytest.fail(f"{self.name} ended:\n{self.log()[-3000:]}")
        return True

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")

    def stop(self) -> None:
        if self._running is not None:
            self._running.terminate()
            try:
                self._running.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self._running.kill()
                self._running.wait()
            self._running = None


@dataclass
class Platform:
    folder: Path
    render: Path
    urls: dict[str, str]
    variables: dict[str, Any]
    plan: dict[str, Any]
    processes: dict[str, Process]
    programs: dict[str, str]
    receiver: str

    @property
    def storage(self) -> dict[str, str]:
        return {"url": self.urls["minio"], "username": ROOT_USER, "password": PASSWORD}

    @property
    def minio(self) -> Minio:
        return Minio(self.urls["minio"].removeprefix("http://"), ROOT_USER, PASSWORD, secure=False)

    def objects(self, bucket: str, prefix: str) -> set[str]:
        return {str(one.object_name) for one in self.minio.list_objects(bucket, prefix, recursive=True)}

    def file(self, component: str, path: str) -> Path:
        (found,) = self.render.glob(f"*/{component}/etc/{path}")
        return found


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("retention")
    names = (
        "minio",
        "console",
        "loki",
        "loki_grpc",
        "tempo",
        "tempo_grpc",
        "otlp_http",
        "otlp_grpc",
        "prometheus",
    )
    port = dict(zip(names, free_ports(len(names))))
    urls = {name: f"http://{PLACE}:{port[name]}" for name in ("minio", "loki", "tempo", "prometheus")}
    render = folder / "render"
    # Not in a place that does not outlive a reboot: the roles refuse that.
    (ROOT / "reports").mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="retention-", dir=ROOT / "reports"))
    variables = {
        "platform_render_dir": str(render),
        "platform_retention_overrides": OVERRIDES,
        "platform_retention_tenants": TENANTS,
        "platform_retention_deletion_delay": "1s",
        **{f"{name}_url": url for name, url in urls.items()},
        **{f"{name}_listen_address": LOOPBACK for name in ("minio", "loki", "tempo", "prometheus")},
        **{f"{name}_port": port[name] for name in ("minio", "loki", "tempo", "prometheus")},
        **{f"{name}_data_dir": str(data / name) for name in ("minio", "loki", "tempo", "prometheus")},
        "minio_console_port": port["console"],
        "minio_root_user": ROOT_USER,
        "minio_root_password": PASSWORD,
        "minio_kms_secret_key": "thirty-two characters of a key!!",
        "loki_s3_url": urls["minio"],
        "loki_s3_secret_key": "a secret of loki",
        "loki_grpc_port": port["loki_grpc"],
        "loki_schema_from": "2024-01-01",
        "loki_compaction_interval": "3s",
        "loki_config": {
            "runtime_config": {"period": "1s", "file": str(folder / "runtime.yml")},
            "limits_config": {"reject_old_samples": False},
            "compactor": {"apply_retention_interval": "3s"},
            "storage_config": {"tsdb_shipper": {"resync_interval": "2s", "cache_ttl": "1m"}},
            "ruler": {"storage": {"local": {"directory": str(folder / "rules")}}},
        },
        "tempo_s3_url": urls["minio"],
        "tempo_s3_secret_key": "a secret of tempo",
        "tempo_grpc_port": port["tempo_grpc"],
        "tempo_otlp_http_port": port["otlp_http"],
        "tempo_otlp_grpc_port": port["otlp_grpc"],
        "tempo_receiver_address": LOOPBACK,
        "loki_grpc_listen_address": LOOPBACK,
        # Tempo's ring gives its parts no address of IPv6 to call each other at.
        "tempo_grpc_listen_address": "127.0.0.1",
        "tempo_multitenancy_enabled": True,
        "tempo_compacted_block_retention": "1s",
        "tempo_max_block_duration": "5s",
        "tempo_trace_idle_period": "1s",
        "tempo_config": {
            "overrides": {
                "per_tenant_override_config": str(folder / "overrides.yml"),
                "per_tenant_override_period": "1s",
            },
            "storage": {"trace": {"blocklist_poll": "2s", "wal": {"ingestion_time_range_slack": "20000h"}}},
            "compactor": {"compaction": {"compaction_cycle": "3s"}},
            "ingester": {"flush_check_period": "1s"},
        },
    }
    given = folder / "variables.json"
    given.write_text(json.dumps(variables))
    bin_dir = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    subprocess.run(
        ["ansible-playbook", "playbooks/deploy.yml", "-i", "inventories/staging", "-e", f"@{given}", "--tags", "minio,loki,tempo,prometheus"],
        cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    shown = subprocess.run(
        ["ansible", "localhost", "-i", "inventories/staging", "-e", f"@{given}", "-m", "ansible.builtin.debug",
         "-a", "msg={{ {'plan': platform_retention_plan, 'buckets': platform_buckets} }}"],
        cwd=ROOT, env={**environment, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer = json.loads(shown.stdout[shown.stdout.index("{") :])["msg"]
    variables["platform_buckets"] = answer["buckets"]
    processes, programs = made(folder, data, render, urls, port)
    running = Platform(
        folder,
        render,
        urls,
        variables,
        answer["plan"],
        processes,
        programs,
        f"http://{PLACE}:{port['otlp_http']}",
    )
    (folder / "runtime.yml").write_bytes(running.file("loki", "runtime.yml").read_bytes())
    (folder / "overrides.yml").write_bytes(running.file("tempo", "overrides.yml").read_bytes())
    (folder / "rules").mkdir()
    try:
        processes["minio"].start()
        result = module(
            "bucket",
            connection=running.storage,
            buckets=[{**one, "encryption": "AES256"} for one in answer["buckets"]],
        )
        assert not result.get("failed"), result
        yield running
    finally:
        for process in processes.values():
            with suppress(OSError):
                process.stop()
        shutil.rmtree(data, ignore_errors=True)


def made(
    folder: Path, data: Path, render: Path, urls: dict[str, str], port: dict[str, int]
) -> tuple[dict[str, Process], dict[str, str]]:
    """A process per store, from the command and the environment of its rendered unit."""
    secrets = {
        "minio": {
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD": PASSWORD,
            # What the role makes of the secret above.
            "MINIO_KMS_SECRET_KEY": "objects:dGhpcnR5LXR3byBjaGFyYWN0ZXJzIG9mIGEga2V5ISE=",
            # Speed: a scan of all objects each second instead of each minute.
            "MINIO_SCANNER_CYCLE": "1s",
            "MINIO_SCANNER_SPEED": "fastest",
        },
        "loki": {"LOKI_S3_SECRET_KEY": "a secret of loki"},
        "tempo": {"TEMPO_S3_SECRET_KEY": "a secret of tempo"},
        "prometheus": {},
    }
    ready = {"minio": "/minio/health/ready", "loki": "/ready", "tempo": "/ready", "prometheus": "/-/ready"}
    found: dict[str, Process] = {}
    programs: dict[str, str] = {}
    (folder / "bin").mkdir()
    for name, own in secrets.items():
        (folder_of,) = render.glob(f"*/{name}")
        record = json.loads((folder_of / "record.json").read_text())
        (data / name).mkdir(parents=True, exist_ok=True)
        programs |= {
            artifact: binary(one["sha256"], folder / "bin")
            for artifact, one in record["artifacts"].items()
            if artifact in (name, "promtool")
        }
        (start,) = re.findall(r"^ExecStart=(.+)$", (folder_of / "unit").read_text(), re.MULTILINE)
        command = [
            word.replace(f"/usr/local/bin/{name}", programs[name]).replace(
                f"/etc/{name}/", f"{folder_of}/etc/"
            )
            for word in shlex.split(start)
        ]
        plain = {
            key: str(value)
            for key, value in (record.get("environment") or {}).items()
            if value != "<secret>" and key != "HOME"
        }
        found[name] = Process(name, command, urls[name] + ready[name], folder, {**plain, **own})
    return found, programs
