#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Buckets of object storage and the keys of their consumers."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bucket
short_description: Makes buckets on MinIO, each with one key that opens nothing else
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Makes buckets, and for each of them an access key whose policy is limited to that bucket.
  - Access without a key is removed from these buckets. Other buckets, keys and policies are left alone.
  - A key whose stored secret is no longer the wanted one gets the wanted one.
  - Runs on the controller. What was changed is read back.
requirements:
  - minio >= 7.2.20 (Python)
options:
  connection:
    description: The administrator's connection to the server.
    type: dict
    required: true
    suboptions:
      url:
        description: Address of the S3 API, for example C(http://192.0.2.10:9000).
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
    description: The buckets that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the bucket.
        type: str
        required: true
      consumer:
        description: Who uses it; for people only.
        type: str
      access_key:
        description: Access key of the consumer, at least 3 characters.
        type: str
        required: true
      secret_key:
        description: Secret of the access key, at least 8 characters.
        type: str
        required: true
      versioning:
        description: Whether overwritten and deleted objects are kept as versions. Left as it is when absent.
        type: bool
  timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 30
attributes:
  check_mode:
    description: Predicts the changes. A server that does not answer is predicted to get everything.
    support: full
  diff_mode:
    description: Shows buckets, policies and keys; of a secret only whether it is the wanted one.
    support: full
"""

EXAMPLES = r"""
- name: Buckets of Loki and Tempo
  luxima.observability.bucket:
    connection: "{{ minio_connection }}"
    buckets: "{{ platform_buckets }}"
  delegate_to: localhost
"""

RETURN = r"""
actions:
  description: What was done, or would be done, one entry for each call.
  type: list
  elements: str
  returned: success
  sample: ["loki: create bucket", "loki: write policy", "loki: create key", "loki: attach policy"]
buckets:
  description: Names of the buckets.
  type: list
  elements: str
  returned: success
predicted:
  description: Whether the server did not answer and the result is a prediction (check mode only).
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.luxima.observability.plugins.module_utils._bucket import server
from ansible_collections.luxima.observability.plugins.module_utils._bucket.run import ensure

CONNECTION = {
    "url": {"type": "str", "required": True},
    "region": {"type": "str", "default": "us-east-1"},
    "ca_file": {"type": "path"},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}
BUCKET = {
    "name": {"type": "str", "required": True},
    "consumer": {"type": "str"},
    "access_key": {"type": "str", "required": True, "no_log": False},
    "secret_key": {"type": "str", "required": True, "no_log": True},
    "versioning": {"type": "bool"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connection": {"type": "dict", "required": True, "options": CONNECTION},
            "buckets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": BUCKET,
                "no_log": False,
            },
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    if server.MISSING:
        module.fail_json(msg=missing_required_lib("minio"), exception=server.MISSING)
    try:
        result = ensure(module.params, module.check_mode)
    except (server.Refused, server.Unreachable) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
