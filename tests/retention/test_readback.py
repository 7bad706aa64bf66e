# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The read-back of lifecycles on a real MinIO: drift of ours, rules of others that delete too early, and their repair."""

from __future__ import annotations

from typing import Any

import pytest
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from .conftest import Platform, module


def read(platform: Platform) -> dict[str, Any]:
    buckets = [
        {key: one.get(key) for key in ("name", "consumer", "lifecycle")}
        for one in platform.variables["platform_buckets"]
    ]
    return module(
        "retention",
        plan=platform.plan,
        minio=[{**platform.storage, "buckets": buckets}],
        oldest=False,
        wait=0,
    )


def repair(platform: Platform) -> list[str]:
    buckets = [{**one, "foreign_rules": "replace"} for one in platform.variables["platform_buckets"]]
    result = module("bucket", connection=platform.storage, buckets=buckets)
    assert not result.get("failed"), result
    return list(result["actions"])


def set_rule(platform: Platform, bucket: str, name: str, days: int, prefix: str) -> None:
    have = platform.minio.get_bucket_lifecycle(bucket)
    rules = [rule for rule in (have.rules if have else []) if rule.rule_id != name]
    new = Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=name, expiration=Expiration(days=days))
    platform.minio.set_bucket_lifecycle(bucket, LifecycleConfig([*rules, new]))


def test_what_the_role_wrote_is_in_force(platform: Platform) -> None:
    result = read(platform)
    assert not result.get("failed"), result
    assert {row["class"]: row["in_force"] for row in result["rows"]}[
        "archive: audit"
    ] == "90d, noncurrent 14d"
    shown = {row["class"]: row["in force"] for row in result["explanation"]}
    assert shown["archived audit"] == "90d, noncurrent 14d"


@pytest.mark.parametrize(
    ("bucket", "name", "days", "prefix", "words"),
    [
        ("logs-archive", "platform-audit", 30, "audit/", "archive: audit: in force 30d, wanted 90d"),
        ("logs-archive", "by-hand", 80, "", "rule of others) by-hand: in force 80d, wanted 90d or more"),
        ("loki", "by-hand", 89, "fake/", "rule of others) by-hand: in force 89d, wanted 91d or more"),
        ("tempo", "by-hand", 2, "", "rule of others) by-hand: in force 2d, wanted 8d or more"),
    ],
)
def test_drift_is_named_and_repaired(
    platform: Platform, bucket: str, name: str, days: int, prefix: str, words: str
) -> None:
    set_rule(platform, bucket, name, days, prefix)
    result = read(platform)
    assert result["failed"]
    assert words in result["msg"], result["msg"]
    assert repair(platform) == [f"{bucket}: write lifecycle"]
    assert not read(platform).get("failed")


def test_a_rule_of_others_that_deletes_nothing_of_the_policy_is_no_difference(platform: Platform) -> None:
    set_rule(platform, "loki", "by-hand", 400, "")
    set_rule(platform, "logs-archive", "by-hand", 3, "elsewhere/")
    assert not read(platform).get("failed")
    repair(platform)
