# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Components of which an inventory has one, asked where one is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.luxima.observability.plugins.module_utils._validate import groups as core


def refuse_second(name: str, variables: Mapping[str, Any], subject: str) -> None:
    """AnsibleActionFail when this component has more hosts than can share its data."""
    found = core.check_single(
        variables.get("groups") or {}, variables.get("platform_single_host") or [], [name]
    )
    if found:
        raise AnsibleActionFail(f"{subject}: {found[0].variable} {found[0].text}. Nothing was touched.")
