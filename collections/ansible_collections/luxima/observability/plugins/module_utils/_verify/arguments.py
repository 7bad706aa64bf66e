# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The arguments of module verify."""

from __future__ import annotations

from typing import Any

from .names import NAMES

_CONNECTION: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "ca_file": {"type": "str", "default": ""},
    "client_cert": {"type": "str", "default": ""},
    "client_key": {"type": "str", "default": "", "no_log": False},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "tenant": {"type": "str", "default": ""},
}


def _servers(**more: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": {**_CONNECTION, **more}}


def _list(**options: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


SPEC: dict[str, Any] = {
    "environment": {"type": "str", "required": True},
    "prometheus": _servers(),
    "alertmanager": _servers(),
    "loki": _servers(),
    "grafana": _servers(),
    "tempo": _servers(
        otlp_http_url={"type": "str", "required": True},
        otlp_grpc_endpoint={"type": "str", "required": True},
    ),
    "minio": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "region": {"type": "str", "default": "us-east-1"},
            "ca_file": {"type": "str", "default": ""},
        },
    },
    "buckets": _list(
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
    ),
    "expected_targets": _list(
        component={"type": "str", "required": True},
        address={"type": "str", "required": True},
        path={"type": "str", "default": "/metrics"},
        scheme={"type": "str", "default": "http"},
    ),
    "log_lines": {"type": "dict", "default": {}},
    "retention": {"type": "dict"},
    "checks": {"type": "list", "elements": "str", "default": [], "choices": list(NAMES)},
    "components": {"type": "list", "elements": "str", "default": []},
    "active": {"type": "bool", "default": True},
    "deadline": {"type": "int", "default": 120},
    "report": {"type": "path", "default": ""},
    "progress_file": {"type": "path", "default": ""},
}
