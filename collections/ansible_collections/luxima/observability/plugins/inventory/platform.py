# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Inventory source of the facts that all components share."""

from __future__ import annotations

DOCUMENTATION = r"""
name: platform
short_description: Shared facts of the platform as variables of group all, and a group per component
version_added: 0.1.0
author: luxima.observability contributors (@luxima)
description:
  - Creates the groups C(guests), C(guests_off), C(hypervisors) and one per entry of C(platform_components), all empty, so that a group that an
    inventory leaves out is an empty group and not an error.
  - Sets every variable of C(roles/platform/defaults/main/*.yml) on group C(all). Thereby C(hostvars[other].loki_url) exists and is
    evaluated for its owner. This is the lowest level of an inventory, any value of C(hosts.yml), C(group_vars) or C(host_vars) outranks it.
notes:
  - Templates in the files are trusted; they belong to the platform.
  - The source must sort before the other files of its folder, hence the usual name C(00-platform.yml).
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [luxima.observability.platform]
  platform_defaults:
    description:
      - Folder with the files of the shared facts.
      - Relative paths start at the folder of the inventory source.
      - By default the folder is C(roles/platform/defaults/main) of the installed collection, or of the project that contains
        C(collections/).
    type: str
"""

EXAMPLES = r"""
# inventories/production/00-platform.yml
plugin: luxima.observability.platform
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.luxima.observability.plugins.module_utils._validate.places import beside

FOLDER = ("roles", "platform", "defaults", "main")


class InventoryModule(BaseInventoryPlugin):
    """Reads C(*platform.yml)."""

    NAME = "luxima.observability.platform"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("platform.yml", "platform.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        facts = self._facts(self._folder(path))
        components = facts.get("platform_components")
        if not isinstance(components, list):
            raise AnsibleParserError(f"{path}: platform_components is no list in {self._folder(path)}")
        for group in ["guests", "guests_off", "hypervisors", *components]:
            self.inventory.add_group(group)
        for name, value in facts.items():
            self.inventory.set_variable("all", name, value)

    def _folder(self, path: str) -> Path:
        named = self.get_option("platform_defaults")
        folder = Path(path).parent / Path(named).expanduser() if named else beside(__file__, *FOLDER)
        if folder is None or not folder.is_dir():
            raise AnsibleParserError(
                f"{path}: no folder with the platform's defaults ({folder or '/'.join(FOLDER)}); name it with platform_defaults"
            )
        return folder

    def _facts(self, folder: Path) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for file in sorted(folder.glob("*.yml")):
            content = self.loader.load_from_file(
                str(file), cache="all", unsafe=True, trusted_as_template=True
            )
            if not isinstance(content, dict):
                raise AnsibleParserError(f"{file}: not a mapping of variables")
            twice = sorted(facts.keys() & content.keys())
            if twice:
                raise AnsibleParserError(
                    f"{file}: already set by another file of this folder: {', '.join(twice)}"
                )
            facts.update(content)
        return facts
