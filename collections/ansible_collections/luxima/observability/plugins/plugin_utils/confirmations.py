# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Confirmations that data may go: a run gives them. One that stands in an inventory would hold for all that ever comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.vars import load_extra_vars


def names(value: Any) -> list[str]:
    """What a confirmation names: a list, or words separated by commas."""
    return value.replace(",", " ").split() if isinstance(value, str) else [str(item) for item in value or []]


def standing(name: str, variables: Mapping[str, Any], host: str, loader: Any) -> bool:
    """Whether a host's confirmation is written in the inventory and not given on the command line; then it is none."""
    hosts = variables.get("hostvars") or {}
    return host in hosts and bool(hosts[host].get(name)) and name not in load_extra_vars(loader)
