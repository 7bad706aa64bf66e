#!/usr/bin/env python3
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Writes the table of variables in each role's README from its argument_specs and defaults.

docs/variables.py          rewrite the part between `<!-- variables -->` and `<!-- /variables -->`
docs/variables.py --check  change nothing; say what is stale or contradicts itself and end with 1
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"


class _Loader(yaml.SafeLoader):
    """Ansible's own tags are read as what they hold."""


def _inner(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("!", _inner)


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _Loader(path.read_text(encoding="utf-8")).get_single_data() or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path.relative_to(ROLES.parent)}: {' '.join(str(error).split())}") from None
    return found


def defaults(role: Path) -> dict[str, Any]:
    """Every default of a role, from defaults/main.yml or defaults/main/*.yml."""
    found: dict[str, Any] = {}
    for path in [role / "defaults/main.yml", *sorted((role / "defaults/main").glob("*.yml"))]:
        if path.is_file():
            found.update(_load(path))
    return found


def options(role: Path) -> dict[str, Any]:
    """The public variables of a role by name; empty for a role without any."""
    path = role / "meta/argument_specs.yml"
    if not path.is_file():
        return {}
    (entry,) = _load(path)["argument_specs"].values()
    return dict(entry.get("options") or {})


def faults(role: Path) -> list[str]:
    """Where specification and defaults of a role contradict each other."""
    spec, have = options(role), defaults(role)
    found = [
        f"{role.name}: {name} has a default and no specification" for name in sorted(set(have) - set(spec))
    ]
    for name, option in spec.items():
        if not option.get("description"):
            found.append(f"{role.name}: {name} has no description")
        if option.get("required") and name in have:
            found.append(f"{role.name}: {name} is required and has a default")
        if not option.get("required") and name not in have and "default" not in option:
            found.append(f"{role.name}: {name} is not required and has no default")
    return found


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()).replace("|", "\\|")
    if len(text) > 90:
        return "see `defaults/`"
    return f"`{text}`" if text else '`""`'


def _text(description: str | list[str]) -> str:
    text = description if isinstance(description, str) else " ".join(description)
    for mark in ("C", "V", "O"):
        text = text.replace(f"{mark}(", "\0")
    parts = text.split("\0")
    text = parts[0] + "".join("`" + part.replace(")", "`", 1) for part in parts[1:])
    return " ".join(text.split()).replace("|", "\\|")


def table(role: Path) -> str:
    """The table of a role's variables; required ones first."""
    spec, have = options(role), defaults(role)
    lines = ["| variable | type | default | what it is |", "| --- | --- | --- | --- |"]
    for name in sorted(spec, key=lambda name: (not spec[name].get("required"), list(spec).index(name))):
        option = spec[name]
        kind = str(option.get("type", "str"))
        if option.get("elements"):
            kind += f" of {option['elements']}"
        default = (
            "**required**" if option.get("required") else _cell(have.get(name, option.get("default", "")))
        )
        words = _text(option.get("description", ""))
        if option.get("choices"):
            words += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        lines.append(f"| `{name}` | {kind} | {default} | {words} |")
    return "\n".join(lines)


def rewritten(role: Path) -> tuple[str, str]:
    """The README as it is and as it should be. Raises ValueError without markers or for a file that is no YAML."""
    path = role / "README.md"
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ValueError(f"{role.name}: README.md needs the lines {BEGIN} and {END} once each")
    head, rest = old.split(BEGIN)
    tail = rest.split(END)[1]
    return old, f"{head}{BEGIN}\n\n{table(role)}\n\n{END}{tail}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a table is stale")
    parser.add_argument("roles", nargs="*", help="names of roles; all of them by default")
    wanted = parser.parse_args(arguments)
    roles = sorted(path for path in ROLES.iterdir() if (path / "meta/argument_specs.yml").is_file())
    problems: list[str] = []
    for role in roles:
        if wanted.roles and role.name not in wanted.roles:
            continue
        try:
            problems += faults(role)
            old, new = rewritten(role)
        except ValueError as error:
            problems.append(str(error))
            continue
        if old == new:
            continue
        if wanted.check:
            problems.append(f"{role.name}: README.md is stale; run docs/variables.py")
        else:
            (role / "README.md").write_text(new, encoding="utf-8")
            print(f"{role.name}: README.md written")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
