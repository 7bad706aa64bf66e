"""The servers as processes on loopback, run with what the roles render for an inventory whose object storage is somebody else's.

Every address has a path that can have one. Only what the machine decides differs: ports, folders, and how often files are read again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Artifact, Store
from ansible_collections.luxima.observability.plugins.module_utils._component import probe
from minio import Minio

from tests.retention.conftest import CACHE, ROOT, Process, free_ports, until

sys.path.insert(0, str(ROOT / "roles/platform/files"))

KEY, SECRET = "somebody", "a secret of somebody"
# Where buckets are names of hosts.
ZONE = "storage.example"
RULES = [
    {
        "name": "app",
        "rules": [
            {"alert": "null", "expr": 'sum(rate({service="shop"} |= "error" [5m])) > 5'},
            {"record": "shop:errors:rate5m", "expr": 'sum(rate({service="shop"} |= "error" [5m]))'},
        ],
    }
]
# Names that YAML quotes.
RECEIVERS = ["null", "007", "yes", "a: b"]
PORTS = (
    "minio", "console", "loki", "loki_grpc", "tempo", "tempo_grpc", "tempo_otlp_http", "tempo_otlp_grpc",
    "prometheus", "alertmanager", "grafana", "blackbox_exporter",
)  # fmt: skip
COMPONENTS = ("loki", "tempo", "alertmanager", "prometheus", "grafana", "blackbox_exporter")
SECRETS = {
    "loki": {"LOKI_S3_SECRET_KEY": SECRET},
    "tempo": {"TEMPO_S3_SECRET_KEY": SECRET},
    "grafana": {
        "GF_SECURITY_ADMIN_PASSWORD": "a password for this test",
        "GF_SECURITY_SECRET_KEY": "a key for this test",
    },
}


def artifact(name: str) -> Artifact:
    found = Store(str(CACHE)).lookup(name, "amd64")
    if found is None:
        pytest.skip(f"no {name} in {CACHE}: `python tests/suite.py artifacts` puts it there")
    return found


@dataclass
class Site:
    """Folders by component: what was rendered, and the processes that were started."""

    folder: Path
    data: Path
    render: Path
    port: dict[str, int]
    processes: dict[str, Process]

    def place(self, component: str) -> Path:
        (found,) = self.render.glob(f"*/{component}")
        return found

    def record(self, component: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place(component) / "record.json").read_text())
        return found

    def program(self, name: str) -> Path:
        """The artifact as a program."""
        have = artifact(name)
        place = self.folder / "bin" / name
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            if have.format == "tree":
                with tarfile.open(have.path) as tree:
                    tree.extractall(self.folder / "share" / name, filter="data")
                place.symlink_to(self.folder / "share" / name / "bin" / name)
            else:
                shutil.copy(have.path, place)
                place.chmod(0o755)
        return place

    def running(self, component: str) -> Process:
        """The server, started when a test first wants it."""
        if component not in self.processes:
            self.processes[component] = self._process(component)
            self.processes[component].start()
        return self.processes[component]

    def _process(self, component: str) -> Process:
        place, record = self.place(component), self.record(component)
        unit = (place / "unit").read_text()
        (start,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
        program = str(self.program(component))
        share = str(self.folder / "share" / component)
        command = [
            word.replace(f"/usr/local/bin/{component}", program).replace(
                f"/opt/luxima/{component}/current/share/{component}", share
            )
            for word in shlex.split(start.replace("%%", "%"))
        ]
        # The roles name the folder in which a release lies; here it is another one.
        for file in (path for path in (place / "etc").rglob("*") if path.is_file()):
            text = file.read_text()
            if f"/etc/{component}/" in text:
                file.write_text(text.replace(f"/etc/{component}/", f"{place}/etc/"))
        command = [word.replace(f"/etc/{component}/", f"{place}/etc/") for word in command]
        (self.data / component).mkdir(parents=True, exist_ok=True)
        environment = {key: str(value) for key, value in record["environment"].items()}
        return Process(
            component,
            command,
            record["service"]["ready"]["url"],
            self.folder,
            {**environment, **SECRETS.get(component, {})},
        )

    def refusals(self, component: str) -> list[str]:
        """Why the role's own proof does not hold now."""
        service = self.record(component)["service"]
        items = [self._here(component, one) for one in (service["ready"], *service["proof"])]
        # What Grafana's start makes of files that are provisioned is proven in tests/grafana.
        asked = [one for one in items if component != "grafana" or "/uid/" not in one["url"]]
        return [told for item in asked if (told := probe.refusal(item, probe.ask(item)))]

    def _here(self, component: str, item: dict[str, Any]) -> dict[str, Any]:
        """A question with its password in a file of this release; rendered secrets have no content."""
        if "password_file" not in item:
            return item
        file = Path(str(item["password_file"]).replace(f"/etc/{component}/", f"{self.place(component)}/etc/"))
        file.write_text(SECRETS[component]["GF_SECURITY_ADMIN_PASSWORD"])
        return {**item, "password_file": str(file)}

    def proven(self, component: str) -> None:
        self.running(component)

        def holds() -> bool:
            told = self.refusals(component)
            assert not told, "; ".join(told)
            return True

        until(f"the proof of {component}", holds)

    def check(self, component: str, number: int) -> subprocess.CompletedProcess[str]:
        """One of the role's checks of the staged files."""
        for name in (component, *(["lokitool"] if component == "loki" else [])):
            self.program(name)
        places = {"bin": str(self.folder / "bin"), "etc": str(self.place(component) / "etc")}
        words = [str(word).format(**places) for word in self.record(component)["validate"][number]]
        environment = {**os.environ, **SECRETS.get(component, {})}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    @property
    def storage(self) -> Minio:
        return Minio(f"127.0.0.1:{self.port['minio']}", KEY, SECRET, secure=False)


def variables(folder: Path, data: Path, port: dict[str, int]) -> dict[str, Any]:
    host = "127.0.0.1"
    external = "https://mon.example.org"
    return {
        "platform_render_dir": str(folder / "render"),
        "ansible_host": host,
        **{f"{name}_port": number for name, number in port.items() if name != "console"},
        **{f"{name}_listen_address": host for name in (*COMPONENTS, "tempo_grpc", "loki_grpc")},
        **{f"{name}_data_dir": str(data / name) for name in COMPONENTS if name != "blackbox_exporter"},
        "tempo_receiver_address": host,
        "loki_s3_url": f"http://{host}:{port['minio']}",
        "loki_s3_access_key": KEY,
        "loki_s3_secret_key": SECRET,
        "loki_s3_encryption": "AES256",
        "loki_path": "/logs",
        "loki_rule_groups": RULES,
        "loki_schema_from": "2024-01-01",
        "loki_tenant_limits": {"fake": {"max_global_streams_per_user": 4711}},
        "loki_config": {"runtime_config": {"period": "1s"}, "ruler": {"poll_interval": "1s"}},
        "tempo_s3_url": f"http://{host}:{port['minio']}",
        "tempo_s3_access_key": KEY,
        "tempo_s3_secret_key": SECRET,
        "tempo_s3_encryption": "AES256",
        "tempo_metrics_generator_enabled": True,
        "tempo_tenant_limits": {"shop": {"ingestion": {"rate_limit_bytes": 30000000}}},
        "tempo_config": {"overrides": {"per_tenant_override_period": "1s"}},
        "prometheus_external_url": f"{external}/prometheus/",
        "alertmanager_external_url": f"{external}/alertmanager/",
        "alertmanager_config": {
            "route": {"receiver": "null"},
            "receivers": [{"name": name} for name in RECEIVERS],
        },
        "grafana_external_url": f"{external}/grafana/",
        "blackbox_exporter_path": "/probes",
    }  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("servers")
    inventory = Path(shutil.copytree(ROOT / "inventories/staging", folder / "inventory"))
    hosts = inventory / "hosts.yml"
    text = hosts.read_text().replace("minio: {hosts: &data {stg-data1: {}}}", "minio: {hosts: {}}")
    hosts.write_text(text.replace("loki: {hosts: *data}", "loki: {hosts: &data {stg-data1: {}}}"))
    port = dict(zip(PORTS, free_ports(len(PORTS))))
    # Not in a place that does not outlive a reboot: the roles refuse that.
    (ROOT / "reports").mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="servers-", dir=ROOT / "reports"))
    given = folder / "variables.json"
    given.write_text(json.dumps(variables(folder, data, port)))
    subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/deploy.yml", "-i", str(inventory),
         "-e", f"@{given}", "--tags", ",".join(COMPONENTS)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    made = Site(folder, data, folder / "render", port, {})
    elsewhere = Process(
        "elsewhere",
        [str(made.program("minio")), "server", f"--address=127.0.0.1:{port['minio']}",
         f"--console-address=127.0.0.1:{port['console']}", str(folder / "elsewhere")],
        f"http://127.0.0.1:{port['minio']}/minio/health/ready",
        folder,
        {"MINIO_ROOT_USER": KEY, "MINIO_DOMAIN": ZONE, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off",
         "MINIO_KMS_SECRET_KEY": "somebody:dGhpcnR5LXR3byBjaGFyYWN0ZXJzIG9mIGEga2V5ISE="},
    )  # fmt: skip
    made.processes["elsewhere"] = elsewhere
    try:
        elsewhere.start()
        for name in ("loki", "tempo", "archive"):
            made.storage.make_bucket(name)
        yield made
    finally:
        for process in reversed(made.processes.values()):
            with suppress(OSError):
                process.stop()
        shutil.rmtree(data, ignore_errors=True)
