#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_firewall
short_description: Firewalls of Proxmox VE guests
version_added: 0.1.0
description:
  - Gives every guest of a list the firewall its record describes. Guests that are not listed are left alone.
  - Rules of this module carry O(owner) in their comment. Rules of others stay what and, among themselves, where they are.
  - A firewall is switched on after its rules are there.
  - Nothing is filtered unless the interface of the guest says so (O(luxima.observability.proxmox_guests#module:guests[].networks[].firewall))
    and the datacenter's firewall is on; the module warns where one of these is missing.
author: luxima.observability contributors (@luxima)
extends_documentation_fragment: [luxima.observability.proxmox]
options:
  owner:
    description: Begins the comment of every rule and tells the rules of this module from those of others.
    type: str
    default: ansible
  datacenter_enabled:
    description:
      - Whether the datacenter's firewall is on. Left out, it is not managed.
      - Switching it on filters the nodes as well, which then answer to their own network only (ports 22 and 8006).
    type: bool
  guests:
    description: The firewalls.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: 'Name of the guest, of either kind.', type: str, required: true}
      vmid: {description: 'Its id, where the name is not unique.', type: int}
      enabled: {description: Whether the firewall of the guest is on., type: bool, default: true}
      dhcp: {description: 'Whether the guest may get its address by DHCP. Left out: not managed.', type: bool}
      policy_in: {description: What becomes of incoming packets without a rule., type: str, choices: [ACCEPT, REJECT, DROP], default: DROP}
      policy_out: {description: What becomes of outgoing packets without a rule., type: str, choices: [ACCEPT, REJECT, DROP], default: ACCEPT}
      rules:
        description:
          - All rules of this module, in order. Left out, rules are not managed.
          - One with addresses of both families, or with more than one rule can hold, becomes several.
        type: list
        elements: dict
        suboptions:
          comment: {description: What it is for., type: str, required: true}
          action: {description: What becomes of the packets., type: str, choices: [ACCEPT, REJECT, DROP], default: ACCEPT}
          direction: {description: As the guest sees it., type: str, choices: [in, out], default: in}
          proto: {description: 'Protocol, for example V(tcp) or V(icmp). Left out: any.', type: str}
          ports: {description: 'Destination ports and ranges (V(6000:6010)). Left out: any.', type: list, elements: str}
          sources: {description: 'Addresses and networks. Left out: any.', type: list, elements: str}
          log:
            description: Level at which packets are logged.
            type: str
            choices: [nolog, emerg, alert, crit, err, warning, notice, info, debug]
            default: nolog
attributes:
  check_mode: {support: full, description: 'Predicts exactly what a run would do; a guest that is not there yet counts as made.'}
  diff_mode: {support: full, description: 'Per guest, what differs and nothing else.'}
"""

EXAMPLES = r"""
- name: Only Prometheus may scrape, only the office may log in
  luxima.observability.proxmox_firewall:
    api_host: pve1.example.org
    api_user: automation@pve
    api_token_id: ansible
    api_token_secret: "{{ vault_proxmox_token }}"
    guests:
      - name: web-1
        rules:
          - {comment: log in, proto: tcp, ports: ["22"], sources: [192.0.2.0/24]}
          - {comment: metrics, proto: tcp, ports: ["9100", "8080"], sources: [10.0.0.21, 10.0.0.22]}
  delegate_to: localhost
"""

RETURN = r"""
guests:
  description: What became of each firewall, by name of the guest; V(datacenter) is the datacenter's. Also returned on failure.
  returned: always
  type: dict
  contains:
    actions:
      description: 'What was done: rules added, rules changed, rules moved, rules removed, configured.'
      type: list
      elements: str
    before: {description: Managed values before., type: dict}
    after: {description: Managed values after., type: dict}
    changed: {description: Whether anything was done., type: bool}
    upids: {description: Tasks on the hypervisor., type: list, elements: str}
    seconds: {description: Time spent on the firewall., type: float}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.firewall import module_spec, run
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.report import execute


def main() -> None:
    module = AnsibleModule(argument_spec=module_spec(env_fallback), supports_check_mode=True)
    execute(module, run, "guests")


if __name__ == "__main__":
    main()
