# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Waiting for a host that is still starting, over its own connection."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.luxima.observability.plugins.plugin_utils import host_keys

PAUSE = 0.3
#: Seconds for one attempt to connect; a booting guest drops packets until its address is up.
CONNECT = 3


def wait_until_managed(action: ActionBase, seconds: float) -> None:
    """Returns when SSH and Python answer; AnsibleActionFail with the last reason after `seconds`, at once when waiting is no use."""
    end, connection = time.monotonic() + seconds, action._connection
    asked = {"reconnection_retries": 0, "timeout": CONNECT}
    usual = {}
    for option, value in asked.items():
        # Other connection plugins than ssh do not have them.
        with contextlib.suppress(KeyError, AnsibleError):
            usual[option] = connection.get_option(option)
            connection.set_option(option, value)
    while reason := _attempt(action):
        if host_keys.changed(reason):
            raise AnsibleActionFail(host_keys.way_out(*_ssh(action)))
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


def forget_key(action: ActionBase) -> bool:
    """The host was just made: whatever key is remembered for its address is that of another."""
    arguments, host = _ssh(action)
    return bool(arguments) and host_keys.forget(
        arguments, host, Path(C.DEFAULT_LOCAL_TMP) / "known-hosts.lock"
    )


def _ssh(action: ActionBase) -> tuple[list[str], str]:
    """How the connection calls SSH; no arguments when it is another."""
    connection, words = action._connection, []
    for option in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        with contextlib.suppress(KeyError, AnsibleError):
            words += shlex.split(connection.get_option(option) or "")
    host, port = str(action._play_context.remote_addr), None
    with contextlib.suppress(KeyError, AnsibleError):
        host, port = connection.get_option("host") or host, connection.get_option("port")
    return ([*words, "-p", str(port)] if port and words else words), host


def _attempt(action: ActionBase) -> str:
    """Why the host cannot be managed yet; empty when it can."""
    try:
        answer = action._low_level_execute_command("python3 -c 'print(6 * 7)'", sudoable=False)
    except AnsibleError as error:
        return " ".join(str(error).split())
    if answer.get("rc") == 0 and "42" in answer.get("stdout", ""):
        return ""
    return " ".join(f"{answer.get('stdout', '')} {answer.get('stderr', '')}".split()) or "no answer"
