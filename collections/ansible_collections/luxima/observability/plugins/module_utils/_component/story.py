# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a plan means, in one line for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .plan import Plan

Json = dict[str, Any]

EDITED = "edited by hand"
# More reasons than these are counted, not named.
SHOWN = 5
VERBS = {"": "nothing to restart", "reload": "reload", "restart": "restart", "start": "start"}


def lost(name: str, host: str, paths: list[str]) -> str:
    """Why nothing is done while data is missing, and the ways out."""
    return (
        f"the data of {name} was in {', '.join(paths)} and is not there now. If its disk is not mounted, mount it and run again. "
        f"If the data is gone: -e platform_data_lost_confirmed={name}@{host} begins anew; playbooks/restore.yml then puts a copy in place"
    )


def unmet(needs: list[Json]) -> str:
    return "; ".join(f"{need['words']}: there is no {need['path']} on this host" for need in needs)


def edited(plan: Plan) -> list[str]:
    """Files that somebody changed on the host, as a manifest calls them."""
    return [path for path, change in plan.files.items() if change == EDITED]


def one_line(plan: Plan, want: Mapping[str, Any], have: Mapping[str, Any]) -> str:
    """What will be done and why: `restart: loki 3.6.6 -> 3.6.7, loki.yml changed`."""
    old: Json = (have.get("manifest") or {}).get("artifacts", {})
    programs = [_program(name, want["artifacts"].get(name), old.get(name)) for name in plan.artifacts]
    if plan.first:
        return f"install: {', '.join(programs)}" if programs else "install"
    reasons = ["an interrupted run"] if plan.recover else []
    reasons += programs
    reasons += [f"{path.partition('/')[2]} {change}" for path, change in plan.files.items()]
    service = have.get("service") or {}
    reasons += [
        words
        for due, words in (
            (plan.user, "user and groups"),
            (plan.directories, "directories"),
            (plan.links, "links"),
            (plan.enable, "not enabled at boot"),
            (plan.record, "what its data depends on"),
            (plan.activation == "start", f"the service is {service.get('active', 'not there')}"),
            (plan.activation == "restart" and not service.get("exe_ok", True), "an old program runs"),
        )
        if due
    ]
    if len(reasons) > SHOWN:
        reasons[SHOWN:] = [f"{len(reasons) - SHOWN} more"]
    return f"{VERBS[plan.activation]}: {', '.join(reasons)}" if reasons else VERBS[plan.activation]


def _program(name: str, new: Json | None, old: Json | None) -> str:
    if new is None:
        return f"{name} removed"
    if old is None:
        return f"{name} {new['version']}".strip()
    if new["sha256"] == old["sha256"]:
        return f"{name} {EDITED}"
    if new["version"] == old["version"]:
        return f"{name} {new['version']} built anew"
    return f"{name} {old['version']} -> {new['version']}"
