#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_backup_job
short_description: Scheduled backups of Proxmox VE guests
version_added: 0.1.0
description:
  - Makes the backup jobs of a list what their records say. Jobs that are not listed are left alone.
  - Missing storages, nodes, guests, pools and privileges are reported in one message before anything is changed.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  jobs:
    description: The jobs. Values that are left out are not managed.
    type: list
    elements: dict
    required: true
    suboptions:
      id: {description: Identifies the job., type: str, required: true}
      state: {description: What should become of it., type: str, choices: [present, absent], default: present}
      schedule: {description: 'When, as a calendar event, for example V(02:30) or V(mon..fri 22:00). Needed by a new job.', type: str}
      storage: {description: Where to., type: str}
      guests: {description: 'The guests that are saved, by name or id. One of this, O(jobs[].pool) and O(jobs[].all).', type: list, elements: str}
      pool: {description: The pool whose guests are saved., type: str}
      all: {description: Whether all guests are saved., type: bool}
      exclude: {description: 'Guests that are not, by name or id.', type: list, elements: str}
      mode: {description: What happens to a running guest meanwhile., type: str, choices: [snapshot, suspend, stop]}
      compress: {description: How archives are compressed., type: str, choices: ['0', gzip, lzo, zstd]}
      keep:
        description: How many archives of a guest are kept. Without any number, all are.
        type: dict
        suboptions:
          last: {description: The newest., type: int}
          hourly: {description: One of each of so many hours., type: int}
          daily: {description: One of each of so many days., type: int}
          weekly: {description: One of each of so many weeks., type: int}
          monthly: {description: One of each of so many months., type: int}
          yearly: {description: One of each of so many years., type: int}
      node: {description: 'The only node it runs on; empty for all.', type: str}
      enabled: {description: Whether it runs., type: bool}
      repeat_missed: {description: Whether a run that was missed is made up for., type: bool}
      comment: {description: What people read., type: str}
      notes_template: {description: 'Notes of each archive, for example V({{guestname}}).', type: str}
attributes:
  check_mode: {support: full, description: 'Predicts exactly what a run would do; guests and pools that are not there yet count as made.'}
  diff_mode: {support: full, description: 'Per job, what differs and nothing else.'}
"""

EXAMPLES = r"""
- name: Every night, kept for a week
  luxima.observability.proxmox_backup_job:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    jobs:
      - {id: nightly, schedule: "02:30", storage: backup, pool: observability, compress: zstd, keep: {daily: 7, weekly: 4}}
  delegate_to: localhost
"""

RETURN = r"""
jobs:
  description: What became of each job, by id. Also returned on failure.
  returned: always
  type: dict
  contains:
    actions: {description: 'What was done: created, configured, removed.', type: list, elements: str}
    before: {description: Managed values before., type: dict}
    after: {description: Managed values after., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the job., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.backup import module_spec, run
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "jobs")


if __name__ == "__main__":
    main()
