# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Periods as the files of a release say them, wherever somebody wrote one, and which of two releases keeps shorter."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._retention import rendered

UNIT = "[Service]\nExecStart=/usr/local/bin/x --config.file=/etc/x.yml{}\n{}"
LOKI: dict[str, Any] = {
    "auth_enabled": False,
    "compactor": {"retention_enabled": True},
    "runtime_config": {"file": "/etc/loki/runtime.yml"},
    "limits_config": {
        "retention_period": "1440h",
        "retention_stream": [
            {"selector": '{log_class="web"}', "priority": 10, "period": "336h"},
            {"selector": '{log_class="audit"}', "priority": 20, "period": "1440h"},
        ],
    },
}
TEMPO: dict[str, Any] = {
    "compactor": {"compaction": {"block_retention": "168h"}},
    "overrides": {"per_tenant_override_config": "/etc/tempo/overrides.yml"},
}


def release(store: str, *documents: Any, flags: str = "", environment: str = "") -> dict[str, Any]:
    write = json.dumps if store in ("tables", "copies") else yaml.safe_dump
    return rendered.periods(store, [write(one) for one in documents], UNIT.format(flags, environment))


def shorter(store: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [one.words() for one in rendered.shortened(store, after, before, "server")]


def patched(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """As the filter combine merges, lists replaced."""
    found = dict(base)
    for key, value in patch.items():
        found[key] = patched(base[key], value) if isinstance(value, dict) and key in base else value
    return found


def loki(patch: dict[str, Any] | None = None, tenants: dict[str, Any] | None = None, **unit: str) -> Any:
    return release("loki", patched(LOKI, patch or {}), {"overrides": tenants or {}}, **unit)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({}, []),
        ({"limits_config": {"retention_period": "24h"}}, ["(no class): 60d -> 1d"]),
        ({"limits_config": {"retention_period": "2w"}}, ["(no class): 60d -> 14d"]),
        # Zero is for ever, and nobody deletes when nobody is told to.
        ({"limits_config": {"retention_period": "0s"}}, []),
        ({"limits_config": {"retention_period": "24h"}, "compactor": {"retention_enabled": False}}, []),
        (
            {"limits_config": {"retention_stream": [{"selector": '{log_class="audit"}', "priority": 20, "period": "1440h"}, {"selector": '{log_class="web"}', "priority": 10, "period": "24h"}]}},
            ['{log_class="web"}: 14d -> 1d'],
        ),
        # A rule for everything that now has the last word.
        (
            {"limits_config": {"retention_stream": [*LOKI["limits_config"]["retention_stream"], {"selector": '{host=~".+"}', "priority": 99, "period": "24h"}]}},
            ['{host=~".+"}: 60d -> 1d'],
        ),
    ],
)  # fmt: skip
def test_a_patch_of_lokis_configuration(patch: dict[str, Any], words: list[str]) -> None:
    assert shorter("loki", loki(), loki(patch)) == words


def test_a_rule_of_loki_that_is_only_ranked_higher() -> None:
    broad = {"selector": '{log_class=~".+"}', "period": "24h"}
    rules = LOKI["limits_config"]["retention_stream"]
    below = {"limits_config": {"retention_stream": [*rules, {**broad, "priority": 1}]}}
    above = {"limits_config": {"retention_stream": [*rules, {**broad, "priority": 30}]}}
    assert shorter("loki", loki(below), loki(above)) == ['{log_class=~".+"}: 60d -> 1d']
    assert shorter("loki", loki(above), loki(below)) == []


def test_limits_of_lokis_tenants() -> None:
    own = {"fake": {"retention_period": "24h"}}
    assert shorter("loki", loki(), loki(tenants=own)) == ["(no class): 60d -> 1d"]
    assert shorter("loki", loki(tenants={"fake": {"retention_period": "0s"}}), loki()) == [
        "(no class): no bound -> 60d"
    ]
    assert shorter("loki", loki(tenants=own), loki()) == []


def test_what_was_kept_for_ever_or_without_deletion() -> None:
    forever = {"limits_config": {"retention_period": "0s", "retention_stream": []}}
    assert shorter("loki", loki(forever), loki()) == [
        '{log_class="web"}: no bound -> 14d',
        '{log_class="audit"}: no bound -> 60d',
        "(no class): no bound -> 60d",
    ]
    switched_off = {"compactor": {"retention_enabled": False}}
    assert '{log_class="web"}: no bound -> 14d' in shorter("loki", loki(switched_off), loki())


def test_a_variable_of_the_unit_stands_for_its_value() -> None:
    named = {"limits_config": {"retention_period": "${KEEP:1440h}"}}
    assert shorter("loki", loki(), loki(named)) == []
    assert shorter("loki", loki(), loki(named, environment="Environment=KEEP=24h\n")) == [
        "(no class): 60d -> 1d"
    ]


def test_a_secret_variable_says_no_period() -> None:
    config = {**TEMPO, "overrides": {**TEMPO["overrides"], "defaults": keeps("${KEEP:240h}")}}
    unit = UNIT.format("", "Environment=KEEP=240h\n")
    assert rendered.periods("tempo", [yaml.safe_dump(config), ""], unit)["tempo"]["block_retention"] == "240h"
    with pytest.raises(ValueError, match="KEEP"):
        rendered.periods("tempo", [yaml.safe_dump(config), ""], unit, ["KEEP"])


def test_limits_of_tenants_are_in_force_from_the_file_that_is_named() -> None:
    longer = {"fake": {"retention_period": "2400h"}}
    unread = loki({"runtime_config": {"file": ""}}, longer)
    assert shorter("loki", loki(tenants=longer), unread) == ["(no class): 100d -> 60d"]
    own = {"shop": keeps("240h")}
    unread = tempo({"overrides": {"per_tenant_override_config": None}}, own)
    assert shorter("tempo", tempo(tenants=own), unread) == ["traces of shop: 10d -> 7d"]
    for elsewhere in ("/var/lib/loki/runtime.yml", "/etc/loki/runtime.yml,/var/lib/loki/more.yml"):
        with pytest.raises(ValueError, match=r"which is not /etc/loki/runtime\.yml"):
            loki({"runtime_config": {"file": elsewhere}})
    with pytest.raises(ValueError, match=r"which is not /etc/tempo/overrides\.yml"):
        tempo({"overrides": {"per_tenant_override_config": "/var/lib/tempo/overrides.yml"}})


def prometheus(retention: dict[str, Any] | None = None, flags: str = "") -> Any:
    config = {"storage": {"tsdb": {"retention": retention}}} if retention else {}
    return release("prometheus", config, flags=flags)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (({"time": "30d"},), ({"time": "30d"},), []),
        (({"time": "30d"},), ({"time": "10d"},), ["metrics: 30d -> 10d"]),
        (({"time": "30d"},), (None,), ["metrics: 30d -> 15d"]),
        (({"time": "30d"},), (None, " --storage.tsdb.retention.time=10d"), ["metrics: 30d -> 10d"]),
        (({"time": "30d"},), (None, " --storage.tsdb.retention.time 40d"), []),
        # The configuration decides.
        (({"time": "30d"},), ({"time": "30d"}, " --storage.tsdb.retention.time=1d"), []),
        (({"time": "30d"},), ({"time": "30d", "size": "1GB"},), [f"size of metrics: no bound -> {2**30} bytes"]),
        (({"time": "30d"},), ({"time": "30d"}, " --storage.tsdb.retention.size=1GB"), [f"size of metrics: no bound -> {2**30} bytes"]),
        ((None, " --storage.tsdb.retention.size=1GB"), ({"time": "30d", "size": "1GB"},), ["metrics: no bound -> 30d"]),
    ],
)  # fmt: skip
def test_prometheus(before: tuple[Any, ...], after: tuple[Any, ...], words: list[str]) -> None:
    assert shorter("prometheus", prometheus(*before), prometheus(*after)) == words


def test_arguments_in_a_file_say_no_period() -> None:
    with pytest.raises(ValueError, match="@/var/lib/prometheus/arguments"):
        prometheus({"time": "30d"}, " @/var/lib/prometheus/arguments")


def tempo(patch: dict[str, Any] | None = None, tenants: dict[str, Any] | None = None) -> Any:
    return release("tempo", patched(TEMPO, patch or {}), {"overrides": tenants or {}})


def keeps(period: str) -> dict[str, Any]:
    return {"compaction": {"block_retention": period}}


def test_tempo() -> None:
    assert shorter("tempo", tempo(), tempo()) == []
    assert shorter("tempo", tempo(), tempo({"compactor": keeps("24h")})) == ["traces: 7d -> 1d"]
    # Zero deletes at once.
    assert shorter("tempo", tempo(), tempo({"compactor": keeps("0s")})) == ["traces: 7d -> 0d"]
    assert shorter("tempo", tempo(), tempo({"overrides": {"defaults": keeps("24h")}})) == ["traces: 7d -> 1d"]
    assert shorter("tempo", tempo(), tempo(tenants={"shop": keeps("24h")})) == ["traces of shop: 7d -> 1d"]
    assert shorter("tempo", tempo(), tempo(tenants={"*": keeps("24h")})) == ["traces of *: 7d -> 1d"]
    assert shorter("tempo", tempo(tenants={"shop": keeps("240h")}), tempo()) == ["traces of shop: 10d -> 7d"]
    gone = shorter(
        "tempo",
        tempo(tenants={"shop": keeps("240h"), "*": keeps("48h")}),
        tempo(tenants={"*": keeps("48h")}),
    )
    assert gone == ["traces of shop: 10d -> 2d"]


def test_jobs_of_hosts() -> None:
    def rows(days: int) -> Any:
        return release("tables", {"jobs": {"tables": {"tables": [{"table": "core.log", "days": days}]}}})

    assert shorter("tables", rows(90), rows(30)) == ["table core.log: 90d -> 30d"]
    assert shorter("tables", rows(30), rows(90)) == []
    # A job that goes deletes nothing; a table that comes begins to be deleted from.
    assert shorter("tables", rows(30), release("tables", {"jobs": {}})) == []
    assert shorter("tables", release("tables", {"jobs": {}}), rows(30)) == ["table core.log: no bound -> 30d"]

    def copies(days: int) -> Any:
        return release("copies", {"jobs": {"minio": {"keep_days": days}}})

    assert shorter("copies", copies(14), copies(3)) == ["copies of minio: 14d -> 3d"]
    assert shorter("copies", copies(3), copies(14)) == []


@pytest.mark.parametrize(
    ("store", "documents"),
    [
        ("loki", [{"limits_config": {"retention_period": "soon"}}, {}]),
        ("loki", [LOKI, {"overrides": {"t": {"retention_stream": [{"selector": "web", "period": "1d"}]}}}]),
        ("prometheus", [{"storage": {"tsdb": {"retention": {"time": "a month"}}}}]),
        ("tempo", [{"compactor": {"compaction": {"block_retention": "x"}}}, {}]),
        ("tempo", [TEMPO, {"overrides": {"t": "x"}}]),
        ("tempo", [TEMPO, {"overrides": {"t": {"compaction": {"block_retention": "soon"}}}}]),
        ("copies", [{"jobs": {"minio": {}}}]),
    ],
)
def test_what_cannot_be_read_is_no_period(store: str, documents: list[Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        release(store, *documents)
