"""What the roles say of servers, asked of the servers: proofs, paths, storage that is somebody else's, bounds of queries."""

from __future__ import annotations

import base64
import json
import socket
import time
import urllib.error
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._component import probe
from ansible_collections.luxima.observability.plugins.module_utils._retention import measure
from ansible_collections.luxima.observability.plugins.module_utils._retention.servers import Server
from jobs.stores import store

from tests.retention.conftest import ask, until

from .conftest import COMPONENTS, KEY, RECEIVERS, SECRET, ZONE, Site


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_proof_of_each_role_holds_below_a_path_and_on_storage_of_somebody_else(
    site: Site, component: str
) -> None:
    site.proven(component)


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_prometheus_scrapes_is_where_it_looks(site: Site, component: str) -> None:
    config = yaml.safe_load((site.place("prometheus") / "etc/prometheus.yml").read_text())
    (job,) = (one for one in config["scrape_configs"] if one["job_name"] == component)
    (target,) = yaml.safe_load((site.place("prometheus") / f"etc/targets/{component}.yml").read_text())
    site.running(component)
    assert "go_goroutines" in ask(f"{job['scheme']}://{target['targets'][0]}{job['metrics_path']}")


def test_every_data_source_of_grafana_answers(site: Site) -> None:
    sources = yaml.safe_load(
        (site.place("grafana") / "etc/provisioning/datasources/platform.yml").read_text()
    )
    asked = {
        "prometheus": "/api/v1/query?query=1",
        "alertmanager": "/api/v2/status",
        "loki": "/loki/api/v1/labels",
        "tempo": "/api/echo",
    }
    for source in sources["datasources"]:
        site.running(source["type"])
        assert ask(source["url"] + asked.pop(source["type"]))
    assert not asked


def test_prometheus_sends_its_alerts_where_alertmanager_takes_them(site: Site) -> None:
    config = yaml.safe_load((site.place("prometheus") / "etc/prometheus.yml").read_text())
    (server,) = config["alerting"]["alertmanagers"]
    (address,) = server["static_configs"][0]["targets"]
    site.running("alertmanager")
    alert = [{"labels": {"alertname": "T"}}]
    url = f"{server['scheme']}://{address}{server['path_prefix']}/api/v2/alerts"
    ask(url, "POST", json.dumps(alert).encode(), Content_Type="application/json")
    assert json.loads(ask(f"{url}?filter=alertname%3DT"))


def test_the_receivers_are_compared_as_what_they_are(site: Site) -> None:
    site.proven("alertmanager")
    (proof,) = (one for one in site.record("alertmanager")["service"]["proof"] if "json" in one)
    assert [one["name"] for one in proof["json"]] == RECEIVERS
    # A file that the server does not run with proves nothing.
    file = site.place("alertmanager") / "etc/alertmanager.yml"
    assert "revision-" in file.read_text()


def test_loki_writes_to_storage_of_somebody_else_encrypted_and_reads_it_back(site: Site) -> None:
    site.proven("loki")
    base = site.record("loki")["service"]["ready"]["url"].removesuffix("/ready")
    now = time.time_ns()
    line = {"streams": [{"stream": {"service": "shop", "log_class": "web"}, "values": [[str(now), "kept"]]}]}
    ask(f"{base}/loki/api/v1/push", "POST", json.dumps(line).encode(), Content_Type="application/json")
    ask(f"{base}/flush", "POST", b"")
    stored = until("a chunk", lambda: list(site.storage.list_objects("loki", "fake/", recursive=True)))
    head = site.storage.stat_object("loki", str(stored[0].object_name))
    assert head.metadata["x-amz-server-side-encryption"] == "AES256"
    query = urllib.parse.urlencode({"query": '{service="shop"}', "start": now - 10**9, "end": now + 10**9})
    assert "kept" in ask(f"{base}/loki/api/v1/query_range?{query}")


def test_tempo_writes_to_storage_of_somebody_else_encrypted(site: Site) -> None:
    site.proven("tempo")
    trace, now = "0af7651916cd43dd8448eb211c80319c", time.time_ns()
    span = {"traceId": trace, "spanId": "b7ad6b7169203331", "name": "x", "kind": 2,
            "startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now)}  # fmt: skip
    body = {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [span]}]}]}
    url = f"http://127.0.0.1:{site.port['tempo_otlp_http']}/v1/traces"
    ask(url, "POST", json.dumps(body).encode(), Content_Type="application/json")
    base = f"http://127.0.0.1:{site.port['tempo']}"

    def stored() -> list[str]:
        ask(f"{base}/flush", "POST", b"")
        found = site.storage.list_objects("tempo", "single-tenant/", recursive=True)
        return [str(one.object_name) for one in found if str(one.object_name).endswith("data.parquet")]

    (first, *_) = until("a block", stored)
    assert site.storage.stat_object("tempo", first).metadata["x-amz-server-side-encryption"] == "AES256"
    assert base64.b64encode(bytes.fromhex(trace)).decode() in ask(f"{base}/api/traces/{trace}")


@pytest.mark.parametrize("path_style", [True, False])
def test_jobs_write_to_storage_of_somebody_else_encrypted(
    site: Site, path_style: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = socket.getaddrinfo

    def names(host: str, *rest: Any, **more: Any) -> Any:
        """The zone of the provider: every bucket has a name in it."""
        return asked("127.0.0.1" if host.endswith(ZONE) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", names)
    target = {
        "url": f"http://{ZONE}:{site.port['minio']}", "bucket": "archive", "access_key": KEY,
        "path_style": path_style, "encryption": "AES256",
    }  # fmt: skip
    place = store(target, SECRET)
    name = f"web/{path_style}/a b.gz"
    place.put(name, b"lines")
    assert place.get(name) == b"lines"
    assert (name, 5) in list(place.list("web/"))
    head = site.storage.stat_object("archive", name)
    assert head.metadata["x-amz-server-side-encryption"] == "AES256"
    place.delete(name)
    assert not list(place.list(name))


def test_what_is_kept_can_be_asked_for(site: Site) -> None:
    site.proven("loki")
    site.proven("tempo")
    end = int(time.time())
    config = yaml.safe_load((site.place("loki") / "etc/loki.yml").read_text())
    kept = int(config["limits_config"]["retention_period"].removesuffix("h")) * 3600
    assert kept > 721 * 3600
    base = site.record("loki")["service"]["ready"]["url"].removesuffix("/ready")
    query = {"query": '{service="shop"}', "start": (end - kept) * 10**9, "end": end * 10**9, "limit": 1}
    assert "success" in ask(f"{base}/loki/api/v1/query_range?{urllib.parse.urlencode(query)}")
    config = yaml.safe_load((site.place("tempo") / "etc/tempo.yml").read_text())
    kept = int(config["compactor"]["compaction"]["block_retention"].removesuffix("h")) * 3600
    query = {"q": "{}", "start": end - kept, "end": end, "limit": 1}
    url = f"http://127.0.0.1:{site.port['tempo']}/api/search?"
    assert "traces" in ask(url + urllib.parse.urlencode(query))
    with pytest.raises(urllib.error.HTTPError):
        ask(url + urllib.parse.urlencode({**query, "start": end - kept - 3 * 86400}))


def test_what_a_shorter_period_takes_is_counted_and_not_remembered(site: Site) -> None:
    site.proven("loki")
    base = site.record("loki")["service"]["ready"]["url"].removesuffix("/ready")
    server, day = Server({"url": base}), 86400
    for count in (1, 2, 3):
        old = time.time_ns() - 3 * day * 10**9
        values = [[str(old + count), f"line {count}"]]
        line = {
            "streams": [
                {"stream": {"service": "old", "log_class": "docker", "host": f"h{count}"}, "values": values}
            ]
        }
        ask(f"{base}/loki/api/v1/push", "POST", json.dumps(line).encode(), Content_Type="application/json")
        ask(f"{base}/flush", "POST", b"")

        def counted(count: int = count) -> bool:
            found = measure.lines_beyond(server, '{log_class="docker"}', 5 * day, 2 * day)
            assert found["lines"] == count, found
            return True

        until(f"{count} lines", counted, 30)


def test_rules_that_loki_cannot_read_are_refused_before_they_are_staged(site: Site) -> None:
    (number,) = (i for i, words in enumerate(site.record("loki")["validate"]) if words[1] == "rules")
    assert site.check("loki", number).returncode == 0
    file = site.place("loki") / "etc/rules/fake/platform.yml"
    good = file.read_text()
    try:
        file.write_text(good.replace("> 5", "> (5"))
        done = site.check("loki", number)
    finally:
        file.write_text(good)
    assert done.returncode != 0
    assert "could not parse expression for alert 'null'" in done.stdout + done.stderr


def test_the_proof_sees_that_the_ruler_lost_its_rules(site: Site) -> None:
    site.proven("loki")
    file = site.place("loki") / "etc/rules/fake/platform.yml"
    good = file.read_text()
    try:
        file.write_text("groups: []\n")
        until("rules gone", lambda: any("lacks" in told for told in site.refusals("loki")))
        file.write_text(good + good.removeprefix("groups:\n").replace("name: app", "name: more"))
        until("a group too many", lambda: any("too" in told for told in site.refusals("loki")))
    finally:
        file.write_text(good)
    site.proven("loki")


@pytest.mark.parametrize(
    ("component", "file", "metric"),
    [
        ("loki", "runtime.yml", "loki_runtime_config_hash"),
        ("tempo", "overrides.yml", "tempo_runtime_config_hash"),
    ],
)
def test_a_file_that_is_read_later_is_proven_when_it_was_read(
    site: Site, component: str, file: str, metric: str
) -> None:
    site.proven(component)
    (proof,) = (one for one in site.record(component)["service"]["proof"] if one.get("follows") == file)
    assert proof["metric"] == metric
    before = probe.moving(proof, probe.ask(proof).text)
    assert isinstance(before, str)
    assert "is still" in probe.refusal(proof, probe.ask(proof), before)
    place = site.place(component) / "etc" / file
    data = yaml.safe_load(place.read_text())
    data["overrides"]["another"] = {}
    place.write_text(yaml.safe_dump(data))
    until("read again", lambda: not probe.refusal(proof, probe.ask(proof), before))
    # And what the server cannot read is told by its other proof.
    place.write_text("overrides: {another: {no_such_limit: 1}}\n")
    until("refused", lambda: any("reload_successful is 0" in told for told in site.refusals(component)))
    del data["overrides"]["another"]
    place.write_text(yaml.safe_dump(data))
    site.proven(component)


@pytest.mark.parametrize(
    ("component", "good", "bad"),
    [
        ("tempo", "rate_limit_bytes: 30000000", "rate_limit: 30000000"),
        ("loki", "max_global_streams_per_user: 4711", "max_streams_per_users: 4711"),
    ],
)
def test_limits_of_a_tenant_are_refused_before_they_are_staged(
    site: Site, component: str, good: str, bad: str
) -> None:
    (file,) = (site.place(component) / "etc/check").iterdir()
    (number,) = (
        i for i, words in enumerate(site.record(component)["validate"]) if words[-1].endswith(file.name)
    )
    assert site.check(component, number).returncode == 0, site.check(component, number).stderr
    text = file.read_text()
    assert text.count(good) == 1
    try:
        file.write_text(text.replace(good, bad))
        assert site.check(component, number).returncode != 0
    finally:
        file.write_text(text)


def test_prometheus_takes_what_tempo_sends(site: Site) -> None:
    unit = (site.place("prometheus") / "unit").read_text()
    assert "--web.enable-remote-write-receiver" in unit
    config = yaml.safe_load((site.place("tempo") / "etc/tempo.yml").read_text())
    (target,) = config["metrics_generator"]["storage"]["remote_write"]
    site.running("prometheus")
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(target["url"], "POST", b"")
    # It looks at what it got; closed, it says 404.
    assert caught.value.code == 400


@pytest.mark.parametrize("component", ["loki", "tempo"])
def test_the_address_of_storage_is_the_one_that_was_given(site: Site, component: str) -> None:
    text = Path(site.place(component) / f"etc/{component}.yml").read_text()
    assert f"127.0.0.1:{site.port['minio']}" in text
