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
    # Whatever stands before it, but for a longer word; an escaped line feed is part of none.
    said = rf"(?:\b|\\[nrt]|\\u[0-9a-f]{{4}}){name}(?:[ \t]+=[ \t]*|=)"
    inner = r'"(?:[^"\\]|\\.)*"'
    number = "-?[0-9][0-9.eE+-]*|true|false"
    # What is cut off has no end.
    patterns = [
        # "key": "value"
        (rf'(?i)"{name}"\s*:\s*"((?:[^"\\]|\\.)+)', text),
        # The same in a record that is the text of another one: \"key\":\"value\"
        (rf'(?i)\\"{name}\\"\s*:\s*\\"((?:[^"\\]|\\\\(?:\\["\\]|[^"\\]))+)', text),
        # And of another one again
        (rf'(?i)\\{{2,}}"{name}\\{{2,}}"\s*:\s*\\{{2,}}"((?:[^"\\]|\\+[^"\\])+)', text),
        # "key": 42, "key": ["value", ..] as headers are written, and "key": {..}
        (
            rf'(?i)"{name}"\s*:\s*({number}|\[(?:{inner}|[^"\]])+\]?|\{{(?:{inner}|[^"{{}}])+\}})',
            f'"{text}"',
        ),
        (rf'(?i)\\"{name}\\"\s*:\s*({number}|\[[^\]]+\]?|\{{[^{{}}]+\}})', rf"\"{text}\""),
        # 'key': 'value'
        (rf"(?i)'{name}'\s*:\s*'((?:[^'\\]|\\.)+)", text),
        (r"""(?i)\bauthorization"?\s*[:=]\s*"?(?:bearer|basic)\s+([^\s"',]+)""", text),
        # key=value, as in query strings and logfmt; the value in quotes, also in those of a text within a record
        (rf"""(?i){said}(\\*[^&\s"';,\\][^&\s"';,]*)""", text),
        (rf"""(?i){said}(?:"((?:[^"\\]|\\.)+)|'([^']+))""", text),
        (rf"""(?i){said}\\"((?:[^"\\]|\\\\(?:\\["\\]|[^"\\]))+)""", text),
        # scheme://user:password@host
        (r"""(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@"']*:([^\s/@"']+)@""", text),
    ]
    return [{"replace": {"expression": pattern, "replace": new}} for pattern, new in patterns]
