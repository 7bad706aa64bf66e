# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Stages that take secrets out of a line: in records, records inside records, headers and key=value text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Stage = dict[str, Any]


def stages(keys: Sequence[str], text: str) -> list[Stage]:
    """Each replaces what its group holds; no keys, no masking."""
    if not keys:
        return []
    key = "(?:" + "|".join(re.escape(str(one)) for one in keys) + ")"
    name = rf"(?:[\w.-]+\.)?{key}"
    patterns = [
        # "key": "value"
        (rf'(?i)"{name}"\s*:\s*"((?:[^"\\]|\\.)+)"', text),
        # The same in a record that is the text of another one: \"key\":\"value\"
        (rf'(?i)\\"{name}\\"\s*:\s*\\"((?:[^"\\]|\\\\(?:\\["\\]|[^"\\]))+)', text),
        # "key": 42
        (rf'(?i)"{name}"\s*:\s*(-?[0-9][0-9.eE+-]*|true|false)', f'"{text}"'),
        (r"""(?i)\bauthorization"?\s*[:=]\s*"?(?:bearer|basic)\s+([^\s"',]+)""", text),
        # key=value, as in query strings and logfmt
        (rf"""(?i)(?:^|[?&\s;,]){key}=([^&\s"';,]+)""", text),
        (rf"""(?i)(?:^|[?&\s;,]){key}=(?:"((?:[^"\\]|\\.)+)"|'([^']+)')""", text),
    ]
    return [{"replace": {"expression": pattern, "replace": new}} for pattern, new in patterns]
