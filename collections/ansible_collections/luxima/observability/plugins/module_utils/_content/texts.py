# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Values that are written as they are, into an environment or a file: text or a number. What another language would
write for true, nothing or a list is never meant. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .faults import Problem, kind


def problems(given: Any, variable: str) -> list[Problem]:
    """`given`: name to text. Values are not shown: they may be secrets."""
    if not isinstance(given, Mapping):
        return [(variable, f"is {kind(given)}; write a mapping of name to text")]
    return [
        (f"{variable}.{name}", f'is {kind(value)}; write text, such as "{_example(value)}"')
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, (str, int, float))
    ]


def _example(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "a,b" if isinstance(value, (list, tuple)) else ""
