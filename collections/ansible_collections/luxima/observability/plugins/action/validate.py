# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Reads the inventory and the roles on the controller; connects to nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._validate import faults, places, schema
from ansible_collections.luxima.observability.plugins.module_utils._validate.faults import Fault
from ansible_collections.luxima.observability.plugins.module_utils._validate.inspect import (
    Inventory,
    inspect,
)
from ansible_collections.luxima.observability.plugins.plugin_utils.evaluate import evaluate

display = Display()


def _rows(found: list[Fault]) -> list[dict[str, Any]]:
    return [
        {"variable": variable, "message": text, "hosts": hosts}
        for variable, text, hosts in faults.merged(found)
    ]


class ActionModule(ActionBase):
    """One request, one list of faults."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec(argument_spec={})
        installation = self._installation(task_vars)
        found = inspect(self._inventory(task_vars))
        every = [*installation, *found.faults]
        sources = [str(source) for source in task_vars.get("ansible_inventory_sources") or []]
        if found.examples:
            display.warning(
                f"example secrets are in use: {', '.join(sorted(found.examples))}; "
                "run playbooks/secrets.yml for this inventory before anybody else can reach it"
            )
        risks = _rows(found.risks)
        for risk in risks:
            of = f" of {', '.join(risk['hosts'])}" if risk["hosts"] else ""
            display.warning(f"{risk['variable']}{of}: {risk['message']}")
        result.update(
            changed=False,
            faults=_rows(every),
            risks=risks,
            example_secrets=sorted(found.examples),
        )
        if every:
            result.update(
                failed=True,
                msg=faults.report(
                    every,
                    lambda name: places.definitions(sources, re.split(r"[.\[]", name)[0]),
                ),
            )
        return result

    def _inventory(self, task_vars: dict[str, Any]) -> Inventory:
        folder = places.beside(__file__, "roles")
        if folder is None:
            raise AnsibleActionFail(f"no roles beside the collection {places.collection_root(__file__)}")
        roles = schema.read_roles(folder, self._load)
        hostvars, groups = task_vars["hostvars"], task_vars["groups"]
        known = {name for role in roles.values() for name in role.names}
        return Inventory(
            groups={name: list(hosts) for name, hosts in groups.items()},
            variables={
                host: {**hostvars.raw_get(host), "hostvars": hostvars}
                for host in hostvars
                if host in groups["all"]
            },
            template=lambda variables, value: evaluate(self._templar, variables, value),
            roles=roles,
            known=known | schema.added(folder) | schema.switches(places.beside(__file__, "playbooks")),
            run_tags=list(task_vars.get("ansible_run_tags") or []),
            skip_tags=list(task_vars.get("ansible_skip_tags") or []),
        )

    def _load(self, file: str) -> Any:
        return self._loader.load_from_file(file, cache="all", unsafe=True, trusted_as_template=True)

    @staticmethod
    def _installation(task_vars: dict[str, Any]) -> list[Fault]:
        project = Path(str(task_vars.get("playbook_dir", "."))).resolve()
        project = next(
            (home for home in (project, project.parent) if (home / "ansible.cfg").is_file()), project
        )
        found = []
        other = places.second_copy(__file__, project)
        if other is not None:
            found.append(
                Fault(
                    "luxima.observability",
                    "",
                    f"the collection was loaded from {places.collection_root(__file__)} and not from {other}; remove that copy or run from {project}",
                )
            )
        used = task_vars.get("ansible_config_file")
        own = project / "ansible.cfg"
        if own.is_file() and "ANSIBLE_CONFIG" not in os.environ and (not used or Path(used).resolve() != own):
            found.append(
                Fault(
                    "ansible.cfg",
                    "",
                    f"{own} is not in use (in use: {used or 'none'}); run from {project}, and take write permission for others from that folder: Ansible ignores the file in a world-writable one",
                )
            )
        return found
