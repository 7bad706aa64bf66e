# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A component's variables, checked by its transaction as `validate` checks them: no tag, limit or playbook leaves it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.luxima.observability.plugins.module_utils._validate import faults, places, schema
from ansible_collections.luxima.observability.plugins.module_utils._validate.inspect import (
    Inventory,
    Template,
    inspect_component,
)
from ansible_collections.luxima.observability.plugins.plugin_utils import run_folder

Load = Callable[[str], Any]


def refuse_wrong(
    variables: dict[str, Any], subject: str, component: str, template: Template, load: Load
) -> None:
    """AnsibleActionFail when what is set for a component, or for the platform, is not as their argument specs say."""
    roles = {name: role for name in ("platform", component) if (role := _role(name, load))}
    if component not in roles:
        # Somebody's own component: its role says nothing here.
        return
    inventory = Inventory({}, {subject: variables}, template, roles, set())
    found = inspect_component(inventory, subject, component).faults
    if found:
        sources = [str(source) for source in variables.get("ansible_inventory_sources") or []]
        told = faults.report(found, lambda name: places.definitions(sources, name.split(".")[0]))
        raise AnsibleActionFail(f"component {component} on {subject}: {told}")


def _role(name: str, load: Load) -> schema.Role | None:
    """Defaults and argument spec of a role of ours; read once by a run."""
    kept = run_folder.path() / f"role-{name}.json"
    try:
        return schema.Role(**json.loads(kept.read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        pass
    home = places.beside(__file__, "roles", name)
    if home is None:
        return None
    read = schema.read_role(home, load)
    role = schema.Role(
        read.name,
        _of_components(read.defaults),
        _of_components(read.options),
        unreadable=read.unreadable,
    )
    run_folder.write(kept, json.dumps(vars(role)))
    return role


def _of_components(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Without what guests are described by, which is no component's business."""
    return {name: value for name, value in entries.items() if not name.startswith(("guest_", "proxmox_"))}
