#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secrets
short_description: Writes fresh random secrets, encrypted, for one environment
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Generates secrets and writes them as a file of variables, each value encrypted with a vault identity of the run.
  - The names stay readable, so that a missing secret can be seen without a password.
  - Runs on the controller. Refuses to replace a file unless told to. Check mode writes nothing.
options:
  path:
    description: File of variables to write, usually C(group_vars/all/secrets.yml) of an inventory.
    type: path
    required: true
  generate:
    description: Names of secrets and their lengths in characters (letters and digits).
    type: dict
    required: true
  keep:
    description: Secrets that somebody else issued, by name; encrypted as they are.
    type: dict
    default: {}
  vault_id:
    description:
      - Name of the vault identity to encrypt with.
      - Empty takes the first one of the run that is not C(example), whose password is public.
    type: str
    default: ""
  replace:
    description: Whether an existing file is replaced.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Fresh secrets
  luxima.observability.secrets:
    path: inventories/staging/group_vars/all/secrets.yml
    generate: {grafana_admin_password: 24, loki_s3_secret_key: 40}
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
vault_id:
  description: The identity the values are encrypted with.
  returned: success
  type: str
names:
  description: The secrets in the file.
  returned: success
  type: list
  elements: str
"""
