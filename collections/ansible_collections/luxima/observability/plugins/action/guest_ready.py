# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Waits for SSH and Python on a guest that was just started."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.luxima.observability.plugins.plugin_utils.leftovers import leftovers, tell
from ansible_collections.luxima.observability.plugins.plugin_utils.ready import (
    forget_key,
    wait_until_managed,
)


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            {
                "result": {"type": "dict"},
                "deadline": {"type": "float", "default": 300},
                "wait": {"type": "bool", "default": True},
            }
        )
        result, deadline = arguments["result"] or {}, float(arguments["deadline"])
        answer["changed"] = False
        exists, starts = result.get("exists", True), "started" in result.get("actions", [])
        stays_off = result.get("after", {}).get("state") == "stopped"
        if self._task.check_mode and (not exists or starts):
            answer["ansible_facts"] = {"luxima_state": {"exists": False}}
            answer["msg"] = "the guest would be made or started by a run, so it is not asked"
            return answer
        if not exists or stays_off:
            answer.update(skipped=True, msg="the guest is not meant to run")
            return answer
        if not self._task.check_mode and {"created", "cloned"} & set(result.get("actions", [])):
            forget_key(self)
        if not arguments["wait"]:
            answer.update(skipped=True, msg="the guest is waited for when it is first used")
            return answer
        started = time.monotonic()
        wait_until_managed(self, deadline)
        self._tell_leftovers(task_vars or {})
        answer["seconds"] = round(time.monotonic() - started, 2)
        return answer

    def _tell_leftovers(self, variables: dict[str, Any]) -> None:
        """Of a guest that no component comes to any more; of others the first component tells."""
        mine = set(variables.get("group_names") or [])
        if mine & set(variables.get("platform_components") or mine):
            return
        said = self._low_level_execute_command(
            "ls -d /opt/luxima/*/current 2>/dev/null; true", sudoable=False
        )
        installed = [
            line.split("/")[-2] for line in said.get("stdout", "").split() if line.endswith("/current")
        ]
        tell(str(variables.get("inventory_hostname", "?")), leftovers(installed, variables))
