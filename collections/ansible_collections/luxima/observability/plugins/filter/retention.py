# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Filter around the retention core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.module_utils._retention import policy as core


def retention_plan(
    policy: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    tenants: Mapping[str, Any] | None = None,
    deletion_delay: str = "2h",
    metrics_size: str = "",
    lifecycles: Mapping[str, Any] | None = None,
    stream_labels: list[str] | None = None,
    loki_multi_tenant: bool = False,
    tempo_multi_tenant: bool = False,
    tables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plan of a policy, see retention_plan.yml. Raises AnsibleFilterError naming every contradiction."""
    options = core.Options(
        deletion_delay=deletion_delay,
        metrics_size=metrics_size,
        lifecycles=lifecycles or {},
        stream_labels=tuple(stream_labels or core.STREAM_LABELS),
        loki_multi_tenant=loki_multi_tenant,
        tempo_multi_tenant=tempo_multi_tenant,
        tables=tables or {},
    )
    try:
        return core.plan(policy, overrides, tenants, options)
    except core.IncoherentPolicy as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"retention_plan": retention_plan}
