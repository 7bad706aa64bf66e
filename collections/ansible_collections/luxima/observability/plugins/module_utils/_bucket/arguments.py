# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the action and the module bucket take."""

from __future__ import annotations

from typing import Any

from .._servers.arguments import STORAGE

RULE: dict[str, Any] = {
    "id": {"type": "str", "required": True},
    "prefix": {"type": "str", "default": ""},
    "days": {"type": "int"},
    "noncurrent_days": {"type": "int"},
}
BUCKET: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "consumer": {"type": "str"},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "prefix": {"type": "str"},
    "object_lock": {"type": "bool", "default": False},
    "versioning": {"type": "bool"},
    "encryption": {"type": "str", "choices": ["AES256", "none"]},
    "quota": {"type": "str"},
    "lifecycle": {"type": "list", "elements": "dict", "options": RULE},
    "foreign_rules": {"type": "str", "choices": ["keep", "replace"], "default": "keep"},
    "key_deletes": {"type": "bool", "default": True, "no_log": False},
    "retire_keys": {"type": "bool", "default": False, "no_log": False},
}
ARGUMENTS: dict[str, Any] = {
    "connection": {"type": "dict", "required": True, "options": STORAGE},
    "buckets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": BUCKET,
        "required_together": [["access_key", "secret_key"]],
        "no_log": False,
    },
    "timeout": {"type": "float", "default": 30},
}
