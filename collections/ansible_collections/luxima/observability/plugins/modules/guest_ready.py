#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

DOCUMENTATION = r"""
module: guest_ready
short_description: Wait until a guest can be managed
version_added: 0.1.0
description:
  - Waits until the connection to the host works and Python runs there. Asks several times a second, over a new
    connection each time.
  - Of a guest that this run made, the host key that SSH remembers for its address is forgotten; a changed key of any other guest is
    refused at once, with the command that says that it is meant so.
  - In check mode, a guest that does not exist or does not run yet is not waited for. The fact C(luxima_state) then says
    so, and M(luxima.observability.component) predicts without connecting.
  - Never reports a change.
author: luxima.observability contributors (@luxima)
options:
  result:
    description: What M(luxima.observability.proxmox_guests) returned for this guest. Left out, the guest is only waited for.
    type: dict
  deadline:
    description: Seconds to wait.
    type: float
    default: 300
  wait:
    description: Whether to wait. Without it only check mode has an effect; M(luxima.observability.component) waits then.
    type: bool
    default: true
attributes:
  action: {support: full, description: Works on the controller and over the connection of the host.}
  check_mode: {support: full, description: Does not wait for what does not exist.}
"""

EXAMPLES = r"""
- name: Wait for the guest
  luxima.observability.guest_ready:
    result: "{{ hostvars.localhost.guests_result.guests[inventory_hostname] }}"
"""

RETURN = r"""
seconds:
  description: How long it took.
  returned: when it was waited for
  type: float
ansible_facts:
  description: C(luxima_state) with C(exists) false.
  returned: in check mode, when the guest cannot be asked
  type: dict
"""
