# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Components that a host still has although it left their groups: told by every run until they are taken off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible import constants as C
from ansible.utils.display import Display


def leftovers(installed: Iterable[str], variables: Mapping[str, Any]) -> list[str]:
    """Those of the platform's components among `installed` whose group the host is not in."""
    components = variables.get("platform_components")
    if not isinstance(components, list):
        # A playbook of somebody's own, without the inventory plugin.
        return []
    mine = variables.get("group_names") or []
    return sorted(name for name in installed if name in components and name not in mine)


def tell(subject: str, names: list[str]) -> None:
    """One line on the operator's terminal."""
    if names:
        several = len(names) > 1
        Display().display(
            f"{subject}: {', '.join(names)} {'are' if several else 'is'} installed, and the host is not in "
            f"{'their groups' if several else 'that group'}; playbooks/remove.yml takes {'them' if several else 'it'} off, data stays",
            color=C.COLOR_WARN,
        )
