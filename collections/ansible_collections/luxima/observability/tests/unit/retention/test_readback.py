# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The real main() against servers that answer in the shapes of Prometheus 3.15, Loki 3.6 and Tempo 2.8."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._retention import policy

COLLECTIONS = next(parent for parent in Path(__file__).resolve().parents if parent.name == "collections")
ROOT = COLLECTIONS.parent
SHIPPED = yaml.safe_load((ROOT / "roles/platform/defaults/main/retention.yml").read_text())[
    "platform_retention"
]


@dataclass
class Answers:
    """What the pretended servers say; a test changes one thing."""

    url: str = ""
    runtimeinfo: str = "30d"
    limits: dict[str, Any] = field(default_factory=dict)
    tenant_limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    compactor: dict[str, Any] = field(default_factory=dict)
    block_retention: str = "168h0m0s"
    tempo_tenants: dict[str, Any] = field(default_factory=dict)
    broken: bool = False
    password: str = ""

    def line(self, query: dict[str, list[str]]) -> str:
        """Web logs have one line of 20 days ago, others none."""
        there = int((time.time() - 20 * 86400) * 1e9)
        inside = int(query["start"][0]) <= there < int(query["end"][0]) and "web" in query["query"][0]
        values = [[str(there), "a line"]] if inside else []
        return json.dumps({"data": {"result": [{"stream": {}, "values": values}] if values else []}})

    def of(self, path: str, tenant: str) -> str | None:
        if path == "/api/v1/status/runtimeinfo":
            return json.dumps({"status": "success", "data": {"storageRetention": self.runtimeinfo}})
        if path == "/config":
            return yaml.safe_dump({"limits_config": self.limits, "compactor": self.compactor})
        if path == "/status/runtime_config":
            # No line of dashes here: what the real one writes.
            return "GET /status/runtime_config\n" + yaml.safe_dump(
                {"defaults": {"global": {}}, "overrides": self.tempo_tenants}
            )
        if path == "/metrics":
            return "# HELP x\nprometheus_tsdb_lowest_timestamp_seconds 1.7637e+09\n"
        if path.startswith("/loki/api/v1/index/stats"):
            there = "a line" in self.line(parse_qs(urlsplit(path).query))
            return json.dumps(dict.fromkeys(("streams", "chunks", "entries", "bytes"), int(there)))
        if path.startswith("/loki/api/v1/query_range"):
            return self.line(parse_qs(urlsplit(path).query))
        if path == "/config/tenant/v1/limits":
            return yaml.safe_dump(self.tenant_limits.get(tenant, self.limits))
        if path == "/status/config":
            shown = {"compactor": {"compaction": {"block_retention": self.block_retention}}}
            return "GET /status/config\n---\n" + yaml.safe_dump(shown)
        return None


def streams(text: str) -> list[dict[str, Any]]:
    """Lines of `class period priority`, as Loki shows them."""
    found = []
    for line in text.split(","):
        name, period, priority = line.split()
        found.append({"period": period, "priority": int(priority), "selector": f'{{log_class="{name}"}}'})
    return found


@pytest.fixture
def servers() -> Iterator[Answers]:
    answers = Answers(
        limits={
            "retention_period": "90d",
            # Loki's own spelling: two weeks for 14 days, and no order of its own.
            "retention_stream": streams(
                "docker 15d 20,application 30d 10,web 2w 30,syslog 30d 40,security 60d 50,audit 90d 60"
            ),
        },
        compactor={"retention_enabled": True, "retention_delete_delay": "2h0m0s"},
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = "Basic " + base64.b64encode(f"reader:{answers.password}".encode()).decode()
            text = answers.of(self.path, self.headers.get("X-Scope-OrgID", ""))
            allowed = not answers.password or self.headers.get("Authorization") == expected
            if answers.broken:
                text = "<html>a proxy's page</html>" if self.path != "/api/v1/status/runtimeinfo" else "{}"
            body = (text if text is not None else "no such page").encode() if allowed else b"who are you"
            self.send_response(200 if allowed and text is not None else 401 if not allowed else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(servers: Answers) -> Run:
    def call(check: bool = False, plan: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        connection = {"url": servers.url}
        arguments = {
            "plan": plan or policy.plan(SHIPPED),
            "prometheus": [connection],
            "loki": [connection],
            "tempo": [{**connection, "otlp_http_url": "x", "otlp_grpc_endpoint": "y"}],
            "wait": 0,
            "_ansible_check_mode": check,
            **changes,
        }
        starter = (
            "import json, runpy, sys\n"
            "from ansible.module_utils.testing import patch_module_args\n"
            "with patch_module_args(json.load(sys.stdin)):\n"
            "    runpy.run_module('ansible_collections.luxima.observability.plugins.modules.retention', run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", starter],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    return call


def test_what_is_as_planned_passes_whatever_the_spelling(servers: Answers, run: Run) -> None:
    result = run()
    assert not result.get("failed"), result
    assert result["changed"] is False
    assert len(result["rows"]) == 11
    assert "DIFFERS" not in result["table"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtimeinfo": "15d"}, ["prometheus", "in force 15d", "wanted 30d", "storage.tsdb.retention.time"]),
        ({"runtimeinfo": "30d or 20GiB"}, ["prometheus", "20GiB", "no bound"]),
        ({"block_retention": "336h0m0s"}, ["tempo", "in force 14d", "wanted 7d"]),
        (
            {"compactor": {"retention_enabled": False, "retention_delete_delay": "2h0m0s"}},
            ["loki", "disabled"],
        ),
        ({"compactor": {"retention_enabled": True, "retention_delete_delay": "5h"}}, ["loki", "5h", "2h"]),
    ],
)
def test_a_difference_is_named(servers: Answers, run: Run, change: dict[str, Any], words: list[str]) -> None:
    for name, value in change.items():
        setattr(servers, name, value)
    result = run()
    assert result["failed"]
    assert all(word in result["msg"] for word in words), result["msg"]
    assert "DIFFERS" in result["table"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("audit 90d 60", "audit 30d 60", ["audit", "in force 30d", "wanted 90d"]),
        ("audit 90d 60", "audit 90d 5", ["audit", "priority 5"]),
        (",audit 90d 60", "", ["audit", "in force none", "wanted 90d"]),
        ("audit 90d 60", "audit 90d 60,extra 1d 70", ["extra", "in force 1d", "wanted none"]),
    ],
)
def test_streams_that_differ_are_named(
    servers: Answers, run: Run, before: str, after: str, words: list[str]
) -> None:
    whole = "application 30d 10,docker 15d 20,web 14d 30,syslog 30d 40,security 60d 50,audit 90d 60"
    assert before in whole
    servers.limits["retention_stream"] = streams(whole.replace(before, after))
    result = run()
    assert result["failed"]
    assert all(word in result["msg"] for word in words), result["msg"]


def test_a_tenant_s_periods_are_asked_for(servers: Answers, run: Run) -> None:
    plan = policy.plan(SHIPPED, tenants={"tenant_001": {"application": "90d"}})
    refused = run(plan=plan)
    assert 'tenant_id="tenant_001"' in refused["msg"]
    servers.tenant_limits["fake"] = {
        "retention_stream": plan["loki"]["overrides"]["fake"]["retention_stream"]
    }
    assert not run(plan=plan).get("failed")


def test_a_period_that_somebody_wrote_into_the_runtime_file_is_named(servers: Answers, run: Run) -> None:
    servers.tenant_limits["fake"] = {**servers.limits, "retention_period": "1d"}
    assert "(no class): in force 1d, wanted 90d (runtime overrides, tenant fake)" in run()["msg"]


def test_a_size_bound_is_compared_in_prometheus_units(servers: Answers, run: Run) -> None:
    servers.runtimeinfo = "30d or 20GiB"
    assert not run(plan=policy.plan(SHIPPED, options=policy.Options(metrics_size="20GB"))).get("failed")
    assert run(plan=policy.plan(SHIPPED, options=policy.Options(metrics_size="21GB")))["failed"]


def test_a_server_that_is_not_there_fails_and_is_predicted_in_check_mode(servers: Answers, run: Run) -> None:
    away = [{"url": "http://127.0.0.1:9"}]
    refused = run(tempo=away)
    assert "http://127.0.0.1:9 does not answer" in refused["msg"]
    predicted = run(check=True, tempo=away)
    assert not predicted.get("failed")
    assert "not there yet" in predicted["table"]


def test_who_does_not_answer_is_asked_once(run: Run) -> None:
    """A rehearsal before the first run: nobody is there yet, and nobody is waited for in every row of the table."""
    calls: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        urls = {}
        for store in ("prometheus", "loki", "minio"):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            urls[store] = f"http://127.0.0.1:{listener.getsockname()[1]}"
            threading.Thread(target=_hang_up, args=(listener, calls, store), daemon=True).start()
        storage = {"username": "x", "password": "y", "region": "z"}
        buckets = [{"name": name, "consumer": name, "lifecycle": []} for name in ("tempo", "archive")]
        predicted = run(
            check=True,
            prometheus=[{"url": urls["prometheus"]}],
            loki=[{"url": urls["loki"]}],
            tempo=[{"url": urls["loki"]}],
            minio=[{"url": urls["minio"], **storage, "buckets": buckets}],
            oldest=True,
        )
    assert not predicted.get("failed"), predicted
    assert {row["oldest data"] for row in predicted["explanation"]} <= {"no answer", "", "not asked"}
    # The SDK of object storage tries again four times by itself. Tempo's place here is Loki's.
    assert calls == {"prometheus": 1, "loki": 2, "minio": 5}


def _hang_up(listener: socket.socket, calls: dict[str, int], store: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            calls[store] = calls.get(store, 0) + 1
            connection.close()


def test_a_page_that_is_no_answer_is_said_so(servers: Answers, run: Run) -> None:
    servers.broken = True
    result = run()
    for store in ("prometheus", "loki", "tempo"):
        assert f"{store}: {servers.url} shows no retention" in result["msg"]


def test_credentials_are_used_and_not_shown(servers: Answers, run: Run) -> None:
    servers.password = "let-me-read"
    assert "401" in run()["msg"]
    known = [{"url": servers.url, "username": "reader", "password": "let-me-read"}]
    result = run(prometheus=known, loki=known, tempo=known)
    assert not result.get("failed"), result
    assert "let-me-read" not in json.dumps(result)


def test_a_rehearsal_lists_differences_without_failing(servers: Answers, run: Run) -> None:
    servers.block_retention = "336h0m0s"
    result = run(check=True)
    assert not result.get("failed")
    assert "DIFFERS" in result["table"]


def test_a_difference_may_go_away_in_time(servers: Answers, run: Run) -> None:
    servers.block_retention = "336h0m0s"
    threading.Timer(2, setattr, (servers, "block_retention", "168h0m0s")).start()
    assert not run(wait=20).get("failed")


def test_tenants_of_tempo_are_read_back(servers: Answers, run: Run) -> None:
    options = policy.Options(tempo_multi_tenant=True)
    plan = policy.plan(SHIPPED, tenants={"a": {"traces": "3d"}, "b": {"traces": "4d"}}, options=options)
    # Tempo writes all of a tenant's settings; zero stands for what nobody set.
    period = {"compaction": {"block_retention": "72h0m0s"}}
    servers.tempo_tenants = {
        "a": period,
        "b": {"compaction": {"block_retention": "96h0m0s"}},
        "c": {"compaction": {"block_retention": "0s"}},
    }
    assert not run(plan=plan).get("failed")
    servers.tempo_tenants = {"a": {"compaction": {"block_retention": "24h0m0s"}}, "c": period}
    result = run(plan=plan)
    for words in (
        "traces of a: in force 1d, wanted 3d",
        "traces of b: in force none, wanted 4d",
        "traces of c: in force 3d, wanted none",
    ):
        assert words in result["msg"]


def test_the_explanation_says_what_is_stated_enforced_in_force_and_how_old(
    servers: Answers, run: Run
) -> None:
    result = run()
    rows = {(one["class"], one["where"]): one for one in result["explanation"]}
    assert rows["web", "loki"]["stated"] == rows["web", "loki"]["in force"] == "14d"
    assert rows["web", "loki"]["by what"] == "limits_config.retention_stream"
    twenty = datetime.fromtimestamp(time.time() - 20 * 86400, timezone.utc).strftime("%Y-%m-%d")
    assert rows["web", "loki"]["oldest data"].startswith(twenty)
    assert rows["audit", "loki"]["oldest data"] == "none"
    assert rows["metrics", "prometheus"]["oldest data"] == "2025-11-21 04:40"
    assert rows["traces", "tempo"]["in force"] == "7d"
    assert (
        rows["archived audit", "minio"] | {"stated": "60d", "in force": "not asked"}
        == rows["archived audit", "minio"]
    )
    assert result["explanation_table"].splitlines()[0].split("  ")[0] == "class"
    asked = {one["oldest data"] for one in run(oldest=False)["explanation"]}
    assert asked == {"not asked"}


def test_tables_are_compared_with_what_their_job_says(servers: Answers, run: Run) -> None:
    tables = {"audit": [{"table": "core.audit_log", "column": "at"}, {"table": "internal.*", "column": "at"}]}
    plan = policy.plan(SHIPPED, options=policy.Options(tables=tables))

    def said(period: str, timer: str = "active") -> list[dict[str, Any]]:
        patterns = ("core.audit_log", "internal.*")
        rows = [{"pattern": name, "period": period, "oldest": 1.7e9, "beyond": 7} for name in patterns]
        return [{"server": "db1", "report": {"timer": timer, "tables": rows}}]

    good = run(plan=plan, postgresql=said("90d"))
    assert not good.get("failed"), good
    rows = {one["by what"]: one for one in good["explanation"] if one["where"] == "postgresql"}
    assert rows["timer, table core.audit_log"]["in force"] == "90d"
    assert rows["timer, table internal.*"]["oldest data"] == "2023-11-14 22:13"
    assert "table internal.*: in force 30d, wanted 90d" in run(plan=plan, postgresql=said("30d"))["msg"]
    assert (
        "(deletes): in force failed, wanted active" in run(plan=plan, postgresql=said("90d", "failed"))["msg"]
    )
    # Before the first run there is no job; what it would delete is not known, and a longer period is no loss.
    assert not run(check=True, plan=plan, postgresql=[{"server": "db1"}]).get("failed")
    shorter = run(plan=plan, postgresql=said("180d"), mode="protect")
    assert "table core.audit_log: 180d -> 90d; goes: 7 rows" in shorter["msg"]
    assert not run(plan=plan, postgresql=said("30d"), mode="protect").get("failed")


def test_tables_that_are_kept_for_ever_are_read_back_and_protected(servers: Answers, run: Run) -> None:
    tables = {
        "audit": [{"table": "internal.*", "column": "at"}],
        "alert_history": [{"table": "internal.alert_logs", "column": "at"}],
    }

    def plan(**overrides: str) -> dict[str, Any]:
        changed = {name: {"period": period} for name, period in overrides.items()}
        return policy.plan(SHIPPED, changed, options=policy.Options(tables=tables))

    def said(period: str, beyond: int | None = None) -> list[dict[str, Any]]:
        rows = [
            {"pattern": "internal.*", "period": "90d", "oldest": 1.7e9, "beyond": 0},
            {"pattern": "internal.alert_logs", "period": period, "oldest": 1.7e9, "beyond": beyond},
        ]
        return [{"server": "db1", "report": {"timer": "active", "tables": rows}}]

    good = run(plan=plan(), postgresql=said("forever"))
    assert not good.get("failed"), good
    row = next(one for one in good["explanation"] if one["class"] == "alert_history")
    assert (row["stated"], row["by what"], row["in force"]) == (
        "forever",
        "nothing of the platform",
        "forever",
    )
    assert row["oldest data"] == "2023-11-14 22:13"
    assert (
        "table internal.alert_logs: in force 400d, wanted forever"
        in run(plan=plan(), postgresql=said("400d"))["msg"]
    )
    # A period where there was none deletes; so does the period of a pattern that the table now falls under.
    shorter = run(plan=plan(alert_history="400d"), postgresql=said("forever", 7), mode="protect")
    assert "table internal.alert_logs: forever -> 400d; goes: 7 rows" in shorter["msg"]
    tables.pop("alert_history")
    falls = run(plan=plan(), postgresql=said("forever"), mode="protect")
    assert "table internal.alert_logs: forever -> 90d; goes: not counted" in falls["msg"]
    falls = run(plan=plan(), postgresql=said("400d", 9), mode="protect")
    assert "table internal.alert_logs: 400d -> 90d; goes: 9 rows" in falls["msg"]


def test_copies_are_compared_with_what_their_jobs_say(servers: Answers, run: Run) -> None:
    def said(days: int) -> list[dict[str, Any]]:
        job = {"keep_days": days, "copies": 9, "oldest": 1.7e9}
        return [{"server": "db1", "report": {"postgresql": job}}, {"server": "new"}]

    good = run(backup=said(30))
    assert not good.get("failed"), good
    rows = {(one["class"], one["in force"], one["oldest data"]) for one in good["explanation"]}
    assert ("database_backup", "30d", "2023-11-14 22:13") in rows
    # Nobody who could say has this job.
    assert ("object_storage", "not asked", "not asked") in rows
    assert ("deployment_snapshot", "when they run", "not asked") in rows
    nobody = [one["class"] for one in good["explanation"] if one["by what"] == "nothing of the platform"]
    assert set(nobody) == {"audit", "alert_history", "deploy_audit"}
    assert (
        "copies of postgresql: in force 7d, wanted 30d (timer, backup of postgresql)"
        in run(backup=said(7))["msg"]
    )
    shorter = run(backup=said(60), mode="protect")
    assert "copies of postgresql: 60d -> 30d; goes: 8 copies at most" in shorter["msg"]
    assert not run(backup=said(30), mode="protect").get("failed")
