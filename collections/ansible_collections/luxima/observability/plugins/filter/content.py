# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Filters around what people give a server beside its variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.module_utils._content import (
    alerting,
    dashboards,
    ini,
    paths,
)
from ansible_collections.luxima.observability.plugins.module_utils._content.faults import ContentError


def ini_text(config: Mapping[str, Any], variable: str) -> str:
    """See ini_text.yml. Raises AnsibleFilterError naming every key."""
    try:
        return ini.text(config, variable)
    except ContentError as error:
        raise AnsibleFilterError(str(error)) from error


def absolute_files(config: Any, variable: str) -> Any:
    """See absolute_files.yml. Raises AnsibleFilterError naming every key."""
    try:
        return paths.only_absolute(config, variable)
    except ContentError as error:
        raise AnsibleFilterError(str(error)) from error


def alertmanager_configuration(config: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """See alertmanager_configuration.yml. Raises AnsibleFilterError naming every key."""
    try:
        return alerting.configuration(config, secrets)
    except ContentError as error:
        raise AnsibleFilterError(str(error)) from error


def grafana_dashboards(
    boards: Mapping[str, Any], shipped: Sequence[str], sources: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """See grafana_dashboards.yml. Raises AnsibleFilterError naming every dashboard."""
    try:
        return dict(dashboards.prepare(boards, shipped, sources))
    except ContentError as error:
        raise AnsibleFilterError(str(error)) from error


def grafana_dashboard_uids(boards: Mapping[str, Any], shipped: Sequence[str]) -> list[str]:
    """See grafana_dashboard_uids.yml."""
    return dashboards.uids(boards, shipped)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ini_text": ini_text,
            "absolute_files": absolute_files,
            "alertmanager_configuration": alertmanager_configuration,
            "grafana_dashboards": grafana_dashboards,
            "grafana_dashboard_uids": grafana_dashboard_uids,
        }
