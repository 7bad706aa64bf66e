# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Variables that files beside each other add to: ``<name>`` and every ``<name>_<anything>``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._content.faults import kind

_READ = re.compile(r"""lookup\(\s*['"]luxima\.observability\.together['"]\s*,\s*['"](\w+)['"]""")


class Clash(ValueError):
    """Two of them cannot stand together; the text names both."""


def read_in(text: str) -> set[str]:
    """The variables that a text of a role reads together with what adds to them."""
    return set(_READ.findall(text))


def base_of(name: str, bases: Iterable[str]) -> str:
    """The variable that this one adds to; empty when it is none of that kind."""
    return max((base for base in bases if name.startswith(f"{base}_")), key=len, default="")


def names_of(name: str, variables: Iterable[str]) -> list[str]:
    """The variable itself, if it is there, then those that add to it by name."""
    more = sorted(one for one in variables if one.startswith(f"{name}_"))
    return [*([name] if name in variables else []), *more]


def joined(name: str, values: Mapping[str, Any]) -> Any:
    """All lists as one, or all mappings as one. Raises Clash."""
    given = {one: value for one, value in values.items() if value is not None}
    if not given:
        return []
    if all(isinstance(value, Mapping) for value in given.values()):
        found: dict[Any, Any] = {}
        owners: dict[Any, str] = {}
        for one, value in given.items():
            for key, item in value.items():
                if owners.setdefault(key, one) != one:
                    raise Clash(
                        f"{one}: {key} stands in {owners[key]} too; give it another name, or leave it in one of them"
                    )
                found[key] = item
        return found
    for one, value in given.items():
        if not isinstance(value, list):
            raise Clash(f"{one}: is {kind(value)}; {name} and what adds to it are lists")
    return [item for value in given.values() for item in value]
