#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: validate
short_description: Finds every fault of an inventory before anything is touched
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Checks the variables of every host of every component group against the argument specs of the role and of C(platform), in the
    context of their owner.
  - Finds unknown variables with the prefix of a component, C(platform_), C(guest_) or C(proxmox_), missing secrets, templates that
    cannot be evaluated, equal addresses or ids, hosts nobody makes, groups that others need but that are empty, an incoherent
    retention policy, names Proxmox VE refuses, tags nobody has, an ignored C(ansible.cfg) and a second copy of the collection.
  - Fails once with all of them. A tag that names components restricts the check to these.
  - Warns when secrets of the shipped example inventories are in use (in a protected environment that is a fault), of copies that
    are lost with the guest they are taken of, and of a Prometheus that deletes series for whoever reaches its port.
  - Runs on the controller and connects to nothing; run it once, on C(localhost). Check mode makes no difference.
options: {}
"""

EXAMPLES = r"""
- name: Every fault of the inventory in one list
  luxima.observability.validate:
"""

RETURN = r"""
faults:
  description: What is wrong; empty when nothing is.
  returned: always
  type: list
  elements: dict
  contains: &fault
    variable:
      description: The variable, or the group or tag.
      type: str
      returned: always
    hosts:
      description: Hosts that have it; empty when it concerns the whole inventory.
      type: list
      elements: str
      returned: always
    message:
      description: What is wrong and the way out.
      type: str
      returned: always
risks:
  description: What is told and stops nothing, in the form of RV(faults).
  returned: always
  type: list
  elements: dict
  contains: *fault
example_secrets:
  description: Names of variables whose value is one of the shipped examples.
  returned: always
  type: list
  elements: str
"""
