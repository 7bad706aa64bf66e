# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Against a real server on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component import probe

METRICS = """# HELP up x
up 1
up_total 7
reload_ok{kind="a",path="/x \\"y\\""} 0 1700000000
reload_ok{kind="b"} 1
odd{a="1"} NaN
loaded_hash{config="x",sha256="ab12"} 1
"""
RECEIVERS = '[{"name": "null"}, {"name": "a: b"}, {"name": "007", "more": {"on": true, "count": 1}}]'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/metrics": 200, "/receivers": 200, "/tenant": 200, "/starting": 503, "/moved": 302}.get(
            self.path, 404
        )
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/metrics")
        self.end_headers()
        body = METRICS.encode() if status == 200 else b"please wait"
        if self.path == "/receivers":
            body = RECEIVERS.encode()
        elif self.path == "/tenant":
            body = json.dumps({"tenant": self.headers.get("X-Scope-OrgID"), "groups": None}).encode()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refusal(item: dict[str, Any], before: str | float | None = None) -> str:
    return probe.refusal(item, probe.ask(item), before)


def test_status(base: str) -> None:
    assert refusal({"url": f"{base}/metrics", "status": 200}) == ""
    assert "503: please wait" in refusal({"url": f"{base}/starting"})
    assert refusal({"url": f"{base}/starting", "status": 503}) == ""


def test_a_redirect_is_an_answer_not_a_way(base: str) -> None:
    assert "answered 302" in refusal({"url": f"{base}/moved"})


def test_nobody_there() -> None:
    assert "ConnectionRefusedError" in refusal({"url": "http://127.0.0.1:1/ready"})


def test_contents_and_metrics(base: str) -> None:
    url = f"{base}/metrics"
    assert refusal({"url": url, "contains": "up_total"}) == ""
    assert "does not show" in refusal({"url": url, "contains": "down"})
    assert refusal({"url": url, "metric": "up", "value": 1}) == ""
    assert "up_total is 7, expected 8" in refusal({"url": url, "metric": "up_total", "value": 8})
    assert "has no metric total" in refusal({"url": url, "metric": "total", "value": 8})
    assert refusal({"url": url, "metric": "reload_ok", "labels": {"kind": "b"}, "value": 1}) == ""
    assert "is 0, expected 1" in refusal(
        {"url": url, "metric": "reload_ok", "labels": {"path": '/x "y"'}, "value": 1}
    )
    assert "expected 1" in refusal({"url": url, "metric": "odd", "value": 1})


def test_a_metric_that_must_change(base: str) -> None:
    item = {"url": f"{base}/metrics", "metric": "up_total", "changes": True}
    assert "is still 7" in refusal(item, 7.0)
    assert refusal(item, 6.0) == ""
    assert refusal(item) == ""


def test_a_label_that_must_change(base: str) -> None:
    item = {"url": f"{base}/metrics", "metric": "loaded_hash", "value": 1, "changes": "sha256"}
    assert probe.moving(item, METRICS) == "ab12"
    assert "is still that of sha256=ab12" in refusal(item, "ab12")
    assert refusal(item, "cd34") == ""
    assert refusal(item) == ""


@pytest.mark.parametrize(
    ("want", "only", "words"),
    [
        ([{"name": "null"}], False, ""),
        ([{"name": "007"}, {"name": "null"}, {"name": "a: b"}], True, ""),
        ([{"name": "null"}, {"name": "a: b"}], True, 'has {"name": "007"'),
        ([{"name": "nulls"}], False, 'lacks {"name": "nulls"}'),
        ([{"name": None}], False, "lacks"),
        ([{"name": 7}], False, "lacks"),
        # An item takes one place.
        ([{"name": "null"}, {"name": "null"}], False, "lacks"),
        ([{"more": {"on": True}}], False, ""),
        ([{"more": {"count": 1.0}}], False, ""),
        ([{"more": {"count": True}}], False, "lacks"),
        ([{"more": {"on": 1}}], False, "lacks"),
        ({"name": "null"}, False, "expected an object"),
    ],
)
def test_data_is_compared_as_data(base: str, want: object, only: bool, words: str) -> None:
    told = refusal({"url": f"{base}/receivers", "json": want, "only": only})
    assert (words in told) if words else told == ""


def test_what_is_no_data_is_no_proof(base: str) -> None:
    assert "answered no JSON" in refusal({"url": f"{base}/metrics", "json": {}})


def test_headers_go_with_the_question(base: str) -> None:
    item = {
        "url": f"{base}/tenant",
        "headers": {"X-Scope-OrgID": "shop"},
        "json": {"tenant": "shop", "groups": []},
    }
    assert refusal({**item, "only": True}) == ""
    assert "tenant is null, expected" in refusal({**item, "headers": {}})


def test_proxies_are_not_asked(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert refusal({"url": f"{base}/metrics"}) == ""


def test_a_question_is_over_in_its_time_however_the_server_behaves() -> None:
    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b".")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as mute, socket.create_server(("127.0.0.1", 0)) as slow:
        threading.Thread(target=drip, args=(slow,), daemon=True).start()
        for listener in (mute, slow):
            start = time.monotonic()
            answer = probe.ask({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"}, timeout=0.6)
            assert answer.status == 0
            assert "TimeoutError" in answer.text
            assert time.monotonic() - start < 2
