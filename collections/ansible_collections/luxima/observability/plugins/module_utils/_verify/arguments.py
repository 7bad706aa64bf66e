# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The arguments of module verify."""

from __future__ import annotations

from typing import Any

from .._servers.arguments import SERVERS, TEMPO, each
from .names import NAMES

SPEC: dict[str, Any] = {
    "environment": {"type": "str", "required": True},
    "prometheus": SERVERS,
    "alertmanager": SERVERS,
    "loki": SERVERS,
    "grafana": SERVERS,
    "tempo": TEMPO,
    "minio": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "region": {"type": "str", "default": "us-east-1"},
            "ca_file": {"type": "str", "default": ""},
        },
    },
    "buckets": each(
        name={"type": "str", "required": True},
        consumer={"type": "str", "default": ""},
        access_key={"type": "str", "required": True, "no_log": False},
        secret_key={"type": "str", "required": True, "no_log": True},
        prefix={"type": "str"},
        versioning={"type": "bool"},
        encryption={"type": "str"},
        quota={"type": "str"},
        lifecycle={"type": "list", "elements": "dict"},
        foreign_rules={"type": "str"},
        key_deletes={"type": "bool", "no_log": False},
        object_lock={"type": "bool"},
    ),
    "expected_targets": each(
        component={"type": "str", "required": True},
        address={"type": "str", "required": True},
        path={"type": "str", "default": "/metrics"},
        scheme={"type": "str", "default": "http"},
    ),
    "receivers": {"type": "bool", "default": False},
    "dashboards": {"type": "dict", "default": {}},
    "log_lines": {"type": "dict", "default": {}},
    "retention": {"type": "dict"},
    "checks": {"type": "list", "elements": "str", "default": [], "choices": list(NAMES)},
    "components": {"type": "list", "elements": "str", "default": []},
    "active": {"type": "bool", "default": True},
    "deadline": {"type": "int", "default": 120},
    "report": {"type": "path", "default": ""},
    "progress_file": {"type": "path", "default": ""},
}
