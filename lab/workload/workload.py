#!/usr/bin/env python3
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A small shop that produces what a real one would: metrics, logs and traces of a payment system.

    workload.py serve                         payment-api :9464, notification-worker :9465, database exporter :9187
    workload.py switch                        what is switched how
    workload.py switch --error-rate 0.2       every fifth request fails from now on
    workload.py switch --webhooks off         the webhook stream stops

Standard library only. Everything it does is bounded: requests per second, memory, log files. Settings come from the
environment (see Settings); an empty `listen` is every interface. Requests are real: a client thread calls the API over HTTP, so durations are measured.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import logging
import logging.handlers
import os
import queue
import random
import resource
import signal
import socketserver
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Callable

LABEL_SEPARATOR = ","
INFINITY = float("inf")


# --- settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """From environment variables WORKLOAD_<NAME>. Ports 0 mean: any free one. `rate` in requests per second."""

    environment: str = "dev"
    tenants: tuple[str, ...] = ("tenant_001", "tenant_123")
    otlp_url: str = ""
    listen: str = ""
    port: int = 9464
    worker_port: int = 9465
    database_port: int = 9187
    log_dir: str = "/var/log/workload"
    log_stdout: bool = True
    rate: float = 2.0
    seed: int | None = None

    @staticmethod
    def load(variables: Mapping[str, str]) -> Settings:
        """Raises ValueError naming the variable that cannot be read or is unknown."""
        values: dict[str, Any] = {}
        readers: dict[str, Callable[[str], Any]] = {
            "environment": str,
            "tenants": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
            "otlp_url": lambda text: text.rstrip("/"),
            "listen": str,
            "port": int,
            "worker_port": int,
            "database_port": int,
            "log_dir": str,
            "log_stdout": lambda text: {"true": True, "false": False}[text.lower()],
            "rate": float,
            "seed": lambda text: int(text) if text else None,
        }
        for name, text in variables.items():
            if not name.startswith("WORKLOAD_"):
                continue
            key = name[len("WORKLOAD_") :].lower()
            if key not in readers:
                known = ", ".join("WORKLOAD_" + known.upper() for known in readers)
                raise ValueError(f"{name} is unknown; known are {known}")
            try:
                values[key] = readers[key](text)
            except (ValueError, KeyError):
                raise ValueError(f"{name}={text!r} cannot be read") from None
        settings = Settings(**values)
        if not settings.tenants:
            raise ValueError("WORKLOAD_TENANTS is empty; name at least one tenant")
        if not 0 < settings.rate <= 50:
            raise ValueError(
                f"WORKLOAD_RATE={settings.rate} must be above 0 and at most 50 requests per second"
            )
        return settings


# --- switches -------------------------------------------------------------------------------------------------------


def _ratio(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError("a number from 0 to 1")
    return number


def _upto(limit: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = float(value)
        if isinstance(value, bool) or not 0 <= number <= limit:
            raise ValueError(f"a number from 0 to {limit:g}")
        return number

    return read


def _on_off(value: Any) -> str:
    if value is True or value is False:
        return "on" if value else "off"
    if value not in ("on", "off"):
        raise ValueError("on or off")
    return str(value)


@dataclass(frozen=True)
class Switch:
    """One thing that can be changed while it runs."""

    default: Any
    read: Callable[[Any], Any]
    meaning: str


SWITCHES: dict[str, Switch] = {
    "error_rate": Switch(0.005, _ratio, "share of API requests answered with 500"),
    "latency_ms": Switch(
        20.0, _upto(10000), "time an API request takes, in milliseconds, before random spread"
    ),
    "webhooks": Switch("on", _on_off, "whether the payment gateway calls back"),
    "webhook_invalid_rate": Switch(0.02, _ratio, "share of webhooks with a wrong signature"),
    "external_latency_ms": Switch(
        250.0, _upto(30000), "time the payment gateway takes (recorded, not waited for)"
    ),
    "payment_failure_rate": Switch(0.1, _ratio, "share of payments that fail"),
    "notification_failure_rate": Switch(0.02, _ratio, "share of notifications that fail"),
    "outbox_backlog": Switch(3.0, _upto(100000), "notifications waiting in the outbox"),
    "orders_pending": Switch(4.0, _upto(100000), "orders waiting for payment"),
    "login_failures": Switch(0.05, _ratio, "share of logins that fail"),
    "rls_violations": Switch("off", _on_off, "whether tenants try to read each other's rows"),
    "worker": Switch("on", _on_off, "whether the notification worker lives; off: its endpoint answers 503"),
    "database": Switch("on", _on_off, "whether the database answers (pg_up)"),
}


class Switches:
    """The current values; changed by POST /switch."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {name: switch.default for name, switch in SWITCHES.items()}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def all(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._values)

    def change(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """All or nothing. Raises ValueError naming each key that is unknown or out of range."""
        faults, values = [], {}
        for name, value in wanted.items():
            if name not in SWITCHES:
                faults.append(f"{name}: unknown; known are {', '.join(SWITCHES)}")
                continue
            try:
                values[name] = SWITCHES[name].read(value)
            except (TypeError, ValueError) as error:
                expected = str(error) if str(error).startswith(("a number", "on or off")) else "a number"
                faults.append(f"{name}: {value!r} is not {expected}")
        if faults:
            raise ValueError("; ".join(faults))
        with self._lock:
            self._values.update(values)
            return dict(self._values)


# --- metrics --------------------------------------------------------------------------------------------------------


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if value == INFINITY:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


class Metric:
    """One family; its series are told apart by label values in the order of `labels`."""

    kind = ""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self.lock = threading.Lock()

    def key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        if set(labels) != set(self.labels):
            raise ValueError(f"{self.name} has labels {self.labels}, not {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def line(self, key: tuple[str, ...], value: float, suffix: str = "", extra: str = "") -> str:
        pairs = [f'{name}="{_escape(text)}"' for name, text in zip(self.labels, key)]
        if extra:
            pairs.append(extra)
        shown = "{" + LABEL_SEPARATOR.join(pairs) + "}" if pairs else ""
        return f"{self.name}{suffix}{shown} {_number(value)}"

    def samples(self) -> Iterable[str]:
        raise NotImplementedError

    def render(self) -> str:
        with self.lock:
            return "\n".join(
                [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} {self.kind}", *self.samples()]
            )


class Counter(Metric):
    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels)
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1, **labels: str) -> None:
        key = self.key(labels)
        with self.lock:
            self.values[key] = self.values.get(key, 0.0) + amount

    def samples(self) -> Iterable[str]:
        return [self.line(key, value) for key, value in sorted(self.values.items())]


class Gauge(Counter):
    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        key = self.key(labels)
        with self.lock:
            self.values[key] = value


class Histogram(Metric):
    kind = "histogram"

    def __init__(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels)
        self.bounds = (*buckets, INFINITY)
        self.values: dict[tuple[str, ...], list[float]] = {}
        if not labels:
            self._row(())

    def _row(self, key: tuple[str, ...]) -> list[float]:
        # One count per bound, then the sum.
        return self.values.setdefault(key, [0.0] * (len(self.bounds) + 1))

    def declare(self, **labels: str) -> None:
        with self.lock:
            self._row(self.key(labels))

    def observe(self, value: float, **labels: str) -> None:
        key = self.key(labels)
        with self.lock:
            row = self._row(key)
            for index, bound in enumerate(self.bounds):
                if value <= bound:
                    row[index] += 1
            row[-1] += value

    def samples(self) -> Iterable[str]:
        for key, row in sorted(self.values.items()):
            for bound, count in zip(self.bounds, row):
                yield self.line(key, count, "_bucket", f'le="{_number(bound)}"')
            yield self.line(key, row[-1], "_sum")
            yield self.line(key, row[len(self.bounds) - 1], "_count")


class Summary(Metric):
    kind = "summary"

    def __init__(self, name: str, text: str, quantiles: Sequence[float]) -> None:
        super().__init__(name, text)
        self.quantiles = quantiles
        self.window: collections.deque[float] = collections.deque(maxlen=500)
        self.total, self.count = 0.0, 0.0

    def observe(self, value: float) -> None:
        with self.lock:
            self.window.append(value)
            self.total += value
            self.count += 1

    def samples(self) -> Iterable[str]:
        ordered = sorted(self.window)
        for quantile in self.quantiles:
            value = ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0
            yield self.line((), value, extra=f'quantile="{_number(quantile)}"')
        yield self.line((), self.total, "_sum")
        yield self.line((), self.count, "_count")


ENDPOINTS = ("/api/orders", "/api/payments", "/api/auth/login", "/api/webhooks/midtrans", "/api/health")
PAYMENT_METHODS = ("gopay", "bank_transfer", "credit_card")
PROVIDERS = ("midtrans",)
ORDER_STATES = ("created", "pending_payment", "paid", "failed")
PAYMENT_STATES = ("pending", "paid", "failed")
CHANNELS = ("email", "whatsapp")
TEMPLATES = ("order_created", "payment_received")
QUERIES = (
    ("select", "orders"),
    ("insert", "orders"),
    ("update", "payments"),
    ("select", "notification_outbox"),
)
# What must not be readable in Loki; none of it is real.
PERSONAL = {"email": "budi.santoso@example.org", "token": "lab-not-a-secret-token"}
AMOUNTS = (49000, 75000, 99000, 149000, 199000, 450000, 750000)


class Process:
    """The client library's default metrics, of this process."""

    def __init__(self) -> None:
        self.cpu = Counter("process_cpu_seconds_total", "CPU time used, user and system.")
        self.memory = Gauge("process_resident_memory_bytes", "Resident memory.")
        self.start = Gauge("process_start_time_seconds", "When the process started, seconds since the epoch.")
        self.files = Gauge("process_open_fds", "Open file descriptors.")
        self.lag = Gauge("nodejs_eventloop_lag_seconds", "How late a timer of one millisecond fired.")
        self.start.set(time.time())

    def refresh(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu.values[()] = usage.ru_utime + usage.ru_stime
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.set(pages * resource.getpagesize())
        self.files.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        before = time.monotonic()
        time.sleep(0.001)
        self.lag.set(max(0.0, time.monotonic() - before - 0.001))

    def all(self) -> list[Metric]:
        return [self.cpu, self.memory, self.start, self.files, self.lag]


class ApiMetrics:
    """What payment-api exposes."""

    def __init__(self, tenants: Sequence[str]) -> None:
        self.requests = Counter(
            "http_requests_total", "Requests by outcome.", ("method", "endpoint", "status", "tenant_id")
        )
        self.duration = Histogram("http_request_duration_seconds", "Duration of requests.", (0.1, 0.5, 1.0))
        self.orders = Counter("orders_total", "Orders by state.", ("status", "payment_method", "tenant_id"))
        self.order_duration = Histogram(
            "order_creation_duration_seconds",
            "Time to create an order.",
            (0.1, 0.5, 1, 2, 5, 10),
            ("payment_method",),
        )
        self.pending = Gauge("orders_pending", "Orders waiting for payment.")
        self.payments = Counter(
            "payment_transactions_total",
            "Payments by outcome.",
            ("status", "provider", "payment_type", "tenant_id"),
        )
        self.amount = Histogram(
            "payment_amount_histogram",
            "Amount of payments in rupiah.",
            (50000, 75000, 99000, 150000, 200000, 500000),
            ("payment_method",),
        )
        self.payment_duration = Summary(
            "payment_processing_duration_seconds", "Time to process a payment.", (0.5, 0.9, 0.99)
        )
        self.webhooks = Counter("webhook_received_total", "Webhooks by validity.", ("valid", "provider"))
        self.webhook_duration = Histogram(
            "webhook_processing_duration_seconds", "Time to process a webhook.", (0.01, 0.05, 0.1, 0.5, 1, 2)
        )
        self.query = Histogram(
            "db_query_duration_seconds",
            "Duration of queries.",
            (0.001, 0.005, 0.01, 0.05, 0.1, 0.5),
            ("operation", "table"),
        )
        self.external = Histogram(
            "external_service_duration_seconds",
            "Duration of calls to other services.",
            (0.1, 0.5, 1, 2, 5, 10),
            ("service", "operation", "status"),
        )
        self.rls = Counter(
            "rls_violation_total", "Blocked attempts to read another tenant's rows.", ("tenant_id",)
        )
        self.process = Process()
        # Series exist from the start, so that the first increment is an increase and not a beginning.
        for tenant in tenants:
            self.rls.add(0, tenant_id=tenant)
            for endpoint in ENDPOINTS:
                method = "GET" if endpoint == "/api/health" else "POST"
                for status in ("200", "500"):
                    self.requests.add(0, method=method, endpoint=endpoint, status=status, tenant_id=tenant)
            for method in PAYMENT_METHODS:
                for state in ORDER_STATES:
                    self.orders.add(0, status=state, payment_method=method, tenant_id=tenant)
                for state in PAYMENT_STATES:
                    self.payments.add(
                        0, status=state, provider="midtrans", payment_type=method, tenant_id=tenant
                    )
        for method in PAYMENT_METHODS:
            self.order_duration.declare(payment_method=method)
            self.amount.declare(payment_method=method)
        for valid in ("true", "false"):
            self.webhooks.add(0, valid=valid, provider="midtrans")
        for operation, table in QUERIES:
            self.query.declare(operation=operation, table=table)
        for operation in ("charge", "status"):
            for state in ("success", "error"):
                self.external.declare(service="midtrans", operation=operation, status=state)

    def render(self) -> str:
        self.process.refresh()
        families = [value for value in vars(self).values() if isinstance(value, Metric)]
        return "\n".join(family.render() for family in families + self.process.all()) + "\n"


class WorkerMetrics:
    """What notification-worker exposes. Its HTTP counter speaks of `status_code`, as older services do."""

    def __init__(self) -> None:
        self.sent = Counter(
            "notifications_sent_total", "Notifications by outcome.", ("channel", "template", "status")
        )
        self.backlog = Gauge(
            "notification_outbox_backlog", "Notifications not sent yet.", ("channel", "status")
        )
        self.alive = Gauge("worker_alive", "1 while the worker lives.")
        self.requests = Counter("http_requests_total", "Requests by outcome.", ("endpoint", "status_code"))
        self.process = Process()
        self.alive.set(1)
        self.requests.add(0, endpoint="/metrics", status_code="200")
        for channel in CHANNELS:
            for template in TEMPLATES:
                for status in ("sent", "failed"):
                    self.sent.add(0, channel=channel, template=template, status=status)

    def render(self, backlog: float) -> str:
        self.requests.add(endpoint="/metrics", status_code="200")
        for channel in CHANNELS:
            share = backlog / len(CHANNELS)
            self.backlog.set(round(share * 0.8), channel=channel, status="PENDING")
            self.backlog.set(round(share) - round(share * 0.8), channel=channel, status="RETRYING")
        self.process.refresh()
        families: list[Metric] = [self.sent, self.backlog, self.alive, self.requests, *self.process.all()]
        return "\n".join(family.render() for family in families) + "\n"


# --- logs -----------------------------------------------------------------------------------------------------------


def timestamp() -> str:
    """ISO 8601 with milliseconds and Z."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def format_a(
    service: str, level: str, tenant: str, user: str, event: str, message: str, ip: str, **context: Any
) -> str:
    """JSON with a lower-case level and the caller below `context`."""
    return json.dumps(
        {
            "timestamp": timestamp(),
            "service": service,
            "level": level.lower(),
            "tenant_id": tenant,
            "user_id": user,
            "event": event,
            "message": message,
            "context": {"ip": ip, "user_agent": "Mozilla/5.0 (X11; Linux x86_64)", **context},
        },
        separators=(",", ":"),
    )


def format_b(service: str, level: str, message: str, environment: str, **fields: Any) -> str:
    """JSON with an upper-case level and flat identifiers; fields that are None are left out."""
    record = {"timestamp": timestamp(), "level": level.upper(), "message": message, "service": service}
    record.update({"environment": "development" if environment == "dev" else environment})
    record.update({key: value for key, value in fields.items() if value is not None})
    return json.dumps(record, separators=(",", ":"))


def format_c(service: str, level: str, message: str, **fields: Any) -> str:
    """What a logger prints whose time function forgets the comma and the quote; not JSON on purpose."""
    rest = json.dumps({"service": service, "msg": message, **fields}, separators=(",", ":"))
    return f'{{"level":"{level.lower()}"time: "{timestamp()}",{rest[1:]}'


class Logs:
    """Lines to files that never outgrow 6 MB each, and to standard output."""

    FILES = ("api.log", "worker.log", "edge.log", "access.log")

    def __init__(self, folder: str, stdout: bool) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._stdout = stdout
        self._lock = threading.Lock()
        self._files = {}
        for name in self.FILES:
            path = str(Path(folder) / name)
            handler = logging.handlers.RotatingFileHandler(
                path, maxBytes=2_000_000, backupCount=2, encoding="utf-8"
            )
            self._files[name] = handler

    def write(self, name: str, line: str) -> None:
        record = logging.LogRecord("workload", logging.INFO, "", 0, line.replace("%", "%%"), None, None)
        record.msg = line
        self._files[name].emit(record)
        if self._stdout:
            with self._lock:
                try:
                    print(line, flush=True)
                except OSError:
                    self._stdout = False


# --- traces ---------------------------------------------------------------------------------------------------------


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key, value in values.items():
        if isinstance(value, bool):
            shown: dict[str, Any] = {"boolValue": value}
        elif isinstance(value, int):
            shown = {"intValue": str(value)}
        else:
            shown = {"stringValue": str(value)}
        found.append({"key": key, "value": shown})
    return found


@dataclass
class Span:
    """One span as it will be sent. Times in nanoseconds since the epoch."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def otlp(self) -> dict[str, Any]:
        attributes = dict(self.attributes)
        if self.error:
            attributes["error"] = True
            attributes["error.message"] = self.error
        span: dict[str, Any] = {
            "traceId": self.trace,
            "spanId": self.id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.start),
            "endTimeUnixNano": str(self.end),
            "attributes": _attributes(attributes),
            "status": {"code": 2, "message": self.error} if self.error else {"code": 1},
        }
        if self.parent:
            span["parentSpanId"] = self.parent
        return span


class Tracer:
    """Sends spans every two seconds as OTLP/HTTP JSON; what cannot be sent is dropped, never piled up."""

    LIMIT = 500

    def __init__(self, url: str, environment: str) -> None:
        self._url = urllib.parse.urlsplit(url) if url else None
        self._environment = environment
        self._queue: queue.Queue[Span] = queue.Queue(self.LIMIT)
        self.sent = Counter("traces_spans_total", "Spans by fate.", ("outcome",))
        for outcome in ("sent", "dropped"):
            self.sent.add(0, outcome=outcome)

    def add(self, *spans: Span) -> None:
        if self._url is None:
            return
        for span in spans:
            try:
                self._queue.put_nowait(span)
            except queue.Full:
                self.sent.add(outcome="dropped")

    def flush(self) -> None:
        by_service: dict[str, list[dict[str, Any]]] = {}
        count = 0
        while not self._queue.empty():
            span = self._queue.get_nowait()
            by_service.setdefault(span.service, []).append(span.otlp())
            count += 1
        if not count or self._url is None:
            return
        body = {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": _attributes(
                            {"service.name": service, "deployment.environment": self._environment}
                        )
                    },
                    "scopeSpans": [{"scope": {"name": "workload"}, "spans": spans}],
                }
                for service, spans in by_service.items()
            ]
        }
        connector = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = connector(self._url.hostname or "", self._url.port, timeout=5)
        try:
            connection.request(
                "POST",
                self._url.path.rstrip("/") + "/v1/traces",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            good = 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            good = False
        finally:
            connection.close()
        self.sent.add(count, outcome="sent" if good else "dropped")


# --- the shop -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One request as the API sees it."""

    endpoint: str
    method: str
    url: str
    host: str
    tenant: str
    request_id: str
    trace: str
    parent: str
    ip: str
    body: Mapping[str, Any]


class Dice(random.Random):
    """Chance that a seed repeats; decides nothing that must be secret."""


class Shop:
    """The business: what a request does, and what the worker and the edge functions do beside it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.switches = Switches()
        self.api = ApiMetrics(settings.tenants)
        self.worker = WorkerMetrics()
        self.logs = Logs(settings.log_dir, settings.log_stdout)
        self.tracer = Tracer(settings.otlp_url, settings.environment)
        self._random = Dice(settings.seed)
        self._lock = threading.Lock()
        self._orders = 0

    def draw(self) -> float:
        with self._lock:
            return self._random.random()

    def pick(self, choices: Sequence[Any]) -> Any:
        with self._lock:
            return self._random.choice(choices)

    def spread(self, middle: float) -> float:
        """Around `middle`, mostly half to double, now and then much longer."""
        with self._lock:
            return middle * self._random.lognormvariate(0, 0.5)

    def identifier(self, length: int) -> str:
        with self._lock:
            return f"{self._random.getrandbits(length * 4):0{length}x}"

    def _order(self) -> str:
        with self._lock:
            self._orders += 1
            return f"ORD-{time.strftime('%Y%m%d')}-{self._orders:06d}"

    def handle(self, call: Call) -> tuple[int, dict[str, Any]]:
        """Does the request and returns its status and body. Takes the switched time."""
        start = time.time_ns()
        began = time.monotonic()
        span = self.identifier(16)
        order = str(call.body.get("order_id") or "") or self._order()
        time.sleep(min(10.0, self.spread(self.switches["latency_ms"]) / 1000))
        failed = call.endpoint != "/api/health" and self.draw() < self.switches["error_rate"]
        status = 500 if failed else 200
        children = [self._query(call, span)]
        details: dict[str, Any] = {}
        if call.endpoint == "/api/orders":
            details = self._create_order(call, order, failed)
        elif call.endpoint == "/api/payments":
            children.append(self._pay(call, span, order, failed))
        elif call.endpoint == "/api/webhooks/midtrans":
            details = self._webhook(call, order, failed)
        elif call.endpoint == "/api/auth/login":
            details = self._login(call)
        seconds = time.monotonic() - began
        self.api.duration.observe(seconds)
        self.api.requests.add(
            method=call.method, endpoint=call.endpoint, status=str(status), tenant_id=call.tenant
        )
        message = "connect ECONNABORTED payment gateway" if failed else ""
        server = Span(
            "payment-api",
            call.trace,
            span,
            call.parent,
            f"{call.method} {call.endpoint}",
            2,
            start,
            time.time_ns(),
            {
                "http.method": call.method,
                "http.url": call.url,
                "http.host": call.host,
                "http.status_code": status,
                "order_id": order,
                "tenant_id": call.tenant,
            },
            message,
        )
        self.tracer.add(server, *children)
        self._log_request(call, order, status, seconds, message)
        return status, {"order_id": order, "request_id": call.request_id, "trace_id": call.trace, **details}

    def _query(self, call: Call, parent: str) -> Span:
        operation, table = self.pick(QUERIES)
        seconds = self.spread(0.004)
        self.api.query.observe(seconds, operation=operation, table=table)
        return self._child(
            call, parent, f"{operation} {table}", seconds, {"db.operation": operation, "db.sql.table": table}
        )

    def _child(self, call: Call, parent: str, name: str, seconds: float, attributes: dict[str, Any]) -> Span:
        end = time.time_ns()
        return Span(
            "payment-api",
            call.trace,
            self.identifier(16),
            parent,
            name,
            3,
            end - int(seconds * 1e9),
            end,
            attributes,
        )

    def _create_order(self, call: Call, order: str, failed: bool) -> dict[str, Any]:
        method = str(call.body.get("payment_method") or self.pick(PAYMENT_METHODS))
        self.api.order_duration.observe(self.spread(0.4), payment_method=method)
        states = ("created", "failed") if failed else ("created", "pending_payment")
        for state in states:
            self.api.orders.add(status=state, payment_method=method, tenant_id=call.tenant)
        return {"payment_method": method, "order_id": order}

    def _pay(self, call: Call, parent: str, order: str, failed: bool) -> Span:
        method = str(call.body.get("payment_method") or self.pick(PAYMENT_METHODS))
        amount = self.pick(AMOUNTS)
        seconds = self.spread(self.switches["external_latency_ms"] / 1000)
        bad = failed or self.draw() < self.switches["payment_failure_rate"]
        self.api.external.observe(
            seconds, service="midtrans", operation="charge", status="error" if failed else "success"
        )
        self.api.external.observe(self.spread(0.1), service="midtrans", operation="status", status="success")
        self.api.payment_duration.observe(seconds)
        self.api.amount.observe(amount, payment_method=method)
        state = "failed" if bad else "paid"
        for status in ("pending", state):
            self.api.payments.add(
                status=status, provider="midtrans", payment_type=method, tenant_id=call.tenant
            )
        self.api.orders.add(status=state, payment_method=method, tenant_id=call.tenant)
        if bad:
            self.logs.write(
                "api.log",
                format_a(
                    "billing",
                    "error",
                    call.tenant,
                    "user_42",
                    "payment_failed",
                    f"payment of {order} failed",
                    call.ip,
                ),
            )
        return self._child(
            call, parent, "midtrans charge", seconds, {"peer.service": "midtrans", "order_id": order}
        )

    def _webhook(self, call: Call, order: str, failed: bool) -> dict[str, Any]:
        valid = self.draw() >= self.switches["webhook_invalid_rate"]
        self.api.webhooks.add(valid="true" if valid else "false", provider="midtrans")
        self.api.webhook_duration.observe(self.spread(0.03))
        if not valid or failed:
            self.logs.write(
                "api.log",
                format_b(
                    "payment-api",
                    "WARN" if not failed else "ERROR",
                    "webhook signature does not match" if not valid else "webhook failed",
                    self.settings.environment,
                    correlation_id=order,
                    request_id=call.request_id,
                    component="webhook_handler",
                    order_id=order,
                    trace_id=call.trace,
                    customer_email=PERSONAL["email"],
                    customer_phone="081234569012",
                    authorization="Bearer " + PERSONAL["token"],
                ),
            )
        return {"valid": valid}

    def _login(self, call: Call) -> dict[str, Any]:
        failed = self.draw() < self.switches["login_failures"]
        event, level, text = (
            ("login_failed", "error", "wrong password") if failed else ("login", "info", "logged in")
        )
        self.logs.write("api.log", format_a("auth-api", level, call.tenant, "user_7", event, text, call.ip))
        return {"logged_in": not failed}

    def _log_request(self, call: Call, order: str, status: int, seconds: float, message: str) -> None:
        error = None
        if message:
            error = {
                "type": "PaymentGatewayError",
                "message": message,
                "stack": "PaymentGatewayError: timeout\n    at charge (gateway.js:42:11)",
                "code": "ECONNABORTED",
            }
        self.logs.write(
            "api.log",
            format_b(
                "payment-api",
                "ERROR" if message else "INFO",
                message or f"{call.method} {call.endpoint} {status}",
                self.settings.environment,
                correlation_id=order,
                request_id=call.request_id,
                component="http",
                tenant_id=call.tenant,
                order_id=order,
                payment_method=call.body.get("payment_method"),
                amount=self.pick(AMOUNTS),
                duration_ms=round(seconds * 1000, 1),
                trace_id=call.trace,
                error=error,
                metadata={"gateway_transaction_id": self.identifier(12), "retry_attempt": 0},
            ),
        )
        when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        self.logs.write(
            "access.log",
            f'{call.ip} - - [{when}] "{call.method} {call.endpoint} HTTP/1.1" {status} 187 "-" "workload/1.0"',
        )

    # What happens beside requests, once per second.

    def work(self, tick: int) -> None:
        tenant = self.settings.tenants[tick % len(self.settings.tenants)]
        if self.switches["worker"] == "on":
            self._notify(tick, tenant)
        self._edge(tick, tenant)
        self._rare(tick, tenant)
        self.api.pending.set(self.switches["orders_pending"])
        if self.switches["rls_violations"] == "on":
            self.api.rls.add(tenant_id=tenant)

    def _notify(self, tick: int, tenant: str) -> None:
        channel, template = CHANNELS[tick % len(CHANNELS)], TEMPLATES[tick // 2 % len(TEMPLATES)]
        failed = self.draw() < self.switches["notification_failure_rate"]
        status = "failed" if failed else "sent"
        self.worker.sent.add(channel=channel, template=template, status=status)
        end = time.time_ns()
        trace = self.identifier(32)
        self.tracer.add(
            Span(
                "notification-worker",
                trace,
                self.identifier(16),
                "",
                f"send {channel}",
                5,
                end - 30_000_000,
                end,
                {"messaging.destination": channel, "tenant_id": tenant},
                "mail server refused" if failed else "",
            )
        )
        self.logs.write(
            "worker.log",
            format_b(
                "notification-worker",
                "ERROR" if failed else "INFO",
                f"{template} by {channel} {status}",
                self.settings.environment,
                request_id=self.identifier(32),
                component="outbox",
                tenant_id=tenant,
                trace_id=trace,
                metadata={"retry_attempt": 1 if failed else 0},
            ),
        )
        # The brand's older service still uses the logger that prints no JSON.
        self.logs.write(
            "worker.log",
            format_c(
                "buatfilm-payment-api",
                ("info", "debug", "warn", "error")[tick % 4],
                f"outbox pass {tick}",
                tenant_id=tenant,
                trace_id=trace,
            ),
        )

    def _edge(self, tick: int, tenant: str) -> None:
        levels = ("info", "info", "debug", "info", "warn", "info", "error")
        self.logs.write(
            "edge.log",
            format_a(
                "edge-functions",
                levels[tick % len(levels)],
                tenant,
                "user_42",
                "function_invoked",
                "resize-image finished",
                "10.1.2.3",
                duration_ms=round(self.spread(40), 1),
            ),
        )

    def _rare(self, tick: int, tenant: str) -> None:
        """Things that must be seen although they seldom happen: each level, each event, and a line nobody can parse."""
        environment, moment = self.settings.environment, tick % 30
        if moment == 1:
            self.logs.write(
                "api.log",
                format_a(
                    "auth-api", "error", tenant, "user_666", "login_failed", "wrong password", "203.0.113.7"
                ),
            )
        elif moment == 4:
            self.logs.write(
                "api.log",
                format_a(
                    "billing", "error", tenant, "user_42", "payment_failed", "card was declined", "10.1.2.3"
                ),
            )
        elif moment == 7:
            self.logs.write(
                "api.log",
                format_b(
                    "payment-api", "DEBUG", "SELECT * FROM orders WHERE id = $1", environment, component="db"
                ),
            )
        elif moment == 10:
            self.logs.write(
                "api.log",
                format_b(
                    "payment-api",
                    "FATAL",
                    "out of database connections",
                    environment,
                    component="db",
                    error={"type": "PoolError", "message": "timeout", "code": "POOL"},
                ),
            )
        elif moment == 13:
            self.logs.write(
                "api.log",
                format_a(
                    "auth-api", "warn", tenant, "admin_1", "role_changed", "editor became owner", "10.1.2.3"
                ),
            )
        elif moment == 16:
            self.logs.write("edge.log", "Listening on http://localhost:9999/ (this line is no JSON)")
        elif moment == 19:
            self.logs.write(
                "worker.log", format_c("buatfilm-payment-api", "fatal", "worker restarts", tenant_id=tenant)
            )
        elif moment == 22:
            self.logs.write(
                "edge.log",
                format_a(
                    "edge-functions",
                    "fatal",
                    tenant,
                    "user_42",
                    "function_crashed",
                    "isolate killed",
                    "10.1.2.3",
                    **PERSONAL,
                ),
            )
        elif moment == 25:
            self.logs.write(
                "api.log",
                format_a(
                    "payment-api", "info", tenant, "user_42", "order_created", "order created", "10.1.2.3"
                ),
            )


# --- HTTP -----------------------------------------------------------------------------------------------------------


def trace_of(headers: Message) -> tuple[str, str]:
    """Trace and parent span of a request: traceparent, else X-Trace-ID, else a new trace."""
    parts = str(headers.get("traceparent") or "").split("-")
    if len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        return parts[1], parts[2]
    own = str(headers.get("X-Trace-ID") or "").replace("-", "").lower()
    if len(own) == 32 and all(letter in "0123456789abcdef" for letter in own):
        return own, ""
    return uuid.uuid4().hex, ""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """HTTP with a thread per connection; a client that hangs is cut off after ten seconds."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    shop: Shop

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A scraper that goes away is no news.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """What all endpoints share."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 10
    MOST = 65536

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged by the shop itself."""

    def answer(self, status: int, body: str, kind: str, headers: Mapping[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def answer_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, json.dumps(body), "application/json", headers)

    def metrics(self, body: str) -> None:
        self.answer(200, body, "text/plain; version=0.0.4; charset=utf-8")

    def read_json(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if length > self.MOST:
            raise ValueError(f"the body is larger than {self.MOST} bytes")
        body = json.loads(self.rfile.read(length) or b"{}")
        if not isinstance(body, dict):
            raise ValueError("the body is no JSON object")
        return body


class ApiHandler(Handler):
    def do_GET(self) -> None:
        shop = self.server.shop
        if self.path == "/metrics":
            self.metrics(shop.api.render() + shop.tracer.sent.render() + "\n")
        elif self.path == "/switch":
            self.answer_json(200, shop.switches.all())
        elif self.path == "/api/health":
            self._serve({})
        else:
            self.answer_json(404, {"error": "no such path"})

    def do_POST(self) -> None:
        try:
            body = self.read_json()
            if self.path == "/switch":
                self.answer_json(200, self.server.shop.switches.change(body))
            elif self.path in ENDPOINTS:
                self._serve(body)
            else:
                self.answer_json(404, {"error": "no such path"})
        except ValueError as error:
            self.answer_json(400, {"error": str(error)})

    def _serve(self, body: Mapping[str, Any]) -> None:
        tenant = self.headers.get("X-Tenant-ID") or self.server.shop.settings.tenants[0]
        if tenant not in self.server.shop.settings.tenants:
            self.answer_json(403, {"error": "no such tenant"})
            return
        trace, parent = trace_of(self.headers)
        host = self.headers.get("Host") or ""
        call = Call(
            self.path,
            self.command,
            f"http://{host}{self.path}",
            host,
            tenant,
            self.headers.get("X-Request-ID") or str(uuid.uuid4()),
            trace,
            parent,
            str(self.client_address[0]),
            body,
        )
        status, answer = self.server.shop.handle(call)
        self.answer_json(status, answer, {"X-Request-ID": call.request_id, "X-Trace-ID": trace})


class WorkerHandler(Handler):
    def do_GET(self) -> None:
        shop = self.server.shop
        if shop.switches["worker"] != "on":
            self.answer(503, "the worker is switched off\n", "text/plain")
        elif self.path == "/metrics":
            self.metrics(shop.worker.render(shop.switches["outbox_backlog"]))
        else:
            self.answer(404, "no such path\n", "text/plain")


class DatabaseHandler(Handler):
    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.answer(404, "no such path\n", "text/plain")
            return
        up = Gauge("pg_up", "Whether the database answers.")
        up.set(1 if self.server.shop.switches["database"] == "on" else 0)
        self.metrics(up.render() + "\n")


# --- running --------------------------------------------------------------------------------------------------------


class Program:
    """All threads of one run."""

    def __init__(self, settings: Settings) -> None:
        self.shop = Shop(settings)
        self.stop = threading.Event()
        self.servers = []
        for port, handler in (
            (settings.port, ApiHandler),
            (settings.worker_port, WorkerHandler),
            (settings.database_port, DatabaseHandler),
        ):
            server = Server((settings.listen, port), handler)
            server.shop = self.shop
            self.servers.append(server)

    def ports(self) -> list[int]:
        return [int(server.server_address[1]) for server in self.servers]

    def run(self) -> None:
        threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in self.servers]
        threads += [
            threading.Thread(target=self._customers, daemon=True),
            threading.Thread(target=self._seconds, daemon=True),
            threading.Thread(target=self._send_traces, daemon=True),
        ]
        for thread in threads:
            thread.start()
        self.stop.wait()
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.shop.tracer.flush()

    def _seconds(self) -> None:
        tick = 0
        while not self.stop.wait(1):
            tick += 1
            self.shop.work(tick)

    def _send_traces(self) -> None:
        while not self.stop.wait(2):
            self.shop.tracer.flush()

    def _customers(self) -> None:
        """Calls the API as customers and the payment gateway would."""
        order, step = "", 0
        pause = 1 / self.shop.settings.rate
        cycle = ("/api/orders", "/api/payments", "/api/webhooks/midtrans", "/api/auth/login", "/api/health")
        next_at = time.monotonic()
        while not self.stop.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + pause, time.monotonic() - 1)
            endpoint = cycle[step % len(cycle)]
            tenant = self.shop.settings.tenants[step // len(cycle) % len(self.shop.settings.tenants)]
            step += 1
            if endpoint == "/api/webhooks/midtrans" and self.shop.switches["webhooks"] == "off":
                continue
            if endpoint == "/api/orders":
                order = ""
            order = self._call(endpoint, tenant, order) or order

    def _call(self, endpoint: str, tenant: str, order: str) -> str:
        trace, span = self.shop.identifier(32), self.shop.identifier(16)
        headers = {
            "Content-Type": "application/json",
            "X-Request-ID": str(uuid.UUID(self.shop.identifier(32))),
            "X-Tenant-ID": tenant,
            "X-Trace-ID": trace,
            "traceparent": f"00-{trace}-{span}-01",
        }
        body = {"payment_method": self.shop.pick(PAYMENT_METHODS)}
        if order:
            body["order_id"] = order
        start = time.time_ns()
        connection = http.client.HTTPConnection("127.0.0.1", self.ports()[0], timeout=15)
        try:
            if endpoint == "/api/health":
                connection.request("GET", endpoint, headers=headers)
            else:
                connection.request("POST", endpoint, json.dumps(body), headers)
            answer = connection.getresponse()
            found = json.loads(answer.read() or b"{}")
        except (OSError, ValueError, http.client.HTTPException):
            return ""
        finally:
            connection.close()
        host = self.shop.settings.environment + ".shop.example.org"
        self.shop.tracer.add(
            Span(
                "shop-web",
                trace,
                span,
                "",
                f"call {endpoint}",
                3,
                start,
                time.time_ns(),
                {
                    "http.method": "GET" if endpoint == "/api/health" else "POST",
                    "http.url": f"http://{host}{endpoint}",
                    "http.host": host,
                    "http.status_code": answer.status,
                    "order_id": str(found.get("order_id") or ""),
                },
                "the API answered 500" if answer.status >= 500 else "",
            )
        )
        return str(found.get("order_id") or "")


def serve() -> int:
    try:
        settings = Settings.load(os.environ)
        program = Program(settings)
    except (ValueError, OSError) as error:
        print(f"workload: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: program.stop.set())
    api, worker, database = program.ports()
    print(
        f"workload: payment-api {api}, notification-worker {worker}, database {database}",
        file=sys.stderr,
        flush=True,
    )
    program.run()
    return 0


def switch(url: str, wanted: Mapping[str, Any]) -> int:
    """Changes (or only shows) the switches of a running workload."""
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "127.0.0.1", place.port, timeout=10)
    try:
        if wanted:
            connection.request("POST", "/switch", json.dumps(wanted), {"Content-Type": "application/json"})
        else:
            connection.request("GET", "/switch")
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, ValueError) as error:
        print(
            f"workload: {url} does not answer ({error}); is the service `workload` running there?",
            file=sys.stderr,
        )
        return 1
    finally:
        connection.close()
    if answer.status != 200:
        print(f"workload: {body.get('error')}", file=sys.stderr)
        return 1
    for name, value in body.items():
        print(f"{name:<26}{value!s:<10}{SWITCHES[name].meaning}")
    return 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="workload.py", description="Produces metrics, logs and traces of a small shop."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run; settings in the environment, WORKLOAD_*")
    changer = commands.add_parser("switch", help="show or change how the running one behaves")
    changer.add_argument("--url", default="http://127.0.0.1:9464", help="address of payment-api")
    for name, one in SWITCHES.items():
        changer.add_argument("--" + name.replace("_", "-"), dest=name, help=one.meaning)
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return serve()
    return switch(
        options.url, {name: getattr(options, name) for name in SWITCHES if getattr(options, name) is not None}
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
