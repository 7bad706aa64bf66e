# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Whatever leads to a transaction, it refuses before it touches the host.

The host is this machine in a mount namespace of its own, with layers over what it could write: there lie releases that the roles
rendered. systemd is not asked for anything before a change begins. That servers run on is for scenario `retention`, on a guest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")

INVENTORY = "inventories/staging"
STORES = {
    "loki": "stg-data1",
    "tempo": "stg-data1",
    "minio": "stg-data1",
    "backup": "stg-data1",
    "prometheus": "stg-obs1",
}
DEPLOY = "playbooks/deploy.yml"
NAMES = ("loki_s3", "tempo_s3", "retention_s3", "backup_s3")
VARIABLES: dict[str, Any] = {
    "ansible_connection": "local",
    "ansible_python_interpreter": "/usr/bin/python3",
    "platform_protected": True,
    "minio_root_password": "a password of this test",
    "minio_kms_secret_key": "thirty-two characters of a key!!",
    "proxmox_api_token_secret": "not asked",
    **{f"{name}_secret_key": f"a secret of {name}" for name in NAMES},
    # Nobody answers: what is installed is what is in force.
    **{f"{name}_connection": {"url": "http://127.0.0.1:9"} for name in ("loki", "tempo", "prometheus")},
}  # fmt: skip
# Whatever is not refused stays in here.
MOUNT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {0}/layers
for place in etc usr; do
  mkdir {0}/layers/$place {0}/layers/$place-work
  mount -t overlay overlay -o lowerdir=/$place,upperdir={0}/layers/$place,workdir={0}/layers/$place-work /$place
done
mount --bind {0}/opt /opt
mount --bind {0}/units /etc/systemd/system
mount --bind {0}/data /var/lib
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
exec "$@"
"""


@dataclass
class Machine:
    """A host with a release of each store, and the one before it."""

    folder: Path

    def playbook(self, *words: str) -> tuple[int, str]:
        """Exit code and output of a run in the namespace."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), *words]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", MOUNT.format(self.folder), "sh", *command],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, " ".join((done.stdout + done.stderr).replace("\\", "").split())

    def state(self) -> dict[str, str]:
        """Content of every file of the releases and units."""
        places = [*(self.folder / "opt").rglob("*"), *(self.folder / "units").rglob("*")]
        return {str(path): path.read_text() for path in places if path.is_file()}

    def refused(self, way: str, change: dict[str, Any], inventory: str = INVENTORY) -> str:
        before = self.state()
        given = json.dumps({**VARIABLES, **change})
        code, output = self.playbook(*way.split(), "-i", inventory, "-e", given)
        assert code != 0, output
        assert self.state() == before
        return output


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    found = Machine(tmp_path_factory.mktemp("machine"))
    rendered, opt, units = (found.folder / name for name in ("rendered", "opt", "units"))
    for name in ("opt", "units", "layers", *(f"data/{component}" for component in STORES)):
        (found.folder / name).mkdir(parents=True)
    given = json.dumps({**VARIABLES, "platform_render_dir": str(rendered)})
    words = ("--limit", ",".join(set(STORES.values())), "--tags", ",".join(STORES))
    _, output = found.playbook(DEPLOY, "-i", INVENTORY, *words, "-e", given)
    for component, host in STORES.items():
        written = rendered / host / component
        assert written.is_dir(), output
        (found.folder / "data" / component / "something").touch()
        manifest = {**json.loads((written / "record.json").read_text()), "release": "r00002-aaaaaa"}
        for place in ("current", "releases/r00001-bbbbbb"):
            release = opt / "luxima" / component / place
            (release / "unit").mkdir(parents=True)
            if (written / "etc").is_dir():
                shutil.copytree(written / "etc", release / "etc")
            shutil.copy(written / "unit", release / "unit" / f"{component}.service")
            (release / "manifest.json").write_text(json.dumps(manifest))
        (opt / "luxima" / component / "history.json").write_text('["r00001-bbbbbb", "r00002-aaaaaa"]')
        shutil.copy(written / "unit", units / f"{component}.service")
    former = opt / "luxima/prometheus/releases/r00001-bbbbbb/etc/prometheus.yml"
    former.write_text(re.sub(r"time: \w+", "time: 2d", former.read_text()))
    return found


LIMITED = "--limit stg-data1"
OTHERS = "artifacts,minio,tempo,retention,backup,node_exporter,cadvisor,promtail"
WAYS = {
    "limited, one tag": f"{DEPLOY} {LIMITED} --tags loki",
    "without other tags": f"{DEPLOY} {LIMITED} --skip-tags {OTHERS}",
    "from a task on": f"{DEPLOY} --tags loki --start-at-task Loki",
    "site, limited": f"site.yml {LIMITED} --tags loki",
    "role alone": "{alone}",
    "role alone, no inventory plugin": "{bare}",
}
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "shorter": ({"platform_retention_overrides": {"application": {"period": "1d"}}}, '{log_class="application"}: 30d -> 1d'),
    "wrong type": ({"loki_ingestion_rate_mb": "16MB"}, "loki_ingestion_rate_mb of host stg-data1"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_every_way_to_a_component_refuses(
    machine: Machine, way: str, change: dict[str, Any], words: str
) -> None:
    role = {"name": "Loki", "ansible.builtin.import_role": {"name": "loki", "rolespec_validate": False}}
    play = {"name": "Logs", "hosts": "stg-data1", "gather_facts": False, "tasks": [role]}
    books = {"alone": [play], "bare": [{**play, "roles": ["platform"]}]}
    for name, content in books.items():
        (machine.folder / f"{name}.yml").write_text(yaml.safe_dump(content))
    hosts = machine.folder / "hosts.yml"
    bare = {"loki_s3_url": "http://127.0.0.1:9000", "loki_alertmanager_urls": []}
    hosts.write_text(yaml.safe_dump({"all": {"hosts": {"stg-data1": bare}}}))
    inventory = str(hosts) if "{bare}" in way else INVENTORY
    told = machine.refused(
        way.format(**{name: machine.folder / f"{name}.yml" for name in books}), change, inventory
    )
    assert f"component loki on stg-data1: {'1 fault in' if 'type' in words else ''}" in told
    assert words in told, told


@pytest.mark.parametrize(
    ("way", "change", "words"),
    [
        (f"{DEPLOY} {LIMITED} --tags tempo", {"tempo_config": {"overrides": {"defaults": {"compaction": {"block_retention": "1h"}}}}}, "traces: 7d -> 1h; goes: unknown"),
        (f"{DEPLOY} {LIMITED} --tags tempo", {"tempo_bucket": "elsewhere", "platform_protected": False}, "tempo_bucket: storage.trace.s3.bucket in tempo.yml: tempo -> elsewhere"),
        (f"{DEPLOY} {LIMITED} --tags loki", {"loki_schema_from": "2025-01-01", "platform_protected": False}, "loki_schema_from: schema_config.configs in loki.yml: what holds since 2024-04-01 differs"),
        (f"{DEPLOY} {LIMITED} --tags loki", {"loki_schema_periods": [{"from": "2025-01-01"}], "platform_protected": False}, "a period from 2025-01-01 would change how data is read"),
        (f"{DEPLOY} {LIMITED} --tags minio", {"minio_data_dir": "/var/lib/elsewhere", "platform_protected": False}, "minio_data_dir: /var/lib/minio -> /var/lib/elsewhere"),
        (f"{DEPLOY} {LIMITED} --tags minio", {"minio_environment": {"MINIO_VOLUMES": "/srv/{1...4}"}, "platform_protected": False}, "minio_environment: the unit: "),
        (f"{DEPLOY} {LIMITED} --tags backup", {"platform_retention_overrides": {"object_storage": {"period": "2d"}}}, "copies of minio: 14d -> 2d; goes: "),
        (f"{DEPLOY} --limit stg-obs1 --tags prometheus", {"prometheus_arguments": ["--storage.tsdb.retention.size=1MB"]}, "size of metrics: no bound -> 1048576 bytes"),
        ("playbooks/rollback.yml --limit stg-obs1", {"component": "prometheus"}, "metrics: 30d -> 2d"),
    ],
    ids=["overrides of tempo", "bucket", "schema", "period", "directory", "volumes", "copies", "argument", "way back"],
)  # fmt: skip
def test_every_store_is_protected(machine: Machine, way: str, change: dict[str, Any], words: str) -> None:
    told = machine.refused(way, change)
    assert words in told, told
    assert "Nothing was touched." in told


def test_metrics_that_a_removal_left_are_protected(machine: Machine) -> None:
    installed, aside = machine.folder / "opt/luxima/prometheus", machine.folder / "prometheus"
    installed.rename(aside)
    data = machine.folder / "data/prometheus"
    try:
        for number, day in enumerate((0, 12)):
            (data / f"block{number}").mkdir()
            times = {"minTime": day * 86_400_000, "maxTime": (day + 1) * 86_400_000}
            (data / f"block{number}/meta.json").write_text(json.dumps(times))
        way = f"{DEPLOY} --limit stg-obs1 --tags prometheus"
        shorter = {"platform_retention_overrides": {"metrics": {"period": "10d"}}}
        told = machine.refused(way, shorter)
        assert "metrics in /var/lib/prometheus: 13d -> 10d" in told
        assert "Nothing was touched." in told
        assert (
            "metrics in"
            not in machine.playbook(*way.split(), "-i", INVENTORY, "--check", "-e", json.dumps(VARIABLES))[1]
        )
    finally:
        aside.rename(installed)


@pytest.mark.parametrize(
    ("way", "change", "words"),
    [
        (f"{DEPLOY} {LIMITED} --tags tempo", {"tempo_config": {"storage": {"trace": {"s3": {"prefix": "new"}}}}}, "tempo_config: storage.trace.s3.prefix in tempo.yml: nothing -> new"),
        (f"{DEPLOY} {LIMITED} --tags loki", {"loki_config": {"storage_config": {"aws": {"bucketnames": "new"}}}}, "loki_config: storage_config.aws.bucketnames in loki.yml: nothing -> new"),
        (f"{DEPLOY} {LIMITED} --tags minio", {"minio_secret_environment": {"MINIO_VOLUMES": "/srv/new"}}, "minio_environment: MINIO_VOLUMES decides where data is"),
        (f"{DEPLOY} {LIMITED} --tags minio", {"minio_environment": {"MINIO_CONFIG_ENV_FILE": "/srv/new"}}, "minio_environment: the unit: "),
        (f"{DEPLOY} {LIMITED} --tags loki", {"loki_config": {"runtime_config": {"file": "/var/lib/loki/runtime.yml"}}}, "which is not /etc/loki/runtime.yml"),
    ],
    ids=["prefix", "outranked bucket", "secret volumes", "file of variables", "limits of tenants"],
)  # fmt: skip
def test_no_way_round_what_says_where_data_is(
    machine: Machine, way: str, change: dict[str, Any], words: str
) -> None:
    told = machine.refused(way, {**change, "platform_protected": False})
    assert words in told, told
    assert "Nothing was touched." in told
