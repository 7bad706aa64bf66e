# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Test messages to receivers: a real Alertmanager with the configuration that the role makes, and receivers over HTTP."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._content import alerting
from ansible_collections.luxima.observability.plugins.module_utils._servers.client import Client

from .conftest import Platform, Runner, binary


class Receiver:
    """Takes messages; answers 500 below /broken."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []
        taken = self.taken

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                taken.append((self.path, body))
                self.send_response(500 if self.path.startswith("/broken") else 200)
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PYTEST_VERIFY_BIN", str(programs))
    made = Platform(tmp_path)
    yield made
    made.stop()


def start(servers: Platform, receivers: list[dict[str, Any]], name: str = "alertmanager") -> str:
    config = {"route": {"receiver": receivers[0]["name"], "group_wait": "30s"}, "receivers": receivers}
    servers.start(
        name,
        [
            binary("alertmanager"),
            f"--config.file={servers.write(f'{name}.yml', alerting.configuration(config, {}))}",
            f"--storage.path={servers.folder / name}",
            f"--web.listen-address=127.0.0.1:{servers.port(name)}",
            "--cluster.listen-address=",
            "--enable-feature=utf8-strict-mode,receiver-name-in-metrics",
        ],
        f"{servers.url(name)}/-/ready",
    )
    return servers.url(name)


def webhooks(*urls: str) -> dict[str, Any]:
    return {"webhook_configs": [{"url": url} for url in urls]}


def ask(run: Runner, *urls: str, **more: Any) -> dict[str, Any]:
    alertmanagers = [{"url": url} for url in urls]
    return run(
        **{"alertmanager": alertmanagers, "receivers": True, "checks": ["receivers"], "deadline": 20} | more
    )


def test_each_receiver_gets_a_message(servers: Platform, receiver: Receiver, run: Runner) -> None:
    receivers = [
        {"name": "chat", **webhooks(f"{receiver.url}/chat", f"{receiver.url}/second")},
        {"name": 'the "team"', **webhooks(f"{receiver.url}/team")},
        {"name": "nobody"},
    ]
    url = start(servers, receivers)
    answer = ask(run, url)
    assert answer["ok"] is True, answer["msg"]
    assert (
        answer["results"][0]["detail"]
        == 'delivered to chat (webhook), the "team" (webhook); nobody tells nobody'
    )
    assert sorted(path for path, _body in receiver.taken) == ["/chat", "/second", "/team"]
    summary = dict(receiver.taken)["/team"]["commonAnnotations"]["summary"]
    assert (
        summary
        == 'Test message to receiver the "team": it arrived. Nothing is wrong; this alert ends by itself.'
    )
    # Again: another run is another message.
    assert ask(run, url)["ok"] is True
    assert len(receiver.taken) == 6


@pytest.mark.parametrize("broken", ["refuses", "nobody listens", "a file that is not there"])
def test_a_receiver_that_fails_is_named(
    servers: Platform, receiver: Receiver, run: Runner, broken: str, tmp_path: Path
) -> None:
    way: dict[str, Any] = {
        "refuses": webhooks(f"{receiver.url}/broken"),
        "nobody listens": webhooks("http://127.0.0.1:1/"),
        "a file that is not there": {"webhook_configs": [{"url_file": str(tmp_path / "none")}]},
    }[broken]
    url = start(servers, [{"name": "good", **webhooks(f"{receiver.url}/good")}, {"name": "bad", **way}])
    answer = ask(run, url, deadline=5)
    assert answer["ok"] is False
    assert "receiver bad: webhook did not take the message" in answer["msg"]
    assert "requests failed so far" in answer["msg"]
    assert "receiver good" not in answer["msg"]
    assert "journalctl -u alertmanager" in answer["msg"]


def test_each_of_two_servers_tells(servers: Platform, receiver: Receiver, run: Runner) -> None:
    receivers = [{"name": "chat", **webhooks(f"{receiver.url}/chat")}]
    urls = [start(servers, receivers, name) for name in ("one", "two")]
    assert ask(run, *urls)["ok"] is True
    assert len(receiver.taken) == 2


def test_nobody_is_told_without_being_asked_for(servers: Platform, receiver: Receiver, run: Runner) -> None:
    url = start(servers, [{"name": "chat", **webhooks(f"{receiver.url}/chat")}])
    for more in ({"receivers": False}, {"active": False}, {"check_mode": True}):
        assert ask(run, url, **more)["results"] == []
    assert receiver.taken == []


def test_a_platform_that_tells_nobody_says_so(servers: Platform, run: Runner) -> None:
    answer = ask(run, start(servers, [{"name": "default"}]))
    assert answer["ok"] is False
    assert "no receiver tells anybody" in answer["msg"]


def test_others_are_told_of_a_receiver_that_fails(servers: Platform, receiver: Receiver) -> None:
    """The alert of Prometheus, as its rule labels it, reaches the receivers that work and not only the one that does not."""
    names = ("bad", "chat", "mail")
    receivers = [{"name": name, **webhooks(f"{receiver.url}/{name}")} for name in names]
    url = start(servers, receivers)
    client = Client({"url": url})
    client.text("/api/v2/alerts", body=[{"labels": {"alertname": alerting.FAILING, "receiver_name": "bad"}}])
    found = sorted({one["name"] for alert in client.json("/api/v2/alerts") for one in alert["receivers"]})
    assert found == ["chat", "mail"]
    client.text("/api/v2/alerts", body=[{"labels": {"alertname": "Other", "receiver_name": "bad"}}])
    others = [one for one in client.json("/api/v2/alerts") if one["labels"]["alertname"] == "Other"]
    assert [one["name"] for one in others[0]["receivers"]] == ["bad"]
