# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Which volumes a configuration has, where they lie, and which of them a VM starts from. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .formats import VOLUME, format_properties, parse_properties, storage_of

Config = Mapping[str, Any]

#: Slots of data disks by kind of guest, with their highest number.
SLOTS = {"lxc": {"mp": 255}, "vm": {"scsi": 30, "virtio": 15, "sata": 5}}
_BOOTABLE = re.compile(r"(scsi|virtio|sata|ide)\d+")
_SLOT = re.compile(r"([a-z]+)(0|[1-9]\d*)")
_CLOUD_INIT = re.compile(r"[:/](vm-\d+-)?cloudinit(\.\w+)?$")
#: Begins the keys of volumes that a guest has and that are attached nowhere.
_DETACHED = "unused"
#: Which part of a guest an own file of cloud-init replaces, and what of a record is in it.
_PARTS = {
    "user": ("user", "ssh_public_keys"),
    "network": ("networks", "nameservers", "searchdomain"),
}
HEARD_BY_CLOUD_INIT = tuple(name for names in _PARTS.values() for name in names)


def volume_of(value: Any) -> str:
    """``local-lvm:vm-100-disk-0`` of a volume's line, in either spelling."""
    properties = parse_properties(str(value), "volume")
    return properties.get("volume") or properties.get("file", "")


def is_cdrom(value: Any) -> bool:
    return "media=cdrom" in str(value)


def data_volumes(config: Config) -> dict[str, str]:
    """Keys of volumes that hold data, with the storage of each (empty for a path)."""
    return {
        key: storage_of(volume_of(value))
        for key, value in config.items()
        if VOLUME.fullmatch(key) and not is_cdrom(value)
    }


def boot_disk(config: Config) -> tuple[str, str]:
    """The disk a VM starts from, as the hypervisor decides it; else an empty key and why it cannot be told.

    A guess would grow a disk of data, which nobody can undo.
    """
    disks = [key for key, value in config.items() if _BOOTABLE.fullmatch(key) and not is_cdrom(value)]
    if not disks:
        return "", "it has no disk"
    setting = parse_properties(str(config.get("boot") or ""), "legacy")
    if "order" in setting:
        named = [key for key in setting["order"].split(";") if _BOOTABLE.fullmatch(key)]
        for key in named:
            if key in disks:
                return key, ""
            if key not in config and detached(config):
                return "", f"it starts from {key}, which is not attached"
        return "", f"its boot order ({setting['order'] or 'empty'}) names none of its disks"
    chosen = str(config.get("bootdisk") or "")
    if chosen:
        return (chosen, "") if chosen in disks else ("", f"it starts from {chosen}, which is not attached")
    if len(disks) > 1 or detached(config):
        return "", f"it has no boot order, and the disks {', '.join(sorted(disks))}"
    return disks[0], ""


def detached(config: Config, storage: str = "") -> list[str]:
    """Volumes that belong to the guest and are attached nowhere: those on a storage, or all."""
    found = [volume_of(value) for key, value in config.items() if key.startswith(_DETACHED)]
    return sorted(volume for volume in found if storage in ("", storage_of(volume)))


def settled(config: Config, pending: Config) -> dict[str, Any]:
    """A configuration with pending values overlaid, its volumes as they are.

    A value that waits tells the size that the volume had when it was written. A disk that waits to be
    taken away will be attached nowhere. ``pending``: what holds until then, by key.
    """
    result = dict(config)
    for key, holds in pending.items():
        if not VOLUME.fullmatch(key) or holds is None:
            continue
        if key not in config:
            result[f"{_DETACHED}-{key}"] = holds
            continue
        now, later = (parse_properties(str(value), "volume") for value in (holds, config[key]))
        if volume_of(holds) == volume_of(config[key]) and "size" in now:
            result[key] = format_properties({**later, "size": now["size"]}, "volume")
    return result


def slot_faults(kind: str, slot: str) -> str:
    """Why a guest cannot have a data disk there."""
    match = _SLOT.fullmatch(slot)
    highest = SLOTS[kind].get(match[1]) if match else None
    if match and highest is not None and int(match[2]) <= highest:
        return ""
    known = ", ".join(f"{prefix}0 to {prefix}{number}" for prefix, number in SLOTS[kind].items())
    return f"{slot!r} is not one of {known}"


def wanted_storages(kind: str, config: Config, options: Mapping[str, Any]) -> dict[str, str]:
    """Where a record wants the volumes that a configuration has: storage by key."""
    boot = "rootfs" if kind == "lxc" else boot_disk(config)[0]
    records = {disk["slot"]: disk for disk in options.get("disks") or []}
    records[boot] = options.get("rootfs") or {}
    return {
        key: str(record["storage"])
        for key, record in records.items()
        if record.get("storage") and key in config
    }


def clone_storage(kind: str, config: Config, options: Mapping[str, Any]) -> str:
    """The storage to copy all volumes to, because the root file system shall lie there; empty: each stays where its source's is."""
    boot = "rootfs" if kind == "lxc" else boot_disk(config)[0]
    wanted = wanted_storages(kind, config, options).get(boot, "")
    return "" if wanted == data_volumes(config).get(boot) else wanted


def copied(kind: str, config: Config, storage: str) -> dict[str, Any]:
    """A configuration as its clone gets it, with all volumes on ``storage`` unless that is empty."""
    left = ("template", "protection", "lock", "vmstate", "parent")
    result = {
        key: value for key, value in config.items() if key not in left and not key.startswith(_DETACHED)
    }
    if storage:
        for key, value in result.items():
            if VOLUME.fullmatch(key) and storage_of(volume_of(value)):
                properties = parse_properties(str(value), "volume")
                name = "volume" if "volume" in properties else "file"
                properties[name] = f"{storage}:{properties[name].partition(':')[2]}"
                result[key] = format_properties(properties, name)
    return result


def bound(config: Config) -> list[str]:
    """Mount points of a container that are folders of its node: nothing copies them."""
    return sorted(
        key
        for key, value in config.items()
        if re.fullmatch(r"mp\d+", key) and volume_of(value).startswith("/")
    )


def unheard(config: Config, given: Mapping[str, Any]) -> tuple[list[str], str]:
    """What of a record cloud-init will not tell a VM, and why: its own files replace it, or there is no drive."""
    nics = [
        nic
        for nic in given.get("networks") or []
        if "/" in str(nic.get("address", "")) + str(nic.get("address6", ""))
    ]
    named = {**{name: given.get(name) for name in HEARD_BY_CLOUD_INIT}, "networks": nics}
    told = [name for name in HEARD_BY_CLOUD_INIT if named[name]]
    if not any(
        _CLOUD_INIT.search(volume_of(value)) for key, value in config.items() if _BOOTABLE.fullmatch(key)
    ):
        return told, "no cloud-init drive"
    files = parse_properties(str(config.get("cicustom") or ""))
    lost = [name for part, names in _PARTS.items() if part in files for name in names if name in told]
    return lost, "cloud-init files of its own (cicustom)" if lost else ""
