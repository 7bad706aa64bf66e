# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Module verify against real servers: what holds passes, and each thing that is broken is found and named."""

from __future__ import annotations

import json
import stat
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from .conftest import Platform, Runner

ORDER = ["targets", "rules", "watchdog", "alert", "logs", "traces", "buckets", "retention"]


def write_line(platform: Platform, host: str, label: str = "", environment: str = "unit") -> str:
    """A line as Promtail would send it."""
    line = f"platform-verify {uuid.uuid4().hex} {host}"
    stream = {"environment": environment, "host": label or host, "job": "journal"}
    body = {"streams": [{"stream": stream, "values": [[str(time.time_ns()), line]]}]}
    request = urllib.request.Request(
        f"{platform.url('loki')}/loki/api/v1/push",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):
        return line


def failures(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in answer["results"] if not result["ok"]]


def test_healthy_platform(
    platform: Platform, connections: dict[str, Any], run: Runner, tmp_path: Path
) -> None:
    report = tmp_path / "reports" / "verify-unit.json"
    lines = {host: write_line(platform, host) for host in ("web-1", "web-2")}
    started = time.monotonic()
    answer = run(**connections, log_lines=lines, report=str(report), deadline=60)
    assert "failed" not in answer, answer["msg"]
    assert answer["changed"] is False
    assert {result["check"] for result in answer["results"]} == set(ORDER)
    assert all(result["ok"] and result["verified"] and result["detail"] for result in answer["results"])
    # The deadline that was given is the promise.
    assert time.monotonic() - started < 60
    assert "secret" not in json.dumps(answer["results"])
    saved = json.loads(report.read_text())
    assert set(saved) >= {"environment", "started", "seconds", "ok", "results"}
    assert saved["ok"] is True
    assert saved["results"] == answer["results"]
    assert stat.S_IMODE(report.stat().st_mode) == 0o644
    assert [entry.name for entry in report.parent.iterdir()] == [report.name]


def test_the_test_alert_is_over_afterwards(
    platform: Platform, connections: dict[str, Any], run: Runner
) -> None:
    answer = run(alertmanager=connections["alertmanager"], checks=["alert"], deadline=20)
    assert "for receiver nobody" in answer["results"][0]["detail"]
    time.sleep(1.1)
    with urllib.request.urlopen(f"{platform.url('alertmanager')}/api/v2/alerts", timeout=10) as reply:
        assert not [alert for alert in json.load(reply) if alert["labels"]["alertname"] == "PlatformVerify"]


@pytest.mark.parametrize(
    ("check", "change", "words"),
    [
        pytest.param(
            "targets",
            {"expected": ("loki", "127.0.0.1:1")},
            "loki 127.0.0.1:1/metrics is not scraped",
            id="absent",
        ),
        pytest.param(
            "targets", {"expected": ("loki", "prometheus")}, "only as job prometheus", id="wrong-job"
        ),
        pytest.param("targets", {"prometheus": "sick"}, "connection refused", id="target-down"),
        pytest.param("rules", {"prometheus": "bare"}, "no rule is loaded", id="no-rule"),
        pytest.param("rules", {"prometheus": "sick"}, "broken/bad is err", id="sick-rule"),
        pytest.param("watchdog", {"environment": "other"}, "environment=unit, expected other", id="watchdog"),
        pytest.param("alert", {"alertmanager": "loki"}, "answered 404", id="no-alertmanager"),
        pytest.param(
            "retention",
            {"plan": ("prometheus", "time", "60d")},
            "metrics 30d in force, configured 60d",
            id="prometheus",
        ),
        pytest.param(
            "retention", {"plan": ("prometheus", "size", "20GB")}, "configured 20GB", id="prometheus-size"
        ),
        pytest.param("retention", {"plan": ("loki", "retention_period", "60d")}, "configured 60d", id="loki"),
        pytest.param(
            "retention",
            {
                "plan": (
                    "loki",
                    "retention_stream",
                    [{"selector": '{log_class="web"}', "priority": 10, "period": "14d"}],
                )
            },
            '{log_class="web"} none in force, configured 14d',
            id="loki-class",
        ),
        pytest.param(
            "retention", {"plan": ("tempo", "block_retention", "14d")}, "configured 14d", id="tempo"
        ),
        pytest.param(
            "buckets", {"bucket": {"name": "empty"}}, "although it was asked to write", id="empty-bucket"
        ),
        pytest.param("buckets", {"bucket": {"name": "nobody-made-it"}}, "NoSuchBucket", id="no-bucket"),
        pytest.param(
            "buckets", {"bucket": {"secret_key": "wrong-password"}}, "SignatureDoesNotMatch", id="wrong-key"
        ),
        pytest.param("traces", {"otlp": True}, "OTLP/gRPC at 127.0.0.1:", id="no-otlp"),
        pytest.param("traces", {"otlp": False}, "has no otlp_http_url", id="otlp-unknown"),
    ],
)
def test_what_is_broken_is_found(
    platform: Platform,
    connections: dict[str, Any],
    run: Runner,
    check: str,
    change: dict[str, Any],
    words: str,
) -> None:
    arguments: dict[str, Any] = {**connections, "checks": [check], "deadline": 3}
    if "expected" in change:
        component, address = change["expected"]
        if address == "prometheus":
            address = f"127.0.0.1:{platform.port('prometheus')}"
        arguments["expected_targets"] = [{"component": component, "address": address}]
    for server in ("prometheus", "alertmanager"):
        if server in change:
            arguments[server] = [{"url": platform.url(change[server])}]
    if "environment" in change:
        arguments["environment"] = change["environment"]
    if "plan" in change:
        store, key, value = change["plan"]
        arguments["retention"] = {store: {**connections["retention"][store], key: value}}
    if "bucket" in change:
        arguments["buckets"] = [{**connections["buckets"][0], **change["bucket"]}]
    if "otlp" in change:
        dead = f"127.0.0.1:{platform.port('dead')}" if change["otlp"] else ""
        http = f"http://{dead}" if dead else ""
        arguments["tempo"] = [{**connections["tempo"][0], "otlp_http_url": http, "otlp_grpc_endpoint": dead}]
    answer = run(**arguments)
    assert answer["failed"] is True
    assert words in answer["msg"]
    for failure in failures(answer):
        assert failure["check"] == check
        assert failure["hint"] in answer["msg"]
    for good in (result for result in answer["results"] if result["ok"]):
        assert good["detail"] not in answer["msg"]


def test_a_line_that_never_arrives(platform: Platform, connections: dict[str, Any], run: Runner) -> None:
    lines = {"web-1": write_line(platform, "web-1"), "web-2": "platform-verify 0000 web-2"}
    started = time.monotonic()
    answer = run(loki=connections["loki"], log_lines=lines, checks=["logs"], deadline=3)
    assert 2 < time.monotonic() - started < 10
    assert "missing: web-2 (platform-verify 0000 web-2)" in answer["msg"]
    assert "deadline 3 s" in answer["msg"]


def test_a_line_of_another_environment_does_not_count(
    platform: Platform, connections: dict[str, Any], run: Runner
) -> None:
    lines = {"web-1": write_line(platform, "web-1", environment="production")}
    assert run(loki=connections["loki"], log_lines=lines, checks=["logs"], deadline=2)["failed"] is True


def test_a_line_under_another_host_does_not_count(
    platform: Platform, connections: dict[str, Any], run: Runner
) -> None:
    lines = {"web-1": write_line(platform, "web-1", label="localhost")}
    answer = run(loki=connections["loki"], log_lines=lines, checks=["logs"], deadline=2)
    assert "web-1 has host='localhost'" in answer["msg"]


def test_a_line_nobody_wrote(connections: dict[str, Any], run: Runner) -> None:
    answer = run(loki=connections["loki"], log_lines={"web-1": ""}, checks=["logs"], deadline=30)
    assert "no line was written on web-1" in answer["msg"]
    assert answer["seconds"] < 5


def test_a_late_line_is_waited_for(
    platform: Platform, connections: dict[str, Any], run: Runner, tmp_path: Path
) -> None:
    """Slow is not broken: the check keeps asking and says what it waits for."""
    import threading

    line = f"platform-verify {uuid.uuid4().hex} web-9"
    body = {
        "streams": [
            {"stream": {"environment": "unit", "host": "web-9"}, "values": [[str(time.time_ns()), line]]},
        ]
    }

    def late() -> None:
        time.sleep(6.5)
        request = urllib.request.Request(
            f"{platform.url('loki')}/loki/api/v1/push",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):
            pass

    writer = threading.Thread(target=late)
    writer.start()
    progress = tmp_path / "progress"
    answer = run(
        loki=connections["loki"],
        log_lines={"web-9": line},
        checks=["logs"],
        deadline=30,
        progress_file=str(progress),
    )
    writer.join()
    assert answer["ok"] is True
    assert "waiting since" in progress.read_text()
    assert line in progress.read_text()


def test_passive_sends_nothing(connections: dict[str, Any], run: Runner) -> None:
    answer = run(**connections, log_lines={"web-1": "platform-verify 1 web-1"}, active=False, deadline=20)
    assert {result["check"] for result in answer["results"]} == {
        "targets",
        "rules",
        "watchdog",
        "buckets",
        "retention",
    }
    assert answer["ok"] is True


def test_components_select(connections: dict[str, Any], run: Runner) -> None:
    answer = run(**connections, components=["tempo"], deadline=60)
    subjects = {(result["check"], result["subject"].split()[-1]) for result in answer["results"]}
    assert {check for check, _ in subjects} == {"traces", "buckets", "retention"}
    assert answer["ok"] is True


def test_an_unselected_server_that_is_down_leaves_the_question_open(
    platform: Platform, connections: dict[str, Any], run: Runner
) -> None:
    arguments = {
        **connections,
        "prometheus": [{"url": platform.url("dead")}],
        "checks": ["targets"],
        "deadline": 2,
    }
    answer = run(**arguments, components=["alertmanager"])
    assert answer["ok"] is True
    assert [result["verified"] for result in answer["results"]] == [False]
    assert "failed" in run(**arguments)


def test_check_mode_on_nothing(
    platform: Platform, connections: dict[str, Any], run: Runner, tmp_path: Path
) -> None:
    dead = platform.url("dead")
    report = tmp_path / "report.json"
    answer = run(
        check_mode=True,
        prometheus=[{"url": dead}],
        loki=[{"url": dead}],
        minio={"url": dead},
        buckets=connections["buckets"],
        retention=connections["retention"],
        report=str(report),
    )
    assert answer["msg"].startswith("not verified: nothing deployed yet")
    assert "failed" not in answer
    assert "warnings" not in answer
    assert not report.exists()
    assert answer["seconds"] < 7


def test_check_mode_warns_of_what_is_not_so_now(
    platform: Platform, connections: dict[str, Any], run: Runner
) -> None:
    arguments = {
        **connections,
        "prometheus": [{"url": platform.url("bare")}],
        "checks": ["rules", "retention"],
    }
    answer = run(check_mode=True, **arguments)
    assert "failed" not in answer
    assert "no rule is loaded" in str(answer["warnings"])


def test_nothing_to_verify_does_not_pass(run: Runner) -> None:
    answer = run()
    assert "nothing to verify" in answer["msg"]


def test_an_unusable_certificate_is_named(run: Runner) -> None:
    answer = run(
        prometheus=[{"url": "https://127.0.0.1:1", "ca_file": "/nonexistent/ca.pem"}],
        checks=["rules"],
        deadline=1,
    )
    assert "/nonexistent/ca.pem" in answer["msg"]
