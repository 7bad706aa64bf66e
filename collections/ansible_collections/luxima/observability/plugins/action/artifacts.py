# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs the artifact engine in the controller's own process, where the operator sees what it is doing."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.arguments import (
    ARGUMENTS,
    options,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.engine import (
    ArtifactsError,
    Engine,
)
from ansible_collections.luxima.observability.plugins.plugin_utils.spelling import refuse_unknown

display = Display()


class ActionModule(ActionBase):
    """Needs no connection: the store is on the controller whatever host the task names."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        # Before anything is fetched or built; hosts' own variables are looked at where they are used.
        refuse_unknown(task_vars or {}, "this run")
        _, params = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            return Engine(options(params, check=self._task.check_mode), display.display).run()
        except ArtifactsError as error:
            raise AnsibleActionFail(str(error)) from None
