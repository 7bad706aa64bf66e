# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Which changes of the policy delete something earlier, and which do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._bucket import lifecycle
from ansible_collections.luxima.observability.plugins.module_utils._retention import policy, shorten
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "roles" / "platform").exists())
POLICY: dict[str, Any] = yaml.safe_load((ROOT / "roles/platform/defaults/main/retention.yml").read_text())[
    "platform_retention"
]
LOGS = {"stores": ["loki"]}


def made(**changes: Any) -> dict[str, Any]:
    tenants = changes.pop("tenants", {})
    classes = {name: {**POLICY.get(name, {}), **entry} for name, entry in changes.items()}
    options = policy.Options(tempo_multi_tenant=True)
    return policy.plan({**POLICY, **classes}, tenants=tenants, options=options)


def logs(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a Loki that runs one plan loses under another; it shows tenants' limits merged over everybody's."""
    limits = before["loki"]
    tenants = {
        name: {**limits, **limits["overrides"].get(name, {})}
        for name in {**limits["overrides"], **after["loki"]["overrides"]}
    }
    return [one.words() for one in shorten.loki(after, "x", limits, tenants)]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {}, []),
        ({}, {"audit": {"period": "120d"}}, []),
        ({}, {"audit": {"period": "45d", "stores": ["loki"]}}, ['{log_class="audit"}: 90d -> 45d', "(no class): 90d -> 60d"]),
        ({}, {"web": {"period": "7d"}}, ['{log_class="web"}: 14d -> 7d']),
        # A class that comes has been kept as long as the longest it was part of; one that goes falls back.
        ({}, {"shop": {"period": "3d", "selector": '{service="shop"}', "priority": 9, **LOGS}}, ['{service="shop"}: 90d -> 3d']),
        ({"shop": {"period": "80d", "selector": '{service="shop"}', "priority": 9, **LOGS}}, {}, ['{service="shop"}: 80d -> 14d']),
        ({"shop": {"period": "3d", "selector": '{service="shop"}', "priority": 9, **LOGS}}, {}, []),
        # The same for tenants.
        ({}, {"tenants": {"t": {"application": "60d"}}}, []),
        ({}, {"tenants": {"t": {"application": "7d"}}}, ['{log_class="application", tenant_id="t"}: 30d -> 7d']),
        ({"tenants": {"t": {"application": "60d"}}}, {}, ['{log_class="application", tenant_id="t"}: 60d -> 30d']),
        ({"tenants": {"t": {"application": "7d"}}}, {}, []),
        ({"tenants": {"t": {"application": "60d"}}}, {"tenants": {"t": {"application": "45d"}}}, ['{log_class="application", tenant_id="t"}: 60d -> 45d']),
    ],
)  # fmt: skip
def test_logs(before: dict[str, Any], after: dict[str, Any], words: list[str]) -> None:
    assert logs(made(**before), made(**after)) == words


periods = st.dictionaries(
    st.sampled_from(["application", "docker", "web", "syslog", "security"]),
    st.integers(1, 80).map(lambda days: {"period": f"{days}d"}),
)


@settings(max_examples=100, deadline=None)
@given(periods, periods)
def test_a_shorter_class_is_always_found_and_a_longer_one_never(before: Any, after: Any) -> None:
    told = {one.partition(":")[0] for one in logs(made(**before), made(**after))}
    for name in ("application", "docker", "web", "syslog", "security"):
        old, new = (
            int({**POLICY[name], **plan.get(name, {})}["period"].removesuffix("d"))
            for plan in (before, after)
        )
        assert (f'{{log_class="{name}"}}' in told) == (new < old)


def test_a_compactor_that_deleted_nothing_has_kept_everything() -> None:
    plan = made()
    found = shorten.loki(plan, "x", plan["loki"], {}, enabled=False)
    assert {one.old for one in found} == {None}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("shown", "size", "words"),
    [
        ("30d", "", []),
        ("15d", "", []),
        ("60d", "", ["metrics: 60d -> 30d"]),
        ("20GiB", "20GB", ["metrics: no bound -> 30d"]),
        ("30d", "20GB", ["size of metrics: no bound -> 21474836480 bytes"]),
        ("30d or 40GiB", "20GB", ["size of metrics: 42949672960 bytes -> 21474836480 bytes"]),
        ("30d or 10GiB", "20GB", []),
    ],
)
def test_metrics(shown: str, size: str, words: list[str]) -> None:
    plan = policy.plan(POLICY, options=policy.Options(metrics_size=size))
    assert [one.words() for one in shorten.prometheus(plan, "x", shown)] == words


@pytest.mark.parametrize(
    ("shown", "tenants", "wanted", "words"),
    [
        ("168h0m0s", {}, {}, []),
        ("336h", {}, {}, ["traces: 14d -> 7d"]),
        ("168h", {}, {"t": {"traces": "3d"}}, ["traces of t: 7d -> 3d"]),
        ("168h", {"t": {"compaction": {"block_retention": "240h"}}}, {}, ["traces of t: 10d -> 7d"]),
        ("168h", {"t": {"compaction": {"block_retention": "0s"}}}, {}, []),
        ("72h", {}, {"t": {"traces": "5d"}}, []),
    ],
)
def test_traces(shown: str, tenants: dict[str, Any], wanted: dict[str, Any], words: list[str]) -> None:
    assert [one.words() for one in shorten.tempo(made(tenants=wanted), "x", shown, tenants)] == words


def test_lifecycles() -> None:
    bucket = {"name": "b", "consumer": "archive", "lifecycle": made()["lifecycles"]["archive"]}
    have = lifecycle.from_arguments(bucket["lifecycle"], "b")
    assert shorten.lifecycle("x", bucket, lifecycle.Rules(have)) == []
    longer = lifecycle.Rules(tuple(lifecycle.Rule(one.id, one.prefix, 200, 14) for one in have[1:]))
    told = [one.words() for one in shorten.lifecycle("x", bucket, longer)]
    assert f"archive: {have[0].id}: no bound -> 60d" in told
    assert "archive: audit: 200d -> 90d" in told
    # Replaced versions that were kept for ever are not any more.
    forever = lifecycle.Rules(tuple(lifecycle.Rule(one.id, one.prefix, one.days) for one in have))
    told = [one.words() for one in shorten.lifecycle("x", bucket, forever)]
    days = [one for one in have if one.noncurrent_days]
    assert days
    assert told == [
        f"archive: {one.id}, replaced versions: no bound -> {one.noncurrent_days}d" for one in days
    ]
    # A bucket that does not exist yet loses nothing.
    assert shorten.lifecycle("x", bucket, None) == []


def test_metrics_that_lie_there() -> None:
    day = 86_400_000
    metas = [{"minTime": start * day, "maxTime": (start + 1) * day} for start in (0, 5, 12)]
    assert [one.words() for one in shorten.blocks("/d", metas, "10d", "h")] == ["metrics in /d: 13d -> 10d"]
    assert shorten.blocks("/d", metas, "13d", "h") == []
    assert shorten.blocks("/d", metas, "", "h") == []
    assert shorten.blocks("/d", [], "1d", "h") == []


def test_tables() -> None:
    options = policy.Options(tables={"audit": [{"table": "a.b", "column": "at"}]})
    plan = policy.plan(POLICY, options=options)
    for shown, words in (("90d", []), ("30d", []), ("180d", ["table a.b: 180d -> 90d"])):
        report = {"tables": [{"pattern": "a.b", "period": shown}]}
        assert [one.words() for one in shorten.tables(plan, "db", report)] == words
    assert [one.words() for one in shorten.tables(plan, "db", None)] == ["table a.b: no bound -> 90d"]
