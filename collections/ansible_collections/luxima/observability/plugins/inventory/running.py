# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Inventory source that takes guests that shall not run out of everything that runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: running
short_description: Takes guests that shall not run out of their groups
version_added: 0.1.0
author: luxima.observability contributors (@luxima)
description:
  - Hosts of group C(guests) whose C(guest_state) is V(absent) or V(stopped) leave all their groups for the group C(guests_off).
    So they are provisioned (removed, stopped), and nothing else knows of them, whatever groups a component's group is made of -
    no play, no scrape target, no firewall rule, no verification.
  - They keep the variables of the groups they leave.
notes:
  - The source must be the last one, hence the usual name C(zz-running.yml) in the folder of the other sources.
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [luxima.observability.running]
"""

EXAMPLES = r"""
# inventories/production/zz-running.yml
plugin: luxima.observability.running
"""

from typing import Any

from ansible.inventory.helpers import get_group_vars, sort_groups
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.luxima.observability.plugins.module_utils._validate.guests import OFF

GUESTS, GUESTS_OFF = "guests", "guests_off"


class InventoryModule(BaseInventoryPlugin):
    """Reads C(*running.yml)."""

    NAME = "luxima.observability.running"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("running.yml", "running.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.inventory.add_group(GUESTS_OFF)
        if GUESTS not in self.inventory.groups:
            return
        for host in list(self.inventory.groups[GUESTS].get_hosts()):
            inherited = self._inherited(host)
            if self._state(host, inherited) in OFF:
                self._take_out(host, inherited)

    def _files(self, entities: list[Any]) -> dict[str, Any]:
        """Variables that group_vars and host_vars beside the sources give to groups or hosts."""
        sources = self.inventory.processed_sources
        found: dict[str, Any] = get_vars_from_inventory_sources(self.loader, sources, entities, "all")
        return found

    def _inherited(self, host: Any) -> dict[str, Any]:
        """What the host has of its groups, in Ansible's own order: written in sources, then in files."""
        # While sources are read, groups are not below `all` yet.
        everybody = self.inventory.groups["all"]
        groups = self._groups(host)
        written = combine_vars(everybody.get_vars(), get_group_vars(groups))
        return dict(combine_vars(written, self._files([everybody, *groups])))

    @staticmethod
    def _groups(host: Any) -> list[Any]:
        return [group for group in sort_groups(host.get_groups()) if group.name != "all"]

    def _state(self, host: Any, inherited: dict[str, Any]) -> str:
        values = combine_vars(combine_vars(inherited, host.vars), self._files([host]))
        self.templar.available_variables = {**values, "inventory_hostname": host.name}
        return str(self.templar.template(values.get("guest_state", "started")))

    def _take_out(self, host: Any, inherited: dict[str, Any]) -> None:
        groups = self._groups(host)
        named = combine_vars(get_group_vars(groups), self._files(groups))
        for name in sorted(named.keys() - host.vars.keys()):
            # A name of a group, with the value it had for this host.
            self.inventory.set_variable(host.name, name, inherited[name])
        for group in groups:
            group.remove_host(host)
        self.inventory.add_child(GUESTS_OFF, host.name)
