# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.filter.retention import retention_plan
from ansible_collections.luxima.observability.plugins.module_utils._retention import (
    durations,
    policy,
    selectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "roles" / "platform").exists())
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "roles/platform/defaults/main/retention.yml").read_text())
POLICY: dict[str, Any] = SHIPPED["platform_retention"]
CLASSES = {
    "metrics", "application", "docker", "web", "syslog", "security", "audit", "traces", "archive",
    "database_backup", "object_storage", "deployment_snapshot", "alert_history", "deploy_audit",
}  # fmt: skip


def with_(**changes: Any) -> dict[str, Any]:
    """The shipped policy with fields of classes changed; None removes a class."""
    changed: dict[str, Any] = copy.deepcopy(POLICY)
    for name, entry in changes.items():
        if entry is None:
            del changed[name]
        else:
            changed[name] = {**changed.get(name, {}), **entry}
    return changed


def test_the_shipped_policy_has_the_fourteen_classes_and_is_coherent() -> None:
    assert set(POLICY) == CLASSES
    assert policy.problems(POLICY) == []


def test_the_shipped_labels_are_the_core_s_own() -> None:
    assert tuple(SHIPPED["platform_log_labels"]) == policy.STREAM_LABELS


def test_plan_of_the_shipped_policy() -> None:
    plan = policy.plan(POLICY)
    assert plan["prometheus"] == {"time": "30d", "size": ""}
    assert plan["tempo"] == {"block_retention": "168h", "longest": "192h", "overrides": {}}
    # What is kept can be asked for.
    assert plan["loki"]["longest"] == "2184h"
    assert plan["loki"]["retention_period"] == "2160h"
    streams = {one["selector"]: one["period"] for one in plan["loki"]["retention_stream"]}
    assert streams['{log_class="docker"}'] == "360h"
    assert len({one["priority"] for one in plan["loki"]["retention_stream"]}) == len(streams) == 6
    assert plan["minio"] == {"archive": "60d", "database_backup": "30d", "object_storage": "14d"}
    assert plan["postgresql"] == {"audit": "90d", "alert_history": "forever", "deploy_audit": "forever"}
    assert plan["copies"] == {"postgresql": "30d", "grafana": "30d", "minio": "14d", "prometheus": "14d"}
    by_nobody = {row["class"] for row in plan["explanation"] if not row["setting"]}
    # What an application receives, and tables that nobody named.
    assert by_nobody == {"alert_history", "deploy_audit", "audit"}
    enforced = {(row["class"], row["store"]) for row in plan["explanation"]}
    assert {(name, store) for name, entry in POLICY.items() for store in entry["stores"]} <= enforced


def test_overrides_change_single_fields() -> None:
    plan = policy.plan(POLICY, {"application": {"period": "7d"}})
    assert plan["loki"]["retention_stream"][0]["period"] == "168h"
    assert plan["classes"]["docker"]["period"] == "15d"


def test_a_tenant_of_its_own_by_label() -> None:
    plan = policy.plan(POLICY, tenants={"tenant_001": {"application": "90d"}})
    streams = plan["loki"]["overrides"]["fake"]["retention_stream"]
    own = next(one for one in streams if "tenant_001" in one["selector"])
    assert own["selector"] == '{tenant_id="tenant_001", log_class="application"}'
    assert own["period"] == "2160h"
    assert own["priority"] > max(one["priority"] for one in plan["loki"]["retention_stream"])
    assert plan["loki"]["retention_stream"] == [one for one in streams if one is not own]


def test_a_tenant_of_its_own_by_header() -> None:
    options = policy.Options(loki_multi_tenant=True, tempo_multi_tenant=True)
    plan = policy.plan(POLICY, tenants={"a": {"application": "120d", "traces": "3d"}}, options=options)
    assert plan["loki"]["overrides"]["a"]["retention_period"] == "2880h"
    assert plan["loki"]["overrides"]["a"]["retention_stream"][0]["period"] == "2880h"
    assert plan["tempo"]["overrides"] == {"a": {"compaction": {"block_retention": "72h"}}}
    # Whose data is kept longer than anybody's can ask for it too; whose is kept shorter is not in the way.
    assert (plan["loki"]["longest"], plan["tempo"]["longest"]) == (f"{121 * 24}h", "192h")


def test_two_stores_with_periods_of_their_own() -> None:
    plan = policy.plan(with_(audit={"period": "180d", "store_periods": {"postgresql": "90d"}}))
    assert plan["postgresql"]["audit"] == "90d"
    assert plan["loki"]["retention_period"] == "4320h"


LOGS = {"stores": ["loki"]}
BAD: list[tuple[dict[str, Any], list[str]]] = [
    # whole days, minimums, spelling
    ({"policy": with_(application={"period": "36h"})}, ["platform_retention.application.period", "36h", "whole days", "2d"]),
    ({"policy": with_(application={"period": "12h"})}, ["platform_retention.application.period", "12h", "1d"]),
    ({"policy": with_(application={"period": "0d"})}, ["platform_retention.application.period", "24h"]),
    ({"policy": with_(metrics={"period": "thirty days"})}, ["platform_retention.metrics.period", "thirty days"]),
    ({"policy": with_(metrics={"period": 30})}, ["platform_retention.metrics.period", "30"]),
    ({"policy": with_(metrics={"period": "-3d"})}, ["platform_retention.metrics.period", "-3d"]),
    ({"policy": with_(metrics={"period": ""})}, ["platform_retention.metrics.period"]),
    ({"policy": with_(traces={"period": "90m"})}, ["platform_retention.traces.period", "90m"]),
    ({"policy": {**POLICY, "web": {"stores": ["loki"], "selector": '{log_class="web"}'}}}, ["platform_retention.web.period", "missing"]),
    # unknown things
    ({"policy": with_(metrics={"stores": ["promethes"]})}, ["platform_retention.metrics.stores", "promethes", "prometheus"]),
    ({"policy": with_(metrics={"stores": []})}, ["platform_retention.metrics.stores", "at least one"]),
    ({"policy": with_(metrics={"stores": ["prometheus", "prometheus"]})}, ["platform_retention.metrics.stores", "twice"]),
    ({"policy": with_(metrics={"perriod": "3d"})}, ["platform_retention.metrics.perriod", "period"]),
    ({"policy": {**POLICY, "web": "14d"}}, ["platform_retention.web", "mapping"]),
    ({"overrides": {"aplication": {"period": "7d"}}}, ["platform_retention_overrides.aplication", "application"]),
    ({"overrides": {"web": "7d"}}, ["platform_retention_overrides.web", "mapping"]),
    ({"tenants": {"t": {"aplication": "7d"}}}, ["platform_retention_tenants.t.aplication", "application"]),
    ({"tenants": {"t": "7d"}}, ["platform_retention_tenants.t", "mapping"]),
    ({"tenants": {"a/b": {"web": "7d"}}}, ["platform_retention_tenants.a/b", "tenant id"]),
    # selectors
    ({"policy": with_(payments={"period": "3d", **LOGS})}, ["platform_retention.payments.selector", "missing"]),
    ({"policy": with_(web={"selector": "log_class=web"})}, ["platform_retention.web.selector", "stream selector"]),
    ({"policy": with_(web={"selector": "{log_class=web}"})}, ["platform_retention.web.selector", "log_class=web"]),
    ({"policy": with_(web={"selector": '{log_class="web"} |= "x"'})}, ["platform_retention.web.selector", "filters"]),
    ({"policy": with_(web={"selector": '{log_class=~"("}'})}, ["platform_retention.web.selector", "regular expression"]),
    ({"policy": with_(web={"selector": '{log_class=~".*"}'})}, ["platform_retention.web.selector", "empty"]),
    ({"policy": with_(web={"selector": "{}"})}, ["platform_retention.web.selector", "empty"]),
    ({"policy": with_(web={"selector": '{log_class="web", user_id="7"}'})}, ["platform_retention.web.selector", "user_id", "platform_log_labels"]),
    ({"policy": with_(metrics={"selector": '{job="x"}'})}, ["platform_retention.metrics.selector", "prometheus"]),
    ({"policy": with_(web={"priority": 0})}, ["platform_retention.web.priority", "999"]),
    ({"policy": with_(web={"priority": "high"})}, ["platform_retention.web.priority", "high"]),
    # overlaps
    ({"policy": with_(shop={"period": "3d", "selector": '{service="shop"}', **LOGS})}, ["platform_retention.shop", "platform_retention.application", "3d", "30d", "priority"]),
    ({"policy": with_(both={"period": "3d", "selector": '{log_class=~"web|docker"}', **LOGS})}, ["platform_retention.both", "platform_retention.web", "14d"]),
    ({"policy": with_(same={"period": "3d", "selector": '{log_class="web"}', "priority": 5, **LOGS}, web={"priority": 5})}, ["platform_retention.same", "platform_retention.web", "same priority"]),
    ({"policy": with_(rest={"period": "3d", "selector": '{host=~".+", log_class!="web"}', **LOGS})}, ["platform_retention.rest", "platform_retention.docker", "15d"]),
    # stores with one period
    ({"policy": with_(more={"period": "60d", "stores": ["prometheus"]})}, ["platform_retention.more", "platform_retention.metrics", "60d", "30d"]),
    ({"policy": with_(more={"period": "3d", "stores": ["tempo"]})}, ["platform_retention.more", "platform_retention.traces", "3d", "7d"]),
    ({"policy": with_(metrics=None)}, ["prometheus", "metrics"]),
    ({"policy": with_(traces=None)}, ["tempo", "traces"]),
    ({"policy": {"metrics": POLICY["metrics"], "traces": POLICY["traces"]}}, ["loki", "selector"]),
    # record and copy
    ({"policy": with_(audit={"store_periods": {"postgresql": "180d"}})}, ["platform_retention.audit", "90d", "180d", "record"]),
    ({"tenants": {"t": {"audit": "30d"}}}, ["platform_retention_tenants.t.audit", "30d", "90d", "record"]),
    ({"policy": with_(audit={"store_periods": {"minio": "180d"}})}, ["platform_retention.audit.store_periods.minio", "loki, postgresql"]),
    # for ever
    ({"policy": with_(audit={"period": "forever"})}, ["platform_retention.audit", "loki cannot keep for ever", "postgresql, webhook", "store_periods"]),
    ({"policy": with_(metrics={"period": "forever"})}, ["platform_retention.metrics", "prometheus cannot keep for ever"]),
    ({"overrides": {"database_backup": {"period": "forever"}}}, ["platform_retention.database_backup", "minio cannot keep for ever"]),
    ({"overrides": {"alert_history": {"period": "0d"}}}, ["platform_retention.alert_history.period", "`forever` (in postgresql, webhook)"]),
    ({"overrides": {"alert_history": {"period": "always"}}}, ["platform_retention.alert_history.period", "'always' is no duration"]),
    ({"tenants": {"t": {"web": "forever"}}}, ["platform_retention_tenants.t.web", "cannot keep for ever"]),
    ({"options": {"lifecycles": {"loki": "forever"}}}, ["platform_retention_lifecycles.loki", "cannot keep for ever"]),
    # tenants that cannot be kept apart
    ({"tenants": {"t": {"metrics": "60d"}}}, ["platform_retention_tenants.t.metrics", "prometheus"]),
    ({"tenants": {"t": {"traces": "3d"}}}, ["platform_retention_tenants.t.traces", "tempo_multitenancy_enabled"]),
    ({"tenants": {"t": {"web": "25h"}}}, ["platform_retention_tenants.t.web", "25h"]),
    ({"policy": with_(web={"selector": '{log_class="web", tenant_id="x"}'}), "tenants": {"t": {"web": "3d"}}}, ["platform_retention_tenants.t.web", "platform_retention.web.selector"]),
    ({"tenants": {"t": {"web": "3d"}}, "options": {"stream_labels": ("log_class",)}}, ["platform_retention_tenants", "tenant_id", "platform_log_labels"]),
    # lifecycles
    ({"options": {"lifecycles": {"loki": "60d"}}}, ["platform_retention_lifecycles.loki", "60d", "platform_retention.audit", "90d", "2h", "91d"]),
    ({"options": {"lifecycles": {"loki": "90d"}}}, ["platform_retention_lifecycles.loki", "platform_retention.audit", "91d"]),
    ({"options": {"lifecycles": {"tempo": "7d"}}}, ["platform_retention_lifecycles.tempo", "platform_retention.traces", "8d"]),
    ({"options": {"lifecycles": {"loki": "36h"}}}, ["platform_retention_lifecycles.loki", "whole days"]),
    ({"options": {"lifecycles": {"grafana": "9d"}}}, ["platform_retention_lifecycles.grafana", "loki, tempo"]),
    ({"tenants": {"t": {"web": "120d"}}, "options": {"lifecycles": {"loki": "100d"}}}, ["platform_retention_lifecycles.loki", "platform_retention_tenants.t.web", "120d", "121d"]),
    # tables
    ({"options": {"tables": {"adit": []}}}, ["platform_retention_tables.adit", "no such class", "audit"]),
    ({"options": {"tables": {"web": [{"table": "a.b", "column": "at"}]}}}, ["platform_retention_tables.web", "stores is loki", "add postgresql"]),
    ({"options": {"tables": {"audit": [{"table": "audit_log", "column": "at"}]}}}, ["platform_retention_tables.audit", "'audit_log'", "schema.table"]),
    ({"options": {"tables": {"audit": [{"table": "a.b"}]}}}, ["platform_retention_tables.audit", "a.b", "column"]),
    ({"options": {"tables": {"audit": ["core.audit_log"]}}}, ["platform_retention_tables.audit", "list of mappings"]),
    ({"policy": with_(web={"stores": ["loki", "postgresql"]}), "options": {"tables": {"audit": [{"table": "a.b", "column": "c"}], "web": [{"table": "a.b", "column": "c"}]}}}, ["platform_retention_tables.web", "platform_retention_tables.audit", "one period"]),
    # what the server and its disk can do
    ({"options": {"metrics_size": "20GB", "metrics_disk_gb": 20}}, ["platform_retention_metrics_size", "20GB", "guest_disk_gb", "16GB"]),
    ({"options": {"prometheus_version": "3.5.0"}}, ["platform_retention.metrics", "3.5.0", "3.11"]),
    # the rest
    ({"options": {"metrics_size": "lots"}}, ["platform_retention_metrics_size", "lots", "20GB"]),
    ({"options": {"deletion_delay": "soon"}}, ["platform_retention_deletion_delay", "soon"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "words"), BAD, ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_an_incoherent_policy_is_refused_with_both_sides_named(
    case: dict[str, Any], words: list[str]
) -> None:
    options = policy.Options(**case.get("options", {}))
    arguments = (case.get("policy", POLICY), case.get("overrides"), case.get("tenants"), options)
    found = policy.problems(*arguments)
    assert any(all(word in sentence for word in words) for sentence in found), found
    with pytest.raises(policy.IncoherentPolicy) as refused:
        policy.plan(*arguments)
    assert refused.value.problems == found


def test_the_matrix_has_forty_policies_for_a_dozen_reasons() -> None:
    """A reason is the sentence without the names, numbers and quotations of the case."""
    reasons = set()
    for case, words in BAD:
        options = policy.Options(**case.get("options", {}))
        found = policy.problems(
            case.get("policy", POLICY), case.get("overrides"), case.get("tenants"), options
        )
        sentence = next(one for one in found if all(word in one for word in words))
        bare = re.sub(r"platform_\w+(\.[\w/.]+)*|'[^']*'|\"[^\"]*\"|\{[^}]*\}|\S*\d\S*", "", sentence)
        reasons.add(" ".join(re.findall(r"[a-z]{4,}", bare)[:4]))
    assert len(BAD) >= 40
    assert len(reasons) >= 12, sorted(reasons)


def test_what_the_disk_and_the_version_can_do_is_accepted() -> None:
    fits = policy.Options(metrics_size="16GB", metrics_disk_gb=20, prometheus_version="3.15.0")
    assert policy.problems(POLICY, options=fits) == []
    assert policy.problems(POLICY, options=policy.Options(prometheus_version="v4.0.1")) == []


def test_tables_have_the_period_of_their_class() -> None:
    tables = SHIPPED["platform_retention_tables"]
    plan = policy.plan(POLICY, {"audit": {"period": "180d"}}, options=policy.Options(tables=tables))
    assert plan["tables"] == [
        {"table": "core.audit_log", "column": "created_at", "class": "audit", "period": "180d"},
    ]
    rows = {one["match"]: one["enforced"] for one in plan["explanation"] if one["store"] == "postgresql"}
    assert rows == {
        "table core.audit_log": "180d",
        "table internal.alert_logs": "forever",
        "table internal.audit_deploy": "forever",
    }


def test_every_shipped_table_has_a_class_of_its_own_and_no_pattern_takes_others() -> None:
    tables = SHIPPED["platform_retention_tables"]
    named = [entry["table"] for entries in tables.values() for entry in entries]
    assert sorted(named) == ["core.audit_log", "internal.alert_logs", "internal.audit_deploy"]
    plan = policy.plan(POLICY, options=policy.Options(tables=tables))
    assert {one["table"]: one["class"] for one in plan["kept_tables"]} == {
        "internal.alert_logs": "alert_history",
        "internal.audit_deploy": "deploy_audit",
    }


def test_what_is_kept_for_ever_can_get_a_period() -> None:
    tables = SHIPPED["platform_retention_tables"]
    plan = policy.plan(POLICY, {"alert_history": {"period": "400d"}}, options=policy.Options(tables=tables))
    assert {one["table"]: one["period"] for one in plan["tables"]} == {
        "core.audit_log": "90d",
        "internal.alert_logs": "400d",
    }
    assert [one["table"] for one in plan["kept_tables"]] == ["internal.audit_deploy"]


def test_every_fault_is_in_one_list() -> None:
    found = policy.problems(
        with_(web={"period": "1h"}, docker={"stores": ["lok"]}),
        {"nothing": {}},
        options=policy.Options(metrics_size="x"),
    )
    assert len(found) >= 4


def test_an_explicit_priority_settles_an_overlap() -> None:
    plan = policy.plan(with_(shop={"period": "3d", "selector": '{service="shop"}', "priority": 7, **LOGS}))
    streams = plan["loki"]["retention_stream"]
    assert max(streams, key=lambda one: int(one["priority"]))["selector"] == '{service="shop"}'


def test_a_lifecycle_that_waits_long_enough_is_accepted() -> None:
    assert policy.problems(POLICY, options=policy.Options(lifecycles={"loki": "91d", "tempo": "8d"})) == []


def test_the_archive_keeps_every_class_as_long_as_the_live_copy() -> None:
    plan = policy.plan(POLICY, tenants={"t": {"web": "100d"}})
    assert {one["prefix"]: one["days"] for one in plan["lifecycles"]["archive"]} == {
        "application/": 60,
        "docker/": 60,
        "web/": 100,
        "syslog/": 60,
        "security/": 60,
        "audit/": 90,
    }
    assert {one["noncurrent_days"] for one in plan["lifecycles"]["archive"]} == {14}
    assert policy.plan(with_(archive=None))["lifecycles"]["archive"] == []


def test_live_buckets_have_a_rule_only_where_one_was_asked_for_and_on_data_only() -> None:
    assert policy.plan(POLICY)["lifecycles"]["loki"] == policy.plan(POLICY)["lifecycles"]["tempo"] == []
    asked = policy.Options(lifecycles={"loki": "97d", "tempo": "9d"})
    plan = policy.plan(POLICY, options=asked)
    assert plan["lifecycles"]["loki"] == [{"id": "data-fake", "prefix": "fake/", "days": 97}]
    assert plan["lifecycles"]["tempo"] == [
        {"id": "data-single-tenant", "prefix": "single-tenant/", "days": 9}
    ]
    by_header = policy.Options(lifecycles={"loki": "97d"}, loki_multi_tenant=True)
    plan = policy.plan(POLICY, tenants={"b": {"web": "3d"}, "a": {"web": "2d"}}, options=by_header)
    assert [one["prefix"] for one in plan["lifecycles"]["loki"]] == ["a/", "b/"]


def test_the_filter_says_all_of_it() -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        retention_plan(
            POLICY,
            overrides={"web": {"period": "14d"}, "wbe": {}},
            tenants={"t": {"nope": "1d"}},
            metrics_size="x",
        )
    for place in (
        "platform_retention_overrides.wbe",
        "platform_retention_tenants.t.nope",
        "platform_retention_metrics_size",
    ):
        assert place in str(refused.value)


whole_days = st.integers(min_value=1, max_value=400)


@settings(max_examples=200, deadline=None)
@given(
    periods=st.fixed_dictionaries(
        dict.fromkeys(sorted(CLASSES - {"alert_history", "deploy_audit"}), whole_days)
    ),
    tenants=st.dictionaries(
        st.text("abcdef0123456789_-", min_size=1, max_size=12),
        st.dictionaries(
            st.sampled_from(["application", "docker", "web", "syslog", "security"]), whole_days, min_size=1
        ),
        max_size=4,
    ),
    by_header=st.booleans(),
)
def test_no_store_deletes_early_and_none_keeps_longer(
    periods: dict[str, int], tenants: dict[str, dict[str, int]], by_header: bool
) -> None:
    """Plays Loki: the highest priority that matches decides, else the tenant's or the global period."""
    chosen = with_(**{name: {"period": f"{days}d"} for name, days in periods.items()})
    own = {tenant: {name: f"{days}d" for name, days in one.items()} for tenant, one in tenants.items()}
    plan = policy.plan(chosen, tenants=own, options=policy.Options(loki_multi_tenant=by_header))
    assert durations.parse(plan["prometheus"]["time"]) == periods["metrics"] * durations.DAY
    assert durations.parse(plan["tempo"]["block_retention"]) == periods["traces"] * durations.DAY
    logs = ("application", "docker", "web", "syslog", "security", "audit")
    for tenant in [*tenants, "another"]:
        for name in logs:
            stream = {"log_class": name, "tenant_id": tenant}
            want = tenants.get(tenant, {}).get(name, periods[name]) * durations.DAY
            assert kept(plan["loki"], tenant if by_header else policy.LOKI_SINGLE_TENANT, stream) == want
    for rule in plan["lifecycles"]["archive"]:
        longest = max([periods[rule["id"]], *(one.get(rule["id"], 0) for one in tenants.values())])
        assert rule["days"] == max(periods["archive"], longest)
    unclassified = kept(plan["loki"], "another", {"tenant_id": "another"})
    assert unclassified == max(periods[name] for name in logs) * durations.DAY


def kept(loki: dict[str, Any], tenant: str, stream: dict[str, str]) -> int:
    limits = {**loki, **loki["overrides"].get(tenant, {})}
    matching = [
        one
        for one in limits["retention_stream"]
        if all(matcher.matches(stream.get(matcher.label, "")) for matcher in selectors.parse(one["selector"]))
    ]
    best = max(matching, key=lambda one: int(one["priority"]), default={"period": limits["retention_period"]})
    return durations.parse(best["period"])


@given(st.integers(min_value=0, max_value=10**7))
def test_durations_survive_both_spellings(seconds: int) -> None:
    assert durations.parse(durations.days(seconds)) == seconds
    assert durations.parse(durations.hours(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 2592000),
        ("2w", 1209600),
        ("1d12h", 129600),
        ("720h0m0s", 2592000),
        ("4w2d", 2592000),
        ("90m", 5400),
        ("0", 0),
    ],
)
def test_durations_of_all_servers(text: str, seconds: int) -> None:
    assert durations.parse(text) == seconds


label = st.sampled_from(["a", "b"])
matcher = st.builds(
    selectors.Matcher,
    label,
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.sampled_from(["x", "y", "x|y", "x.*", ""]),
)


@given(st.lists(matcher, min_size=1, max_size=3), st.lists(matcher, min_size=1, max_size=3))
def test_selectors_called_disjoint_share_no_stream(
    left: list[selectors.Matcher], right: list[selectors.Matcher]
) -> None:
    if selectors.may_overlap(left, right):
        return
    for a in ("", "x", "y", "xz", "q"):
        for b in ("", "x", "y", "xz", "q"):
            stream = {"a": a, "b": b}
            assert not all(one.matches(stream[one.label]) for one in [*left, *right])
