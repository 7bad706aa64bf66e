# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One thing that goes wrong is one message: a real Alertmanager with the role's configuration and the labels of the shipped rules."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luxima-observability"
Labels = dict[str, str]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("render")
    program = Path(sys.executable).with_name("ansible-playbook")
    words = ["playbooks/deploy.yml", "-i", "inventories/staging", "--tags", "alertmanager,prometheus"]
    subprocess.run(
        [program, *words, "-e", f"platform_render_dir={folder}"],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def levels(rendered: Path) -> dict[tuple[str, str], Labels]:
    """Name and severity of each shipped alert -> the labels that its rule gives it."""
    (path,) = list(rendered.glob("*/prometheus/etc/rules/platform.yml"))[:1]
    rules = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    return {(one["alert"], one["labels"]["severity"]): one["labels"] for one in rules if "alert" in one}


@pytest.fixture(scope="module")
def url(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    found = Store(str(CACHE), str(ROOT / "components/lock.yml")).lookup("alertmanager", "amd64")
    assert found is not None, "no alertmanager: `python tests/suite.py artifacts` puts it into the cache"
    folder = tmp_path_factory.mktemp("alertmanager")
    program = folder / "alertmanager"
    shutil.copy(found.path, program)
    program.chmod(0o755)
    (config,) = list(rendered.glob("*/alertmanager/etc/alertmanager.yml"))[:1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.path={folder}/data", f"--web.listen-address={address}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not answers(f"http://{address}"):
            assert running.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        running.terminate()
        running.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def heard(url: str, alerts: list[Labels], told: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Name and severity of those of the alerts that are told to somebody; `told` as soon as that holds and stays."""
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    request = urllib.request.Request(
        f"{url}/api/v2/alerts", body, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()
    wanted = urllib.parse.quote(f'case="{alerts[0]["case"]}"')
    held, deadline = 0, time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{url}/api/v2/alerts?filter={wanted}", timeout=10) as answer:
            shown = json.load(answer)
        active = [one["labels"] for one in shown if not one["status"]["inhibitedBy"]]
        found = {(labels["alertname"], labels["severity"]) for labels in active}
        # What silences what is worked out a moment after the alerts have come.
        held = held + 1 if len(shown) == len(alerts) and found == told else 0
        if held == 3 or time.monotonic() > deadline:
            return found
        time.sleep(0.3)


FILLING = "FilesystemFilling"
ROOT_FILLS = {
    "nine percent": (
        [("DiskSpaceLow", "info"), (FILLING, "notice"), (FILLING, "warning")],
        {(FILLING, "warning")},
    ),
    "nine percent and falling": (
        [("DiskSpaceLow", "info"), (FILLING, "notice"), (FILLING, "warning"), ("FilesystemFullSoon", "warning")],
        {(FILLING, "warning")},
    ),
    "four percent": (
        [("DiskSpaceLow", "info"), (FILLING, "notice"), (FILLING, "warning"), (FILLING, "critical"), ("FilesystemFullSoon", "warning")],
        {(FILLING, "critical")},
    ),
    "fifteen percent and falling": (
        [(FILLING, "notice"), ("FilesystemFullSoon", "warning")],
        {("FilesystemFullSoon", "warning")},
    ),
    "fifteen percent": ([(FILLING, "notice")], {(FILLING, "notice")}),
}  # fmt: skip


@pytest.mark.parametrize("case", ROOT_FILLS)
def test_a_disk_that_fills_is_told_once(url: str, levels: dict[tuple[str, str], Labels], case: str) -> None:
    fires, told = ROOT_FILLS[case]
    place = {"environment": "staging", "host": case, "instance": "a:9100", "service_name": "node_exporter", "mountpoint": "/", "case": case}  # fmt: skip
    assert heard(url, [{**place, "alertname": one[0], **levels[one]} for one in fires], told) == told


def test_another_disk_and_another_condition_are_told_too(
    url: str, levels: dict[tuple[str, str], Labels]
) -> None:
    host = {"environment": "staging", "host": "b", "instance": "b:9100", "service_name": "node_exporter", "case": "others"}  # fmt: skip
    fires = [
        {**host, "alertname": FILLING, **levels[FILLING, "critical"], "mountpoint": "/data"},
        {**host, "alertname": FILLING, **levels[FILLING, "notice"], "mountpoint": "/"},
        {**host, "alertname": "HighCPUUsage", **levels["HighCPUUsage", "warning"]},
    ]
    told = {(FILLING, "critical"), (FILLING, "notice"), ("HighCPUUsage", "warning")}
    assert heard(url, fires, told) == told


def test_a_host_that_is_down_is_told_once(url: str, levels: dict[tuple[str, str], Labels]) -> None:
    place = {"environment": "staging", "host": "c", "case": "down"}
    targets = [("loki", "critical"), ("promtail", "warning"), ("node_exporter", "warning")]
    fires = [
        {**place, "alertname": "TargetDown", "service_name": job, "instance": f"c:{job}", **levels["TargetDown", level]}
        for job, level in targets
    ]  # fmt: skip
    down = {**place, "alertname": "HostDown", **levels["HostDown", "critical"]}
    other = {**fires[0], "host": "d", "instance": "d:loki"}
    told = {("HostDown", "critical"), ("TargetDown", "critical")}
    assert heard(url, [*fires, down, other], told) == told
