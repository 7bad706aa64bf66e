"""What a person would look at after `site.yml`: services, files, series, logs, and what a second run does."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "lab"
RECORDS = ROOT / "reports" / "runs" / "default"


@lru_cache
def inventory() -> dict[str, Any]:
    run = subprocess.run(
        ["ansible-inventory", "-i", str(INVENTORY), "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def members(group: str) -> set[str]:
    entry = inventory().get(group, {})
    return set(entry.get("hosts", [])).union(*(members(child) for child in entry.get("children", [])))


def components() -> list[str]:
    return sorted(path.parent.parent.name for path in ROOT.glob("roles/*/vars/main.yml"))


PAIRS = [(host, name) for name in components() for host in sorted(members(name))]


@lru_cache
def guest(name: str) -> Any:
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


@lru_cache
def evaluated(host: str, expression: str) -> Any:
    """The value of an expression as the inventory gives it to a host."""
    run = subprocess.run(
        [
            "ansible",
            host,
            "-i",
            str(INVENTORY),
            "-m",
            "ansible.builtin.debug",
            "-a",
            f"msg={{{{ {expression} }}}}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
            "ANSIBLE_CALLBACKS_ENABLED": "",
        },
    )
    return json.loads(run.stdout[run.stdout.index("=>") + 2 :])["msg"]


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def query(expression: str) -> list[dict[str, Any]]:
    """An instant query of the lab's Prometheus."""
    (server, *_others) = sorted(members("prometheus"))
    url = evaluated(server, "prometheus_url")
    return get(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}")["data"]["result"]


def wait_for(expression: str, seconds: float = 60) -> list[dict[str, Any]]:
    """Polls an instant query until it has a result."""
    end = time.monotonic() + seconds
    while not (found := query(expression)) and time.monotonic() < end:
        time.sleep(1)
    return found


@pytest.mark.parametrize(("host", "name"), PAIRS)
def test_service_runs_after_the_restart_and_at_boot(host: str, name: str) -> None:
    service = guest(host).service(name)
    assert service.is_enabled
    assert service.is_running
    unit = guest(host).file(f"/etc/systemd/system/{name}.service")
    assert unit.is_file
    assert not unit.is_symlink, "a linked unit breaks enable, disable and boot"
    assert guest(host).file(f"/opt/luxima/{name}/current").is_directory


@pytest.mark.parametrize("host", sorted(members("guests")))
def test_no_secret_is_readable_by_others(host: str) -> None:
    listing = guest(host).run(
        "find -L /etc/ /opt/luxima/ -name environment -path '*luxima*' -perm /o=r 2>/dev/null"
    )
    assert listing.stdout == ""


@pytest.mark.parametrize("host", sorted(members("guests")))
def test_no_secret_in_processes_units_or_journal(host: str) -> None:
    secrets = [path.read_text().strip() for path in (ROOT / ".lab" / "secrets").iterdir()]
    assert len(secrets) >= 4
    seen = guest(host).run("cat /etc/systemd/system/*.service; ps -eo args; journalctl --no-pager -q").stdout
    assert len(seen) > 1000
    assert [secret for secret in secrets if secret in seen] == []


def test_every_series_says_environment_and_service() -> None:
    assert wait_for('up{environment!="",service_name!=""}')
    assert query('{__name__=~".+",environment="",__name__!~"ALERTS.*"}') == []
    assert query('{__name__=~".+",service_name="",__name__!~"ALERTS.*"}') == []


def test_container_series_name_the_container() -> None:
    found = wait_for('container_last_seen{name="payment-gateway"}', 90)
    assert found, "cAdvisor on the Docker guest shows the container by its name"


def test_container_stdout_is_in_loki() -> None:
    (server, *_others) = sorted(members("loki"))
    url = evaluated(server, "loki_url")
    logql = urllib.parse.quote('{service="payment-gateway"}')
    end = time.monotonic() + 60
    while not (streams := get(f"{url}/loki/api/v1/query_range?query={logql}&since=15m")["data"]["result"]):
        assert time.monotonic() < end, "no line of the container's stdout in Loki"
        time.sleep(1)
    assert all(stream["stream"]["environment"] for stream in streams)


def test_guest_metrics_are_the_guests_own() -> None:
    """Memory and disk of a guest are its own, not the machine's."""
    memory = {row["metric"]["host"]: float(row["value"][1]) for row in wait_for("node_memory_MemTotal_bytes")}
    assert set(memory) >= members("guests")
    machine = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert max(memory.values()) < machine / 2


def record(mode: str, index: int) -> list[dict[str, Any]]:
    """The record of one run; index counts the runs of that mode."""
    files = sorted(RECORDS.glob(f"*-{mode}.json"))
    assert len(files) > index, f"no record of run {index} in mode {mode}"
    return json.loads(files[index].read_text())


def changes(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[bool, tuple[str, ...]]]:
    """What the engines did or would do, by play, task and host."""
    engines = (
        "luxima.observability.component",
        "luxima.observability.proxmox_guests",
        "luxima.observability.bucket",
    )
    return {
        (row["play"], row["task"], row["host"]): (row["changed"], tuple(row["actions"]))
        for row in rows
        if row["action"] in engines
    }


def run_playbook(name: str, *options: str) -> list[dict[str, Any]]:
    """Runs a playbook on the lab and returns its record."""
    folder = RECORDS.parent / "day2"
    before = set(folder.glob("*.json"))
    run = subprocess.run(
        ["ansible-playbook", name, "-i", str(INVENTORY), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "RUN_RECORDS": str(folder),
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (new,) = set(folder.glob("*.json")) - before
    return json.loads(new.read_text())


def test_check_mode_on_nothing_predicted_what_the_run_did() -> None:
    predicted, done = changes(record("check", 0)), changes(record("run", 0))
    assert len(predicted) >= len(PAIRS)
    different = {
        key: (predicted[key][0], done[key][0])
        for key in done
        if predicted.get(key, (None,))[0] != done[key][0]
    }
    assert different == {}


def test_one_scrape_setting_changes_one_component_and_reloads_it() -> None:
    (server, *_others) = sorted(members("prometheus"))
    pid = guest(server).run("systemctl show -p MainPID --value prometheus").stdout
    rows = run_playbook("site.yml", "--tags", "prometheus", "-e", "platform_scrape_interval=14s")
    changed = [(row["host"], row["task"], tuple(row["actions"])) for row in rows if row["changed"]]
    assert {(host, "reloaded" in actions, "restarted" in actions) for host, _task, actions in changed} == {
        (host, True, False) for host in members("prometheus")
    }
    assert len(changed) == len(members("prometheus"))
    assert guest(server).run("systemctl show -p MainPID --value prometheus").stdout == pid
    rows = run_playbook("site.yml", "--tags", "prometheus")
    assert sum(row["changed"] for row in rows) == len(members("prometheus"))


def test_a_second_run_of_the_site_changes_nothing() -> None:
    rows = run_playbook("site.yml")
    assert [row for row in rows if row["changed"]] == []
