# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of Tempo: a trace sent over HTTP and one sent over gRPC are found by their ids."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .._servers.client import Client, Refused, Unreachable
from .model import Check, NotYet, Wanted, Wrong

SERVICE = "platform-verify"


def trace_id(run: str, url: str, protocol: str) -> str:
    """The id both the sender and those who look for the trace derive; 32 hexadecimal digits."""
    return hashlib.sha256(f"{run} {url} {protocol}".encode()).hexdigest()[:32]


def checks(wanted: Wanted) -> list[Check]:
    found = []
    for connection in wanted.of("tempo"):
        for protocol in ("http", "grpc"):
            round_trip = RoundTrip(connection, wanted, protocol)
            found.append(
                Check(
                    "traces",
                    f"{connection['url']} OTLP/{protocol}",
                    frozenset({"tempo"}),
                    round_trip.run,
                    "on the host: journalctl -u tempo; the ports of OTLP must be open to this machine",
                    active=True,
                )
            )
    return found


class RoundTrip:
    """Sends once, then looks until the trace is there."""

    def __init__(self, connection: Mapping[str, Any], wanted: Wanted, protocol: str) -> None:
        self._connection = connection
        self._environment = wanted.environment
        self._protocol = protocol
        self.id = trace_id(wanted.run, str(connection["url"]), protocol)
        self._sent = False

    def run(self) -> str:
        if not self._sent:
            if self._protocol == "http":
                send_http(self._connection, self.id, self._environment)
            else:
                send_grpc(self._connection, self.id, self._environment)
            self._sent = True
        try:
            found = Client(self._connection).json(f"/api/traces/{self.id}")
        except Refused as error:
            if error.status == 404:
                raise NotYet(f"trace {self.id} was accepted but is not found") from error
            raise
        spans = [
            span
            for batch in found.get("batches", found.get("resourceSpans", []))
            for scope in batch.get("scopeSpans", [])
            for span in scope.get("spans", [])
        ]
        if not spans:
            raise NotYet(f"trace {self.id} is found without a span")
        return f"trace {self.id} found"


def _entry(connection: Mapping[str, Any], name: str) -> str:
    """Where traces are sent to. Raises Wrong for a connection that does not say."""
    if not connection.get(name):
        raise Wrong(f"the connection of {connection['url']} has no {name}, so no trace can be sent")
    return str(connection[name])


def send_http(connection: Mapping[str, Any], trace: str, environment: str) -> None:
    """One span as OTLP/HTTP JSON."""
    now = time.time_ns()
    span = {
        "traceId": trace,
        "spanId": trace[:16],
        "name": "verify over HTTP",
        "kind": 1,
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
    }
    attributes = [
        {"key": key, "value": {"stringValue": value}} for key, value in _resource(environment).items()
    ]
    body = {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span]}]}]}
    Client(connection, _entry(connection, "otlp_http_url")).text("/v1/traces", body=body)


def send_grpc(connection: Mapping[str, Any], trace: str, environment: str) -> None:
    """One span as OTLP/gRPC, with the same trust and password as the HTTP API of this Tempo."""
    try:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
        from opentelemetry.proto.common.v1 import common_pb2
        from opentelemetry.proto.resource.v1 import resource_pb2
        from opentelemetry.proto.trace.v1 import trace_pb2
    except ImportError as error:
        raise Wrong(
            f"the trace over gRPC needs the Python packages grpcio and opentelemetry-proto on the controller ({error}); "
            "install requirements.txt"
        ) from error
    now = time.time_ns()
    span = trace_pb2.Span(
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(trace[:16]),
        name="verify over gRPC",
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=now - 1_000_000,
        end_time_unix_nano=now,
    )
    attributes = [
        common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))
        for key, value in _resource(environment).items()
    ]
    request = trace_service_pb2.ExportTraceServiceRequest(
        resource_spans=[
            trace_pb2.ResourceSpans(
                resource=resource_pb2.Resource(attributes=attributes),
                scope_spans=[trace_pb2.ScopeSpans(spans=[span])],
            )
        ]
    )
    endpoint = _entry(connection, "otlp_grpc_endpoint")
    metadata = []
    if connection.get("username"):
        pair = f"{connection['username']}:{connection.get('password') or ''}".encode()
        metadata.append(("authorization", "Basic " + base64.b64encode(pair).decode()))
    if connection.get("tenant"):
        metadata.append(("x-scope-orgid", str(connection["tenant"])))
    # A proxy of the environment would answer in Tempo's place.
    options = [("grpc.enable_http_proxy", 0)]
    if urlsplit(str(connection["url"])).scheme == "https":
        credentials = grpc.ssl_channel_credentials(
            _bytes(connection.get("ca_file")),
            _bytes(connection.get("client_key")),
            _bytes(connection.get("client_cert")),
        )
        channel = grpc.secure_channel(endpoint, credentials, options)
    else:
        channel = grpc.insecure_channel(endpoint, options)
    try:
        trace_service_pb2_grpc.TraceServiceStub(channel).Export(request, timeout=5, metadata=metadata)
    except grpc.RpcError as error:
        raise Unreachable(f"OTLP/gRPC at {endpoint}: {error.code().name}: {error.details()}") from error
    finally:
        channel.close()


def _bytes(path: Any) -> bytes | None:
    if not path:
        return None
    try:
        return Path(str(path)).read_bytes()
    except OSError as error:
        raise Unreachable(f"cannot read {path}: {error}") from error


def _resource(environment: str) -> dict[str, str]:
    return {"service.name": SERVICE, "deployment.environment": environment}
