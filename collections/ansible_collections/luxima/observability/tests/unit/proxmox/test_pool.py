# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Pools over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.modules import proxmox_pool

POOL = {"name": "watch", "comment": "all of it", "storages": ["local"]}


@pytest.fixture
def pool(site: Any) -> Any:
    def run(*pools: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return dict(site.module(proxmox_pool, check, pools=list(pools), **options))

    return run


def stored(site: Any) -> dict[str, Any]:
    return {row["poolid"]: row.get("comment", "") for row in site.api("GET", "pools")}


def test_made_and_then_unchanged(site: Any, pool: Any) -> None:
    predicted = pool(POOL, check=True)
    assert stored(site) == {}
    first = pool(POOL)
    assert first["pools"]["watch"]["actions"] == ["created", "configured"]
    assert [predicted[key] for key in ("changed", "diff")] == [first[key] for key in ("changed", "diff")]
    assert first["diff"][0]["before"] == {"state": "absent"}
    assert site.server.cluster.pools["watch"].storages == ["local"]
    before = len(site.server.requests)
    second = pool(POOL)
    assert (second["changed"], second["diff"]) == (False, [])
    assert [entry.method for entry in site.server.requests[before:]] == ["GET"]


def test_only_what_differs_is_changed_and_members_stay(site: Any, pool: Any, web: Any) -> None:
    pool(POOL, {"name": "other"})
    site.ok({**web, "pool": "watch"})
    site.api("PUT", "pools", poolid="watch", comment="by hand", storage="local-zfs")
    result = pool(POOL, {"name": "other"})
    assert result["diff"] == [
        {
            "before_header": "watch",
            "after_header": "watch",
            "before": {"comment": "by hand", "storages": ["local", "local-zfs"]},
            "after": {"comment": "all of it", "storages": ["local"]},
        }
    ]
    assert site.server.cluster.pools["watch"].members == [site.server.guest("web-1").vmid]
    assert pool({"name": "watch"})["changed"] is False


def test_one_that_is_used_is_not_removed(site: Any, pool: Any, web: Any) -> None:
    pool({"name": "watch"}, {"name": "empty"})
    site.ok({**web, "pool": "watch"})
    result = pool({"name": "watch", "state": "absent"}, {"name": "empty", "state": "absent"})
    assert "pool watch: is not empty (it holds lxc/100): take these out of it first" in result["msg"]
    assert set(stored(site)) == {"watch", "empty"}
    assert pool({"name": "empty", "state": "absent"})["pools"]["empty"]["actions"] == ["removed"]
    assert pool({"name": "empty", "state": "absent"})["changed"] is False


def test_levels_are_made_from_the_top_and_removed_from_below(site: Any, pool: Any) -> None:
    result = pool({"name": "a/b/c"}, {"name": "a"}, {"name": "a/b"})
    assert not result.get("failed"), result
    posted = [entry.params["poolid"] for entry in site.server.requests if entry.method == "POST"]
    assert posted == ["a", "a/b", "a/b/c"]
    gone = [{"name": name, "state": "absent"} for name in ("a", "a/b", "a/b/c")]
    assert not pool(*gone).get("failed")
    assert stored(site) == {}
    assert "pool 'x' does not exist" in pool({"name": "x/y"})["msg"]


@pytest.mark.parametrize("fault", ["drop", "596"])
@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE"])
def test_lost_replies_are_looked_up(site: Any, pool: Any, fault: str, verb: str) -> None:
    if verb != "POST":
        pool({"name": "watch", "comment": "old"})
    if fault == "drop":
        site.server.faults.drop_reply(verb, "^/pools")
    else:
        site.server.faults.fail(verb, "^/pools")
    wanted = {"name": "watch", "state": "absent"} if verb == "DELETE" else POOL
    result = pool(wanted)
    assert not result.get("failed"), result
    assert result["changed"] is True
    assert pool(wanted)["changed"] is False


def test_missing_privileges_are_told_before_anything(site: Any, pool: Any) -> None:
    who = site.server.auditor
    result = pool(
        {"name": "one"},
        {"name": "two"},
        api_user=who.user,
        api_token_id=who.token_id,
        api_token_secret=who.token_secret,
    )
    assert "auditor@pve!ro lacks Pool.Allocate on /pool/one (for one)" in result["msg"]
    assert "(for two)" in result["msg"]
    assert site.server.count("POST") == 0


def test_bad_records_are_refused_together(pool: Any) -> None:
    message = pool({"name": "a b"}, {"name": "c"}, {"name": "c"})["msg"]
    assert "'a b': not a name of a pool" in message
    assert "c: listed twice" in message
