# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What has to be done so that a host serves what it should: from wanted and found to a plan. Pure.

Manifest (JSON; digests only, never content)::

    {"name", "user", "groups": [..], "directories": [{path, mode, owner, group, data}], "live": [the same, path below etc],
     "files": {"etc/x.yml" | "live/dir/y" | "unit/<name>.service": {"sha256", "mode", "group", "secret", "on_change"}},
     "artifacts": {name: {"sha256", "size", "format", "version", "tool"}}, "exec": first word of ExecStart,
     "stored_data_keys": {variable of the secret environment: {"variable": what people write, "data": directory}},
     "service": {"reload", "ready", "proof", "needs"}, "data": {store, files, connection, report, fixed, together}}

`service` is how the component is talked to, not what it is: it is kept but never compared. Nor are `stored_data_keys`: see keys.py.
`data` is there for components that keep data; a host that does not know it yet is told once, without anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

STRENGTH = {"": 0, "none": 0, "reload": 1, "restart": 2}


@dataclass
class Plan:
    """The work of one component on one host. `actions` are its words, in order."""

    first: bool = False
    release: bool = False
    user: bool = False
    directories: bool = False
    links: bool = False
    daemon_reload: bool = False
    enable: bool = False
    record: bool = False
    activation: str = ""  # "", reload, restart, start
    recover: bool = False
    lost: list[str] = field(default_factory=list)  # directories whose data was there and is not
    unmet: list[Json] = field(default_factory=list)  # needs of the host itself that are not met
    files: dict[str, str] = field(default_factory=dict)  # path -> added | changed | removed | edited by hand
    artifacts: list[str] = field(default_factory=list)
    validate: bool = False
    actions: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.actions)


def missing_groups(want: Mapping[str, Any], accounts: Mapping[str, Any]) -> list[str]:
    """Supplementary groups that exist on the host and that the user is not in."""
    if want["user"] == "root":
        return []
    have = accounts["users"].get(want["user"], [])
    return [group for group in want["groups"] if group in accounts["groups"] and group not in have]


def former_groups(want: Mapping[str, Any], old: Mapping[str, Any], accounts: Mapping[str, Any]) -> list[str]:
    """Supplementary groups that the release before asked for, that this one does not, and that the user is still in."""
    if want["user"] in ("root", "") or want["user"] != old.get("user"):
        return []
    have = accounts["users"].get(want["user"], [])
    return [group for group in old.get("groups", []) if group not in want["groups"] and group in have]


def make_plan(want: Mapping[str, Any], have: Mapping[str, Any], accounts: Mapping[str, Any]) -> Plan:
    """`have` is one component of a host's answer ({} when it is not there), `accounts` its users and groups."""
    old: Mapping[str, Any] = have.get("manifest") or {}
    service: Mapping[str, Any] = have.get("service") or {}
    drift = have.get("drift") or []
    plan = Plan(first=not old, recover=bool(have.get("unfinished")))

    plan.files = _file_changes(want["files"], old.get("files", {}), drift)
    plan.artifacts = _artifact_changes(want["artifacts"], old.get("artifacts", {}), drift)
    live_changed = want["live"] != old.get("live", [])
    plan.release = plan.first or bool(plan.files) or bool(plan.artifacts) or live_changed
    plan.validate = plan.release

    absent_user = want["user"] != "root" and want["user"] not in accounts["users"]
    plan.user = (
        absent_user or bool(missing_groups(want, accounts)) or bool(former_groups(want, old, accounts))
    )
    kinds = {item["kind"] for item in drift}
    data = [item["path"] for item in want["directories"] if item.get("data", True)]
    plan.lost = [path for path in have.get("lost", []) if path in data]
    needs = want["service"].get("needs", [])
    plan.unmet = [need for need in needs if need.get("path", "") in have.get("unmet", [])]
    plan.directories = (
        "directory" in kinds or bool(plan.lost) or want["directories"] != old.get("directories", [])
    )
    plan.links = plan.first or "link" in kinds

    unit = f"unit/{want['name']}.service"
    plan.daemon_reload = unit in plan.files or bool(service.get("need_daemon_reload"))
    plan.enable = unit in want["files"] and service.get("enabled") != "enabled"
    plan.record = not plan.first and want.get("data") != old.get("data")
    plan.activation = _activation(want, old, plan, service, unit)
    plan.actions = _actions(plan)
    return plan


def _file_changes(
    want: Mapping[str, Any], old: Mapping[str, Any], drift: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    changes: dict[str, str] = {}
    for path, spec in want.items():
        if path not in old:
            changes[path] = "added"
        elif any(spec[key] != old[path].get(key) for key in ("sha256", "mode", "group", "secret")):
            changes[path] = "changed"
    for path in old:
        if path not in want:
            changes[path] = "removed"
    for item in drift:
        if item["kind"] == "file":
            changes.setdefault(item["path"], "edited by hand")
    return dict(sorted(changes.items()))


def _artifact_changes(
    want: Mapping[str, Any], old: Mapping[str, Any], drift: Iterable[Mapping[str, Any]]
) -> list[str]:
    names = {name for name in want if want[name]["sha256"] != old.get(name, {}).get("sha256")}
    names |= set(old) - set(want)
    names |= {item["path"] for item in drift if item["kind"] == "artifact"}
    return sorted(names)


def _activation(
    want: Mapping[str, Any], old: Mapping[str, Any], plan: Plan, service: Mapping[str, Any], unit: str
) -> str:
    if unit not in want["files"]:
        return ""
    if service.get("active") not in ("active", "reloading"):
        return "start"
    if plan.first or plan.user or plan.recover or unit in plan.files or not service.get("exe_ok", True):
        return "restart"
    tools = {
        name
        for source in (old.get("artifacts", {}), want["artifacts"])
        for name in source
        if source[name]["tool"]
    }
    if set(plan.artifacts) - tools:
        return "restart"
    wish = ""
    for path in plan.files:
        spec = want["files"].get(path) or old.get("files", {}).get(path) or {"on_change": "restart"}
        wish = max(wish, spec["on_change"], key=lambda word: STRENGTH[word])
    if want["live"] != old.get("live", []):
        wish = "restart"
    if wish == "reload" and not want["service"].get("reload"):
        return "restart"
    return "" if wish == "none" else wish


def _actions(plan: Plan) -> list[str]:
    words = []
    for due, word in (
        (plan.recover, "recovered"),
        (plan.first, "created"),
        (plan.release, "staged"),
        (plan.validate, "validated"),
        (plan.user, "user"),
        (plan.directories, "directories"),
        (plan.links, "links"),
        (plan.daemon_reload, "daemon_reloaded"),
        (plan.enable, "enabled"),
        (plan.record, "recorded"),
        (
            bool(plan.activation),
            {"reload": "reloaded", "restart": "restarted", "start": "started"}.get(plan.activation, ""),
        ),
    ):
        if due:
            words.append(word)
    return words
