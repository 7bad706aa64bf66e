# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A server is stopped while what it writes to is away: it ends in bounded time, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
from functools import partial
from pathlib import Path

import pytest

from .conftest import Platform, ask, free_ports, until

BOUND = 30


def bound_of(platform: Platform, name: str) -> float:
    (unit,) = platform.render.glob(f"*/{name}/unit")
    return float(re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)[-1])


def write(platform: Platform, name: str) -> str:
    """One line or one trace, and how to ask for it."""
    now, mark = time.time_ns(), os.urandom(16).hex()
    if name == "loki":
        stream = {"log_class": "application", "service": "stops"}
        body = json.dumps({"streams": [{"stream": stream, "values": [[str(now), mark]]}]}).encode()
        ask(f"{platform.urls['loki']}/loki/api/v1/push", "POST", body, Content_Type="application/json")
        return f"/loki/api/v1/query_range?query=%7Bservice%3D%22stops%22%7D%7C%3D%22{mark}%22"
    span = {"traceId": mark, "spanId": mark[:16], "name": "stops", "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1000)}  # fmt: skip
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    ask(
        f"{platform.receiver}/v1/traces", "POST", body, Content_Type="application/json", X_Scope_OrgID="stops"
    )
    return f"/api/traces/{mark}"


def found(platform: Platform, name: str, where: str) -> bool:
    try:
        answer = json.loads(
            ask(platform.urls[name] + where, X_Scope_OrgID="stops", Accept="application/json")
        )
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise
    return bool(answer["data"]["result"]) if name == "loki" else bool(answer["batches"])


@pytest.mark.parametrize("name", ["loki", "tempo"])
def test_a_flush_that_never_ends_is_cut_off_without_loss(platform: Platform, name: str) -> None:
    server, storage = platform.processes[name], platform.processes["minio"]
    server.start()
    places = [write(platform, name)]
    assert storage._running is not None
    storage._running.kill()
    storage._running.wait()
    storage._running = None
    try:
        if name == "loki":
            ask(f"{platform.urls[name]}/flush", "POST")
        # The block is complete, or the flush was asked for: it is being written to what is not there.
        until(f"{name} fails to write", lambda: "connection refused" in server.log(), 60)
        places.append(write(platform, name))
        running = server._running
        assert running is not None
        running.send_signal(signal.SIGTERM)
        try:
            # As systemd does, only sooner.
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
        server._running = None
    finally:
        storage.start()
    assert bound_of(platform, name) <= BOUND
    (unit,) = platform.render.glob(f"*/{name}/unit")
    assert re.search(r"^After=.*\bminio\.service\b", unit.read_text(), re.MULTILINE)
    server.start()
    for place in places:
        until(f"{place} is found", partial(found, platform, name, place), 60)
    server.stop()


def test_a_receiver_that_is_dead_does_not_hold_up_a_reload(platform: Platform, tmp_path: Path) -> None:
    server, (dead,) = platform.processes["prometheus"], free_ports(1)
    config = tmp_path / "prometheus.yml"
    address = platform.urls["prometheus"].removeprefix("http://")
    scrapes = {"scrape_configs": [{"job_name": "self", "scrape_interval": "1s", "static_configs": [{"targets": [address]}]}]}  # fmt: skip
    config.write_text(json.dumps({**scrapes, "remote_write": [{"url": f"http://127.0.0.1:{dead}/x"}]}))
    command, server.command = (
        server.command,
        [f"--config.file={config}" if word.startswith("--config.file=") else word for word in server.command],
    )
    try:
        server.start()
        until(
            "samples wait for the receiver",
            lambda: value(platform, "prometheus_remote_storage_samples_pending") > 0,
        )
        before = value(platform, "prometheus_config_last_reload_success_timestamp_seconds")
        config.write_text(json.dumps(scrapes))
        assert server._running is not None
        begun = time.monotonic()
        server._running.send_signal(signal.SIGHUP)
        until(
            "the reload is over",
            lambda: value(platform, "prometheus_config_last_reload_success_timestamp_seconds") > before,
            100,
        )
        assert time.monotonic() - begun < BOUND
    finally:
        server.command = command
        server.stop()


def value(platform: Platform, name: str) -> float:
    text = ask(f"{platform.urls['prometheus']}/metrics")
    return sum(float(words) for words in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))
