"""What a person would look at after `site.yml`: services, files, series, logs, and what a second run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.platform import LAB, RECORDS, ROOT, Platform

SITE = Platform(LAB / "00-platform.yml", LAB / "10-instance", LAB / "hosts.yml")
ENGINES = (
    "luxima.observability.component",
    "luxima.observability.proxmox_guests",
    "luxima.observability.bucket",
)


@pytest.mark.parametrize(("host", "name"), SITE.pairs)
def test_service_runs_after_the_restart_and_at_boot(host: str, name: str) -> None:
    service = SITE.guest(host).service(name)
    assert service.is_enabled
    assert service.is_running
    unit = SITE.guest(host).file(f"/etc/systemd/system/{name}.service")
    assert unit.is_file
    assert not unit.is_symlink, "a linked unit breaks enable, disable and boot"
    assert SITE.guest(host).file(f"/opt/luxima/{name}/current").is_directory


@pytest.mark.parametrize("host", SITE.groups["guests"])
def test_no_secret_is_readable_by_others(host: str) -> None:
    assert (
        SITE.guest(host).run("find -L /opt/luxima/*/current/etc -name environment -type f").stdout
        or host != "obs"
    )
    listing = SITE.guest(host).run("find -L /opt/luxima/*/current/etc -name environment -type f -perm /o=rwx")
    assert listing.stdout == ""


@pytest.mark.parametrize("host", SITE.groups["guests"])
def test_no_secret_in_processes_units_or_journal(host: str) -> None:
    secrets = [path.read_text().strip() for path in (ROOT / ".lab" / "secrets").iterdir()]
    assert len(secrets) >= 4
    seen = (
        SITE.guest(host)
        .run("cat /etc/systemd/system/*.service; ps -eo args; journalctl --no-pager -q")
        .stdout
    )
    assert len(seen) > 1000
    assert [secret for secret in secrets if secret in seen] == []


def test_every_series_says_environment_and_service() -> None:
    assert SITE.wait_for('up{environment!="",service_name!=""}')
    assert SITE.query('count by (__name__) ({__name__=~".+",environment="",__name__!~"ALERTS.*"})') == []
    assert SITE.query('count by (__name__) ({__name__=~".+",service_name="",__name__!~"ALERTS.*"})') == []


def test_container_series_name_the_container() -> None:
    assert SITE.wait_for('container_last_seen{name="payment-gateway"}', 90)


def test_container_stdout_is_in_loki() -> None:
    streams = SITE.logs('{service="payment-gateway"}')
    assert streams, "no line of the container's stdout in Loki"
    assert all(stream["stream"]["environment"] for stream in streams)


def test_records_of_a_unit_say_what_is_declared_for_it_and_no_more() -> None:
    streams = SITE.logs('{job="journal", service="auth-api"}')
    assert {stream["stream"]["log_class"] for stream in streams} == {"application"}
    assert {stream["stream"]["tenant_id"] for stream in streams} <= {"tenant_001", "tenant_123"}
    host = SITE.groups["workload"][0]
    claim = (
        '{"message":"claimed-by-nobody","service":"auth-api","log_class":"audit","environment":"production"}'
    )
    SITE.guest(host).run(
        f"systemd-run --quiet --collect --unit=claimant -p SyslogIdentifier=auth-api /bin/echo '{claim}'"
    )
    (found,) = SITE.logs(f'{{job="journal", host="{host}"}} |= "claimed-by-nobody" | refused="true"')
    assert found["stream"]["service"] == "claimant"
    assert found["stream"]["log_class"] == "syslog"
    assert found["stream"]["environment"] == SITE.values("platform_environment")[host]["platform_environment"]
    assert found["stream"]["refused_log_class"] == "audit"


def test_guest_metrics_are_the_guests_own() -> None:
    """Memory and disk of a guest are its own, not the machine's."""
    assert SITE.wait_for("node_memory_MemTotal_bytes")
    memory = {
        row["metric"]["host"]: float(row["value"][1]) for row in SITE.query("node_memory_MemTotal_bytes")
    }
    assert set(memory) >= set(SITE.groups["guests"])
    machine = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert max(memory.values()) < machine / 2


def first_record(mode: str) -> list[dict[str, Any]]:
    """The record of the first run of that mode that reached the components."""
    for path in sorted((RECORDS / "default").glob(f"*-{mode}.json")):
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        if any(row["action"] == ENGINES[0] for row in rows):
            return rows
    raise AssertionError(f"no record of a run in mode {mode}")


def changes(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], bool]:
    """Whether the engines changed something or said they would, by play, task and host; the first time each ran."""
    found: dict[tuple[str, str, str], bool] = {}
    for row in rows:
        if row["action"] in ENGINES:
            found.setdefault((row["play"], row["task"], row["host"]), row["changed"])
    return found


def test_check_mode_on_nothing_predicted_what_the_run_did() -> None:
    predicted, done = changes(first_record("check")), changes(first_record("run"))
    assert len(done) >= len(SITE.pairs)
    assert predicted == done


def test_one_scrape_setting_changes_one_component_and_reloads_it() -> None:
    server = SITE.groups["prometheus"][0]
    pid = SITE.guest(server).run("systemctl show -p MainPID --value prometheus").stdout
    rows = SITE.run("site.yml", "-e", "prometheus_scrape_interval=14s")
    changed = [row for row in rows if row["changed"]]
    assert sorted((row["host"], row["task"]) for row in changed) == [
        (host, "Prometheus") for host in SITE.groups["prometheus"]
    ]
    assert all("reloaded" in row["actions"] and "restarted" not in row["actions"] for row in changed)
    assert SITE.guest(server).run("systemctl show -p MainPID --value prometheus").stdout == pid
    back = SITE.run("site.yml", "--tags", "prometheus")
    assert sum(row["changed"] for row in back) == len(SITE.groups["prometheus"])


def test_a_second_run_of_the_site_changes_nothing() -> None:
    assert [row for row in SITE.run("site.yml") if row["changed"]] == []
