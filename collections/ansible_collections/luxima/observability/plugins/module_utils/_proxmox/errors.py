# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a request to the hypervisor can end in, besides success. Callers see three meanings only."""

from __future__ import annotations


class ProxmoxError(Exception):
    """Base of everything this package raises on purpose; its text is written for the operator."""


class Failed(ProxmoxError):
    """The server refused or the task failed; repeating it changes nothing."""


class Unreachable(Failed):
    """The node that the request is for does not answer; others may. ``reason`` in few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unanswered(Failed):
    """A record whose guest is, or may be, on a node that does not answer. Those of one node are told in one line."""

    def __init__(self, who: str, node: str, reason: str, way_out: str) -> None:
        super().__init__(f"{node} does not answer ({reason}), {who}: {way_out}")
        self.who, self.node, self.reason, self.way_out = who, node, reason, way_out


class Absent(ProxmoxError):
    """The object named in the request does not exist."""


class Conflict(ProxmoxError):
    """The state changed under the request: read again, plan again.

    ``reason`` is one of ``exists`` (the id is taken), ``digest`` (the configuration was changed by someone else),
    ``lock`` (another operation runs), ``power`` (already in that power state) and ``lost`` (no reply: the request
    may or may not have taken effect).
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Expired(Failed):
    """A ticket that was good is so no more."""
