# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Samples of a real Prometheus, old blocks and the newest minutes, copied and answered by another one."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.backup.conftest import SECRET, Guest, ObjectServer, artifact
from tests.retention.conftest import Process, free_ports, until


class Server:
    def __init__(self, program: Path, folder: Path, *options: str) -> None:
        (port,) = free_ports(1)
        self.url, self.data = f"http://127.0.0.1:{port}", folder / "data"
        folder.mkdir(exist_ok=True)
        scrape = {"job_name": "self", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        (folder / "prometheus.yml").write_text(
            json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]})
        )
        command = [
            str(program),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{port}",
            *options,
        ]
        self.process = Process("prometheus", command, f"{self.url}/-/ready", folder)

    def values(self, expression: str, start: float, end: float, step: int) -> dict[str, list[Any]]:
        query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": step})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{query}", timeout=20) as answer:
            found = json.loads(answer.read())["data"]["result"]
        return {json.dumps(row["metric"], sort_keys=True): row["values"] for row in found}

    def source(self, snapshot: bool) -> dict[str, Any]:
        connection = {"url": self.url}
        return {"connection": connection, "data_dir": str(self.data), "service": "", "snapshot": snapshot}


def fill(promtool: Path, folder: Path, data: Path) -> int:
    """Blocks with three hours of two series, a sample a minute, five days ago; returns when they begin."""
    old = int(time.time()) - 5 * 86400
    lines = "".join(
        f'orders_total{{shop="{shop}"}} {minute} {old + 60 * minute}\n'
        for shop in "ab"
        for minute in range(180)
    )
    (folder / "old.txt").write_text(f"# TYPE orders_total counter\n{lines}# EOF\n")
    words = [str(promtool), "tsdb", "create-blocks-from", "openmetrics", str(folder / "old.txt"), str(data)]
    subprocess.run(words, check=True, capture_output=True)
    return old


def test_old_and_new_samples_come_back(
    programs: Path, storage: ObjectServer, guest: Guest, tmp_path: Path
) -> None:
    program, promtool = artifact("prometheus", programs), artifact("promtool", programs)
    first = Server(program, tmp_path / "first", "--web.enable-admin-api")
    old = fill(promtool, tmp_path, first.data)
    first.process.start()
    second = Server(program, tmp_path / "second")
    try:
        begun = time.time()
        until("samples of its own", lambda: first.values("up", begun, time.time(), 1), 30)
        time.sleep(3)
        now = int(time.time())
        guest.add("prometheus", first.source(True), storage.target("backups"), target_secret=SECRET)
        told = guest.do("run", "prometheus")
        assert told["source_version"]
        assert list((first.data / "snapshots").iterdir()) == [], "a snapshot was left behind"
        before = first.values("orders_total", old, old + 180 * 60, 60)
        fresh = first.values("up", now - 2, now - 1, 1)
        assert len(before) == 2
        assert fresh
        time.sleep(1.1)
        # Blocks that are the same are neither read nor sent again; only the newest minutes are.
        again = guest.do("run", "prometheus")
        assert again["added"] < again["size"] / 2 + (1 << 20)

        new = guest.lose("new")
        new.add("prometheus", second.source(True), storage.target("backups"), target_secret=SECRET)
        second.data.mkdir()
        done = new.do("restore", "prometheus")
        assert done["files"] == again["files"]
        second.process.start()
        assert second.values("orders_total", old, old + 180 * 60, 60) == before
        assert second.values("up", now - 2, now - 1, 1) == fresh
    finally:
        first.process.stop()
        second.process.stop()


def test_a_server_without_snapshots_says_which_variable_opens_them(
    programs: Path, guest: Guest, tmp_path: Path
) -> None:
    server = Server(artifact("prometheus", programs), tmp_path / "closed")
    server.process.start()
    try:
        guest.add("prometheus", server.source(True), {"directory": str(tmp_path / "copies")})
        assert "prometheus_admin_api opens it" in guest.refused("run", "prometheus")
    finally:
        server.process.stop()


def test_blocks_are_copied_while_the_interface_that_deletes_series_is_closed(
    programs: Path, guest: Guest, tmp_path: Path
) -> None:
    program, promtool = artifact("prometheus", programs), artifact("promtool", programs)
    first, second = Server(program, tmp_path / "first"), Server(program, tmp_path / "second")
    old = fill(promtool, tmp_path, first.data)
    blocks = {path.name for path in first.data.iterdir() if (path / "meta.json").exists()}
    first.process.start()
    try:
        before = first.values("orders_total", old, old + 180 * 60, 60)
        assert len(before) == 2
        target = {"directory": str(tmp_path / "copies")}
        guest.add("prometheus", first.source(False), target)
        told = guest.do("run", "prometheus")
        assert told["files"] == sum(
            1 for name in blocks for path in (first.data / name).rglob("*") if path.is_file()
        )
        assert list((first.data / "snapshots").iterdir()) == []
        assert guest.do("run", "prometheus")["added"] == 0
        new = guest.lose("new")
        second.data.mkdir()
        new.add("prometheus", second.source(False), target)
        assert new.do("restore", "prometheus")["files"] == told["files"]
        second.process.start()
        assert second.values("orders_total", old, old + 180 * 60, 60) == before
    finally:
        first.process.stop()
        second.process.stop()


def test_a_young_server_has_no_block_and_the_copy_says_that_it_holds_nothing(
    programs: Path, guest: Guest, tmp_path: Path
) -> None:
    server = Server(artifact("prometheus", programs), tmp_path / "young")
    server.process.start()
    try:
        target = {"directory": str(tmp_path / "copies")}
        guest.add("prometheus", server.source(False), target)
        told = guest.do("run", "prometheus")
        assert (told["files"], told["size"]) == (0, 0)
        assert "holds NOTHING: Prometheus has written no block yet" in told["note"]
        assert guest.metrics("prometheus")["size_bytes"] == 0
    finally:
        server.process.stop()


def test_a_copy_of_nothing_of_a_server_with_blocks_is_a_fault(
    programs: Path, guest: Guest, tmp_path: Path
) -> None:
    server = Server(artifact("prometheus", programs), tmp_path / "server")
    fill(artifact("promtool", programs), tmp_path, server.data)
    server.process.start()
    try:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        target = {"directory": str(tmp_path / "copies")}
        guest.add("prometheus", {**server.source(False), "data_dir": str(elsewhere)}, target)
        said = guest.refused("run", "prometheus")
        assert f"no block was found in {elsewhere}" in said
        assert "prometheus_data_dir" in said
        assert guest.metrics("prometheus")["last_run_success"] == 0
        # It is no copy that a restore would take.
        assert guest.do("list", "prometheus") == []
    finally:
        server.process.stop()


class Old:
    """A target whose samples are five hours old."""

    def __init__(self) -> None:
        stamp = int((time.time() - 5 * 3600) * 1000)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                self.wfile.write(f"orders_total 1 {stamp}\n".encode())

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_server_that_is_old_enough_and_writes_no_block_is_a_fault(
    programs: Path, guest: Guest, tmp_path: Path
) -> None:
    # It waits with its first block for longer than any server does.
    server = Server(
        artifact("prometheus", programs), tmp_path / "server", "--storage.tsdb.min-block-duration=2d"
    )
    old = Old()
    job = {"job_name": "old", "static_configs": [{"targets": [f"127.0.0.1:{old.server.server_port}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "server" / "prometheus.yml").write_text(json.dumps(config))
    server.process.start()
    try:
        begun = int(time.time()) - 5 * 3600 - 60
        until("the old sample", lambda: server.values("orders_total", begun, begun + 300, 30), 30)
        guest.add("prometheus", server.source(False), {"directory": str(tmp_path / "copies")})
        said = guest.refused("run", "prometheus")
        assert "has samples of the last 5 hours and has written no block" in said
    finally:
        server.process.stop()
        old.server.shutdown()
        old.server.server_close()
