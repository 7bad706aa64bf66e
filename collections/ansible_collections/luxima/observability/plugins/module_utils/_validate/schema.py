# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the roles say about their variables: defaults and argument specs, and one value checked against them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .._component.manifest import plain
from . import additions, forms
from .faults import Fault

# Variables of inventories that no component owns.
SHARED_PREFIXES = ("platform_", "guest_", "proxmox_")
_SECRET = re.compile(r"(password|secret|secret_key)$")


@dataclass
class Role:
    """A role's public face. C(defaults) are templates, C(options) its argument spec."""

    name: str
    defaults: dict[str, Any] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The role's private variables, as they are written.
    private: dict[str, Any] = field(default_factory=dict)
    # Why the argument spec could not be read.
    unreadable: str = ""

    @property
    def names(self) -> set[str]:
        return self.defaults.keys() | self.options.keys()

    def is_secret(self, name: str) -> bool:
        return bool(self.options.get(name, {}).get("no_log")) or bool(_SECRET.search(name))

    def holds_secret(self, name: str) -> bool:
        """Whether it is one, or has one within."""
        return self.is_secret(name) or _hidden(self.options.get(name, {}))


def _hidden(option: Mapping[str, Any]) -> bool:
    """Whether an option, or one within it, is secret."""
    return bool(option.get("no_log")) or any(_hidden(one) for one in (option.get("options") or {}).values())


def read_roles(folder: Path, load: Callable[[str], Any]) -> dict[str, Role]:
    """Every role below a folder that has defaults; C(load) reads one YAML file with templates trusted."""
    homes = sorted(path for path in folder.iterdir() if path.is_dir())
    return {home.name: read_role(home, load) for home in homes}


def read_role(home: Path, load: Callable[[str], Any]) -> Role:
    """One role, by its folder."""
    role = Role(home.name)
    for file in [*sorted(home.glob("defaults/main/*.yml")), home / "defaults" / "main.yml"]:
        if file.is_file():
            role.defaults.update(load(str(file)) or {})
    private = home / "vars" / "main.yml"
    if private.is_file():
        role.private = load(str(private)) or {}
    spec = home / "meta" / "argument_specs.yml"
    if spec.is_file():
        try:
            (entry,) = load(str(spec))["argument_specs"].values()
            role.options = entry.get("options") or {}
        except (AnsibleError, AttributeError, KeyError, TypeError, ValueError) as error:
            role.unreadable = f"{spec}: {error}".replace("\n", " ")
    return role


def switches(playbooks: Path | None) -> set[str]:
    """Variables of runs rather than of inventories: those that playbooks name themselves."""
    if playbooks is None:
        return set()
    text = _texts(playbooks.glob("*.yml"))
    return set(re.findall(r"\b(?:platform|guest|proxmox)_\w+|(?<=register: )\w+", text))


def names(roles: Path) -> set[str]:
    """What read_roles() knows the names of, and what tasks register; read as text, which costs a few milliseconds."""
    defaults = _texts(roles.glob("*/defaults/**/*.yml"))
    specs = _texts(roles.glob("*/meta/argument_specs.yml"))
    tasks = _texts(roles.glob("*/tasks/*.yml"))
    return {
        *re.findall(r"^([a-z]\w*):", defaults, re.MULTILINE),
        *re.findall(r"^ {6}([a-z]\w*):", specs, re.MULTILINE),
        *re.findall(r"(?<=register: )\w+", tasks),
    }


def added(roles: Path) -> set[str]:
    """Variables that others add to, each as C(<name>_*)."""
    text = _texts(file for part in ("defaults", "vars") for file in roles.glob(f"*/{part}/**/*.yml"))
    return {f"{name}_*" for name in additions.read_in(text)}


def bases(known: Iterable[str]) -> set[str]:
    """The variables of added() among what is known."""
    return {name[:-2] for name in known if name.endswith("_*")}


def _texts(files: Iterable[Path]) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(files))


def unknown(names: Iterable[str], known: set[str], components: Iterable[str], host: str) -> list[Fault]:
    """Variables that carry an owner's prefix but that the owner does not know."""
    prefixes = tuple(f"{component}_" for component in components) + SHARED_PREFIXES
    faults = []
    strange = sorted(name for name in names if name.startswith(prefixes) and name not in known)
    shared = bases(known) if strange else set()
    for name in (name for name in strange if not additions.base_of(name, shared)):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "remove it, or name it without this prefix"
        faults.append(Fault(name, host, f"no such variable; {hint}"))
    return faults


def unlike(values: Mapping[str, Any], known: Iterable[str], variable: str, host: str) -> list[Fault]:
    """Keys of an open mapping that are a known key misspelled. Really new keys are an inventory's own business."""
    known = sorted(known)
    faults = []
    for key in sorted(key for key in map(str, values) if key not in known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if near:
            faults.append(Fault(f"{variable}.{key}", host, f"no such key; did you mean {near[0]}?"))
    return faults


_NOTHING = {"list": "[] for none", "dict": "{} for none", "str": '"" for none', "path": '"" for none'}


def nothing(name: str, option: Mapping[str, Any], host: str) -> Fault | None:
    """A variable whose name is written without a value, which YAML reads as null and templates as a word."""
    if option.get("required"):
        return None
    kind = str(option.get("type", "str"))
    way_out = _NOTHING.get(kind, f"a value (type {kind})")
    return Fault(
        name, host, f"is written without a value; write {way_out}, or take the line out for the default"
    )


def check_value(name: str, option: dict[str, Any], value: Any, host: str, secret: bool) -> list[Fault]:
    """One value against its option. A secret is never shown."""
    # Defaults and presence are decided by the caller; the rest is core's own reading of the spec.
    spec = {name: {key: item for key, item in option.items() if key not in ("default", "required")}}
    # Core would turn a mapping into its text.
    if option.get("type", "str") in ("str", "path") and isinstance(value, (Mapping, list)):
        kind = "mapping" if isinstance(value, Mapping) else "list"
        return [Fault(name, host, f"is a {kind}; write one text")]
    # And a text, or a number, into a list or a mapping that the role never sees: it would go through its characters.
    wanted = {"list": "a list", "dict": "a mapping"}.get(option.get("type", "str"), "")
    if wanted and isinstance(value, (str, int, float)) and value != "":
        return [Fault(name, host, f"is {'a text' if isinstance(value, str) else 'a number'}; write {wanted}")]
    # Core copies what it checks, and Ansible's own types are slow to copy.
    messages = ArgumentSpecValidator(spec).validate({name: plain(value)}).error_messages
    if messages and secret:
        return [
            Fault(
                name, host, f"is not of type {option.get('type', 'str')}; the value is secret and not shown"
            )
        ]
    if messages:
        return [Fault(name, host, _plain(message, name)) for message in messages]
    return forms.check(name, value, host, secret)


def _plain(message: str, name: str) -> str:
    text = re.sub(
        r"<class '(?:[\w.]*\.)?_?(?:AnsibleTagged)?(\w+)'>", lambda match: match[1].lower(), message
    )
    text = re.sub(rf"^argument '?{re.escape(name)}'? is", "is", text)
    text = re.sub(r"found in [\w.]+ -> ", "found in ", text)
    return text[0].lower() + text[1:]
