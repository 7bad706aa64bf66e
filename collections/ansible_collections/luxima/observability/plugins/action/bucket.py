# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Asks and changes object storage from the controller's own process: a module call costs more than the answers."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.luxima.observability.plugins.module_utils._bucket import server
from ansible_collections.luxima.observability.plugins.module_utils._bucket.arguments import ARGUMENTS
from ansible_collections.luxima.observability.plugins.module_utils._bucket.run import ensure


class ActionModule(ActionBase):
    """Needs no connection: the server is asked over HTTP whatever host the task names."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if server.MISSING:
            raise AnsibleActionFail(f"the Python library minio is needed on the controller: {server.MISSING}")
        try:
            return ensure(params, self._task.check_mode)
        except (server.Refused, server.Unreachable) as error:
            raise AnsibleActionFail(str(error)) from None
