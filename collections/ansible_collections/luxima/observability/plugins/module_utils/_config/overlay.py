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


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the patch over it. What `+` cannot be done for stays as it is written; `faults` tells of it."""
    found: dict[str, Any] = dict(base)
    for key, value in patch.items():
        plain = _plain(key)
        if plain and isinstance(value, list) and isinstance(found.get(plain, []), list):
            found[plain] = [*found.get(plain, []), *value]
        elif isinstance(value, Mapping):
            have = found.get(key)
            found[key] = merged(have if isinstance(have, Mapping) else {}, value)
        else:
            found[key] = value
    return found


def _plain(key: Any) -> str:
    """The key that `+key` adds to; empty for any other."""
    return key[len(ADD) :] if isinstance(key, str) and key.startswith(ADD) else ""


def faults(
    variable: str, base: Mapping[str, Any], patch: Mapping[str, Any], defined: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) of everything that a patch must leave alone.

    `defined` has every variable as it is written: a template may be built of private ones.
    """
    for key, value in patch.items():
        where = f"{variable}.{key}"
        have = base.get(_plain(key) or key)
        if _plain(key):
            if not isinstance(value, list) or not (have is None or isinstance(have, list) or _built(have)):
                yield (
                    where,
                    f"{ADD} adds the items of a list to a list, and here is none; write the key without it",
                )
        elif isinstance(have, Mapping) and isinstance(value, Mapping):
            yield from faults(where, have, value, defined)
        elif _built(have):
            told = _replaced(key, value, sources(str(have), defined))
            if told:
                yield where, told


def _built(have: Any) -> bool:
    return isinstance(have, str) and bool(_TEMPLATE.search(have))


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
