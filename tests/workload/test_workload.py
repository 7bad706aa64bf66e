# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The workload as a program: what it exposes, what it writes, what it sends, and that its switches work."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "lab" / "workload" / "workload.py"

# The contract of the applications: type, labels (without le and quantile), finite buckets or quantiles. One row per metric.
API = {
    "http_requests_total": ("counter", {"method", "endpoint", "status", "tenant_id"}, ()),
    "http_request_duration_seconds": ("histogram", set(), ("0.1", "0.5", "1")),
    "orders_total": ("counter", {"status", "payment_method", "tenant_id"}, ()),
    "order_creation_duration_seconds": ("histogram", {"payment_method"}, ("0.1", "0.5", "1", "2", "5", "10")),
    "orders_pending": ("gauge", set(), ()),
    "payment_transactions_total": ("counter", {"status", "provider", "payment_type", "tenant_id"}, ()),
    "payment_amount_histogram": (
        "histogram",
        {"payment_method"},
        ("50000", "75000", "99000", "150000", "200000", "500000"),
    ),
    "payment_processing_duration_seconds": ("summary", set(), ("0.5", "0.9", "0.99")),
    "webhook_received_total": ("counter", {"valid", "provider"}, ()),
    "webhook_processing_duration_seconds": ("histogram", set(), ("0.01", "0.05", "0.1", "0.5", "1", "2")),
    "db_query_duration_seconds": (
        "histogram",
        {"operation", "table"},
        ("0.001", "0.005", "0.01", "0.05", "0.1", "0.5"),
    ),
    "external_service_duration_seconds": (
        "histogram",
        {"service", "operation", "status"},
        ("0.1", "0.5", "1", "2", "5", "10"),
    ),
    "rls_violation_total": ("counter", {"tenant_id"}, ()),
    "process_resident_memory_bytes": ("gauge", set(), ()),
    "process_cpu_seconds_total": ("counter", set(), ()),
    "nodejs_eventloop_lag_seconds": ("gauge", set(), ()),
}
WORKER = {
    "notifications_sent_total": ("counter", {"channel", "template", "status"}, ()),
    "notification_outbox_backlog": ("gauge", {"channel", "status"}, ()),
    "worker_alive": ("gauge", set(), ()),
    "http_requests_total": ("counter", {"endpoint", "status_code"}, ()),
}
DATABASE = {"pg_up": ("gauge", set(), ())}

_SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)+)\})? (\S+)')
_PAIR = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"')
Sample = tuple[str, dict[str, str], float]


def parse(text: str) -> dict[str, tuple[str, list[Sample]]]:
    """The exposition format, strictly: HELP and TYPE before the samples of each family, families not interleaved, no sample twice."""
    families: dict[str, tuple[str, list[Sample]]] = {}
    name, seen = "", set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in families, f"{name} is there twice"
            families[name] = ("", [])
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name
            families[name] = (line.split(" ")[3], [])
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, f"no sample: {line!r}"
            sample, labels, value = found[1], dict(_PAIR.findall(found[2] or "")), float(found[3])
            kind = families[name][0]
            suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}.get(
                kind, ("",)
            )
            assert sample in {name + suffix for suffix in suffixes}, (
                f"{sample} does not belong to {kind} {name}"
            )
            key = (sample, tuple(sorted(labels.items())))
            assert key not in seen, f"{key} is there twice"
            seen.add(key)
            families[name][1].append((sample, labels, value))
    return families


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Collect)

    def spans(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for body in list(self.bodies):
            for group in body["resourceSpans"]:
                service = {a["key"]: a["value"] for a in group["resource"]["attributes"]}["service.name"][
                    "stringValue"
                ]
                found += [(service, span) for scope in group["scopeSpans"] for span in scope["spans"]]
        return found


class _Collect(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Workload:
    """One running program."""

    def __init__(self, folder: Path, otlp: str, rate: int) -> None:
        self.folder = folder
        variables = {
            "WORKLOAD_ENVIRONMENT": "dev",
            "WORKLOAD_LISTEN": "127.0.0.1",
            "WORKLOAD_PORT": "0",
            "WORKLOAD_WORKER_PORT": "0",
            "WORKLOAD_DATABASE_PORT": "0",
            "WORKLOAD_LOG_DIR": str(folder),
            "WORKLOAD_OTLP_URL": otlp,
            "WORKLOAD_RATE": str(rate),
            "WORKLOAD_SEED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "serve"],
            env={**os.environ, **variables},
            stdout=(folder / "stdout").open("wb"),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.api, self.worker, self.database = (int(port) for port in re.findall(r" (\d+)", line))

    def get(self, port: int, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def scrape(self, port: int) -> dict[str, tuple[str, list[Sample]]]:
        return parse(self.get(port))

    def total(self, name: str, **labels: str) -> float:
        samples = self.scrape(self.api)[name][1]
        return sum(
            value for _, have, value in samples if all(have[key] == text for key, text in labels.items())
        )

    def switch(self, **wanted: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=10)
        connection.request("POST", "/switch", json.dumps(wanted))
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return {"status": answer.status, **body}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), "switch", "--url", f"http://127.0.0.1:{self.api}", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()


def until(condition: Any, seconds: float = 45) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Workload]:
    running = Workload(tmp_path_factory.mktemp("workload"), f"http://127.0.0.1:{collector.server_port}", 20)
    yield running
    running.process.terminate()
    assert running.process.wait(10) == 0


@pytest.mark.parametrize(
    ("port", "name"),
    [("api", name) for name in API]
    + [("worker", name) for name in WORKER]
    + [("database", name) for name in DATABASE],
)
def test_metric_contract(workload: Workload, port: str, name: str) -> None:
    kind, labels, bounds = {"api": API, "worker": WORKER, "database": DATABASE}[port][name]
    families = workload.scrape(getattr(workload, port))
    assert name in families
    have_kind, samples = families[name]
    assert have_kind == kind
    assert samples, "a series must exist before its first event"
    for _, have, _ in samples:
        assert set(have) - {"le", "quantile"} == labels
    if kind == "histogram":
        series: dict[tuple[tuple[str, str], ...], list[tuple[str, float]]] = {}
        for sample, have, value in samples:
            if sample.endswith("_bucket"):
                rest = tuple(sorted((key, text) for key, text in have.items() if key != "le"))
                series.setdefault(rest, []).append((have["le"], value))
        counts = {
            tuple(sorted(have.items())): value for sample, have, value in samples if sample.endswith("_count")
        }
        for rest, buckets in series.items():
            assert [bound for bound, _ in buckets] == [*bounds, "+Inf"]
            values = [value for _, value in buckets]
            assert values == sorted(values), "buckets are cumulative"
            assert counts[rest] == values[-1]
    if kind == "summary":
        assert [have["quantile"] for _, have, _ in samples if "quantile" in have] == list(bounds)


def test_stated_label_values(workload: Workload) -> None:
    families = workload.scrape(workload.api)
    assert {have["status"] for _, have, _ in families["orders_total"][1]} == {
        "created",
        "pending_payment",
        "paid",
        "failed",
    }
    assert {have["valid"] for _, have, _ in families["webhook_received_total"][1]} == {"true", "false"}
    assert {have["service"] for _, have, _ in families["external_service_duration_seconds"][1]} == {
        "midtrans"
    }
    backlog = workload.scrape(workload.worker)["notification_outbox_backlog"][1]
    assert {have["status"] for _, have, _ in backlog} == {"PENDING", "RETRYING"}


def test_counters_move_by_real_requests(workload: Workload) -> None:
    before = workload.total("http_requests_total")
    until(lambda: workload.total("http_requests_total") > before + 10)
    families = workload.scrape(workload.api)
    count = next(
        value for name, _, value in families["http_request_duration_seconds"][1] if name.endswith("_count")
    )
    assert abs(count - sum(value for *_, value in families["http_requests_total"][1])) < 5


def ratio(workload: Workload, wanted: float) -> float:
    """The error ratio over the next requests, health checks aside."""

    def counts() -> tuple[float, float]:
        samples = [
            s
            for s in workload.scrape(workload.api)["http_requests_total"][1]
            if s[1]["endpoint"] != "/api/health"
        ]
        return sum(v for _, h, v in samples if h["status"] == "500"), sum(v for *_, v in samples)

    workload.switch(error_rate=wanted)
    bad, every = counts()
    until(lambda: counts()[1] >= every + 60)
    bad_now, every_now = counts()
    return (bad_now - bad) / (every_now - every)


def test_error_rate_is_switched(workload: Workload) -> None:
    assert ratio(workload, 0) == 0
    assert 0.3 < ratio(workload, 0.5) < 0.7
    assert ratio(workload, 0) < 0.05


def test_latency_is_switched(workload: Workload) -> None:
    def mean() -> float:
        samples = {
            n: v for n, h, v in workload.scrape(workload.api)["http_request_duration_seconds"][1] if not h
        }
        total, count = (
            samples["http_request_duration_seconds_sum"],
            samples["http_request_duration_seconds_count"],
        )
        time.sleep(3)
        samples = {
            n: v for n, h, v in workload.scrape(workload.api)["http_request_duration_seconds"][1] if not h
        }
        more = samples["http_request_duration_seconds_count"] - count
        return (samples["http_request_duration_seconds_sum"] - total) / more

    workload.switch(latency_ms=1)
    fast = mean()
    workload.switch(latency_ms=200)
    slow = mean()
    workload.switch(latency_ms=1)
    assert slow > 0.1 > fast


def test_webhooks_stop_and_start(workload: Workload) -> None:
    workload.switch(webhooks="off")
    time.sleep(0.5)
    before = workload.total("webhook_received_total")
    time.sleep(2)
    assert workload.total("webhook_received_total") == before
    workload.switch(webhooks="on")
    until(lambda: workload.total("webhook_received_total") > before)


def test_worker_and_database_switch(workload: Workload) -> None:
    workload.switch(worker="off", database="off", outbox_backlog=100, orders_pending=33)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        workload.get(workload.worker)
    assert workload.scrape(workload.database)["pg_up"][1][0][2] == 0
    until(lambda: workload.total("orders_pending") == 33, 5)
    workload.switch(worker="on", database="on")
    backlog = workload.scrape(workload.worker)["notification_outbox_backlog"][1]
    assert sum(value for *_, value in backlog) == 100
    assert workload.scrape(workload.database)["pg_up"][1][0][2] == 1


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"error_rate": 1.5}, "error_rate: 1.5 is not a number from 0 to 1"),
        ({"error_rate": "much"}, "error_rate: 'much' is not a number"),
        ({"webhooks": "maybe"}, "webhooks: 'maybe' is not on or off"),
        ({"colour": "red"}, "colour: unknown; known are"),
        ({"latency_ms": -1}, "latency_ms: -1 is not a number from 0 to"),
    ],
)
def test_bad_switches_change_nothing(workload: Workload, wanted: dict[str, Any], words: str) -> None:
    before = json.loads(workload.get(workload.api, "/switch"))
    answer = workload.switch(**wanted, outbox_backlog=77)
    assert answer["status"] == 400
    assert words in answer["error"]
    assert json.loads(workload.get(workload.api, "/switch")) == before


def test_switch_command(workload: Workload) -> None:
    changed = workload.command("--external-latency-ms", "900")
    assert changed.returncode == 0
    assert re.search(r"external_latency_ms +900", workload.command().stdout)
    refused = workload.command("--webhooks", "perhaps")
    assert refused.returncode == 1
    assert "webhooks: 'perhaps' is not on or off" in refused.stderr


def test_log_formats(workload: Workload) -> None:
    names = ("api.log", "worker.log", "edge.log")
    # The rarest of each kind: what the rest of the test looks at comes before them, or with them.
    rare = (
        "login_failed",
        "payment_failed",
        "role_changed",
        "PaymentGatewayError",
        "gateway_transaction_id",
        '"WARN"',
        "FATAL",
    )
    until(
        lambda: all(word in "".join(line for name in names for line in workload.lines(name)) for word in rare)
    )
    until(lambda: len(workload.lines("edge.log")) > 31)
    records, broken, plain = [], [], []
    for name in names:
        for line in workload.lines(name):
            try:
                records.append(json.loads(line))
            except ValueError:
                (broken if line.startswith("{") else plain).append(line)
    a = [record for record in records if "context" in record]
    b = [record for record in records if "context" not in record]
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    assert all(moment.fullmatch(record["timestamp"]) for record in records)
    a_fields = {"timestamp", "service", "level", "tenant_id", "user_id", "event", "message", "context"}
    assert all(set(record) == a_fields and {"ip", "user_agent"} <= set(record["context"]) for record in a)
    assert {record["level"] for record in a} == {"debug", "info", "warn", "error", "fatal"}
    assert {"login_failed", "payment_failed", "role_changed"} <= {record["event"] for record in a}
    assert {"auth-api", "billing", "payment-api", "edge-functions"} <= {record["service"] for record in a}
    assert {"DEBUG", "INFO", "WARN", "ERROR", "FATAL"} == {record["level"] for record in b}
    assert {record["environment"] for record in b} == {"development"}
    fields = set().union(*b)
    assert {
        "correlation_id",
        "request_id",
        "component",
        "order_id",
        "payment_method",
        "amount",
        "duration_ms",
    } <= fields
    errors = [record["error"] for record in b if record.get("error", {}).get("type") == "PaymentGatewayError"]
    assert errors
    assert all(error["code"] == "ECONNABORTED" and error["stack"] and error["message"] for error in errors)
    assert any({"gateway_transaction_id", "retry_attempt"} <= set(record.get("metadata", {})) for record in b)
    assert {record["component"] for record in b} >= {"http", "webhook_handler"}
    # Format C is broken exactly by the missing comma and quote: put them back and it is JSON.
    assert broken
    for line in broken:
        repaired = json.loads(re.sub(r'^(\{"level":"\w+")time: ', r'\1,"time":', line))
        assert moment.fullmatch(repaired["time"])
        assert repaired["service"] == "buatfilm-payment-api"
    assert plain, "a line nobody can parse belongs to it"
    assert all(
        re.fullmatch(r'\S+ - - \[.+\] "\w+ \S+ HTTP/1\.1" \d{3} \d+ "-" ".+"', line)
        for line in workload.lines("access.log")
    )
    tenants = {record["tenant_id"] for record in a}
    assert tenants == {"tenant_001", "tenant_123"}


def test_everything_is_on_standard_output_too(workload: Workload) -> None:
    line = workload.lines("edge.log")[0]
    assert line in workload.lines("stdout")


def test_traces(workload: Workload, collector: Collector) -> None:
    workload.switch(error_rate=0.5)
    until(
        lambda: any(
            service == "payment-api" and span["status"]["code"] == 2 for service, span in collector.spans()
        )
    )
    workload.switch(error_rate=0)
    spans = collector.spans()
    assert {"payment-api", "shop-web", "notification-worker"} <= {service for service, _ in spans}
    by_id = {span["spanId"]: span for _, span in spans}
    servers = [span for service, span in spans if service == "payment-api" and span["kind"] == 2]
    assert any(span.get("parentSpanId") in by_id for span in servers), "traceparent ties caller and API"
    for span in servers:
        attributes = {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}
        assert {"http.method", "http.url", "http.host", "http.status_code", "order_id"} <= set(attributes)
        failed = int(attributes["http.status_code"]) >= 500
        assert (attributes.get("error") is True) == failed
        assert (span["status"]["code"] == 2) == failed
        if failed:
            assert span["status"]["message"]
            assert attributes["error.message"] == span["status"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Trace-ID": "0af7651916cd43dd8448eb211c80319c"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
)
def test_each_trace_header_is_followed(workload: Workload, headers: dict[str, str]) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{workload.api}/api/health", headers=headers)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["X-Trace-ID"] == "0af7651916cd43dd8448eb211c80319c"
        assert answer.headers["X-Request-ID"]
    until(lambda: '"trace_id":"0af7651916cd43dd8448eb211c80319c"' in "\n".join(workload.lines("api.log")), 5)


def test_it_stays_small(workload: Workload) -> None:
    families = workload.scrape(workload.api)
    assert families["process_resident_memory_bytes"][1][0][2] < 40 * 1024 * 1024
    before, start = families["process_cpu_seconds_total"][1][0][2], time.monotonic()
    time.sleep(3)
    used = workload.scrape(workload.api)["process_cpu_seconds_total"][1][0][2] - before
    # Ten times the requests of the default, so ten times its limit of two per cent.
    assert used / (time.monotonic() - start) < 0.2


def test_a_busy_port_and_a_bad_setting_are_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for variables, words in (
            ({"WORKLOAD_PORT": str(taken.getsockname()[1]), "WORKLOAD_LISTEN": "127.0.0.1"}, "in use"),
            ({"WORKLOAD_RATE": "fast"}, "WORKLOAD_RATE='fast'"),
            ({"WORKLOAD_SPEED": "1"}, "WORKLOAD_SPEED is unknown"),
        ):
            done = subprocess.run(
                [sys.executable, str(PROGRAM), "serve"],
                env={**os.environ, "WORKLOAD_LOG_DIR": str(tmp_path), **variables},
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
            assert done.returncode == 2
            assert words in done.stderr
