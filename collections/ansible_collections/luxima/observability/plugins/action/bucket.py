# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Asks and changes object storage from the controller's own process: a module call costs more than the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.luxima.observability.plugins.module_utils._bucket import server
from ansible_collections.luxima.observability.plugins.module_utils._bucket.arguments import ARGUMENTS
from ansible_collections.luxima.observability.plugins.module_utils._bucket.plan import Change
from ansible_collections.luxima.observability.plugins.module_utils._bucket.run import ensure, told
from ansible_collections.luxima.observability.plugins.module_utils._retention.shorten import lifecycle
from ansible_collections.luxima.observability.plugins.plugin_utils.evaluate import evaluate
from ansible_collections.luxima.observability.plugins.plugin_utils.protection import NOBODY, Protection


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
        protection = Protection(
            str((task_vars or {}).get("inventory_hostname", "?")),
            task_vars or {},
            lambda value: evaluate(self._templar, task_vars or {}, value),
            bool(self._task.check_mode),
            self._loader,
        )

        def guard(url: str, changes: list[Change]) -> None:
            """Whatever playbook or tag led here, a rule that deletes earlier is refused where the environment is protected."""
            asked = {str(one["name"]): one for one in params["buckets"]}
            found = [
                one
                for change in changes
                if change.verb == "write_lifecycle" and change.have.exists
                for one in lifecycle(url, _consumed(asked[change.bucket.name]), change.have.rules)
            ]
            storage = {**params["connection"], "buckets": list(map(_consumed, params["buckets"]))}
            protection.refuse_shorter(f"buckets of {url}", found, {**NOBODY, "minio": [storage]})

        try:
            result = ensure(params, self._task.check_mode, guard)
        except (server.Refused, server.Unreachable) as error:
            raise AnsibleActionFail(str(error)) from None
        for line in told(result, self._task.check_mode):
            Display().display(line)
        return result


def _consumed(bucket: Mapping[str, Any]) -> dict[str, Any]:
    """What of a bucket says how long it keeps what for whom."""
    return {key: bucket.get(key) for key in ("name", "consumer", "lifecycle")}
