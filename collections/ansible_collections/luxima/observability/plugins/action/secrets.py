# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Encrypts on the controller with the vault identities of the run; a secret never leaves this process in clear."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultSecretsContext
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.luxima.observability.plugins.module_utils._secrets import declared, plan
from ansible_collections.luxima.observability.plugins.module_utils._secrets.declared import Secret
from ansible_collections.luxima.observability.plugins.module_utils._secrets.file import (
    FileError,
    Identities,
    SecretsFile,
)
from ansible_collections.luxima.observability.plugins.module_utils._validate import places

ALPHABET = string.ascii_letters + string.digits
DONE = {plan.KEEP: "kept", plan.MAKE: "made", plan.GIVE: "written", plan.AGAIN: "encrypted again"}


class ActionModule(ActionBase):
    """Writes one file, whole or not at all."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "replace": {"type": "bool", "default": False},
                "rotate": {"type": "list", "elements": "str", "default": [], "no_log": False},
                "data_moved": {"type": "bool", "default": False},
                "vault_id": {"type": "str", "default": ""},
            }
        )
        try:
            result.update(self._run(args, task_vars or {}))
        except (FileError, plan.WishError, declared.DeclarationError) as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def _run(self, args: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        path = Path(args["path"])
        if not any(folder.is_dir() for folder in path.parents[:3]) or any(map(Path.is_file, path.parents)):
            raise FileError(
                f"{path}: there is no such folder; name the file of secrets with -e platform_secrets_file=<path>"
            )
        known = self._declared()
        file = SecretsFile(path, Identities(list(VaultSecretsContext.current().secrets)))
        held = file.held()
        wish = plan.Wish(
            replace=args["replace"],
            rotate=frozenset(name.strip() for name in args["rotate"] if name.strip()),
            given={
                name: str(value) for name, value in load_extra_vars(self._loader).items() if name in known
            },
            moved=args["data_moved"],
        )
        elsewhere = self._elsewhere(known, path, set(file.entries), task_vars)
        steps = plan.plan(known, held, elsewhere, wish)
        made = [step for step in steps if step.writes]
        kept = ""
        identity = file.identities.chosen(args["vault_id"], file.labels) if made else ("", None)
        if made and not self._task.check_mode:
            values = {step.variable: self._value(step, known, held, wish) for step in made}
            fresh = plan.new_names([one for one in made if one.variable in held], known, elsewhere)
            halves = {
                name: f"{known[variable].role}-{secrets.token_hex(3)}" for name, variable in fresh.items()
            }
            kept = file.write(values, halves, identity)
        for step in steps:
            Display().display(f"{step.variable}: {DONE[step.verb]}: {step.why}")
        if kept:
            Display().display(f"{path}: written; the former one is {Path(kept).name} beside it")
        return {
            "changed": bool(made),
            "path": str(path),
            "kept": kept,
            "vault_id": identity[0],
            "names": sorted({*held, *(step.variable for step in made)}),
            "secrets": {step.variable: f"{DONE[step.verb]}: {step.why}" for step in steps},
        }

    def _declared(self) -> dict[str, Secret]:
        folder = places.beside(__file__, "roles")
        if folder is None:
            raise AnsibleActionFail(f"no roles beside the collection {places.collection_root(__file__)}")
        return declared.read(folder, self._loader.load_from_file)

    @staticmethod
    def _value(
        step: plan.Step, known: Mapping[str, Secret], held: Mapping[str, plan.Held], wish: plan.Wish
    ) -> str:
        if step.verb == plan.MAKE:
            return "".join(secrets.choice(ALPHABET) for _ in range(known[step.variable].length))
        if step.verb == plan.GIVE:
            return wish.given[step.variable]
        return str(held[step.variable].clear)

    @staticmethod
    def _elsewhere(
        known: Mapping[str, Secret], path: Path, present: set[str], task_vars: dict[str, Any]
    ) -> dict[str, str]:
        """Name -> where else the inventory sets it: a second value in this file would hide it, or be hidden by it."""
        sources = [str(source) for source in task_vars.get("ansible_inventory_sources") or []]
        hostvars, hosts = task_vars["hostvars"], task_vars["groups"]["all"]
        raw = [hostvars.raw_get(host) for host in hosts]
        found: dict[str, str] = {}
        for secret in known.values():
            for name in filter(None, (secret.variable, secret.name)):
                files = [(place.rpartition(":")[0], place) for place in places.definitions(sources, name)]
                told = [place for file, place in files if Path(file).resolve() != path.resolve()]
                if told:
                    found[name] = told[0]
            # What is made here has no default: whoever has it got it from a file that cannot be searched, or from a script.
            if (
                secret.length
                and secret.variable not in present
                and any(secret.variable in one for one in raw)
            ):
                found.setdefault(secret.variable, "the inventory")
        return found
