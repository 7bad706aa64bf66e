#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Buckets of object storage and the keys of their consumers."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bucket
short_description: Makes buckets on MinIO, with lifecycle and encryption, each with one key that opens nothing else
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Makes buckets, and for each of them an access key whose policy is limited to that bucket and, where asked, to a prefix in it.
  - Keeps versioning, encryption, quota and lifecycle of each bucket as wanted. What is not named is left as it is.
  - Lifecycle rules of others, told by their id, are left alone and reported, or removed where C(foreign_rules) says so.
  - Access without a key is removed from these buckets. Other buckets, keys and policies are left alone.
  - A key whose stored secret is no longer the wanted one gets the wanted one.
  - Runs on the controller. What was changed is read back.
requirements:
  - minio >= 7.2.20 (Python)
extends_documentation_fragment: [luxima.observability.connections.storage]
options:
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
        description: Access key of the consumer, at least 3 characters. Without one, only the administrator opens the bucket.
        type: str
      secret_key:
        description: Secret of the access key, at least 8 characters.
        type: str
      prefix:
        description: The key opens objects whose name begins so, and no others. Empty for the whole bucket.
        type: str
      object_lock:
        description:
          - Whether objects may be locked for a time, in which nobody deletes them. The access key may then lock what it writes.
          - A bucket gets it when it is made, and keeps it; asking it of one that was made without is refused.
        type: bool
        default: false
      versioning:
        description: Whether overwritten and deleted objects are kept as versions. Left as it is when absent.
        type: bool
      encryption:
        description:
          - Whether the server encrypts what is written to the bucket with its own key (SSE-S3). Left as it is when absent.
          - The server needs a key for that; objects that are there already stay as they are.
        type: str
        choices: [AES256, none]
      quota:
        description: Size beyond which nothing more can be written, for example C(50GiB); C(0) for none. Left as it is when absent.
        type: str
      lifecycle:
        description:
          - The rules of ours. An empty list removes them; left as they are when absent.
          - MinIO knows no expiry of incomplete uploads by rule; it removes them by itself after its C(MINIO_API_STALE_UPLOADS_EXPIRY).
        type: list
        elements: dict
        suboptions:
          id:
            description: Name of the rule; on the server it carries the prefix C(platform-), by which it is told from rules of others.
            type: str
            required: true
          prefix:
            description: Objects whose name begins so. Empty for all.
            type: str
            default: ""
          days:
            description: Objects are deleted when they are older than this many days.
            type: int
          noncurrent_days:
            description: Versions that were overwritten or deleted are removed after this many days; needs C(versioning).
            type: int
      foreign_rules:
        description: What happens to lifecycle rules that are not ours.
        type: str
        choices: [keep, replace]
        default: keep
      key_deletes:
        description: Whether the access key may delete objects. With V(false) and versioning it adds to the bucket and takes nothing away.
        type: bool
        default: true
      retire_keys:
        description:
          - Removes the other keys that have the policy of this bucket and no other policy.
          - So a key is rotated without an outage. Give the consumer a new access key, let it restart, then retire the former one.
        type: bool
        default: false
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

- name: An encrypted archive that keeps audit logs longer than the rest
  luxima.observability.bucket:
    connection: "{{ minio_connection }}"
    buckets:
      - name: logs-archive
        versioning: true
        encryption: AES256
        quota: 200GiB
        lifecycle:
          - {id: application, prefix: application/, days: 60, noncurrent_days: 14}
          - {id: audit, prefix: audit/, days: 180, noncurrent_days: 14}
  delegate_to: localhost

- name: The consumer runs with its new key; the former one opens nothing any more
  luxima.observability.bucket:
    connection: "{{ minio_connection }}"
    buckets:
      - {name: loki, access_key: loki-2, secret_key: "{{ loki_s3_secret_key }}", retire_keys: true}
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
foreign_rules:
  description: Lifecycle rules of others that stay, by bucket, in words.
  type: dict
  returned: success
  sample: {loki: ["by-hand: (all objects): 400d"]}
predicted:
  description: Whether the server did not answer and the result is a prediction (check mode only).
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.luxima.observability.plugins.module_utils._bucket import server
from ansible_collections.luxima.observability.plugins.module_utils._bucket.arguments import ARGUMENTS
from ansible_collections.luxima.observability.plugins.module_utils._bucket.run import ensure


def main() -> None:
    """What the action does in its own process, for those who call the module itself."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if server.MISSING:
        module.fail_json(msg=missing_required_lib("minio"), exception=server.MISSING)
    try:
        result = ensure(module.params, module.check_mode)
    except (server.Refused, server.Unreachable) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
