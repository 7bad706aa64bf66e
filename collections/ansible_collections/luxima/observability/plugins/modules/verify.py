#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Module verify: asks the running platform from outside whether it works."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: verify
short_description: Asks the running platform from outside whether it works
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Runs on the controller, asks every server over its public interface, in parallel, and asks again until the answer is right
    or O(deadline) has passed. A check that takes long says what it waits for.
  - C(targets) - every expected scrape target is scraped and up, and no other target is down, on each Prometheus.
  - C(rules) - at least one rule, every rule evaluated without error.
  - C(watchdog) - the alert that always fires has come through to each Alertmanager.
  - C(alert) - a test alert is listed by each Alertmanager with its receivers, and resolved. Active.
  - C(receivers) - with O(receivers), a test message to each receiver of each Alertmanager was delivered. Active.
  - C(logs) - the line written on each in O(log_lines) is found in each Loki. Active.
  - C(traces) - a trace sent over OTLP/HTTP and one over OTLP/gRPC are found by id in each Tempo. Active.
  - C(grafana) - data sources exist, are healthy by Grafana's own account, and queries through them return data; every dashboard is there.
  - C(buckets) - objects of each consumer are in its bucket, read with the consumer's own key.
    In active mode Loki and Tempo are asked first to write what they hold.
  - C(retention) - the periods in force are those of O(retention).
extends_documentation_fragment:
  - luxima.observability.connections.prometheus
  - luxima.observability.connections.alertmanager
  - luxima.observability.connections.loki
  - luxima.observability.connections.tempo
  - luxima.observability.connections.grafana
options:
  environment:
    description: Value of the label C(environment) of everything that belongs to this platform.
    type: str
    required: true
  minio:
    description: The object storage server; no credentials, each bucket is read with its own key.
    type: dict
    suboptions:
      url: {description: Base URL of the S3 API., type: str, required: true}
      region: {description: Region., type: str, default: us-east-1}
      ca_file: {description: CA certificates to trust; empty for the system's own., type: str, default: ""}
  buckets:
    description: Buckets to look into.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the bucket., type: str, required: true}
      consumer: {description: Component that writes it; V(loki) and V(tempo) can be asked to write now., type: str, default: ""}
      access_key: {description: Key of the consumer., type: str, required: true}
      secret_key: {description: Its secret., type: str, required: true}
      prefix: {description: Not read here., type: str}
      versioning: {description: Not read here., type: bool}
      encryption: {description: Not read here., type: str}
      quota: {description: Not read here., type: str}
      lifecycle: {description: Not read here., type: list, elements: dict}
      foreign_rules: {description: Not read here., type: str}
      key_deletes: {description: Not read here., type: bool}
      object_lock: {description: Not read here., type: bool}
  expected_targets:
    description: Scrape targets that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      component: {description: Value of C(service_name) or C(job)., type: str, required: true}
      address: {description: Host and port., type: str, required: true}
      path: {description: Path of the metrics., type: str, default: /metrics}
      scheme: {description: V(http) or V(https)., type: str, default: http}
  receivers:
    description: Whether each receiver gets a test message. People are told.
    type: bool
    default: false
  dashboards:
    description: Uids of the dashboards that must be there, by address of the Grafana.
    type: dict
    default: {}
  log_lines:
    description:
      - The line that was written on each host, unique per run; an empty line says that none was written, which is a fault.
      - Lines are looked for by O(environment) and their first word, at most 15 minutes back.
    type: dict
    default: {}
  retention:
    description: The plan as the filter P(luxima.observability.retention_plan#filter) makes it.
    type: dict
  checks:
    description: Only these checks.
    type: list
    elements: str
    choices: [targets, rules, watchdog, alert, receivers, logs, traces, grafana, buckets, retention]
    default: []
  components:
    description: Only checks that concern one of these components; empty for all.
    type: list
    elements: str
    default: []
  active:
    description: Whether checks may send something (an alert, a trace, a request to flush). Never in check mode.
    type: bool
    default: true
  deadline:
    description: Seconds after which what does not hold has failed; common to all checks.
    type: int
    default: 120
  report:
    description: File for the results as JSON. Not written in check mode.
    type: path
    default: ""
  progress_file:
    description: File to which lines about slow checks are appended; the action plugin shows them while the module runs.
    type: path
    default: ""
attributes:
  check_mode:
    support: full
    description: >-
      Passive checks only, asked once. What does not hold is a warning and no failure, because the run that is predicted may cure it.
notes:
  - Needs C(minio) for C(buckets) and C(grpcio) with C(opentelemetry-proto) for the trace over gRPC, on the controller.
"""

EXAMPLES = r"""
- name: Every target up, every rule healthy, nothing sent
  luxima.observability.verify:
    environment: production
    prometheus: "{{ groups.prometheus | map('extract', hostvars, 'prometheus_connection') }}"
    active: false

- name: A trace through Tempo, within half a minute
  luxima.observability.verify:
    environment: dev
    tempo: "{{ groups.tempo | map('extract', hostvars, 'tempo_connection') }}"
    checks: [traces]
    deadline: 30
"""

RETURN = r"""
results:
  description: One entry per check.
  returned: always
  type: list
  elements: dict
  contains:
    check: {description: Name of the check., type: str, returned: always}
    subject: {description: What was asked., type: str, returned: always}
    ok: {description: Whether it holds., type: bool, returned: always}
    verified: {description: False when the question could not be asked and that is no fault., type: bool, returned: always}
    detail: {description: What was found or what is missing., type: str, returned: always}
    seconds: {description: How long it took., type: float, returned: always}
    hint: {description: The way out., type: str, returned: when it does not hold}
summary:
  description: One readable line per check.
  returned: always
  type: list
  elements: str
ok:
  description: Whether all hold.
  returned: always
  type: bool
seconds:
  description: How long all took together.
  returned: always
  type: float
started:
  description: When, in UTC.
  returned: always
  type: str
active:
  description: Whether anything was sent.
  returned: always
  type: bool
report:
  description: The file of the results.
  returned: when written
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.luxima.observability.plugins.module_utils._verify.arguments import SPEC
from ansible_collections.luxima.observability.plugins.module_utils._verify.task import verify


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    progress_file = module.params["progress_file"]

    def progress(line: str) -> None:
        if progress_file:
            with Path(progress_file).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    result: dict[str, Any]
    result, warnings = verify(module.params, module.check_mode, progress)
    for warning in warnings:
        module.warn(warning)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
