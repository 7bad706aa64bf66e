# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The checks of Grafana, against a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Platform, Runner
from .test_verify import write_line


def connection(grafana: str, password: str = "lab-admin-password") -> list[dict[str, str]]:
    return [{"url": grafana, "username": "admin", "password": password}]


def test_sources_and_queries(
    platform: Platform, connections: dict[str, Any], grafana: str, run: Runner
) -> None:
    lines = {"web-1": write_line(platform, "web-1")}
    answer = run(
        **connections,
        grafana=connection(grafana),
        log_lines=lines,
        checks=["logs", "traces", "grafana"],
        deadline=60,
    )
    assert answer["ok"] is True, answer["msg"]
    subjects = [
        result["subject"].split(" ", 1)[1] for result in answer["results"] if result["check"] == "grafana"
    ]
    assert sorted(subjects) == [
        "alertmanager",
        "loki",
        "loki query",
        "prometheus",
        "prometheus query",
        "tempo",
        "tempo query",
    ]


TAGS = ["minio", "loki", "tempo", "prometheus", "alertmanager", "grafana", "blackbox_exporter"]
TAGS += ["node_exporter", "cadvisor", "promtail"]
# In whose selection playbooks/verify.yml writes a line on each host.
WRITES = {"loki", "promtail", "grafana"}


@pytest.mark.parametrize("active", [True, False], ids=["active", "passive"])
@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_alone_holds_on_a_healthy_platform(
    platform: Platform, connections: dict[str, Any], grafana: str, run: Runner, tag: str, active: bool
) -> None:
    """Nothing is asked for that only another selection would have sent."""
    lines = {"web-1": write_line(platform, "web-1")} if tag in WRITES and active else {}
    answer = run(
        **connections,
        grafana=connection(grafana),
        log_lines=lines,
        components=[tag],
        active=active,
        deadline=40,
    )
    assert answer["ok"] is True, answer["msg"]


def test_a_bucket_whose_consumer_was_not_selected_may_be_empty(
    connections: dict[str, Any], run: Runner
) -> None:
    """A platform that no application sends traces to yet."""
    key = {"access_key": "lab-root", "secret_key": "lab-root-password"}
    arguments = {
        **connections,
        "buckets": [{"name": "empty", "consumer": "tempo", **key}],
        "checks": ["buckets"],
    }
    assert run(**arguments, components=["minio"], deadline=2)["ok"] is True
    assert run(**arguments, components=["tempo"], deadline=2)["ok"] is False


def test_every_dashboard_is_asked_for(connections: dict[str, Any], grafana: str, run: Runner) -> None:
    arguments = {
        **connections,
        "grafana": connection(grafana),
        "checks": ["grafana"],
        "active": False,
        "deadline": 2,
    }
    answer = run(**arguments, dashboards={grafana + "/": ["there"]})
    assert "1 dashboards" in json.dumps(answer["results"])
    answer = run(**arguments, dashboards={grafana: ["there", "gone", "by-hand"]})
    assert "2 of 3 dashboards are not there: gone, by-hand (there, but made by hand)" in answer["msg"], (
        answer["msg"]
    )


def test_a_source_that_points_elsewhere(connections: dict[str, Any], grafana: str, run: Runner) -> None:
    arguments = {**connections, "loki": [{"url": "http://127.0.0.1:1"}]}
    answer = run(
        **arguments,
        grafana=connection(grafana),
        checks=["grafana"],
        components=["grafana"],
        active=False,
        deadline=2,
    )
    assert "data sources of type loki point to" in answer["msg"]
    assert [result["subject"].split()[-1] for result in answer["results"] if not result["ok"]] == ["loki"]


def test_a_trace_nobody_sent(connections: dict[str, Any], grafana: str, run: Runner) -> None:
    answer = run(**connections, grafana=connection(grafana), checks=["grafana"], deadline=3)
    failed = [result for result in answer["results"] if not result["ok"]]
    assert [result["subject"].split(" ", 1)[1] for result in failed] == ["tempo query"]


def test_a_wrong_password(connections: dict[str, Any], grafana: str, run: Runner) -> None:
    answer = run(
        **connections, grafana=connection(grafana, "wrong"), checks=["grafana"], active=False, deadline=30
    )
    assert "answered 401" in answer["msg"]
    assert answer["seconds"] < 10
    assert "wrong" not in answer["msg"].replace("Wrong", "")
