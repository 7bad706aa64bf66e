# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Misspelt variables, found where `validate` has not been run: by the actions, from the names alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.luxima.observability.plugins.module_utils._secrets import declared
from ansible_collections.luxima.observability.plugins.module_utils._validate import places, schema
from ansible_collections.luxima.observability.plugins.plugin_utils import run_folder


def refuse_unknown(variables: Mapping[str, Any], subject: str) -> None:
    """AnsibleActionFail when a host has a variable with a component's prefix that no role knows."""
    components = variables.get("platform_components")
    if not isinstance(components, list):
        # A playbook of somebody's own, without the inventory plugin.
        return
    found = schema.unknown(variables, _known(), components, subject)
    if found:
        told = "; ".join(f"{fault.variable}: {fault.text}" for fault in found)
        raise AnsibleActionFail(f"{subject}: {told}. Nothing was touched.")


def secrets() -> set[str]:
    """The variables that roles declare as secrets, as texts."""
    roles = places.beside(__file__, "roles")
    return _once("secrets.json", lambda: declared.variables(roles) if roles is not None else set())


def _known() -> set[str]:
    roles = places.beside(__file__, "roles")
    switches = places.beside(__file__, "playbooks")
    return _once(
        "names.json",
        lambda: (
            schema.switches(switches)
            | (schema.names(roles) | schema.added(roles) if roles is not None else set())
        ),
    )


def _once(name: str, find: Callable[[], set[str]]) -> set[str]:
    """Read once by a run, whichever of its processes comes first."""
    kept = run_folder.path() / name
    try:
        return set(json.loads(kept.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        pass
    known = find()
    run_folder.write(kept, json.dumps(sorted(known)))
    return known
