# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Arguments of the module `artifacts`, for the module and for its action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._artifacts.engine import SOURCES, Options
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.lock import ARCHITECTURES

ARGUMENTS: dict[str, dict[str, Any]] = {
    "names": {"type": "list", "elements": "str"},
    "architectures": {
        "type": "list",
        "elements": "str",
        "choices": list(ARCHITECTURES),
        "default": ["amd64"],
    },
    "sources": {"type": "list", "elements": "str", "choices": list(SOURCES), "default": list(SOURCES)},
    "cache_dir": {"type": "path", "required": True},
    "lock_file": {"type": "path", "default": ""},
    "directory": {"type": "path", "default": ""},
    "mirror_url": {"type": "str", "default": ""},
    "timeout": {"type": "float", "default": 20},
}


def options(params: Mapping[str, Any], check: bool) -> Options:
    """The engine's options from validated arguments."""
    return Options(check=check, **{key: params[key] for key in ARGUMENTS})
