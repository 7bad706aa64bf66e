# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A patch over a configuration: how it is merged, and what of the configuration it must not replace. Pure.

Mappings are merged; anything else in the patch takes the place of what the role has. `+key` adds the items of its list to those of the role.
What must not be replaced is seen in the role's own text: `base` below is the configuration with its templates, not their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ADD = "+"
_TEMPLATE = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_TEXT = re.compile(r"'[^']*'|\"[^\"]*\"")
_NAME = re.compile(r"(?<![\w.])_{0,2}[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
# Facts that other hosts, the firewall or the policy of retention go by, told by their names.
_FACT = re.compile(r"\w+_(?:port|path|auth_enabled|multitenancy_enabled)|platform_retention\w*")


class OverlayError(ValueError):
    """A patch that does not fit; the message names the key and the way out."""


def merged(base: Mapping[str, Any], patch: Mapping[str, Any], variable: str = "") -> dict[str, Any]:
    """The configuration with the patch over it. `variable` is what the patch is called in messages."""
    found: dict[str, Any] = dict(base)
    for key, value in patch.items():
        where = f"{variable}.{key}" if variable else str(key)
        if isinstance(key, str) and key.startswith(ADD):
            found[key[len(ADD) :]] = _added(found.get(key[len(ADD) :], []), value, where)
        elif isinstance(value, Mapping):
            have = found.get(key)
            found[key] = merged(have if isinstance(have, Mapping) else {}, value, where)
        else:
            found[key] = value
    return found


def _added(have: Any, more: Any, where: str) -> list[Any]:
    if not isinstance(have, list) or not isinstance(more, list):
        kind = "the patch has" if isinstance(have, list) else "the role has there"
        raise OverlayError(f"{where}: adds to a list, but what {kind} is none; write the key without {ADD}")
    return [*have, *more]


def faults(
    variable: str, base: Mapping[str, Any], patch: Mapping[str, Any], defined: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) of everything that a patch must leave alone.

    `defined` has every variable as it is written: a template may be built of private ones.
    """
    for key, value in patch.items():
        where = f"{variable}.{key}"
        have = base.get(key)
        if isinstance(have, Mapping) and isinstance(value, Mapping):
            yield from faults(where, have, value, defined)
        elif isinstance(have, str) and _TEMPLATE.search(have):
            told = _replaced(key, value, sources(have, defined))
            if told:
                yield where, told


def _replaced(key: str, value: Any, names: list[str]) -> str:
    facts = [name for name in names if _FACT.fullmatch(name)]
    policy = next((name for name in facts if name.startswith("platform_retention")), "")
    if policy or (facts and not isinstance(value, list)):
        fact = policy.removesuffix("_plan") or facts[0]
        return f"follows from {fact}, by which others go too; set that, and leave it out here"
    if isinstance(value, list):
        of = f" ({', '.join(names[:6])})" if names else ""
        return f"would replace the whole list that the platform builds{of}; write {ADD}{key} to add to it, or set what it is built of"
    return ""


def sources(text: str, defined: Mapping[str, Any]) -> list[str]:
    """Public variables that a template is made of, through the private ones it names; in the order they are met."""
    found: dict[str, None] = {}
    seen: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            for item in value.values():
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif isinstance(value, str):
            for expression in _TEMPLATE.findall(value):
                for name in _NAME.findall(_TEXT.sub("", expression)):
                    if not name.startswith("__") and name in defined:
                        found.setdefault(name)
                    elif name not in seen:
                        seen.add(name)
                        walk(defined.get(name, ""))

    walk(text)
    return list(found)


def of_role(role: str, variables: Mapping[str, Any], patch: Any) -> list[tuple[str, str]]:
    """The faults of `<role>_config`; `variables` are those of the role as they are written, `patch` its value."""
    base = variables.get(f"__{role}_config_base")
    if not isinstance(base, Mapping) or not isinstance(patch, Mapping):
        return []
    return list(faults(f"{role}_config", base, patch, variables))
