#!/usr/bin/python
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secrets
short_description: Makes, rotates and keeps the secrets of one environment, encrypted
version_added: 0.1.0
author:
  - luxima.observability contributors (@luxima)
description:
  - Works on a file of variables. Which secrets there are, and what each of them protects, is declared by the roles
    (C(roles/<role>/meta/secrets.yml)); their values are letters and digits.
  - What is missing is made. What is there stays, values of your own always, with their comments; those asked for are made anew.
  - A key of stored data is never made anew while it may be in use; see O(data_moved). The example of one is.
  - A rotated connection gets a new access key too, so that the former pair is good until every consumer has the new one.
  - A secret that is given as an extra variable is written as given.
  - Values are encrypted with a vault identity of the run. A file that is encrypted as a whole stays so.
  - The former file is kept beside, as C(<name>.<time>.old), readable by its owner only.
  - Runs on the controller. Check mode writes nothing. No value is shown or returned.
options:
  path:
    description: File of variables, usually C(group_vars/all/secrets.yml) of an inventory.
    type: path
    required: true
  replace:
    description: Whether every secret that can be is made anew.
    type: bool
    default: false
  rotate:
    description: Names of secrets that are made anew.
    type: list
    elements: str
    default: []
  data_moved:
    description: Says that what keys of stored data protect was copied, or that nothing is stored; then they are made anew too.
    type: bool
    default: false
  vault_id:
    description:
      - Name of the vault identity to encrypt with.
      - Empty takes one that the file has, else the first one of the run that is not C(example), whose password is public.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Says what would be made and why.}
"""

EXAMPLES = r"""
- name: What is missing
  luxima.observability.secrets:
    path: inventories/staging/group_vars/all/secrets.yml

- name: Two of them anew
  luxima.observability.secrets:
    path: inventories/staging/group_vars/all/secrets.yml
    rotate: [grafana_admin_password, loki_s3_secret_key]
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
kept:
  description: The former file; empty when nothing was written or there was none.
  returned: success
  type: str
vault_id:
  description: The identity the values are encrypted with; empty when nothing was to be written.
  returned: success
  type: str
names:
  description: The variables in the file.
  returned: success
  type: list
  elements: str
secrets:
  description: What happened to each secret, and why.
  returned: success
  type: dict
  sample: {minio_kms_secret_key: "kept: it protects stored data"}
"""
