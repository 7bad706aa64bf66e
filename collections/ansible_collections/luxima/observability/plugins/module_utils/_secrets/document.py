# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A file of variables, edited as text: what is not replaced stays as somebody wrote it, with its comments. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

VAULT = "!vault"


class DocumentError(ValueError):
    """A file that cannot be edited without a risk to what it holds."""


@dataclass(frozen=True)
class Entry:
    """One variable: where it stands in the text, and its value as written (the ciphertext, when it is a vaulted one)."""

    name: str
    start: int
    end: int
    tag: str
    value: str
    scalar: bool

    @property
    def vaulted(self) -> bool:
        return self.tag == VAULT


def read(text: str) -> dict[str, Entry]:
    """Every variable of the file. Raises DocumentError; its message holds no value."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}" if mark else ""
        raise DocumentError(
            f"it is no YAML{at}: {getattr(error, 'problem', None) or 'it cannot be read'}"
        ) from None
    # A file with `---` or comments alone holds nothing.
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return {}
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise DocumentError("it is no list of variables, one `name: value` after the other")
    found: dict[str, Entry] = {}
    for key, value in root.value:
        name = str(key.value)
        if name in found:
            raise DocumentError(f"{name} stands there twice (line {key.start_mark.line + 1}); take one out")
        scalar = isinstance(value, yaml.ScalarNode)
        start = key.start_mark.index
        found[name] = Entry(
            name=name,
            start=start,
            end=_line_end(text, start + len(text[start : value.end_mark.index].rstrip())),
            tag=value.tag if value.tag.startswith("!") else "",
            value=value.value if scalar else text[value.start_mark.index : value.end_mark.index],
            scalar=scalar,
        )
    return found


def written(text: str, changes: Mapping[str, str]) -> str:
    """The text with these variables replaced, or added at its end; C(changes) are name -> lines. Raises DocumentError."""
    old = read(text)
    new = text
    for entry in sorted(old.values(), key=lambda item: item.start, reverse=True):
        if entry.name in changes:
            new = new[: entry.start] + _lines(changes[entry.name]) + new[entry.end :]
    new = new if not new or new.endswith("\n") else new + "\n"
    new += "".join(_lines(lines) for name, lines in changes.items() if name not in old)
    now = read(new)
    lost = [
        name
        for name, entry in old.items()
        if name not in changes
        and (name not in now or (now[name].tag, now[name].value) != (entry.tag, entry.value))
    ]
    if lost or set(now) != {*old, *changes}:
        raise DocumentError(f"it cannot be edited as text: {', '.join(lost) or 'its end'} would change")
    return new


def vaulted(name: str, ciphertext: str) -> str:
    """The lines of a vaulted variable."""
    return "\n".join([f"{_key(name)}: {VAULT} |", *(f"  {line}" for line in ciphertext.strip().splitlines())])


def plain(name: str, value: str) -> str:
    """The line of a variable in clear text, which is never a template."""
    return f"{_key(name)}: {yaml.safe_dump(value, default_style=chr(34), width=10_000).strip()}"


def _key(name: str) -> str:
    """Quoted where YAML would read something else than a name: no, on, null."""
    return yaml.safe_dump(name, width=10_000).removesuffix("\n").removesuffix("\n...")


def _lines(text: str) -> str:
    return text.rstrip("\n") + "\n"


def _line_end(text: str, index: int) -> int:
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1
