# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The pure core: from any state, through any disturbance, one run converges and a second does nothing."""

from __future__ import annotations

from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._component.plan import (
    former_groups,
    make_plan,
)
from hypothesis import given, settings
from hypothesis import strategies as st

Json = dict[str, Any]
UNIT = "unit/x.service"


def file(sha: str = "1", on_change: str = "restart", **more: Any) -> Json:
    return {"sha256": sha, "mode": "0644", "group": "root", "secret": False, "on_change": on_change, **more}


def artifact(sha: str = "1", tool: bool = False) -> Json:
    return {"sha256": sha, "size": 1, "format": "file", "version": "1", "tool": tool}


def manifest(**changes: Any) -> Json:
    return {
        "name": "x",
        "user": "x",
        "groups": [],
        "directories": [],
        "live": [],
        "files": {UNIT: file(), "etc/a": file("1", "reload"), "etc/b": file("1", "none"), "etc/c": file()},
        "artifacts": {"x": artifact(), "tool": artifact(tool=True)},
        "exec": "/usr/local/bin/x",
        "service": {"reload": {"signal": "HUP"}, "ready": {"timeout": 1}, "proof": []},
        **changes,
    }


def serving(found: Json, **changes: Any) -> Json:
    service = {
        "active": "active",
        "enabled": "enabled",
        "pid": 1,
        "exe_ok": True,
        "need_daemon_reload": False,
    }
    return {"manifest": found, "drift": [], "unfinished": False, "service": service, **changes}


HOST: Json = {"users": {"x": ["x"]}, "groups": ["x", "adm"]}


def changed_file(path: str, **more: Any) -> Json:
    found = manifest()
    found["files"][path] = {**found["files"][path], "sha256": "2", **more}
    return found


def test_equal_is_no_work() -> None:
    plan = make_plan(manifest(), serving(manifest()), HOST)
    assert not plan.changed
    assert plan.actions == []


def test_what_was_never_there_is_made_whole() -> None:
    plan = make_plan(manifest(), {}, {"users": {}, "groups": []})
    assert plan.actions == [
        "created",
        "staged",
        "validated",
        "user",
        "links",
        "daemon_reloaded",
        "enabled",
        "started",
    ]


def test_reload_restart_or_nothing_by_file() -> None:
    assert make_plan(changed_file("etc/a"), serving(manifest()), HOST).activation == "reload"
    assert make_plan(changed_file("etc/b"), serving(manifest()), HOST).activation == ""
    assert make_plan(changed_file("etc/c"), serving(manifest()), HOST).activation == "restart"
    both = changed_file("etc/a")
    both["files"]["etc/c"]["sha256"] = "2"
    assert make_plan(both, serving(manifest()), HOST).activation == "restart"


def test_without_a_way_to_reload_it_restarts() -> None:
    want = changed_file("etc/a")
    want["service"] = {**want["service"], "reload": {}}
    assert make_plan(want, serving(manifest()), HOST).activation == "restart"


def test_unit_and_program_restart_a_tool_does_not() -> None:
    unit = make_plan(changed_file(UNIT), serving(manifest()), HOST)
    assert (unit.activation, unit.daemon_reload) == ("restart", True)
    program = make_plan(
        manifest(artifacts={"x": artifact("2"), "tool": artifact(tool=True)}), serving(manifest()), HOST
    )
    assert (program.activation, program.daemon_reload) == ("restart", False)
    tool = make_plan(
        manifest(artifacts={"x": artifact(), "tool": artifact("2", tool=True)}), serving(manifest()), HOST
    )
    assert (tool.activation, tool.release) == ("", True)


def test_a_removed_file_is_handled_as_it_was_declared() -> None:
    want = manifest()
    del want["files"]["etc/a"]
    plan = make_plan(want, serving(manifest()), HOST)
    assert plan.files == {"etc/a": "removed"}
    assert plan.activation == "reload"


def test_a_dead_or_wrong_process_is_started_again() -> None:
    dead = serving(manifest())
    dead["service"]["active"] = "failed"
    assert make_plan(manifest(), dead, HOST).actions == ["started"]
    other = serving(manifest())
    other["service"]["exe_ok"] = False
    assert make_plan(manifest(), other, HOST).actions == ["restarted"]


def test_groups_that_do_not_exist_are_no_change() -> None:
    assert not make_plan(
        manifest(groups=["nobody-has-it"]), serving(manifest(groups=["nobody-has-it"])), HOST
    ).changed
    plan = make_plan(manifest(groups=["adm"]), serving(manifest(groups=["adm"])), HOST)
    assert plan.actions == ["user", "restarted"]


def test_how_it_is_talked_to_is_no_change() -> None:
    want = manifest(service={"reload": {}, "ready": {"timeout": 99}, "proof": [{"url": "http://x"}]})
    assert not make_plan(want, serving(manifest()), HOST).changed


SHA = st.sampled_from(["1", "2", "3"])
ON_CHANGE = st.sampled_from(["restart", "reload", "none"])
DIRECTORY = {"mode": "0750", "owner": "x", "group": "x"}


@st.composite
def manifests(draw: st.DrawFn) -> Json:
    files = draw(
        st.dictionaries(st.sampled_from(["etc/a", "etc/b", "live/d/e"]), st.builds(file, SHA, ON_CHANGE))
    )
    return manifest(
        user=draw(st.sampled_from(["root", "x", "y"])),
        groups=draw(st.lists(st.sampled_from(["adm", "none"]), unique=True)),
        directories=[
            {"path": path, **DIRECTORY} for path in draw(st.sets(st.sampled_from(["/d/1", "/d/2"])))
        ],
        live=[{"path": path, **DIRECTORY} for path in draw(st.sets(st.sampled_from(["d", "e"])))],
        files={UNIT: file(draw(SHA)), **files},
        artifacts=draw(st.dictionaries(st.sampled_from(["x", "t"]), st.builds(artifact, SHA, st.booleans()))),
    )


DRIFT = st.one_of(
    st.builds(lambda path: {"kind": "file", "path": path}, st.sampled_from(["etc/a", "etc/stray", UNIT])),
    st.just({"kind": "artifact", "path": "x"}),
    st.just({"kind": "link", "path": "/etc/x"}),
    st.just({"kind": "directory", "path": "/d/1"}),
)
SERVICES = st.fixed_dictionaries(
    {
        "active": st.sampled_from(["active", "inactive", "failed", "activating"]),
        "enabled": st.sampled_from(["enabled", "disabled", ""]),
        "exe_ok": st.booleans(),
        "need_daemon_reload": st.booleans(),
    }
)


def apply(plan: Any, want: Json, have: Json, host: Json) -> tuple[Json, Json]:
    """A model of what the transaction leaves behind when it does what the plan says and nothing else."""
    old = have.get("manifest") or {}
    found = (
        dict(want)
        if plan.release
        else {**want, "files": old["files"], "artifacts": old["artifacts"], "live": old["live"]}
    )
    drift = [item for item in have.get("drift", []) if not _repaired(item["kind"], plan)]
    service = dict(
        have.get("service")
        or {"active": "inactive", "enabled": "", "exe_ok": False, "need_daemon_reload": False}
    )
    if plan.daemon_reload:
        service["need_daemon_reload"] = False
    if plan.enable:
        service["enabled"] = "enabled"
    if plan.activation in ("start", "restart"):
        service.update(active="active", exe_ok=True)
    users = {name: list(groups) for name, groups in host["users"].items()}
    if plan.user:
        mine = users.setdefault(want["user"], [])
        mine.extend(group for group in want["groups"] if group in host["groups"])
        asked = old.get("groups", []) if old.get("user") == want["user"] else []
        users[want["user"]] = [group for group in mine if group in want["groups"] or group not in asked]
    return {"manifest": found, "drift": drift, "unfinished": False, "service": service}, {
        **host,
        "users": users,
    }


def _repaired(kind: str, plan: Any) -> bool:
    return bool(
        {"file": plan.release, "artifact": plan.release, "link": plan.links, "directory": plan.directories}[
            kind
        ]
    )


def test_a_group_that_the_record_does_not_name_any_more_is_left() -> None:
    want = manifest(user="toy", groups=["adm"])
    host: Json = {"users": {"toy": ["toy", "adm", "video"]}, "groups": ["adm", "video"]}
    have = serving(want)
    plan = make_plan({**want, "groups": []}, have, host)
    # It learns its groups when it starts. What somebody else gave it stays.
    assert (plan.user, plan.activation) == (True, "restart")
    assert former_groups({**want, "groups": []}, want, host) == ["adm"]
    assert make_plan(want, have, host).user is False


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(manifests(), st.lists(DRIFT, max_size=2), st.none() | SERVICES), min_size=1, max_size=5
    )
)
def test_any_history_converges(history: list[tuple[Json, list[Json], Json | None]]) -> None:
    have: Json = {}
    host: Json = {"users": {}, "groups": ["adm"]}
    for want, harm, service in history:
        if have:
            have = {**have, "drift": harm, "service": service or have["service"]}
        have, host = apply(make_plan(want, have, host), want, have, host)
        again = make_plan(want, have, host)
        assert not again.changed, again
