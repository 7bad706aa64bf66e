# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""An inventory's part of a configuration: merged, added to, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._config import limits, overlay

BASE = {
    "server": {"http_listen_port": "{{ loki_port | int }}", "log_level": "{{ loki_log_level }}"},
    "limits_config": {
        "retention_period": "{{ __loki_plan.retention_period }}",
        "discover_service_name": ["service"],
    },
    "scrape_configs": "{{ __loki_jobs }}",
}
WRITTEN = {
    "loki_port": 3100,
    "loki_log_level": "info",
    "platform_retention_plan": "…",
    "platform_scrape_jobs": [],
    "__loki_plan": "{{ platform_retention_plan.loki }}",
    "__loki_jobs": "{%- for job in platform_scrape_jobs -%}{{ 'not_a_variable' }}{%- endfor -%}",
    "__loki_config_base": BASE,
}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({}, {"a": {"b": 1, "c": [1]}, "d": [2]}),
        ({"a": {"b": 2}}, {"a": {"b": 2, "c": [1]}, "d": [2]}),
        ({"d": [3]}, {"a": {"b": 1, "c": [1]}, "d": [3]}),
        ({"+d": [3]}, {"a": {"b": 1, "c": [1]}, "d": [2, 3]}),
        ({"a": {"+c": [5]}}, {"a": {"b": 1, "c": [1, 5]}, "d": [2]}),
        ({"+new": [1]}, {"a": {"b": 1, "c": [1]}, "d": [2], "new": [1]}),
        # Below what the role does not have, too.
        ({"e": {"+f": [1]}}, {"a": {"b": 1, "c": [1]}, "d": [2], "e": {"f": [1]}}),
        ({"d": {"e": 1}}, {"a": {"b": 1, "c": [1]}, "d": {"e": 1}}),
    ],
)
def test_merged(patch: dict[str, Any], result: dict[str, Any]) -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": [2]}
    assert overlay.merged(base, patch) == result
    assert base == {"a": {"b": 1, "c": [1]}, "d": [2]}


@pytest.mark.parametrize("patch", [{"+a": [1]}, {"+d": {"x": 1}}, {"a": {"+b": [1]}}])
def test_what_is_no_list_is_not_added_to(patch: dict[str, Any]) -> None:
    base = {"a": {"b": 1}, "d": [2]}
    ((_, told),) = overlay.faults("x_config", base, patch, {})
    assert "adds the items of a list to a list" in told
    # Nothing that the role has is lost, and the server is shown what was meant.
    done = overlay.merged(base, patch)
    assert done["d"] == [2]
    assert done["a"]["b"] == 1


@pytest.mark.parametrize(
    ("patch", "where", "words"),
    [
        (
            {"server": {"http_listen_port": 3200}},
            "loki_config.server.http_listen_port",
            "follows from loki_port",
        ),
        (
            {"limits_config": {"retention_period": "24h"}},
            "loki_config.limits_config.retention_period",
            "follows from platform_retention,",
        ),
        (
            {"scrape_configs": []},
            "loki_config.scrape_configs",
            "(platform_scrape_jobs); write +scrape_configs",
        ),
    ],
)
def test_what_the_platform_builds_is_not_replaced(patch: dict[str, Any], where: str, words: str) -> None:
    ((found, told),) = overlay.of_role("loki", WRITTEN, patch)
    assert found == where
    assert words in told


@pytest.mark.parametrize(
    "patch",
    [
        {"server": {"log_level": "debug", "grpc_server_max_recv_msg_size": 1}},
        {"limits_config": {"discover_service_name": []}},
        {"+scrape_configs": [{"job_name": "x"}]},
        {"further": [1]},
    ],
)
def test_the_rest_is_the_inventorys(patch: dict[str, Any]) -> None:
    assert overlay.of_role("loki", WRITTEN, patch) == []


def test_private_variables_may_name_each_other() -> None:
    written = {"__a_x": "{{ __a_y }}", "__a_y": "{{ __a_x }}{{ a_z }}", "a_z": 1}
    assert overlay.sources("{{ __a_x }}", written) == ["a_z"]


def test_each_tenant_has_a_configuration_in_which_its_limits_are_everybodys() -> None:
    config = {"overrides": {"defaults": {"a": {"x": 1}, "b": 2}, "period": "10s"}, "other": 1}
    found = limits.tenant_checks(config, {"shop/..": {"a": {"y": 3}}, "odd": 5}, ["overrides", "defaults"])
    assert [one["path"] for one in found] == ["check/1-shop___.yml", "check/2-odd.yml"]
    assert found[0]["content"] == {
        "overrides": {"defaults": {"a": {"x": 1, "y": 3}, "b": 2}, "period": "10s"},
        "other": 1,
    }
    assert found[1]["content"]["overrides"]["defaults"] == 5


def test_rules_are_known_by_name() -> None:
    groups = [{"name": "a", "rules": [{"alert": "null"}, {"record": "x:y"}]}, {"name": 7}]
    assert limits.rule_names(groups) == [
        {"name": "a", "rules": [{"name": "null"}, {"name": "x:y"}]},
        {"name": "7", "rules": []},
    ]


def test_periods_of_tenants_are_the_policys() -> None:
    own = {"shop": {"retention_period": "24h", "max_streams": 5}}
    assert [where for where, _ in limits.periods("loki", own)] == ["loki_tenant_limits.shop.retention_period"]
    own = {"shop": {"compaction": {"block_retention": "24h"}}, "odd": 5}
    ((where, told),) = limits.periods("tempo", own)
    assert where == "tempo_tenant_limits.shop.compaction.block_retention"
    assert "platform_retention_tenants.shop" in told
