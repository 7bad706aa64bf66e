# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The whole table with the oldest data of every store, and what a shorter policy would take from each."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._retention import policy

from .conftest import OVERRIDES, TENANTS, Platform, ask, module, until
from .test_objects import put_aged
from .test_traces import Trace, blocks, send

DAY = 86400
# Days: longer than the shorter policy keeps, shorter than what is in force.
AGES = {"loki": 20, "prometheus": 20, "tempo": 5, "minio": 40}
SHORTER = {
    "application": {"period": "10d"},
    "metrics": {"period": "10d"},
    "traces": {"period": "2d"},
    "archive": {"period": "30d"},
}


@pytest.fixture(scope="module")
def old_data(platform: Platform) -> Iterator[Platform]:
    """Every store runs and has data of its age above."""
    now = time.time()
    stores = [platform.processes[name] for name in ("prometheus", "loki", "tempo")]
    data = Path(platform.variables["prometheus_data_dir"])
    text = "# TYPE protect_probe gauge\n" + "".join(
        f"protect_probe 1 {now - age * DAY:.0f}\n" for age in (AGES["prometheus"], 1)
    )
    source = platform.folder / "protect.txt"
    source.write_text(text + "# EOF\n")
    subprocess.run(
        [platform.programs["promtool"], "tsdb", "create-blocks-from", "openmetrics", str(source), str(data)],
        check=True,
        capture_output=True,
    )
    try:
        for store in stores:
            store.start()
        stream = {"log_class": "application", "host": "protect", "job": "test"}
        line = [str(int((now - AGES["loki"] * DAY) * 1e9)), "an old line"]
        body = json.dumps({"streams": [{"stream": stream, "values": [line]}]}).encode()
        ask(f"{platform.urls['loki']}/loki/api/v1/push", "POST", body, Content_Type="application/json")
        ask(f"{platform.urls['loki']}/flush", "POST")
        until("the line in object storage", lambda: platform.objects("loki", "fake/"))
        # At the start the index of what was flushed goes to object storage, where queries for old data look.
        platform.processes["loki"].stop()
        platform.processes["loki"].start()
        before = blocks(platform, "protected")
        send(platform, Trace("protected", AGES["tempo"], True, "ab" * 16), now)
        time.sleep(2)
        ask(f"{platform.urls['tempo']}/flush", "POST")
        until("a block of traces in object storage", lambda: blocks(platform, "protected") != before, 40)
        put_aged(platform, "logs-archive", "docker/protected", AGES["minio"])
        yield platform
    finally:
        for store in stores:
            store.stop()


def asked(platform: Platform, plan: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    buckets = [
        {
            **{key: one.get(key) for key in ("name", "consumer")},
            "lifecycle": plan["lifecycles"].get(one["consumer"]),
        }
        for one in platform.variables["platform_buckets"]
    ]
    connections = {name: [{"url": platform.urls[name]}] for name in ("prometheus", "loki", "tempo")}
    minio = [{**platform.storage, "buckets": buckets}]
    return module("retention", plan=plan, minio=minio, **{**connections, **arguments})


def shorter() -> dict[str, Any]:
    options = policy.Options(deletion_delay="1s", tempo_multi_tenant=True)
    shipped = policy_of_the_role()
    return policy.plan(shipped, {**OVERRIDES, **SHORTER}, TENANTS, options)


def policy_of_the_role() -> dict[str, Any]:
    import yaml

    path = Path(__file__).resolve().parents[2] / "roles/platform/defaults/main/retention.yml"
    return dict(yaml.safe_load(path.read_text())["platform_retention"])


def test_the_table_says_how_old_the_data_of_every_store_is(old_data: Platform) -> None:
    result = asked(old_data, old_data.plan)
    assert not result.get("failed"), result["msg"]
    # Of a class and its tenants the first row is everybody's.
    rows = {(one["class"], one["where"]): one for one in reversed(result["explanation"])}
    for row, age in (
        (("application", "loki"), AGES["loki"]),
        (("metrics", "prometheus"), AGES["prometheus"]),
        (("traces", "tempo"), AGES["tempo"]),
        (("archived docker", "minio"), AGES["minio"]),
    ):
        assert rows[row]["oldest data"] != "none", rows[row]
        then = datetime.strptime(rows[row]["oldest data"], "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc)
        days = (datetime.now(timezone.utc) - then).total_seconds() / DAY
        # What other tests left may be older, never younger.
        assert age - 0.1 < days < 120, (row, rows[row])
    assert rows["traces", "tempo"]["in force"] == "7d"
    assert rows["archived docker", "minio"]["in force"] == "60d, noncurrent 14d"


def test_nothing_becomes_shorter_under_the_policy_in_force(old_data: Platform) -> None:
    result = asked(old_data, old_data.plan, mode="protect")
    assert not result.get("failed"), result["msg"]
    assert result["shortened"] == result["unknown"] == result["unanswered"] == []


def test_a_shorter_policy_is_refused_with_what_it_would_take(old_data: Platform) -> None:
    result = asked(old_data, shorter(), mode="protect")
    assert result["failed"]
    assert "platform_retention_shorten_confirmed" in result["msg"]
    found = {(one["store"], one["data"]): one for one in result["shortened"]}
    wanted = {
        ("prometheus", "metrics"): ("30d -> 10d", "blocks"),
        ("loki", '{log_class="application"}'): ("30d -> 10d", r"[1-9]\d* streams, .*[1-9]\d* lines"),
        ("tempo", "traces"): ("7d -> 2d", "traces"),
        ("minio", "archive: web"): ("60d -> 30d", ""),
        ("minio", "archive: docker"): ("60d -> 30d", "objects"),
    }
    for key, (words, goes) in wanted.items():
        assert words in found[key]["words"], found
        assert re.search(goes, found[key]["goes"]), found[key]
        assert found[key]["goes"] != "nothing" or not goes
    # A class that keeps its period is not named.
    assert ("loki", '{log_class="docker"}') not in found
    assert found["tempo", "traces"]["words"] in result["msg"]


def test_a_confirmed_policy_passes_and_a_rehearsal_warns(old_data: Platform) -> None:
    confirmed = asked(old_data, shorter(), mode="protect", confirmed=True)
    assert not confirmed.get("failed")
    assert confirmed["shortened"]
    rehearsal = asked(old_data, shorter(), mode="protect", _ansible_check_mode=True)
    assert not rehearsal.get("failed")
    assert "will be refused" in str(rehearsal["warnings"])


def test_a_store_that_is_not_there_is_unknown_unless_its_bucket_has_data(old_data: Platform) -> None:
    away = [{"url": "http://127.0.0.1:9"}]
    first_run = asked(old_data, old_data.plan, mode="protect", prometheus=away)
    assert not first_run.get("failed")
    assert "127.0.0.1:9" in first_run["unknown"][0]
    outage = asked(old_data, old_data.plan, mode="protect", loki=away)
    assert outage["failed"]
    assert "http://127.0.0.1:9 does not answer" in outage["msg"]
