# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the modules of the action group say of themselves is what they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.doc_fragments.proxmox import ModuleDocFragment
from ansible_collections.luxima.observability.plugins.module_utils._proxmox import (
    backup,
    firewall,
    options,
    pools,
    snapshots,
    templates,
    versions,
)
from ansible_collections.luxima.observability.plugins.modules import (
    proxmox_backup_job,
    proxmox_firewall,
    proxmox_guests,
    proxmox_pool,
    proxmox_snapshot,
    proxmox_template,
    proxmox_version,
)

COLLECTION = Path(__file__).resolve().parents[3]
MODULES: dict[ModuleType, Callable[..., dict[str, Any]]] = {
    proxmox_backup_job: backup.module_spec,
    proxmox_firewall: firewall.module_spec,
    proxmox_guests: options.module_spec,
    proxmox_pool: pools.module_spec,
    proxmox_snapshot: snapshots.module_spec,
    proxmox_version: versions.module_spec,
    proxmox_template: templates.module_spec,
}


def differences(spec: dict[str, Any], documented: dict[str, Any], where: str = "") -> list[str]:
    found = [f"{where}{name}" for name in spec.keys() ^ documented.keys()]
    for name in sorted(spec.keys() & documented.keys()):
        entry, text = spec[name], documented[name]
        keys = ("type", "elements", "choices", "default", "required")
        found += [f"{where}{name}.{key}" for key in keys if entry.get(key) != text.get(key)]
        found += differences(entry.get("options", {}), text.get("suboptions", {}), f"{where}{name}.")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_documentation_says_what_the_module_takes(module: ModuleType) -> None:
    document = yaml.safe_load(module.DOCUMENTATION)
    assert document["extends_documentation_fragment"] == ["luxima.observability.proxmox"]
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert differences(MODULES[module](lambda: None), {**shared, **document["options"]}) == []


def test_differences_are_found() -> None:
    spec = {"a": {"type": "int"}, "b": {"type": "dict", "options": {"c": {"type": "str"}}}}
    assert differences(spec, {"a": {"type": "str"}, "b": {"type": "dict"}}) == ["a.type", "b.c"]


def test_the_action_group_holds_every_module() -> None:
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text())
    names = {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(runtime["action_groups"]["proxmox"]) == names
    assert {path.stem for path in (COLLECTION / "plugins/modules").glob("proxmox_*.py")} == names
