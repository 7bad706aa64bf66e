# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Waiting for a host that is still starting, over its own connection."""

from __future__ import annotations

import contextlib
import time

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

PAUSE = 0.3
#: Seconds for one attempt to connect; a booting guest drops packets until its address is up.
CONNECT = 3


def wait_until_managed(action: ActionBase, seconds: float) -> None:
    """Returns when SSH and Python answer; AnsibleActionFail with the last reason after `seconds`."""
    end, connection = time.monotonic() + seconds, action._connection
    asked = {"reconnection_retries": 0, "timeout": CONNECT}
    usual = {}
    for option, value in asked.items():
        # Other connection plugins than ssh do not have them.
        with contextlib.suppress(KeyError, AnsibleError):
            usual[option] = connection.get_option(option)
            connection.set_option(option, value)
    while reason := _attempt(action):
        if time.monotonic() >= end:
            host = action._play_context.remote_addr
            raise AnsibleActionFail(
                f"{host} cannot be managed after {seconds:g} s: {reason}. Does the guest run and have this address, "
                "is the key in guest_ssh_public_keys, does its template hold python3 and an SSH server?"
            )
        with contextlib.suppress(AnsibleError, AttributeError):
            connection.reset()
        time.sleep(PAUSE)
    for option, value in usual.items():
        connection.set_option(option, value)


def _attempt(action: ActionBase) -> str:
    """Why the host cannot be managed yet; empty when it can."""
    try:
        answer = action._low_level_execute_command("python3 -c 'print(6 * 7)'", sudoable=False)
    except AnsibleError as error:
        return " ".join(str(error).split())
    if answer.get("rc") == 0 and "42" in answer.get("stdout", ""):
        return ""
    return " ".join(f"{answer.get('stdout', '')} {answer.get('stderr', '')}".split()) or "no answer"
