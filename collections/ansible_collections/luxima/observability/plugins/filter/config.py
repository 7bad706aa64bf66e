# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Filters around the configurations of servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.module_utils._config import limits, overlay


def patched(base: Mapping[str, Any], patch: Mapping[str, Any], variable: str = "") -> dict[str, Any]:
    """A configuration with an inventory's part over it, see patched.yml. Raises AnsibleFilterError naming the key."""
    if not isinstance(patch, Mapping):
        raise AnsibleFilterError(f"{variable or 'the patch'}: must be a mapping, not {type(patch).__name__}")
    return overlay.merged(base, patch)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"patched": patched, "rule_names": limits.rule_names, "tenant_checks": limits.tenant_checks}
