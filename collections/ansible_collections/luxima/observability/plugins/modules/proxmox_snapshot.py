#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_snapshot
short_description: Snapshots of Proxmox VE guests, before a deployment and back
version_added: 0.1.0
description:
  - Takes, describes and removes snapshots of guests, and goes back to them, side by side.
  - A snapshot that exists is not taken again. Whatever would keep one guest from its snapshot or from going back is told
    before any guest is touched.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  guests:
    description: Names or ids of containers and virtual machines.
    type: list
    elements: str
    required: true
  name:
    description:
      - Name of the snapshot, 2 to 40 letters, digits, C(-) and C(_), beginning with a letter.
      - Left out, only O(keep) and O(max_age_days) act.
    type: str
  state:
    description:
      - V(rollback) gives each guest the volumes and the configuration it had; what was written since is lost. It happens in
        every run.
    type: str
    choices: [present, absent, rollback]
    default: present
  description:
    description: Notes of the snapshot. Left out, those that are there stay.
    type: str
  vmstate:
    description: Whether the memory of a running virtual machine is kept too; going back then resumes it. Containers have none.
    type: bool
    default: false
  start:
    description: Whether the guest runs after a rollback. Left out, as before it.
    type: bool
  prefix:
    description: Snapshots whose names begin so are those that O(keep) and O(max_age_days) may remove.
    type: str
    default: ''
  keep:
    description: The newest so many stay. With O(max_age_days), those that are older go.
    type: int
  max_age_days:
    description: Those younger than this stay. Without O(keep), all older ones go.
    type: float
  deadline:
    description: Seconds one snapshot, removal or rollback may take.
    type: int
    default: 600
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: 'Per guest, its snapshots before and after.'}
"""

EXAMPLES = r"""
- name: Before a deployment; the snapshots of the last week stay, the newest two in any case
  luxima.observability.proxmox_snapshot:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    guests: [web-1, db-1]
    name: deploy-1-4-0
    description: Before version 1.4.0
    prefix: deploy-
    keep: 2
    max_age_days: 7
  delegate_to: localhost

- name: Back to what was before
  luxima.observability.proxmox_snapshot:
    guests: [web-1, db-1]
    name: deploy-1-4-0
    state: rollback
  delegate_to: localhost
"""

RETURN = r"""
guests:
  description: What became of each guest, by name. Also returned on failure.
  returned: always
  type: dict
  contains:
    actions: {description: 'What was done: taken, described, removed, rolled_back.', type: list, elements: str}
    before: {description: 'Names of its snapshots before, oldest first; at a rollback its power.', type: dict}
    after: {description: The same afterwards., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the guest., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.snapshots import module_spec, run


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "guests")


if __name__ == "__main__":
    main()
