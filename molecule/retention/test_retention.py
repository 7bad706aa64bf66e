# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The policy on a real guest: shown whole, refused when shorter, repaired after drift, finished after a kill."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from tests.platform import LAB, ROOT, Platform, Run, get, until

RECORDS = ROOT / "reports" / "runs" / "retention"
HOME = Path(__file__).parent / "inventory"
REPORT = ROOT / "reports" / "retention.md"
DEPLOY = "playbooks/deploy.yml"
TABLE = "playbooks/retention.yml"
DAY = 86400
CLASSES = {
    "metrics", "application", "docker", "web", "syslog", "security", "audit", "traces", "archive",
    "database_backup", "object_storage", "deployment_snapshot", "alert_history", "deploy_audit",
}  # fmt: skip
SHORTER = '{"platform_retention_overrides": {"application": {"period": "10d"}, "metrics": {"period": "10d"}}}'


class Site:
    """The lab as this scenario's inventory describes it."""

    def __init__(self) -> None:
        self.lab = Platform(LAB / "00-platform.yml", LAB / "10-instance", HOME / "hosts.yml")
        self.obs = self.lab.address(11)
        self.loki = f"http://{self.obs}:3100"

    def run(self, *words: str, fails: bool = False) -> Run:
        done = self.lab.playbook(*words, "-e", "platform_verify=passive", records=RECORDS / "tests")
        assert (done.code != 0) == fails, done.output
        return done

    def table(self, *words: str) -> Run:
        return self.lab.playbook(TABLE, *words, records=RECORDS / "tests")

    def on(self, script: str) -> str:
        return self.lab.on(self.obs, script)

    def minio(self) -> Minio:
        password = (
            (Path(self.lab.lab["lab_state_dir"]) / "secrets" / "minio_root_password").read_text().split()[0]
        )
        return Minio(f"{self.obs}:9000", "admin", password, secure=False)


@pytest.fixture(scope="module")
def site() -> Site:
    found = Site()
    days = int(time.time() // DAY - 20)
    noon = (days * DAY + DAY // 2) * 10**9
    stream = {"log_class": "application", "host": "obs", "job": "test"}
    body = {"streams": [{"stream": stream, "values": [[str(noon + n), f"line {n}"] for n in range(50)]}]}
    for path, content in (("/loki/api/v1/push", json.dumps(body).encode()), ("/flush", b"")):
        request = urllib.request.Request(found.loki + path, content, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
    return found


def test_the_table_has_every_class_and_the_oldest_data(site: Site) -> None:
    # At a start the index of what was flushed goes to object storage, where queries for old data look.
    site.on("systemctl restart loki")
    assert until(lambda: site.lab.on(site.obs, "curl -sf http://127.0.0.1:3100/ready", check=False), 60)
    done = site.table("--check")
    assert done.code == 0, done.output
    (row,) = [row for row in done.rows if row["task"].endswith("Periods in force")]
    assert row["changed"] is False
    table = done.output
    for name in CLASSES:
        assert f'"{name} ' in table, name
    then = time.strftime("%Y-%m-%d", time.gmtime((time.time() // DAY - 20) * DAY))
    assert any(
        '"application' in line and "limits_config" in line and then in line for line in table.splitlines()
    ), table
    copies = [line for line in table.splitlines() if '"object_storage ' in line]
    assert any("timer, backup of" in line and line.split().count("14d") == 2 for line in copies), copies
    lines = [line.strip().strip('",') for line in table.splitlines() if line.strip().startswith('"')]
    REPORT.write_text("# Retention on real guests\n\n```\n" + "\n".join(lines) + "\n```\n")


def test_a_second_run_changes_nothing(site: Site) -> None:
    assert site.run(DEPLOY).actions() == {}


def test_a_shorter_policy_is_refused_before_anything_is_touched(site: Site) -> None:
    before = site.on("stat -c %i:%Y /etc/loki/loki.yml /etc/prometheus/prometheus.yml")
    refused = site.run(DEPLOY, "-e", SHORTER, fails=True)
    assert refused.component_rows() == []
    assert "log_class=" in refused.output
    assert "30d -> 10d; goes: 1 streams" in refused.output, refused.output
    assert "platform_retention_shorten_confirmed" in refused.output
    assert site.on("stat -c %i:%Y /etc/loki/loki.yml /etc/prometheus/prometheus.yml") == before
    words = (DEPLOY, "-e", SHORTER, "--check")
    assert "the run itself will be refused" in site.run(*words).output
    confirmed = site.run(*words, "-e", "platform_retention_shorten_confirmed=dev")
    assert set(confirmed.effects()) == {("obs", "prometheus"), ("obs", "loki"), ("obs", "retention")}
    with REPORT.open("a") as report:
        goes = [line for line in refused.output.splitlines() if "goes:" in line]
        report.write("\n## Refused\n\n```\n" + "\n".join(goes)[:3000] + "\n```\n")


# A change by hand in each store, and the component that a run changes to repair it.
BY_HAND = {
    "prometheus": "sed -i 's/time: 30d/time: 3d/' /etc/prometheus/prometheus.yml && systemctl kill -s HUP prometheus",
    "loki": "sed -i 's/1440h/24h/' /etc/loki/runtime.yml",
    "tempo": "printf 'overrides:\\n  single-tenant:\\n    compaction:\\n      block_retention: 24h\\n' >/etc/tempo/overrides.yml",
    "backup": """sed -i 's/"keep_days": 14/"keep_days": 3/' /etc/backup/backup.json""",
}
TELLS = {
    "prometheus": "metrics: in force 3d, wanted 30d",
    "loki": "in force 1d, wanted 60d",
    "tempo": "traces of single-tenant: in force 1d, wanted none",
    "minio": "archive: audit: in force 1d, noncurrent 14d, wanted 90d",
    "backup": "copies of minio: in force 3d, wanted 14d",
}


def test_drift_in_every_store_is_named_and_repaired_by_one_run(site: Site) -> None:
    processes = site.lab.pids(site.obs, ["prometheus", "loki", "tempo", "minio"])
    for script in BY_HAND.values():
        site.on(script)
    client = site.minio()
    have = client.get_bucket_lifecycle("logs-archive")
    assert have is not None
    ours = next(rule for rule in have.rules if rule.rule_id == "platform-audit")
    short = Rule(
        ENABLED,
        rule_filter=Filter(prefix="audit/"),
        rule_id="platform-audit",
        expiration=Expiration(days=1),
        noncurrent_version_expiration=ours.noncurrent_version_expiration,
    )
    rules = [rule for rule in have.rules if rule is not ours]
    client.set_bucket_lifecycle("logs-archive", LifecycleConfig([*rules, short]))
    told = until(
        lambda: (
            (run := site.table()).code != 0 and all(words in run.output for words in TELLS.values()) and run
        ),
        60,
        5,
    )
    assert told, site.table().output
    done = site.run(DEPLOY)
    assert {name for _host, name in done.effects()} == {"prometheus", "loki", "tempo", "backup"}
    assert any(row["changed"] and "Buckets" in row["task"] for row in done.rows)
    assert until(lambda: site.table().code == 0, 60, 2)
    # Loki and Tempo read their runtime files by themselves, Prometheus at a reload: nothing was restarted.
    assert site.lab.pids(site.obs, list(processes)) == processes
    with REPORT.open("a") as report:
        report.write("\n## Drift, named and repaired by one run without a restart\n\n")
        report.writelines(f"- {store}: {words}\n" for store, words in TELLS.items())


def test_a_run_killed_between_two_stores_is_finished_by_the_next(site: Site) -> None:
    longer = '{"platform_retention_overrides": {"audit": {"period": "120d"}, "metrics": {"period": "40d"}, "traces": {"period": "9d"}}}'
    running = subprocess.Popen(
        site.lab.command("ansible-playbook", DEPLOY, "-e", longer),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        start_new_session=True,
    )
    done = until(lambda: "2880h" in site.on("cat /etc/loki/loki.yml"), 120)
    os.killpg(running.pid, 9)
    running.wait()
    assert done
    assert "time: 40d" not in site.on("cat /etc/prometheus/prometheus.yml")
    assert "metrics: in force 30d, wanted 40d" in site.table("-e", longer).output
    # Nothing became shorter, so nobody has to confirm; what the killed run did is not done again.
    finished = site.run(DEPLOY, "-e", longer)
    assert ("obs", "prometheus") in finished.effects()
    assert ("obs", "loki") not in finished.effects() or "recovered" in str(finished.actions()["obs", "loki"])
    assert site.table("-e", longer).code == 0
    assert site.run(DEPLOY, "-e", longer).actions() == {}


def test_the_archive_is_written_by_its_timer_s_service(site: Site) -> None:
    assert site.on("systemctl is-active retention-archive.timer") == "active"
    site.on("systemctl start retention-archive")
    place = time.strftime("application/%Y/%m/%d", time.gmtime((time.time() // DAY - 20) * DAY))
    client = site.minio()
    answer = client.get_object("logs-archive", f"{place}/0001.jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(answer.read()).splitlines()]
    assert sorted(int(one["line"].split()[1]) for one in lines) == list(range(50))
    told = json.loads(site.on(f"cd /etc/retention && python3 -B -m upkeep check {shlex.quote(place)}"))
    assert told == {"partitions": 1, "files": 1, "lines": 50}
    found: Any = until(
        lambda: get(
            f"http://{site.obs}:9090/api/v1/query",
            query='platform_retention_last_run_success{job_name="archive"}',
        )["data"]["result"],
        60,
    )
    assert [row["value"][1] for row in found] == ["1"]
    secrets = site.on(
        "stat -c %a /etc/retention/secrets.json; systemctl cat retention-archive; journalctl -u retention-archive"
    )
    assert secrets.startswith("640")
    key = (Path(site.lab.lab["lab_state_dir"]) / "secrets" / "retention_s3_secret_key").read_text().split()[0]
    assert key not in secrets
