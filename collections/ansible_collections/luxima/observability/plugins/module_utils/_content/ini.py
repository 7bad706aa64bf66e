# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Sections, keys and values as the text of an INI file that Grafana reads back as what was meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .faults import Problem, kind, refuse

_SECTION = re.compile(r"[^\[\]\n\r]+\Z")
_KEY = re.compile(r"[^\s=:#;\[\]\"`][^=:\n\r\"`]*\Z")
# What a reader would take for a comment, a quotation, a continued line, or leave out.
_QUOTED = re.compile(r"[#;\n]|^[\s\"'`]|[\s\\]\Z")
_FENCE = '"""'


def problems(config: Any, variable: str) -> list[Problem]:
    """Everything in a {section: {key: value}} that no INI file can say."""
    if not isinstance(config, Mapping):
        return [(variable, f"is {kind(config)}; write a mapping of sections: {{section: {{key: value}}}}")]
    found: list[Problem] = []
    for section, values in config.items():
        where = f"{variable}.{section}"
        if not _SECTION.match(str(section)):
            found.append((where, "is no name of a section"))
        elif not isinstance(values, Mapping):
            text = f"is {kind(values)}, and a section holds keys; what stands above all sections goes under DEFAULT: {{DEFAULT: {{{section}: ...}}}}"
            found.append((where, text))
        else:
            for key, value in values.items():
                found += _value_problems(f"{where}.{key}", str(section), str(key), value)
    return found


def _value_problems(where: str, section: str, key: str, value: Any) -> list[Problem]:
    if not _KEY.match(key):
        return [(where, "is no name of a key")]
    if value is None:
        return [(where, 'has no value; write "" for empty text, or take the key out')]
    if isinstance(value, Mapping):
        return [(where, f"is a mapping; a section's whole name is one key: {{{section}.{key}: {{...}}}}")]
    if isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, (Mapping, list, tuple)) or item is None:
                return [(where, f"holds {kind(item)}; a list holds single words or numbers")]
            if not _text(item) or re.search(r"[,\s]", _text(item)):
                return [
                    (
                        where,
                        f"{item!r} is no single word; write the whole value as one text, as Grafana's own",
                    )
                ]
        return []
    if _FENCE in _text(value):
        return [(where, 'holds """, which an INI file cannot say')]
    return []


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def text(config: Mapping[str, Any], variable: str) -> str:
    """The file. Lists are written with commas, which Grafana takes wherever it takes several words. Raises ContentError."""
    refuse(problems(config, variable))
    lines: list[str] = []
    for section, values in config.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            shown = ",".join(map(_text, value)) if isinstance(value, (list, tuple)) else _text(value)
            lines.append(f"{key} = {_FENCE}{shown}{_FENCE}" if _QUOTED.search(shown) else f"{key} = {shown}")
        lines.append("")
    return "\n".join(lines) + "\n"
