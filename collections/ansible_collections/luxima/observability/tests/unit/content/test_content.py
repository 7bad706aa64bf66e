# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people give the servers, kept as it was meant or refused with the place and the way out."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._content import (
    alerting,
    dashboards,
    ini,
    paths,
    sources,
    texts,
)
from ansible_collections.luxima.observability.plugins.module_utils._content.faults import ContentError

# Sections, keys and values


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.5, "1.5"),
        ("", ""),
        (["openid", "profile"], "openid,profile"),
        ([1, 2], "1,2"),
        ([], ""),
        ("plain words", "plain words"),
        ("$__file{/etc/x}", "$__file{/etc/x}"),
        ("a;b", '"""a;b"""'),
        ("a#b", '"""a#b"""'),
        ("`ticks`", '"""`ticks`"""'),
        (" blank", '""" blank"""'),
        ("folder\\", '"""folder\\"""'),
    ],
)
def test_a_value_is_written(value: Any, written: str) -> None:
    assert ini.text({"a.b": {"key": value}}, "v") == f"[a.b]\nkey = {written}\n\n"


@pytest.mark.parametrize(
    ("config", "where", "says"),
    [
        ({"s": {"k": None}}, "v.s.k", "has no value"),
        ({"s": {"k": {"deep": 1}}}, "v.s.k", "{s.k: {...}}"),
        ({"s": {"k": ["a", None]}}, "v.s.k", "holds nothing"),
        ({"s": {"k": [["a"]]}}, "v.s.k", "holds a list"),
        ({"s": {"k": ["two words"]}}, "v.s.k", "no single word"),
        ({"s": {"k": ["a,b"]}}, "v.s.k", "no single word"),
        ({"s": {"k": 'x"""y'}}, "v.s.k", "cannot say"),
        ({"s": {"k=v": 1}}, "v.s.k=v", "no name of a key"),
        ({"s": {"k\nx": 1}}, "v.s.k\nx", "no name of a key"),
        ({"s]\n[t": {"k": 1}}, "v.s]\n[t", "no name of a section"),
        ({"app_mode": "production"}, "v.app_mode", "DEFAULT"),
        ({"s": None}, "v.s", "is nothing"),
        (None, "v", "is nothing"),
        (["s"], "v", "is a list"),
    ],
)
def test_what_no_ini_file_can_say_is_refused(config: Any, where: str, says: str) -> None:
    found = ini.problems(config, "v")
    assert [place for place, _text in found] == [where]
    assert says in found[0][1]


def test_every_key_is_named_at_once() -> None:
    with pytest.raises(ContentError, match=r"v\.a\.x: has no value.*v\.b\.y: has no value"):
        ini.text({"a": {"x": None}, "b": {"y": None}}, "v")


def test_a_plain_file_is_read_by_others_too() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(ini.text({"server": {"http_port": 3000, "enable_gzip": True}}, "v"))
    assert dict(parser["server"]) == {"http_port": "3000", "enable_gzip": "true"}


# Files

README = {
    "route": {"receiver": "chat"},
    "receivers": [
        {"name": "chat", "slack_configs": [{"api_url_file": "secrets/chat", "channel": "#alerts"}]}
    ],
}


def test_a_secret_file_is_named_by_its_absolute_path() -> None:
    made = alerting.configuration(README, {"chat": "x"})
    assert made["receivers"][0]["slack_configs"][0]["api_url_file"] == "/etc/alertmanager/secrets/chat"
    assert README["receivers"][0]["slack_configs"][0]["api_url_file"] == "secrets/chat"  # type: ignore[index]


@pytest.mark.parametrize("key", ["url_file", "bot_token_file", "service_key_file", "credentials_file"])
@pytest.mark.parametrize("deep", [False, True])
def test_every_key_that_names_a_file(key: str, deep: bool) -> None:
    inner: Any = {"http_config": {"authorization": {key: "secrets/x"}}} if deep else {key: "secrets/x"}
    config = {"receivers": [{"name": "a", "webhook_configs": [inner]}]}
    assert f'"{key}": "/etc/alertmanager/secrets/x"' in json.dumps(alerting.configuration(config, {"x": "1"}))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("secrets/slack", "has no slack (it has chat)"),
        ("/etc/alertmanager/secrets/slack", "has no slack"),
        ("./secrets/slack", "has no slack"),
        ("slack", "absolute path"),
    ],
)
def test_a_file_that_nobody_writes_is_refused(file: str, says: str) -> None:
    config = {"receivers": [{"name": "chat", "slack_configs": [{"api_url_file": file}]}]}
    with pytest.raises(ContentError, match="receivers") as caught:
        alerting.configuration(config, {"chat": "x"})
    assert says in str(caught.value)
    assert "alertmanager_config.receivers[0].slack_configs[0].api_url_file" in str(caught.value)


def test_a_file_elsewhere_on_the_host_is_somebody_elses() -> None:
    config = {"receivers": [{"name": "chat", "slack_configs": [{"api_url_file": "/run/secrets/chat"}]}]}
    assert alerting.problems(config, {}) == []


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"modules": {"m": {"http": {"bearer_token_file": "token"}}}}, 1),
        ({"modules": {"m": {"http": {"bearer_token_file": "/etc/token"}}}}, 0),
        ({"storage": {"tls_ca_path": "ca.pem", "tls_min_version": "x"}}, 1),
        (
            {
                "scrape_configs": [
                    {"tls_config": {"ca_file": "ca.pem"}},
                    {"basic_auth": {"password_file": "p"}},
                ]
            },
            2,
        ),
        ({"a": {"ca_file": "${CA}"}, "b": {"ca_file": ""}, "c": {"ca_file": None}}, 0),
        ({"a": {"path_prefix": "x", "filename": "y", "file": "z"}}, 0),
        (None, 0),
    ],
)
def test_a_relative_file_of_a_server_without_files_is_refused(config: Any, count: int) -> None:
    assert len(paths.relative(config, "v")) == count


# Receivers


def test_a_silent_configuration_stays_as_it_is() -> None:
    config = {"route": {"receiver": "default"}, "receivers": [{"name": "default"}]}
    assert alerting.configuration(config, {}) == config


def test_each_receiver_can_be_tried_and_others_are_told_of_one_that_fails() -> None:
    config = {
        "route": {"receiver": "chat", "routes": [{"receiver": "mail", "matchers": ['severity = "info"']}]},
        "receivers": [
            {"name": "chat", "slack_configs": [{"channel": "#a"}]},
            {"name": 'the "mail"', "email_configs": [{"to": "x"}, {"to": "y"}]},
            {"name": "nobody"},
        ],
    }
    routes = alerting.configuration(config, {})["route"]["routes"]
    tried = [route for route in routes if "platform_verify_receiver" in route["matchers"][0]]
    assert [route["receiver"] for route in tried] == ["chat", 'the "mail"']
    assert tried[1]["matchers"] == ['platform_verify_receiver = "the \\"mail\\""']
    other = [route for route in routes if "NotificationsFailing" in route["matchers"][0]]
    assert [(route["receiver"], route["matchers"][1], route["continue"]) for route in other] == [
        ("chat", 'receiver_name != "chat"', True),
        ('the "mail"', 'receiver_name != "the \\"mail\\""', True),
    ]
    # Those of the inventory come after.
    assert routes[-1] == {"receiver": "mail", "matchers": ['severity = "info"']}


def test_the_only_receiver_has_no_other_way() -> None:
    routes = alerting.configuration(README, {"chat": "x"})["route"]["routes"]
    assert [route["matchers"] for route in routes] == [['platform_verify_receiver = "chat"']]


# Dashboards

SHIPPED = ["system-overview"]
SOURCES = [{"type": "prometheus", "uid": "prometheus"}, {"type": "loki", "uid": "loki"}]
BOARD = {"uid": "orders", "title": "Orders", "panels": []}


def inspected(given: Any) -> list[tuple[str, str]]:
    return dashboards.inspect(given, SHIPPED, SOURCES).problems


@pytest.mark.parametrize("content", [BOARD, json.dumps(BOARD), {"dashboard": BOARD, "meta": {}}])
def test_a_dashboard_as_text_as_data_and_as_the_api_answers_it(content: Any) -> None:
    assert dashboards.prepare({"orders": content}, SHIPPED, SOURCES) == {"orders": BOARD}


@pytest.mark.parametrize(
    ("given", "where", "says"),
    [
        ({"x": {**BOARD, "uid": "system-overview"}}, "grafana_dashboards.x.uid", "a dashboard of this role"),
        ({"a": BOARD, "x": {**BOARD, "title": "Other"}}, "grafana_dashboards.x.uid", "grafana_dashboards.a"),
        (
            {"a": BOARD, "x": {**BOARD, "uid": "other", "title": "orders "}},
            "grafana_dashboards.x.title",
            "there once",
        ),
        # A uid made of a name meets one that was given.
        ({"a": BOARD, "orders": {"title": "Other"}}, "grafana_dashboards.orders.uid", "grafana_dashboards.a"),
        ({"x": "{"}, "grafana_dashboards.x", "no JSON"),
        ({"x": "[]"}, "grafana_dashboards.x", "JSON object"),
        ({"x": None}, "grafana_dashboards.x", "is nothing"),
        ({"x": {"uid": "x"}}, "grafana_dashboards.x.title", "is missing"),
        ({"x": {**BOARD, "uid": "a/b"}}, "grafana_dashboards.x.uid", "no uid"),
        ({"x": {**BOARD, "uid": "x" * 41}}, "grafana_dashboards.x.uid", "no uid"),
        ({"../x": BOARD}, "grafana_dashboards.../x", "no name of a file"),
        ({"system-overview": BOARD}, "grafana_dashboards.system-overview", "another name"),
        (
            {"x": {**BOARD, "panels": [{"datasource": "${DS_PROMETHEUS}"}]}},
            "grafana_dashboards.x",
            "no __inputs",
        ),
        (
            {
                "x": {
                    **BOARD,
                    "__inputs": [{"name": "DS_E", "type": "datasource", "pluginId": "elasticsearch"}],
                }
            },
            "grafana_dashboards.x",
            "of type elasticsearch (DS_E), and there is none",
        ),
        (
            {"x": {**BOARD, "__inputs": [{"name": "VAR_X", "type": "constant"}]}},
            "grafana_dashboards.x",
            "asks for a value of VAR_X",
        ),
        (["x"], "grafana_dashboards", "is a list"),
    ],
)
def test_a_dashboard_that_cannot_be_served_is_refused(given: Any, where: str, says: str) -> None:
    found = inspected(given)
    assert [place for place, _text in found] == [where]
    assert says in found[0][1]


def test_an_export_is_bound_and_a_dashboards_own_variables_stay() -> None:
    export = {
        "__inputs": [{"name": "DS_LOKI", "type": "datasource", "pluginId": "loki"}],
        "__requires": [],
        "title": "Logs",
        "id": 7,
        "panels": [{"datasource": {"uid": "${DS_LOKI}"}, "expr": "${__rate} ${job} ${ds_own}"}],
        "templating": {"list": [{"name": "ds_own", "type": "datasource"}]},
    }
    assert dashboards.prepare({"logs": export}, SHIPPED, SOURCES)["logs"] == {
        "title": "Logs",
        "uid": "logs",
        "panels": [{"datasource": {"uid": "loki"}, "expr": "${__rate} ${job} ${ds_own}"}],
        "templating": {"list": [{"name": "ds_own", "type": "datasource"}]},
    }


def test_uids_of_all_that_is_provisioned() -> None:
    assert dashboards.uids({"my orders": {"title": "x"}, "b": BOARD}, SHIPPED) == [
        "my-orders",
        "orders",
        "system-overview",
    ]


# Data sources

SERVERS: dict[str, list[Any]] = {"prometheus": [1], "loki": [1, 2]}
SOURCE = {"name": "Orders", "type": "prometheus", "uid": "orders"}


@pytest.mark.parametrize(
    ("further", "where", "says"),
    [
        ([{**SOURCE, "uid": "loki-2"}], "grafana_datasources[0].uid", "of this role"),
        ([{**SOURCE, "name": "Loki 2"}], "grafana_datasources[0].name", "of this role"),
        ([SOURCE, {**SOURCE, "name": "Other"}], "grafana_datasources[1].uid", "grafana_datasources[0]"),
        ([{"type": "loki"}], "grafana_datasources[0].name", "is missing"),
        ([{"name": "x"}], "grafana_datasources[0].type", "is missing"),
        ([{**SOURCE, "isDefault": True}], "grafana_datasources[0].isDefault", "there is a default already"),
        ([{**SOURCE, "name": "a $b"}], "grafana_datasources[0].name", "$$"),
        (["x"], "grafana_datasources[0]", "is text"),
        (None, "grafana_datasources", "is nothing"),
    ],
)
def test_a_data_source_that_takes_anothers_place_is_refused(further: Any, where: str, says: str) -> None:
    found = sources.problems(further, SERVERS)
    assert [place for place, _text in found] == [where]
    assert says in found[0][1]


def test_data_sources_of_ones_own() -> None:
    assert sources.problems([SOURCE, {"name": "100 $$ales", "type": "loki"}], SERVERS) == []


# Environments and secret files


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, 'is true or false; write text, such as "true"'),
        (None, "is nothing"),
        (["a"], "is a list"),
        ({"a": "b"}, "is a mapping"),
    ],
)
def test_what_is_no_text_is_refused_and_not_shown(value: Any, says: str) -> None:
    ((where, text),) = texts.problems({"KEY": value, "GOOD": "x", "NUMBER": 5}, "loki_environment")
    assert where == "loki_environment.KEY"
    assert says in text
