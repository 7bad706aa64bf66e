# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Waits for SSH and Python on a guest that was just started."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

PAUSE = 0.3
#: Seconds for one attempt to connect; a booting guest drops packets until its address is up.
CONNECT = 3


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            {"result": {"type": "dict"}, "deadline": {"type": "float", "default": 300}}
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
        started = time.monotonic()
        self._wait(started + deadline, deadline)
        answer["seconds"] = round(time.monotonic() - started, 2)
        return answer

    def _wait(self, end: float, deadline: float) -> None:
        for option, value in (("reconnection_retries", 0), ("timeout", CONNECT)):
            # Other connection plugins than ssh do not have them.
            with contextlib.suppress(KeyError, AnsibleError):
                self._connection.set_option(option, value)
        while True:
            reason = self._attempt()
            if not reason:
                return
            if time.monotonic() >= end:
                host = self._play_context.remote_addr
                raise AnsibleActionFail(
                    f"{host} cannot be managed after {deadline:g} s: {reason}. Does the guest run and have this address, "
                    "is the key in guest_ssh_public_keys, does its template hold python3 and an SSH server?"
                )
            with contextlib.suppress(AnsibleError, AttributeError):
                self._connection.reset()
            time.sleep(PAUSE)

    def _attempt(self) -> str:
        """Why the guest cannot be managed yet; empty when it can."""
        try:
            answer = self._low_level_execute_command("python3 -c 'print(6 * 7)'", sudoable=False)
        except AnsibleError as error:
            return " ".join(str(error).split())
        if answer.get("rc") == 0 and "42" in answer.get("stdout", ""):
            return ""
        return " ".join(f"{answer.get('stdout', '')} {answer.get('stderr', '')}".split()) or "no answer"
