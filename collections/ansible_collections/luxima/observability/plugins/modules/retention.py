#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Reads back which periods the servers enforce."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: retention
short_description: Reads back from the servers which retention is in force and compares it with the plan
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Asks every Prometheus, Loki and Tempo for the periods it enforces and compares them with the plan that the filter
    P(luxima.observability.retention_plan#filter) makes of the policy.
  - Fails when one differs, naming class, server, both periods and the setting. Changes nothing.
  - Runs on the controller.
options:
  plan:
    description: The plan of the policy.
    type: dict
    required: true
  prometheus:
    description: Connections of the Prometheus servers.
    type: list
    elements: dict
    default: []
    suboptions: &connection
      url:
        description: Base address.
        type: str
        required: true
      ca_file:
        description: Certificate authorities to trust; empty for the system's own.
        type: path
      username:
        description: Name for basic authentication; empty for none.
        type: str
      password:
        description: Password for basic authentication.
        type: str
      otlp_http_url:
        description: Not used here; connections of Tempo have it.
        type: str
      otlp_grpc_endpoint:
        description: Not used here; connections of Tempo have it.
        type: str
  loki:
    description: Connections of the Loki servers.
    type: list
    elements: dict
    default: []
    suboptions: *connection
  tempo:
    description: Connections of the Tempo servers.
    type: list
    elements: dict
    default: []
    suboptions: *connection
  timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 15
  wait:
    description: Seconds in which a difference may still go away; servers take up their runtime files some seconds after they were written.
    type: float
    default: 20
attributes:
  check_mode:
    description: Reads as always; a difference is listed without failing, a server that does not answer as not there yet.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
"""

EXAMPLES = r"""
- name: Retention in force
  luxima.observability.retention:
    plan: "{{ platform_retention_plan }}"
    prometheus: "{{ groups.prometheus | map('extract', hostvars, 'prometheus_connection') }}"
    loki: "{{ groups.loki | map('extract', hostvars, 'loki_connection') }}"
    tempo: "{{ groups.tempo | map('extract', hostvars, 'tempo_connection') }}"
"""

RETURN = r"""
rows:
  description: One entry for each period of each server.
  type: list
  elements: dict
  returned: always
  sample:
    - class: traces
      store: tempo
      server: http://192.0.2.12:3200
      wanted: 7d
      in_force: 7d
      ok: true
      setting: compactor.compaction.block_retention
table:
  description: The same for people.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.luxima.observability.plugins.module_utils._retention.task import compare

CONNECTION = {
    "url": {"type": "str", "required": True},
    "ca_file": {"type": "path"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "otlp_http_url": {"type": "str"},
    "otlp_grpc_endpoint": {"type": "str"},
}
CONNECTIONS = {"type": "list", "elements": "dict", "default": [], "options": CONNECTION}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "prometheus": CONNECTIONS,
            "loki": CONNECTIONS,
            "tempo": CONNECTIONS,
            "timeout": {"type": "float", "default": 15},
            "wait": {"type": "float", "default": 20},
        },
        supports_check_mode=True,
    )
    result = compare(module.params, module.check_mode)
    if result["faults"]:
        module.fail_json(msg="retention is not as configured:\n- " + "\n- ".join(result["faults"]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
