# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What must be there before a start, asked of real servers on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component import needs


@contextmanager
def server(status: int, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    made = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/"
    finally:
        made.shutdown()
        made.server_close()


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.mark.parametrize("status", [200, 204, 307, 403, 404])
def test_whoever_answers_is_there(status: int) -> None:
    with server(status) as url:
        assert needs.unmet([{"url": url, "words": "storage"}], 0) == ""


@pytest.mark.parametrize("status", [500, 503])
def test_who_is_not_ready_is_not_there(status: int) -> None:
    with server(status) as url:
        assert needs.unmet([{"url": url, "words": "storage"}], 0).startswith(
            f"storage: {url} answered {status}"
        )


def test_nobody_there_is_told_after_the_patience_is_over() -> None:
    url, start = f"http://127.0.0.1:{free_port()}/", time.monotonic()
    told = needs.unmet([{"url": url, "words": "storage (x_url)"}], 1)
    assert told.startswith(f"storage (x_url): {url}: ConnectionRefusedError")
    assert 1 <= time.monotonic() - start < 4


def test_a_server_that_is_just_starting_is_waited_for() -> None:
    port, opened = free_port(), threading.Event()

    def later() -> None:
        time.sleep(0.7)
        with server(200, port):
            opened.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert needs.unmet([{"url": f"http://127.0.0.1:{port}/", "words": "storage"}], 15) == ""
    finally:
        opened.set()
        thread.join()


def test_a_path_is_there_or_not(tmp_path: Path) -> None:
    need = {"path": str(tmp_path / "docker.sock"), "words": "Docker has to run"}
    assert needs.unmet([need]) == f"Docker has to run: there is no {need['path']} on this host"
    Path(need["path"]).touch()
    assert needs.unmet([need]) == ""
