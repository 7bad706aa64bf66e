# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What each secret protects, from `roles/<role>/meta/secrets.yml`: the one place that says so.

::

    <variable>: {protects: stored_data | connection | login, length: 40, name: <variable>, form: text | structure, consumers: [..]}

`length`: characters that playbooks/secrets.yml makes; without it, somebody else issues the secret. `name`: the variable with the public
half of a pair; a rotation makes a new pair, and the former one stays valid until it is retired. `structure`: secrets are somewhere within.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STORED_DATA, CONNECTION, LOGIN = "stored_data", "connection", "login"
PROTECTS = (STORED_DATA, CONNECTION, LOGIN)
FORMS = ("text", "structure")
KEYS = ("protects", "length", "name", "form", "consumers")
FILE = Path("meta", "secrets.yml")


class DeclarationError(ValueError):
    """A declaration that cannot be used; the message says which, and what is expected."""


@dataclass(frozen=True)
class Secret:
    """One declared secret."""

    variable: str
    role: str
    protects: str
    consumers: tuple[str, ...]
    length: int = 0
    name: str = ""
    form: str = "text"


def parse(role: str, found: Any) -> dict[str, Secret]:
    """The secrets of one role. Raises DeclarationError."""
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise DeclarationError(f"role {role}: {FILE}: expected a mapping of variables")
    return {str(variable): _one(role, str(variable), entry) for variable, entry in found.items()}


def _one(role: str, variable: str, entry: Any) -> Secret:
    where = f"role {role}: {FILE}: {variable}"
    if not isinstance(entry, Mapping):
        raise DeclarationError(f"{where}: expected a mapping with {', '.join(KEYS)}")
    unknown = sorted(set(map(str, entry)) - set(KEYS))
    if unknown:
        raise DeclarationError(f"{where}: unknown key `{unknown[0]}`; known are {', '.join(KEYS)}")
    protects, form, length = entry.get("protects"), entry.get("form", "text"), entry.get("length", 0)
    if protects not in PROTECTS:
        raise DeclarationError(
            f"{where}: protects: expected one of {', '.join(PROTECTS)}, found {protects!r}"
        )
    if form not in FORMS:
        raise DeclarationError(f"{where}: form: expected one of {', '.join(FORMS)}, found {form!r}")
    if not isinstance(length, int) or isinstance(length, bool) or length < 0 or (length and form != "text"):
        raise DeclarationError(f"{where}: length: expected the characters of a text, found {length!r}")
    if entry.get("name") and (protects != CONNECTION or not length):
        raise DeclarationError(
            f"{where}: name: only a connection's secret that is made here has another half"
        )
    consumers = entry.get("consumers")
    if not isinstance(consumers, list) or not consumers:
        raise DeclarationError(f"{where}: consumers: expected the components that hold it")
    return Secret(
        variable=variable,
        role=role,
        protects=str(protects),
        consumers=tuple(map(str, consumers)),
        length=int(length),
        name=str(entry.get("name") or ""),
        form=str(form),
    )


def read(roles: Path, load: Callable[[str], Any]) -> dict[str, Secret]:
    """Every declared secret by its variable, of all roles below a folder."""
    found: dict[str, Secret] = {}
    for file in sorted(roles.glob(f"*/{FILE}")):
        found.update(parse(file.parents[1].name, load(str(file))))
    return found


def variables(roles: Path) -> set[str]:
    """The names of those that are one text; read as text, which costs next to nothing."""
    lines = [
        line
        for file in sorted(roles.glob(f"*/{FILE}"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return {
        line.partition(":")[0]
        for line in lines
        if re.match(r"[a-z]\w*: *\{", line) and "form: structure" not in line
    }
