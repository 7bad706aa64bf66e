# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Connections as modules take them; described in the documentation fragment `connections`."""

from __future__ import annotations

from typing import Any

CONNECTION: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "ca_file": {"type": "str", "default": ""},
    "client_cert": {"type": "str", "default": ""},
    "client_key": {"type": "str", "default": "", "no_log": False},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "tenant": {"type": "str", "default": ""},
}
# The administrator of object storage.
STORAGE: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "region": {"type": "str", "default": "us-east-1"},
    "ca_file": {"type": "str", "default": ""},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}


def each(**options: Any) -> dict[str, Any]:
    """A list of mappings, empty by default."""
    return {"type": "list", "elements": "dict", "default": [], "options": options}


SERVERS = each(**CONNECTION)
TEMPO = each(
    **CONNECTION,
    otlp_http_url={"type": "str", "default": ""},
    otlp_grpc_endpoint={"type": "str", "default": ""},
)
