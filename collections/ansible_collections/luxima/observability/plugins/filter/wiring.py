# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Filter around what follows from the wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.module_utils._wiring import address, memory
from ansible_collections.luxima.observability.plugins.module_utils._wiring import firewall as core


def guest_firewalls(
    records: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The guests' firewalls, see guest_firewalls.yml. Raises AnsibleFilterError naming every fault."""
    try:
        return core.firewalls(records, core.Site(groups, addresses))
    except core.Unreachable as error:
        raise AnsibleFilterError(f"the firewalls of the guests cannot be derived:\n{error}") from error


def memory_limits(
    shares: Mapping[str, Any],
    groups: Sequence[str],
    total_mb: int,
    others: Mapping[str, Any] | None = None,
    system: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Limit of each component of a host, see memory_limits.yml. Raises AnsibleFilterError naming variable and key."""
    try:
        return memory.limits(shares, groups, int(total_mb), others or {}, system or {"least_mb": 1})
    except memory.BadShares as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "guest_firewalls": guest_firewalls,
            "memory_limits": memory_limits,
            "hostport": address.hostport,
            "local_hostport": address.local_hostport,
        }
