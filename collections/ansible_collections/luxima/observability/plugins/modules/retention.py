#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Reads back which periods the servers enforce."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: retention
short_description: Compares the retention in force on the servers with the plan, or protects data from a shorter one
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Asks every Prometheus, Loki, Tempo and MinIO for the periods it enforces and compares them with the plan that the filter
    P(luxima.observability.retention_plan#filter) makes of the policy.
  - Fails when one differs, naming class, server, both periods and the setting. Changes nothing.
  - A lifecycle rule of somebody else is a difference when it deletes what the policy still keeps.
  - With O(mode=protect) it finds the periods in force that are longer than those of the plan, with how much data each store would
    delete earlier, and fails unless that is confirmed. Made to run before anything is deployed.
  - Runs on the controller.
extends_documentation_fragment:
  - luxima.observability.connections.prometheus
  - luxima.observability.connections.loki
  - luxima.observability.connections.tempo
  - luxima.observability.connections.minio
options:
  plan:
    description: The plan of the policy.
    type: dict
    required: true
  mode:
    description: V(compare) reads back what is in force. V(protect) refuses a plan that would delete data earlier than what is in force.
    type: str
    choices: [compare, protect]
    default: compare
  confirmed:
    description: With O(mode=protect), whether shorter periods are wanted; they are listed without failing.
    type: bool
    default: false
  postgresql:
    description: What the job that deletes from the tables of PostgreSQL says of itself, by server.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name of the host.
        type: str
        required: true
      report:
        description: Output of the job's command C(report); absent when the server has no job yet.
        type: dict
  backup:
    description: What the jobs of role C(backup) say of themselves, by host.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name of the host.
        type: str
        required: true
      report:
        description: Output of C(python3 -m backups report); absent when the host has no jobs yet, and then it is not asked.
        type: dict
  oldest:
    description: Whether the servers are asked for the oldest data they have, for the table C(explanation_table).
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
    description:
      - Reads as always; a difference is listed without failing, a server that does not answer as not there yet.
      - A shorter period is listed with a warning that the run itself would be refused.
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

- name: Nothing is deleted earlier than before, unless somebody says so
  luxima.observability.retention:
    plan: "{{ platform_retention_plan }}"
    mode: protect
    loki: "{{ groups.loki | map('extract', hostvars, 'loki_connection') }}"
"""

RETURN = r"""
rows:
  description: One entry for each period of each server.
  type: list
  elements: dict
  returned: with O(mode=compare)
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
  returned: with O(mode=compare)
explanation:
  description: One entry for each class and store. What is stated, where and by what it is enforced, what is in force, how old the oldest data is.
  type: list
  elements: dict
  returned: with O(mode=compare)
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
  returned: with O(mode=compare)
shortened:
  description: Periods that would become shorter, each with what its store would delete.
  type: list
  elements: dict
  returned: with O(mode=protect)
  sample:
    - store: loki
      server: http://192.0.2.11:3100
      data: '{log_class="audit"}'
      in_force: 180d
      wanted: 90d
      words: '{log_class="audit"}: 180d -> 90d'
      goes: 12 streams, 340 chunks, 120000 lines, 41.0 MiB
shortened_table:
  description: The same for people.
  type: str
  returned: with O(mode=protect)
unknown:
  description: Servers that do not answer and have no data that anybody knows of, so that nothing of theirs can become shorter.
  type: list
  elements: str
  returned: with O(mode=protect)
unanswered:
  description: Servers that hold data and cannot say which periods are in force; refused like a shorter period.
  type: list
  elements: str
  returned: with O(mode=protect)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.luxima.observability.plugins.module_utils._retention.shorten import way_out
from ansible_collections.luxima.observability.plugins.module_utils._retention.task import compare, protect
from ansible_collections.luxima.observability.plugins.module_utils._servers.arguments import (
    SERVERS,
    STORAGE,
    TEMPO,
    each,
)

BUCKETS = each(
    name={"type": "str", "required": True},
    consumer={"type": "str"},
    lifecycle={"type": "list", "elements": "dict"},
)
JOBS = each(server={"type": "str", "required": True}, report={"type": "dict"})
WAY_OUT = way_out("<platform_environment>")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "mode": {"type": "str", "choices": ["compare", "protect"], "default": "compare"},
            "confirmed": {"type": "bool", "default": False},
            "prometheus": SERVERS,
            "loki": SERVERS,
            "tempo": TEMPO,
            "minio": each(**STORAGE, buckets=BUCKETS),
            "postgresql": JOBS,
            "backup": JOBS,
            "oldest": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 15},
            "wait": {"type": "float", "default": 20},
        },
        supports_check_mode=True,
    )
    if module.params["mode"] == "protect":
        result = protect(module.params)
        words = "\n".join([result["shortened_table"], *(f"- {one}" for one in result["unanswered"])]).strip()
        if words and not module.params["confirmed"]:
            words = f"this plan deletes data earlier than what is in force:\n{words}\n{WAY_OUT}"
            if not module.check_mode:
                module.fail_json(msg=words, **result)
            module.warn(f"the run itself will be refused: {words}")
        module.exit_json(changed=False, **result)
    result = compare(module.params, module.check_mode)
    if result["faults"]:
        module.fail_json(msg="retention is not as configured:\n- " + "\n- ".join(result["faults"]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
