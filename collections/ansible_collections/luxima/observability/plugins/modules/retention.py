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
  - Asks every Prometheus, Loki, Tempo and MinIO for the periods it enforces and compares them with the plan that the filter
    P(luxima.observability.retention_plan#filter) makes of the policy.
  - Fails when one differs, naming class, server, both periods and the setting. Changes nothing.
  - A lifecycle rule of somebody else is a difference when it deletes what the policy still keeps.
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
  minio:
    description: Administrator's connections of the object storage servers, each with its buckets.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Address of the S3 API.
        type: str
        required: true
      region:
        description: Region the server reports.
        type: str
        default: us-east-1
      ca_file:
        description: Certificate authorities to trust; empty for the system's own.
        type: path
      username:
        description: Root user of the server.
        type: str
        required: true
      password:
        description: Password of the root user.
        type: str
        required: true
      buckets:
        description: The buckets with a lifecycle of ours.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the bucket.
            type: str
            required: true
          consumer:
            description: Who reads it; a rule of somebody else on the bucket of V(loki) or V(tempo) is measured against their periods.
            type: str
          lifecycle:
            description: The rules, as M(luxima.observability.bucket) takes them. Without any the bucket is not looked at.
            type: list
            elements: dict
  oldest:
    description: Whether the servers are asked for the oldest data they have (Prometheus, Loki), for the table C(explanation_table).
    type: bool
    default: true
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
explanation:
  description: One entry for each class and store. What is stated, where and by what it is enforced, what is in force, how old the oldest data is.
  type: list
  elements: dict
  returned: always
  sample:
    - class: traces
      stated: 7d
      where: tempo
      by what: compactor.compaction.block_retention
      in force: 7d
      oldest data: not asked
explanation_table:
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
STORAGE = {
    "url": {"type": "str", "required": True},
    "region": {"type": "str", "default": "us-east-1"},
    "ca_file": {"type": "path"},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "buckets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "consumer": {"type": "str"},
            "lifecycle": {"type": "list", "elements": "dict"},
        },
    },
}
CONNECTIONS = {"type": "list", "elements": "dict", "default": [], "options": CONNECTION}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "prometheus": CONNECTIONS,
            "loki": CONNECTIONS,
            "tempo": CONNECTIONS,
            "minio": {"type": "list", "elements": "dict", "default": [], "options": STORAGE},
            "oldest": {"type": "bool", "default": True},
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
