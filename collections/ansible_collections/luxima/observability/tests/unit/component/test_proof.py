# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What must have changed after an activation, asked of a real server on loopback before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component.plan import Plan
from ansible_collections.luxima.observability.plugins.module_utils._component.transaction import Transaction


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'reloaded_seconds 7\nloaded_hash{sha256="ab12"} 1\n')

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("activation", "files", "expected"),
    [
        ("reload", ["etc/x.yml"], [7.0, None]),
        ("reload", ["etc/x.yml", "etc/runtime.yml"], [7.0, "ab12"]),
        # The server reads the file by itself; nobody tells it to.
        ("", ["etc/runtime.yml"], [None, "ab12"]),
        ("", ["etc/other.yml"], [None, None]),
        # At its start it reads everything.
        ("restart", ["etc/runtime.yml"], [None, None]),
        ("start", ["etc/runtime.yml"], [None, None]),
    ],
)
def test_what_must_change(
    url: str, tmp_path: Path, activation: str, files: list[str], expected: list[Any]
) -> None:
    proof = [
        {"url": url, "metric": "reloaded_seconds", "labels": {}, "changes": True},
        {"url": url, "metric": "loaded_hash", "labels": {}, "changes": "sha256", "follows": "runtime.yml"},
    ]
    transaction = Transaction({"name": "x", "state": "present"}, tmp_path)
    plan = Plan(activation=activation, files=dict.fromkeys(files, "changed"))
    assert transaction._before(plan, {"service": {"proof": proof}}) == expected
