# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The text forms of configuration values, both ways. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

TAG = re.compile(r"[a-z0-9_][a-z0-9_+.-]*")
NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
#: Keys of a configuration that name a volume.
VOLUME = re.compile(r"rootfs|(mp|scsi|virtio|sata|ide|efidisk|tpmstate)\d+")
#: A public key as ``authorized_keys`` has it, with or without options before it.
SSH_KEY = re.compile(
    r"(?:\S.* )?(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/]+={0,3}(?: .*)?"
)
#: When a guest starts and stops with its node.
STARTUP = re.compile(r"((order=)?\d+|up=\d+|down=\d+)(,((order=)?\d+|up=\d+|down=\d+))*")
#: What no line of a configuration file can hold.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_GIB = {"": 1 / 2**30, "K": 1 / 2**20, "M": 1 / 2**10, "G": 1.0, "T": 1024.0}


def parse_properties(text: str, default_key: str = "") -> dict[str, str]:
    """Split ``a=1,b=2``; a part without ``=`` gets ``default_key``. Order is kept."""
    result: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, sign, value = part.partition("=")
        if sign:
            result[key] = value
        else:
            result[default_key] = key
    return result


def format_properties(properties: Mapping[str, object], default_key: str = "") -> str:
    """Join to ``a=1,b=2``, the value of ``default_key`` first and bare."""
    parts = [str(properties[default_key])] if default_key in properties else []
    return ",".join(parts + [f"{key}={value}" for key, value in properties.items() if key != default_key])


def parse_size(text: str) -> float:
    """Size of a volume in GiB from ``8G``, ``512M``, ``1T`` or bytes."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a size: {text!r}")
    return float(match[1]) * _GIB[match[2]]


def number(value: float) -> float | int:
    """A whole number as an integer, for people and for JSON."""
    return int(value) if value == int(value) else value


def storage_of(volume: str) -> str:
    """``local-lvm`` of ``local-lvm:vm-100-disk-0,size=8G``; empty for a path or device."""
    first = volume.split(",", 1)[0]
    return first.split(":", 1)[0] if ":" in first and not first.startswith("/") else ""


def split_words(text: str) -> list[str]:
    """Parts of a list value, which servers separate by any of ``; ,`` and blanks."""
    return [word for word in re.split(r"[;,\s]+", text) if word]


def parse_nic(text: str, kind: str) -> dict[str, str]:
    """Properties of a netN value; for a VM the leading ``virtio=MAC`` becomes ``model`` and ``hwaddr``."""
    properties = parse_properties(text, "model" if kind == "vm" else "name")
    if kind != "vm":
        return properties
    result: dict[str, str] = {}
    for key, value in properties.items():
        if MAC.fullmatch(value) and key not in ("macaddr", "hwaddr"):
            result["model"], result["hwaddr"] = key, value
        else:
            result["hwaddr" if key == "macaddr" else key] = value
    return result


def format_nic(properties: Mapping[str, str], kind: str) -> str:
    """The opposite of :func:`parse_nic`."""
    if kind != "vm":
        return format_properties(properties)
    rest = {key: value for key, value in properties.items() if key not in ("model", "hwaddr")}
    model, mac = properties.get("model", "virtio"), properties.get("hwaddr", "")
    return ",".join(filter(None, [f"{model}={mac}" if mac else model, format_properties(rest)]))


def canonical_address(text: str, version: int = 4) -> str:
    """A CIDR in its usual spelling, or the word for how the guest gets one; ValueError says what is wrong with it."""
    words = {4: ("dhcp", "manual"), 6: ("auto", "dhcp", "manual")}[version]
    if text in ("", *words):
        return text
    if "/" not in text:
        example = f"{text}/{24 if version == 4 else 64}"
        raise ValueError(
            f"{text!r} has no prefix length (write {example}) and is not {', '.join(words[:-1])} or {words[-1]}"
        )
    try:
        return str({4: ipaddress.IPv4Interface, 6: ipaddress.IPv6Interface}[version](text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv{version} address with a prefix length") from None


def canonical_gateway(text: str, version: int = 4) -> str:
    """An address in its usual spelling; ValueError says what is wrong with it."""
    try:
        return str({4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[version](text)) if text else ""
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv{version} address") from None


def canonical_flag(value: object) -> str:
    """``1`` or ``0`` for any spelling of a switch; other values as text."""
    text = str(int(value)) if isinstance(value, bool) else str(value)
    return {"true": "1", "yes": "1", "on": "1", "false": "0", "no": "0", "off": "0"}.get(text.lower(), text)


def canonical_path(path: str) -> str:
    """An absolute path without doubled slashes, and without one at its end."""
    return "/" + "/".join(filter(None, path.split("/"))) if path else ""
