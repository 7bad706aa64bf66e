#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_pool
short_description: Resource pools of Proxmox VE
version_added: 0.1.0
description:
  - Makes the pools of a list what their records say. Pools that are not listed are left alone.
  - Which pool a guest belongs to is told at the guest, see M(luxima.observability.proxmox_guests).
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  pools:
    description: The pools. Values that are left out are not managed.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: 'Name, for example V(monitoring) or, below another pool, V(monitoring/staging).', type: str, required: true}
      state: {description: A pool that still holds guests or storages is not removed., type: str, choices: [present, absent], default: present}
      comment: {description: What people read., type: str}
      storages: {description: All storages of the pool., type: list, elements: str}
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: 'Per pool, what differs and nothing else.'}
"""

EXAMPLES = r"""
- name: A pool for the observability platform
  luxima.observability.proxmox_pool:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    pools:
      - {name: observability, comment: Prometheus and its friends}
  delegate_to: localhost
"""

RETURN = r"""
pools:
  description: What became of each pool, by name. Also returned on failure.
  returned: always
  type: dict
  contains:
    actions: {description: 'What was done: created, configured, removed.', type: list, elements: str}
    before: {description: Managed values before., type: dict}
    after: {description: Managed values after., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the pool., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.pools import module_spec, run
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "pools")


if __name__ == "__main__":
    main()
