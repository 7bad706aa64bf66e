# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks requests against the reduced API schema beside this file."""

from __future__ import annotations

import functools
import gzip
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ParameterError

DATA = Path(__file__).with_name("pve-api.json.gz")

_UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
_MISSING = "property is missing and it is not optional"
_INDEXED = re.compile(r"^(.*)\[n\]$")
_SPLIT = re.compile(r"[;,\0 ]+")
_HOSTNAME = r"([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)"

# Named formats as the server spells them; a name that is not here is not checked.
_PATTERNS = {
    "pve-node": rf"{_HOSTNAME}",
    "dns-name": rf"({_HOSTNAME}\.)*{_HOSTNAME}",
    "pve-storage-id": r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]",
    "pve-vmid": r"[1-9][0-9]{2,8}",
    "pve-configid": r"[a-zA-Z][a-zA-Z0-9\-_]+",
    "pve-poolid": r"[A-Za-z0-9._\-]+(/[A-Za-z0-9._\-]+)*",
    "pve-userid": r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+",
    "pve-realm": r"[A-Za-z][A-Za-z0-9.\-_]+",
    "pve-tag": r"[a-zA-Z0-9_][a-zA-Z0-9_\-+.]*",
    "pve-iface": r"[a-zA-Z][a-zA-Z0-9_]{1,20}([:.]\d+)?",
    "mac-addr": r"[a-fA-F0-9][02468aceACE][:\-]?([a-fA-F0-9]{2}[:\-]?){4}[a-fA-F0-9]{2}",
    "disk-size": r"\d+(\.\d+)?[KMGT]?",
    "urlencoded": r"[-%a-zA-Z0-9_.!~*'()]*",
    "pve-volume-id": r"[a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]:.+",
    "pve-startup-order": r"((order=)?\d+|up=\d+|down=\d+)(,((order=)?\d+|up=\d+|down=\d+))*",
    "pve-lxc-mp-string": r"(?!.*(^|/)\.\.(/|$)).+",
}


#: Highest index of an option that has one.
_HIGHEST = {
    "dev": 255,
    "hostpci": 15,
    "ide": 3,
    "ipconfig": 31,
    "mp": 255,
    "net": 31,
    "numa": 7,
    "parallel": 2,
    "sata": 5,
    "scsi": 30,
    "serial": 3,
    "unused": 255,
    "usb": 13,
    "virtio": 15,
    "virtiofs": 9,
}


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Perl's spelling of inline flags.
    return re.compile(re.sub(r"\(\?\^([a-z]*):", lambda m: f"(?{m[1]}:" if m[1] else "(?:", pattern))


def _is_address(value: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(value).version == version
    except ValueError:
        return False


def _is_cidr(value: str, version: int) -> bool:
    try:
        return "/" in value and ipaddress.ip_interface(value).version == version
    except ValueError:
        return False


def _format_error(name: str, value: str) -> str | None:
    """The server's words when `value` has not the format `name`."""
    if name.endswith("-list") and name not in ("lxc-ip-with-ll-iface-list",):
        for part in filter(None, _SPLIT.split(value)):
            error = _format_error(name[: -len("-list")], part)
            if error:
                return error
        return None
    if name == "lxc-ip-with-ll-iface-list":
        bad = [p for p in filter(None, _SPLIT.split(value)) if not (_is_address(p, 4) or _is_address(p, 6))]
        return (
            f"value '{bad[0]}' does not look like a valid IP address" if bad and "%" not in bad[0] else None
        )
    if name in ("ipv4", "ipv6", "address", "ip"):
        versions = {"ipv4": (4,), "ipv6": (6,)}.get(name, (4, 6))
        if not any(_is_address(value, version) for version in versions):
            label = {"ipv4": "IPv4 address", "ipv6": "IPv6 address"}.get(name, "IP address")
            return f"value does not look like a valid {label}"
        return None
    if name == "pve-ipv4-config":
        ok = value in ("dhcp", "manual") or _is_cidr(value, 4)
        return None if ok else "value does not look like a valid ipv4 network configuration"
    if name == "pve-ipv6-config":
        ok = value in ("auto", "dhcp", "manual") or _is_cidr(value, 6)
        return None if ok else "value does not look like a valid ipv6 network configuration"
    pattern = _PATTERNS.get(name)
    if pattern and not _compiled(pattern).fullmatch(value):
        known = {"pve-vmid": "VM ID", "pve-node": "node name", "dns-name": "DNS name"}.get(name)
        return f"value does not look like a valid {known}" if known else f"invalid format - value '{value}'"
    return None


def _scalar(prop: Mapping[str, Any], value: Any, errors: dict[str, str], path: str) -> Any:
    """The value in the type of the schema; a fault goes to `errors`."""
    kind = prop.get("type", "string")
    if isinstance(value, bool):
        value = "1" if value else "0"
    if kind == "array":
        items = value if isinstance(value, list) else [value]
        return [_scalar(prop.get("items", {}), item, errors, path) for item in items]
    text = str(value)
    result: Any = text
    if kind == "boolean":
        if text.lower() not in ("1", "0", "on", "off", "yes", "no", "true", "false") or text in (
            "True",
            "False",
        ):
            errors[path] = f"type check ('boolean') failed - got '{text}'"
            return value
        return int(text.lower() in ("1", "on", "yes", "true"))
    if kind in ("integer", "number"):
        try:
            result = int(text) if kind == "integer" else float(text)
        except ValueError:
            errors[path] = f"type check ('{kind}') failed - got '{text}'"
            return value
        if kind == "number" and result == int(result):
            result = int(result)
        low, high = prop.get("minimum"), prop.get("maximum")
        if low is not None and result < float(low):
            errors[path] = f"value must have a minimum value of {low}"
        if high is not None and result > float(high):
            errors[path] = f"value must have a maximum value of {high}"
        return result
    if "maxLength" in prop and len(text) > int(prop["maxLength"]):
        errors[path] = f"value may only be {prop['maxLength']} characters long"
    if "minLength" in prop and len(text) < int(prop["minLength"]):
        errors[path] = f"value must be at least {prop['minLength']} characters long"
    if "enum" in prop and text not in [str(choice) for choice in prop["enum"]]:
        choices = ", ".join(str(choice) for choice in prop["enum"])
        errors[path] = f"value '{text}' does not have a value in the enumeration '{choices}'"
    if "pattern" in prop and not _compiled(prop["pattern"]).fullmatch(text):
        errors[path] = "value does not match the regex pattern"
    form = prop.get("format")
    if isinstance(form, dict):
        faults: dict[str, str] = {}
        parse_properties(form, text, faults)
        if faults:
            first = "\n".join(f"{key}: {text}" if key else text for key, text in faults.items())
            errors[path] = f"invalid format - format error\n{first}"
    elif isinstance(form, str) and text:
        error = _format_error(form, text)
        if error:
            errors[path] = error if error.startswith("invalid format") else f"invalid format - {error}"
    return result


def parse_properties(form: Mapping[str, Any], text: str, errors: dict[str, str]) -> dict[str, Any]:
    """A property string (`name=eth0,bridge=vmbr0`) as a mapping typed by its schema."""
    result: dict[str, Any] = {}
    default_key = next((key for key, sub in form.items() if sub.get("default_key")), None)
    for part in text.split(","):
        if not part:
            continue
        key, sign, value = part.partition("=")
        if not sign:
            if default_key is None:
                errors[""] = "value without key, but schema does not define a default key"
                continue
            key, value = str(default_key), part
        if key not in form:
            errors[key] = _UNKNOWN
            continue
        if key in result:
            errors[key] = "duplicate key in comma-separated list property: " + key
        if "keyAlias" in form[key]:
            # `virtio=<MAC>` says the model by its key.
            result[str(form[key]["keyAlias"])] = key
        name = str(form[key].get("alias", key))
        result[name] = _scalar(form.get(name, form[key]), value, errors, key)
    for key in list(result):
        needs = form.get(key, {}).get("requires")
        if needs and needs not in result:
            errors[needs] = f"missing property - '{key}' requires this property"
    for key, sub in form.items():
        if key not in result and not sub.get("optional") and "alias" not in sub and "keyAlias" not in sub:
            errors[key] = _MISSING
    return result


@dataclass(frozen=True)
class Method:
    """One verb of one path of the API."""

    path: str
    verb: str
    document: Mapping[str, Any]

    @property
    def allow_token(self) -> bool:
        return bool(self.document.get("allowtoken"))

    @property
    def permissions(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document.get("permissions", {})
        return found

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["parameters"]["properties"]
        return found

    def answer_faults(self, answer: Any) -> list[str]:
        """Where an answer is not what the schema declares."""
        return answer_faults(self.document["returns"], answer)

    def property(self, name: str) -> Mapping[str, Any] | None:
        """The schema of a parameter; `net0` is found as `net[n]`."""
        if name in self.properties:
            found: Mapping[str, Any] = self.properties[name]
            return found
        match = re.fullmatch(r"([a-zA-Z\-]+)(0|[1-9]\d*)", name)
        if match is None or int(match[2]) > _HIGHEST.get(match[1], int(match[2])):
            return None
        indexed = self.properties.get(f"{match[1]}[n]")
        return indexed if isinstance(indexed, Mapping) else None

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Typed parameters; raises ParameterError naming every fault."""
        errors: dict[str, str] = {}
        result: dict[str, Any] = {}
        for name, value in values.items():
            prop = self.property(name)
            if prop is None or _INDEXED.match(name):
                if self.document["parameters"].get("additionalProperties") in (0, "0", None):
                    errors[name] = _UNKNOWN
                continue
            if value is None:
                continue
            result[name] = _scalar(prop, value, errors, name)
            needs = prop.get("requires")
            if needs and needs not in values:
                errors[needs] = f"missing property - '{name}' requires this property"
        for name, prop in self.properties.items():
            if not prop.get("optional") and name not in values and not _INDEXED.match(name):
                errors[name] = _MISSING
        if errors:
            raise ParameterError(errors)
        return result


def answer_faults(shape: Mapping[str, Any], value: Any, path: str = "") -> list[str]:
    """Where an answer is not what the schema declares. Like the server, numbers may be told as text."""
    kind = str(shape.get("type", "null"))
    if value is None:
        return [] if kind == "null" or shape.get("optional") else [f"{path or 'data'} is missing"]
    good = {
        "null": False,
        "any": True,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
        "string": isinstance(value, (str, int, float)),
        "boolean": value in (0, 1, "0", "1", True, False),
        "integer": isinstance(value, int) or (isinstance(value, str) and value.lstrip("-").isdigit()),
        "number": isinstance(value, (int, float, str)),
    }.get(kind, True)
    if not good:
        return [f"{path or 'data'} is {type(value).__name__} and not {kind}"]
    if "enum" in shape and value not in shape["enum"]:
        return [f"{path} is {value!r} and none of {shape['enum']}"]
    found: list[str] = []
    if isinstance(value, list) and "items" in shape:
        for number, item in enumerate(value):
            found += answer_faults(shape["items"], item, f"{path}[{number}]")
    if isinstance(value, dict):
        for name, sub in shape.get("properties", {}).items():
            if not _INDEXED.match(name):
                found += answer_faults(sub, value.get(name), f"{path}.{name}")
    return found


def _group(name: str) -> str:
    # Only a volume id may contain slashes.
    return f"(?P<{name.replace('-', '_')}>{'.+' if name == 'volume' else '[^/]+'})"


class Schema:
    """All methods, found by concrete path."""

    def __init__(self, paths: Mapping[str, Mapping[str, Any]]) -> None:
        self.paths = paths
        self._routes: list[tuple[re.Pattern[str], str]] = []
        # A literal segment wins over a parameter, so the most literal template is asked first.
        for path in sorted(paths, key=lambda p: (p.count("{"), p)):
            parts = re.split(r"\{([^}]+)\}", path)
            regex = "".join(
                re.escape(part) if index % 2 == 0 else _group(part) for index, part in enumerate(parts)
            )
            self._routes.append((re.compile(regex), path))

    def resolve(self, path: str) -> tuple[str, dict[str, str]] | None:
        """The path's template and its parameters."""
        for regex, template in self._routes:
            match = regex.fullmatch(path)
            if match:
                return template, match.groupdict()
        return None

    def method(self, template: str, verb: str) -> Method | None:
        document = self.paths.get(template, {}).get(verb)
        return Method(template, verb, document) if document else None


@functools.cache
def load() -> Schema:
    document = json.loads(gzip.decompress(DATA.read_bytes()))
    return Schema(document["paths"])
