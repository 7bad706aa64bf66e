#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_version
short_description: A template of each Proxmox VE guest per deployed version, kept for some days
version_added: 0.1.0
description:
  - Makes a template C(<guest>-<version>) of each guest from a snapshot, while the guest runs, and removes templates of
    earlier versions that are older than O(max_age_days).
  - A version that has its template is not made again. A run that was killed in between is finished by the next.
  - Only templates whose notes say that they are a version of the guest are ever removed.
  - M(luxima.observability.proxmox_guests) with O(luxima.observability.proxmox_guests#module:guests[].clone_of) makes a guest
    of such a template.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  guests:
    description: Names or ids of containers and virtual machines, on storages that can take snapshots.
    type: list
    elements: str
    required: true
  version:
    description:
      - The deployed version, in letters, digits, C(.) and C(-).
      - Left out, only O(max_age_days) acts.
    type: str
  state:
    description: Whether the guests have a template of O(version).
    type: str
    choices: [present, absent]
    default: present
  storage:
    description: Where templates lie. Left out, where the volumes of the guest lie.
    type: str
  keep:
    description: The newest so many stay, whatever their age.
    type: int
    default: 1
  max_age_days:
    description: Templates older than this are removed. Left out, none.
    type: float
  deadline:
    description: Seconds one step may take; copying the volumes is the longest.
    type: int
    default: 1800
attributes:
  check_mode: {support: full, description: Predicts exactly what a run would do.}
  diff_mode: {support: full, description: 'Per guest, the versions that are kept before and after.'}
"""

EXAMPLES = r"""
- name: After a deployment
  luxima.observability.proxmox_version:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    guests: [web-1, db-1]
    version: 1.4.0
    max_age_days: 7
  delegate_to: localhost
"""

RETURN = r"""
guests:
  description: What became of each guest, by name. Also returned on failure.
  returned: always
  type: dict
  contains:
    actions:
      description: 'What was done: snapshot_taken, cloned, configured, templated, snapshot_removed, removed.'
      type: list
      elements: str
    before: {description: 'Versions that were kept, oldest first.', type: dict}
    after: {description: The same afterwards., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the guest., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.versions import module_spec, run


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "guests")


if __name__ == "__main__":
    main()
