# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Encrypts on the controller with the vault identities of the run; a secret never leaves this process in clear."""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib, VaultSecretsContext
from ansible.plugins.action import ActionBase

ALPHABET = string.ascii_letters + string.digits
# The identity whose password is public.
EXAMPLE_ID = "example"


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
                "generate": {"type": "dict", "required": True, "no_log": False},
                "keep": {"type": "dict", "default": {}, "no_log": True},
                "vault_id": {"type": "str", "default": ""},
                "replace": {"type": "bool", "default": False},
            }
        )
        path = Path(args["path"])
        if path.exists() and not args["replace"]:
            raise AnsibleActionFail(
                f"{path} exists; what it holds may be in use. Replace it with -e platform_secrets_replace=true, then run site.yml"
            )
        label, vault, secret = self._identity(args["vault_id"])
        clear = dict(args["keep"])
        for name, length in args["generate"].items():
            clear[name] = "".join(secrets.choice(ALPHABET) for _ in range(int(length)))
        lines = [
            "---",
            f"# Encrypted with the vault identity {label}; the names are readable, the values are not.",
        ]
        for name, value in clear.items():
            text = vault.encrypt(value, secret, label).decode().strip()
            lines += [f"{name}: !vault |", *(f"  {line}" for line in text.splitlines())]
        if not self._task.check_mode:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.new")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            scratch.replace(path)
        result.update(changed=True, path=str(path), vault_id=label, names=sorted(clear))
        return result

    @staticmethod
    def _identity(wanted: str) -> tuple[str, VaultLib, Any]:
        known = list(VaultSecretsContext.current().secrets)
        usable = [(label, secret) for label, secret in known if label == (wanted or label)]
        own = [pair for pair in usable if pair[0] != EXAMPLE_ID or wanted == EXAMPLE_ID]
        if not own:
            raise AnsibleActionFail(
                f"no vault identity {wanted or 'of your own'} in this run (known: {', '.join(label for label, _ in known) or 'none'}); "
                "give one with --vault-id <name>@prompt or --vault-id <name>@<password file>"
            )
        label, secret = own[0]
        return label, VaultLib(known), secret
