# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Filter around what happens to log lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.module_utils._logs import scrapes as core


def log_scrapes(sources: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Promtail's scrape configurations, see log_scrapes.yml. Raises AnsibleFilterError naming every fault."""
    try:
        return core.scrapes(sources, settings)
    except core.Faults as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"log_scrapes": log_scrapes}
