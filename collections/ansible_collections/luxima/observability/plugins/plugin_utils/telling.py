# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs a module as usual, then says on the terminal what it did to each object and why, or why it refused."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.action.normal import ActionModule as Normal
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._proxmox import story


class ActionModule(Normal):
    """For every module of the group ``proxmox``."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.no_log:
            return result
        module = self._task.resolved_action.rpartition(".")[2]
        for line in story.lines(module, result, bool(self._task.check_mode)):
            Display().display(line)
        for line in story.refusals(result):
            Display().display(line, color=constants.COLOR_ERROR)
        return result
