# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Whatever leads to a transaction, it refuses what would delete data earlier or leave it unreadable, and the server runs on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.platform import LAB, ROOT, Platform, Run, get

RECORDS = ROOT / "reports" / "runs" / "retention" / "protection"
HOME = Path(__file__).parent / "inventory"
DEPLOY = "playbooks/deploy.yml"
CONFIRMED = ("-e", "platform_retention_shorten_confirmed=dev")
ALONE = """
- name: Logs
  hosts: obs
  gather_facts: false
  tasks:
    - name: Logs
      ansible.builtin.import_role: {name: loki, rolespec_validate: false}
"""
# Without the inventory plugin the shared facts come with role `platform`, and what other hosts would say is written.
BARE_PLAY = """
- name: Logs
  hosts: obs
  gather_facts: false
  roles: [platform, loki]
"""
# What every way to a deployment of Loki looks like; `{alone}` and `{bare}` are playbooks of somebody's own.
WAYS = {
    "site": "site.yml",
    "site limited": "site.yml --limit obs",
    "site limited, one tag": "site.yml --limit obs --tags loki",
    "site without phases": "site.yml --skip-tags validate,provision,artifacts,retention,verify",
    "deploy": "playbooks/deploy.yml",
    "deploy, one tag": "playbooks/deploy.yml --tags loki",
    "deploy limited, one tag": "playbooks/deploy.yml --limit obs --tags loki",
    "deploy without a tag": "playbooks/deploy.yml --limit obs --skip-tags retention,prometheus",
    "deploy from a task on": "playbooks/deploy.yml --start-at-task Loki --tags loki",
    "role alone": "{alone}",
    "role alone, no inventory plugin": "{bare}",
}
SHORTER = {"platform_retention_overrides": {"application": {"period": "1d"}}}
WRONG = {"loki_ingestion_rate_mb": "16MB"}


# A period may be written in many places beside the policy; some of them are refused as such.
PATCHES: dict[str, tuple[str, dict[str, Any], str]] = {
    "loki's configuration": ("loki", {"loki_config": {"limits_config": {"retention_period": "24h"}}}, "follows from platform_retention"),
    "a tenant of loki": ("loki", {"platform_retention_tenants": {}}, 'tenant_id="tenant_001"}: 60d -> 30d'),
    "an argument of prometheus": ("prometheus", {"prometheus_arguments": ["--storage.tsdb.retention.size=1MB"]}, "size of metrics: no bound -> 1048576 bytes"),
    "tempo's defaults": ("tempo", {"tempo_config": {"overrides": {"defaults": {"compaction": {"block_retention": "1h"}}}}}, "traces: 7d -> 1h"),
    "traces": ("tempo", {"platform_retention_overrides": {"traces": {"period": "1d"}}}, "traces: 7d -> 1d"),
    "lifecycles": ("minio", {"platform_retention_overrides": {"object_storage": {"period": "2d"}}}, "replaced versions: 14d -> 2d"),
}  # fmt: skip
# In every environment, for no period would bring it back.
UNREADABLE = {
    "schema": ("loki", {"loki_schema_from": "2025-01-01"}, "loki_schema_from: schema_config.configs in loki.yml: what holds since 2024-04-01 differs"),
    "a period in the past": ("loki", {"loki_schema_periods": [{"from": "2025-01-01"}]}, "a period from 2025-01-01 would change how data is read"),
    "another host's confirmation": ("loki", {"loki_bucket": "elsewhere", "platform_data_change_confirmed": ["loki@elsewhere", "tempo"]}, "loki_bucket: common"),
    "bucket": ("loki", {"loki_bucket": "elsewhere"}, "loki_bucket: common.storage.s3.bucketnames in loki.yml"),
    "tenants": ("loki", {"loki_auth_enabled": True}, "loki_auth_enabled: auth_enabled in loki.yml: false -> true"),
    "bucket of traces": ("tempo", {"tempo_bucket": "elsewhere"}, "tempo_bucket: storage.trace.s3.bucket in tempo.yml"),
    "directory": ("prometheus", {"prometheus_data_dir": "/var/lib/elsewhere"}, "/var/lib/prometheus -> /var/lib/elsewhere"),
    "objects": ("minio", {"minio_data_dir": "/var/lib/elsewhere"}, "/var/lib/minio -> /var/lib/elsewhere"),
}  # fmt: skip
# What is tried on the guest as it stands: name → way, change. A refusal changes nothing that another would see.
REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"shorter: {name}": (way, SHORTER) for name, way in WAYS.items()},
    **{f"wrong: {name}": (way, WRONG) for name, way in WAYS.items()},
    **{name: (f"{DEPLOY} --limit obs --tags {tag}", change) for name, (tag, change, _) in PATCHES.items()},
    **{
        name: (f"{DEPLOY} --limit obs --tags {tag}", {**change, "platform_protected": False})
        for name, (tag, change, _) in UNREADABLE.items()
    },
}
AT_ONCE = 3


class Site:
    """The scenario's guest, and the same one without the inventory plugin."""

    def __init__(self, folder: Path) -> None:
        self.lab = Platform(LAB / "00-platform.yml", LAB / "10-instance", HOME / "hosts.yml")
        self.obs = self.lab.address(11)
        self.places = {"alone": folder / "alone.yml", "bare": folder / "bare.yml"}
        self.places["alone"].write_text(ALONE)
        self.places["bare"].write_text(BARE_PLAY)
        hosts = folder / "hosts.yml"
        variables = {
            "ansible_host": self.obs,
            "loki_s3_url": f"http://{self.obs}:9000",
            "loki_alertmanager_urls": [f"http://{self.obs}:9093"],
        }
        hosts.write_text(json.dumps({"all": {"hosts": {"obs": variables}}}))
        shared = HOME / "group_vars" / "all" / "retention.yml"
        self.bare = Platform(LAB / "10-instance", hosts, options=("-e", f"@{shared}"))

    def run(self, way: str, *words: str, records: Path = RECORDS) -> Run:
        platform = self.bare if "{bare}" in way else self.lab
        shown = way.format(**self.places).split()
        return platform.playbook(*shown, "-e", "platform_verify=passive", *words, records=records)

    def done(self, way: str, *words: str) -> Run:
        run = self.run(way, *words)
        assert run.code == 0, run.output
        return run

    def refused(self, way: str, change: dict[str, Any], *words: str) -> str:
        """What is said of a change that is refused and leaves everything as it was."""
        before = self.state()
        told = refusal(self.run(way, "-e", json.dumps(change), *words))
        assert self.state() == before
        return told

    def state(self) -> str:
        """Processes and files of every store, and the periods that the servers themselves tell."""
        files = "/etc/{loki/loki,loki/runtime,tempo/tempo,tempo/overrides,prometheus/prometheus}.yml /etc/backup/backup.json"
        return self.lab.on(
            self.obs,
            f"bash -c 'stat -c %i:%Y {files}'; systemctl show -p MainPID loki tempo prometheus minio;"
            "curl -s http://127.0.0.1:3100/config | grep -A40 limits_config: | grep retention;"
            "curl -s http://127.0.0.1:9090/api/v1/status/runtimeinfo | grep -o storageRetention[^,]*",
        )


def refusal(run: Run) -> str:
    """What is said of a change that is refused."""
    assert run.code != 0, run.output
    assert run.effects() == {}, run.output
    return " ".join(run.output.split()).replace("\\", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("own"))
    yield found
    # Whatever happened, the scenario's other tests find what its inventory says.
    found.done(DEPLOY, *CONFIRMED, "-e", "platform_data_change_confirmed=loki")


@pytest.fixture(scope="module")
def refusals(site: Site) -> dict[str, Run]:
    """Every one of REFUSALS, some at a time; the guest is afterwards as it was."""
    before = site.state()

    def tried(name: str) -> Run:
        way, change = REFUSALS[name]
        return site.run(way, "-e", json.dumps(change), records=RECORDS / name.replace(" ", "-"))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(REFUSALS, pool.map(tried, REFUSALS), strict=True))
    assert site.state() == before
    return found


def test_without_a_change_every_way_does_nothing(site: Site) -> None:
    before = site.state()
    for way in ("deploy limited, one tag", "role alone"):
        assert site.done(WAYS[way]).effects() == {}
    assert site.state() == before


@pytest.mark.parametrize("way", WAYS)
def test_a_shorter_period_is_refused_whatever_leads_to_it(refusals: dict[str, Run], way: str) -> None:
    # Which lines there are decides how much goes; here it is that the period is named.
    told = refusal(refusals[f"shorter: {way}"])
    assert '"application"}: 30d -> 1d; goes: ' in told, told
    assert "platform_retention_shorten_confirmed=" in told


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_type_is_refused_whatever_leads_to_it(refusals: dict[str, Run], way: str) -> None:
    told = refusal(refusals[f"wrong: {way}"])
    assert "loki_ingestion_rate_mb" in told
    assert "16MB" in told
    assert "obs" in told


@pytest.mark.parametrize("name", PATCHES)
def test_a_shorter_period_is_refused_wherever_it_is_written(refusals: dict[str, Run], name: str) -> None:
    told = refusal(refusals[name])
    assert PATCHES[name][2] in told, told


def test_copies_are_protected_where_there_are_some(site: Site) -> None:
    site.lab.on(site.obs, "cd /etc/backup && python3 -B -m backups run prometheus --adopt")
    shorter = {"platform_retention_overrides": {"object_storage": {"period": "2d"}}}
    told = site.refused(f"{DEPLOY} --limit obs --tags backup", shorter)
    assert "copies of prometheus: 14d -> 2d; goes: " in told, told


def test_a_rehearsal_says_that_the_run_will_be_refused(site: Site) -> None:
    run = site.done(f"{DEPLOY} --limit obs --tags loki --check", "-e", json.dumps(SHORTER))
    assert "the run itself will be refused: component loki on obs" in " ".join(run.output.split())


@pytest.mark.parametrize("said", ["tempo, loki@obs", ["loki"]], ids=["words", "list"])
def test_a_confirmation_names_components_or_one_of_a_host(site: Site, said: str | list[str]) -> None:
    change = {"loki_bucket": "elsewhere", "platform_data_change_confirmed": said}
    run = site.done(f"{DEPLOY} --limit obs --tags loki --check", "-e", json.dumps(change))
    assert "will be refused" not in " ".join(run.output.split()), run.output


def test_a_server_that_does_not_answer_is_judged_by_what_is_installed(site: Site) -> None:
    away = {"prometheus_connection": {"url": f"http://{site.obs}:9"}}
    change = {"platform_retention_overrides": {"metrics": {"period": "10d"}}, **away}
    told = site.refused(f"{DEPLOY} --limit obs --tags prometheus", change)
    assert "metrics: 30d -> 10d" in told, told


def test_a_release_with_shorter_periods_is_no_way_back_unless_confirmed(site: Site) -> None:
    longer = json.dumps({"platform_retention_overrides": {"metrics": {"period": "40d"}}})
    site.done(f"{DEPLOY} --limit obs --tags prometheus", "-e", longer)
    way = "playbooks/rollback.yml --limit obs"
    told = site.refused(way, {"component": "prometheus"})
    assert "metrics: 40d -> 30d" in told, told
    site.done(way, "-e", "component=prometheus", *CONFIRMED)
    shown = get(f"http://{site.obs}:9090/api/v1/status/runtimeinfo")
    assert shown["data"]["storageRetention"] == "30d"


def test_data_of_a_protected_environment_is_not_purged_by_a_task_of_ones_own(site: Site) -> None:
    words = ("obs", "-m", "luxima.observability.component", "-a", "name=tempo state=absent purge=true")
    before = site.state()
    done = site.lab._ansible("ansible", *words)
    assert done.returncode != 0
    assert "is protected; to remove data all the same" in done.stdout
    assert site.state() == before


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_would_make_stored_data_unreadable_is_refused(refusals: dict[str, Run], name: str) -> None:
    tag, _, words = UNREADABLE[name]
    told = refusal(refusals[name])
    assert words in told, told
    assert f"platform_data_change_confirmed={tag}" in told


def test_a_period_to_come_is_added_to_the_schema_and_taken_back(site: Site) -> None:
    way = f"{DEPLOY} --limit obs --tags loki"
    added = site.done(way, "-e", json.dumps({"loki_schema_periods": [{"from": "2096-01-01"}]}))
    assert added.effects() == {("obs", "loki"): "restarted"}
    shown = site.lab.on(
        site.obs, "curl -s http://127.0.0.1:3100/config | grep -A60 ^schema_config | grep from:"
    )
    assert [line.split('"')[1][:10] for line in shown.splitlines()] == ["2024-04-01", "2096-01-01"]
    assert site.done(way).effects() == {("obs", "loki"): "restarted"}


def test_who_changes_one_of_several_that_belong_together_is_told_before(site: Site) -> None:
    longer = {"platform_retention_overrides": {"application": {"period": "120d"}}}
    words = ("--check", "-e", json.dumps(longer))
    told = " ".join(site.done(f"{DEPLOY} --tags loki", *words).output.split())
    assert "loki on obs: periods change, and minio, retention keeps the same data for them" in told, told
    told = " ".join(site.done(f"{DEPLOY} --tags loki,minio,retention", *words).output.split())
    assert "periods change" not in told, told
