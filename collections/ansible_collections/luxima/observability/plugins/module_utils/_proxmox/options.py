# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One table per kind of guest. It gives the argument spec, the comparison, the diff and the privileges.

A row says how an option is called, how the server's value is read, how it is written and when a change holds.
To support another option, add a row. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from .connection import connection_spec
from .disks import boot_disk, detached, is_cdrom, slot_faults, volume_of
from .formats import (
    MAC,
    SSH_KEY,
    STARTUP,
    TAG,
    canonical_address,
    canonical_flag,
    canonical_gateway,
    canonical_path,
    format_nic,
    format_properties,
    number,
    parse_nic,
    parse_properties,
    parse_size,
    split_words,
    storage_of,
)

# When a change of a running guest holds.
LIVE = "live"
REBOOT = "reboot"
#: Never: the guest would have to be made anew.
FIXED = "fixed"
#: Read at creation only, and not compared afterwards.
CREATION = "creation"

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One value on the wire, as it is and as it should be. ``wire`` None removes the key."""

    label: str
    key: str
    before: Any
    after: Any
    wire: str | int | None
    effect: str = LIVE
    privilege: str = "VM.Config.Options"
    #: New size in GiB of the existing volume ``key``.
    grow: float | None = None
    refusal: str = ""
    #: A further privilege, which counts for the whole cluster.
    also: str = ""
    #: Storage that the existing volume ``key`` should lie on and does not, and why that is refused where nothing is moved.
    move: str = ""
    unmoved: str = ""

    @property
    def privileges(self) -> set[str]:
        return {self.privilege, self.also} - {""}

    @property
    def differs(self) -> bool:
        return bool(self.before != self.after)


@dataclass(frozen=True)
class Codec:
    """``read``: server's value (None: not set) to a comparable one. ``want``: the record's value to the same form.
    ``wire``: that form to what is sent; None removes the key."""

    read: Callable[[Any], Any]
    want: Callable[[Any], Any]
    wire: Callable[[Any], str | int | None]


def _merge_features(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    """Features that are not mentioned stay; a false one and a missing one are the same."""
    current = parse_properties(str(config.get(option.key) or ""))

    wanted = {name: canonical_flag(raw) for name, raw in value.items()}
    before = {name: canonical_flag(current.get(name, "0")) for name in wanted}
    # What is as wanted stays as it is written: a respelled flag counts as a change of it.
    changed = {name: raw for name, raw in wanted.items() if raw != before[name]}
    merged = {name: raw for name, raw in {**current, **changed}.items() if name not in changed or raw != "0"}
    wire = format_properties(merged) or None
    return [Item(option.name, option.key, before, wanted, wire, option.effect, option.privilege)]


def _scalar(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    codec = option.codec
    wanted = codec.want(value)
    before = codec.read(config.get(option.key))
    refusal = ""
    if option.effect == FIXED and not creating and before != wanted:
        refusal = (
            f"{option.name} is {before} and the record says {wanted}; it is fixed when the guest is created: "
            "correct the record, or destroy the guest and let it be made anew"
        )
    wire = codec.wire(wanted)
    return [
        Item(option.name, option.key, before, wanted, wire, option.effect, option.privilege, refusal=refusal)
    ]


@dataclass(frozen=True)
class Family:
    """What a version of IP is called: in a record, and on the wire."""

    version: int
    address: str
    gateway: str
    ip: str
    gw: str

    def fixed(self, nic: Mapping[str, Any]) -> str:
        """The static address of a record without its prefix length; empty when it has none."""
        address = _lenient(canonical_address, str(nic.get(self.address) or ""), self.version)
        return address.partition("/")[0] if "/" in address else ""


FAMILIES = (Family(4, "address", "gateway", "ip", "gw"), Family(6, "address6", "gateway6", "ip6", "gw6"))


#: N of the last netN.
HIGHEST_NIC = 31


def _nic_indexes(
    value: list[dict[str, Any]], current: Mapping[int, Mapping[str, str]], kind: str
) -> list[int]:
    """netN of each record: VMs by position, containers by interface name.

    The first interface is where the guest has it: a VM without net0 has it elsewhere, and what follows comes
    after it; a container's net0 is the first one of a record without a name, whatever it is called.
    """
    if kind == "vm":
        present = sorted(current)
        if not present or present[0] == 0:
            return list(range(len(value)))
        return [*present, *range(present[-1] + 1, present[-1] + 1 + len(value))][: len(value)]
    by_name = {properties.get("name", ""): index for index, properties in current.items()}
    names = [nic.get("name") or f"eth{position}" for position, nic in enumerate(value)]
    taken = set(current)
    result = []
    for position, name in enumerate(names):
        index = by_name.get(name, -1)
        free = 0 in current and current[0].get("name") not in names
        if index < 0 and position == 0 and free and not value[0].get("name"):
            index = 0
        if index < 0:
            index = next(number for number in range(HIGHEST_NIC + 1) if number not in taken)
            taken.add(index)
        result.append(index)
    return result


def _current_nics(config: Config, kind: str) -> dict[int, dict[str, str]]:
    return {
        int(key[3:]): parse_nic(str(raw), kind)
        for key, raw in config.items()
        if key.startswith("net") and key[3:].isdigit()
    }


def _doubled(record: Mapping[str, Any], described: set[int], config: Config, kind: str) -> str:
    """Why a record gets no new interface: one of the guest that no record describes has its address."""
    for other in sorted(_current_nics(config, kind).keys() - described):
        text = config.get(f"net{other}" if kind == "lxc" else f"ipconfig{other}")
        properties = parse_properties(str(text or ""))
        for family in FAMILIES:
            address = family.fixed(record)
            if address and properties.get(family.ip, "").partition("/")[0] == address:
                way_out = (
                    "name it in the record"
                    if kind == "lxc"
                    else f"describe net{other} at its place in networks"
                )
                return f"net{other}, which no record describes, has the address {address}: {way_out}, or take it away"
    return ""


def _gathered(nic: Mapping[str, str], network: Mapping[str, str], fields: set[str]) -> dict[str, Any]:
    """The managed part of an interface, in the record's words."""
    full: dict[str, Any] = {
        "bridge": nic.get("bridge", ""),
        "vlan": int(nic.get("tag") or 0),
        "mac": nic.get("hwaddr", "").upper(),
        "firewall": nic.get("firewall", "0") == "1",
    }
    for family in FAMILIES:
        full[family.address] = _lenient(canonical_address, network.get(family.ip, ""), family.version)
        full[family.gateway] = _lenient(canonical_gateway, network.get(family.gw, ""), family.version)
    return {name: raw for name, raw in full.items() if name in fields}


def _lenient(canonical: Callable[[str, int], str], text: str, version: int) -> str:
    try:
        return canonical(text, version)
    except ValueError:
        return text


def _networks(option: Option, value: Any, config: Config, kind: str) -> list[Item]:
    """Wanted keys are laid over the present ones, so the MAC and everything unmanaged stay."""
    current = _current_nics(config, kind)
    items = []
    for position, (record, index) in enumerate(zip(value, _nic_indexes(value, current, kind))):
        fields = {name for name in ("bridge", "vlan", "mac", "firewall") if record.get(name) is not None}
        nic = dict(current.get(index, {}))
        ip_key = f"ipconfig{index}"
        network = nic if kind == "lxc" else parse_properties(str(config.get(ip_key) or ""))
        families = [family for family in FAMILIES if record.get(family.address)]
        addressed = {name for family in families for name in (family.address, family.gateway)}
        before: dict[str, Any] | None = (
            _gathered(nic, network, fields | addressed) if index in current else None
        )
        if index not in current:
            nic.update(
                {"name": record.get("name") or f"eth{position}"} if kind == "lxc" else {"model": "virtio"}
            )
            if kind == "lxc":
                network = nic
        old_nic, old_network = dict(nic), dict(network)
        nic["bridge"] = record["bridge"]
        if "vlan" in fields:
            _put(nic, "tag", str(record["vlan"]) if record["vlan"] else "")
        if "mac" in fields:
            nic["hwaddr"] = record["mac"].upper()
        if "firewall" in fields:
            _put(nic, "firewall", "1" if record["firewall"] else "")
        for family in families:
            address = canonical_address(record[family.address], family.version)
            gateway = canonical_gateway(record.get(family.gateway) or "", family.version)
            _put(network, family.ip, address)
            # A gateway without a static address is refused or misread.
            _put(network, family.gw, gateway if "/" in address else "")
        label = f"networks.{nic.get('name', '') or f'net{index}'}"
        if kind == "vm":
            items += _vm_nic(
                option,
                label,
                index,
                (old_nic, nic),
                (old_network, network),
                (fields, addressed),
                index in current,
            )
            continue
        after = _gathered(nic, network, fields | addressed)
        items.append(Item(label, f"net{index}", before, after, format_nic(nic, kind), LIVE, option.privilege))
    return items


def _vm_nic(
    option: Option,
    label: str,
    index: int,
    nics: tuple[Mapping[str, str], Mapping[str, str]],
    networks: tuple[Mapping[str, str], Mapping[str, str]],
    fields: tuple[set[str], set[str]],
    present: bool,
) -> list[Item]:
    """The interface, which changes at once, and its addresses, which cloud-init sets at the next start."""
    own, addressed = fields
    old, new = (_gathered(nic, {}, own) for nic in nics)
    key = f"net{index}"
    items = [
        Item(
            label,
            key,
            old if present else None,
            new,
            format_nic(nics[1], "vm"),
            LIVE,
            option.privilege,
        )
    ]
    if addressed:
        old, new = (_gathered({}, network, addressed) for network in networks)
        wire = format_properties(networks[1]) or None
        items.append(
            Item(f"{label}.address", f"ipconfig{index}", old, new, wire, REBOOT, "VM.Config.Cloudinit")
        )
    return items


def _put(properties: dict[str, str], key: str, value: str) -> None:
    if value:
        properties[key] = value
    else:
        properties.pop(key, None)


def _volume(option: Option, label: str, key: str, record: Mapping[str, Any], config: Config) -> Item:
    """A volume that exists is only ever grown; sending its creation form again would make a second one."""
    size, storage = float(record["size_gb"]), record.get("storage")
    path = canonical_path(record.get("path") or "")
    wanted: dict[str, Any] = {"size_gb": number(size)}
    if storage:
        wanted["storage"] = storage
    if path:
        wanted["path"] = path
    present = config.get(key)
    if present is None:
        wire = f"{storage or 'local'}:{number(size)}" + (f",mp={path}" if path else "")
        refusal = _left_behind(label, key, detached(config, str(storage or "")))
        return Item(label, key, None, wanted, wire, option.effect, option.privilege, refusal=refusal)
    properties = parse_properties(str(present), "volume")
    lies = storage_of(volume_of(present))
    have_size = parse_size(properties["size"]) if "size" in properties else size
    before: dict[str, Any] = {"size_gb": number(round(have_size, 3))}
    if storage:
        before["storage"] = lies
    if path:
        before["path"] = canonical_path(properties.get("mp", ""))
    refusals = []
    if have_size - size > 0.001:
        refusals.append(
            f"{label} has {before['size_gb']} GB and the record says {wanted['size_gb']} GB; volumes grow and never "
            f"shrink: set size_gb to {before['size_gb']} or more, or make the guest anew"
        )
    unmoved = ""
    if storage and before["storage"] != storage:
        unmoved = (
            f"{label} lies on storage {before['storage'] or str(present)!r} and the record says {storage!r}; volumes "
            "are not moved here: move it on the hypervisor, or correct storage"
        )
    moved = bool(path) and before["path"] != path
    grow = size if size - have_size > 0.001 else None
    if grow is not None and "size" in properties:
        properties["size"] = f"{number(grow)}G"
    new_form = format_properties({**properties, "mp": path}, "volume") if moved else None
    after = {**wanted, "size_gb": before["size_gb"]} if grow is None and not refusals else wanted
    return Item(
        label,
        key,
        before,
        after,
        new_form,
        REBOOT if moved else LIVE,
        option.privilege,
        grow,
        "; ".join(refusals),
        move=str(storage) if unmoved else "",
        unmoved=unmoved,
    )


def _left_behind(label: str, key: str, volumes: list[str]) -> str:
    """Why no new volume is made: an empty one would stand where the guest's own data was."""
    if not volumes:
        return ""
    return (
        f"{label} is not attached, and the guest has {', '.join(volumes)}, attached nowhere: attach that on the hypervisor "
        f"as {key}, or remove it there if it is not needed, and run again"
    )


def _rootfs(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    return [_volume(option, "rootfs", "rootfs", value, config)]


def _vm_rootfs(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    """The boot disk comes with the clone and is grown."""
    key, why = boot_disk(config)
    if not key:
        refusal = (
            f"rootfs is the disk that the VM starts from, and which one that is cannot be told: {why}; set the boot "
            "order of the VM, or of the template, on the hypervisor"
        )
        return [Item("rootfs", "scsi0", None, dict(value), None, refusal=refusal)]
    item = _volume(option, "rootfs", key, value, config)
    apart = detached(config)
    if item.grow is not None and apart:
        # Whoever detaches a disk takes it out of the boot order, and the next one there comes first.
        refusal = (
            f"rootfs is {key} by the boot order, but the VM has {', '.join(apart)}, attached nowhere, which may be the disk it "
            "started from, so nothing is grown: attach or remove that on the hypervisor, and run again"
        )
        item = replace(item, refusal="; ".join(filter(None, [item.refusal, refusal])))
    return [item]


def _disks(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    return [_volume(option, f"disks.{record['slot']}", record["slot"], record, config) for record in value]


def _lxc_disks(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    """Where a volume of the guest is mounted already, no new one is: it would hide what is there."""
    mounted = {
        canonical_path(parse_properties(str(raw), "volume").get("mp", "")): key
        for key, raw in config.items()
        if re.fullmatch(r"mp\d+", key) and key not in {record["slot"] for record in value}
    }
    items = []
    for record, item in zip(value, _disks(option, value, config, creating)):
        path = canonical_path(record.get("path") or "")
        if path in mounted and item.key not in config:
            refusal = (
                f"{item.label} is not there, and {mounted[path]} of the guest is mounted at {path}: write slot {mounted[path]} in "
                "the record, or take that away on the hypervisor"
            )
            item = replace(item, refusal="; ".join(filter(None, [item.refusal, refusal])))
        items.append(item)
    return items


def _vm_disks(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    boot = boot_disk(config)[0]
    items = []
    for item in _disks(option, value, config, creating):
        if item.key == boot:
            refusal = "is the disk that the VM starts from: give its size and storage in rootfs, and data disks other slots"
            item = replace(item, refusal=f"{item.label} {refusal}")
        elif is_cdrom(config.get(item.key)):
            refusal = "is a CD or the cloud-init drive of the VM: give data disks other slots"
            item = replace(item, refusal=f"{item.label} {refusal}")
        items.append(item)
    return items


def _vm_memory(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    """With the memory that ballooning leaves to the VM, which may not be more than all of it."""
    items = _scalar(option, value, config, creating)
    kept = int(config.get("balloon") or 0)
    if kept > value:
        items.append(Item("balloon_mb", "balloon", kept, value, value, LIVE, option.privilege))
    return items


def _new_nics_refused(option: Option, value: Any, config: Config, kind: str) -> list[Item]:
    """Like :func:`_networks`, and no address twice in one guest."""
    current = _current_nics(config, kind)
    indexes = _nic_indexes(value, current, kind)
    faults = {
        f"net{index}": _doubled(record, set(indexes), config, kind)
        for record, index in zip(value, indexes)
        if index not in current
    }
    return [
        replace(item, refusal=f"{item.label}: {faults[item.key]}") if faults.get(item.key) else item
        for item in _networks(option, value, config, kind)
    ]


def _lxc_networks(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    return _new_nics_refused(option, value, config, "lxc")


def _vm_networks(option: Option, value: Any, config: Config, creating: bool) -> list[Item]:
    return _new_nics_refused(option, value, config, "vm")


def _integer(default: int | None = None) -> Codec:
    return Codec(lambda raw: default if raw is None else int(raw), int, int)


VM_MEMORY = Codec(lambda raw: int(parse_properties(str(raw or 512), "current")["current"]), int, int)
BOOLEAN = Codec(lambda raw: bool(int(raw or 0)), bool, int)
TEXT = Codec(lambda raw: str(raw or ""), str, lambda value: value or None)
#: Servers end a description with a newline of their own.
PROSE = Codec(
    lambda raw: str(raw or "").rstrip("\n"), lambda value: value.rstrip("\n"), lambda value: value or None
)
#: Several names in one text: servers keep them with blanks between, however they were separated.
NAMES = Codec(
    lambda raw: " ".join(split_words(str(raw or ""))),
    lambda value: " ".join(split_words(value)),
    lambda value: value or None,
)
WORDS = Codec(lambda raw: split_words(str(raw or "")), list, lambda value: " ".join(value) or None)
TAGS = Codec(
    lambda raw: sorted({tag.lower() for tag in split_words(str(raw or ""))}),
    lambda value: sorted({tag.lower() for tag in value}),
    lambda value: ";".join(value) or None,
)
PROPERTIES = Codec(
    lambda raw: parse_properties(str(raw or ""), "order"),
    lambda value: parse_properties(value, "order"),
    lambda value: format_properties(value) or None,
)
#: Stored URL-encoded, blanks as %20: the server refuses anything else.
SSH_KEYS = Codec(
    lambda raw: [line for line in unquote(str(raw or "")).splitlines() if line],
    lambda value: [line.strip() for line in value if line.strip()],
    lambda value: quote("\n".join(value), safe="") or None,
)
#: Compared by nobody: the server does not give it back.
OPAQUE = Codec(lambda raw: None, lambda value: "\n".join(value), lambda value: value or None)


@dataclass(frozen=True)
class Option:
    """A row: option ``name`` of the record, ``key`` on the wire, ``effect`` of a change on a running guest."""

    name: str
    key: str
    spec: Mapping[str, Any]
    codec: Codec = TEXT
    effect: str = LIVE
    privilege: str = "VM.Config.Options"
    expand: Callable[[Option, Any, Config, bool], list[Item]] = field(default=_scalar)
    #: A further privilege, which counts for the whole cluster.
    also: str = ""


_NETWORK_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"type": "str"},
        "bridge": {"type": "str", "required": True},
        "vlan": {"type": "int"},
        "address": {"type": "str"},
        "gateway": {"type": "str"},
        "address6": {"type": "str"},
        "gateway6": {"type": "str"},
        "mac": {"type": "str"},
        "firewall": {"type": "bool"},
    },
}
_ROOTFS_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {"storage": {"type": "str"}, "size_gb": {"type": "float", "required": True}},
}
_DISKS_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "slot": {"type": "str", "required": True},
        "storage": {"type": "str", "required": True},
        "size_gb": {"type": "float", "required": True},
        "path": {"type": "str"},
    },
}
_INT: dict[str, Any] = {"type": "int"}
_BOOL: dict[str, Any] = {"type": "bool"}
_STR: dict[str, Any] = {"type": "str"}
_LIST: dict[str, Any] = {"type": "list", "elements": "str"}
_KEYS: dict[str, Any] = {"type": "list", "elements": "str", "no_log": False}

_SHARED = (
    Option("onboot", "onboot", _BOOL, BOOLEAN),
    Option("startup", "startup", _STR, PROPERTIES),
    Option("protection", "protection", _BOOL, BOOLEAN),
    Option("tags", "tags", _LIST, TAGS),
    Option("description", "description", _STR, PROSE),
)

LXC: tuple[Option, ...] = (
    Option("name", "hostname", _STR, TEXT, LIVE, "VM.Config.Network"),
    Option("cores", "cores", _INT, _integer(), LIVE, "VM.Config.CPU"),
    Option("memory_mb", "memory", _INT, _integer(512), LIVE, "VM.Config.Memory"),
    Option("swap_mb", "swap", _INT, _integer(512), LIVE, "VM.Config.Memory"),
    Option("rootfs", "rootfs", _ROOTFS_SPEC, TEXT, LIVE, "VM.Config.Disk", _rootfs),
    Option("disks", "mp", _DISKS_SPEC, TEXT, LIVE, "VM.Config.Disk", _lxc_disks),
    Option("networks", "net", _NETWORK_SPEC, TEXT, LIVE, "VM.Config.Network", _lxc_networks),
    Option("nameservers", "nameserver", _LIST, WORDS, REBOOT, "VM.Config.Network"),
    Option("searchdomain", "searchdomain", _STR, NAMES, REBOOT, "VM.Config.Network"),
    Option("features", "features", {"type": "dict"}, TEXT, REBOOT, "VM.Allocate", _merge_features),
    Option("unprivileged", "unprivileged", _BOOL, BOOLEAN, FIXED, "VM.Allocate"),
    Option("ssh_public_keys", "ssh-public-keys", _KEYS, OPAQUE, CREATION, "VM.Allocate"),
    *_SHARED,
)

VM: tuple[Option, ...] = (
    Option("name", "name", _STR, TEXT),
    Option("cores", "cores", _INT, _integer(1), REBOOT, "VM.Config.CPU"),
    Option("memory_mb", "memory", _INT, VM_MEMORY, REBOOT, "VM.Config.Memory", _vm_memory),
    Option("rootfs", "scsi0", _ROOTFS_SPEC, TEXT, LIVE, "VM.Config.Disk", _vm_rootfs),
    Option("disks", "scsi", _DISKS_SPEC, TEXT, LIVE, "VM.Config.Disk", _vm_disks),
    Option("networks", "net", _NETWORK_SPEC, TEXT, LIVE, "VM.Config.Network", _vm_networks),
    Option("nameservers", "nameserver", _LIST, WORDS, REBOOT, "VM.Config.Cloudinit"),
    Option("searchdomain", "searchdomain", _STR, NAMES, REBOOT, "VM.Config.Cloudinit"),
    Option("user", "ciuser", _STR, TEXT, CREATION, "VM.Config.Cloudinit"),
    Option("ssh_public_keys", "sshkeys", _KEYS, SSH_KEYS, CREATION, "VM.Config.Cloudinit"),
    # The start order of a VM changes what its node does.
    *(replace(option, also="Sys.Modify") if option.name == "startup" else option for option in _SHARED),
)

#: Options that are not part of a configuration.
BESIDE = ("pool", "ha")

TABLES: Mapping[str, tuple[Option, ...]] = {"lxc": LXC, "vm": VM}


_DEVICES = (
    (re.compile(r"net\d+"), "network"),
    (re.compile(r"(scsi|virtio|sata)\d+"), "disk"),
    (re.compile(r"memory"), "memory"),
)


def expand(kind: str, wanted: Mapping[str, Any], config: Config, creating: bool) -> list[Item]:
    """Every managed value of a guest, in the order of the table."""
    return [
        replace(item, effect=_hotplugged(item, config), also=option.also) if kind == "vm" else item
        for option in TABLES[kind]
        if option.name in wanted and (creating or option.effect != CREATION)
        for item in option.expand(option, wanted[option.name], config, creating)
    ]


def _hotplugged(item: Item, config: Config) -> str:
    """When a change of a VM holds, as its own setting `hotplug` says."""
    setting = str(config.get("hotplug") or "network,disk,usb")
    device = next((word for pattern, word in _DEVICES if pattern.fullmatch(item.key)), "")
    if not device:
        return item.effect
    kinds = set(split_words("network,disk,usb" if setting == "1" else setting))
    # Memory comes in modules of a NUMA node.
    able = device in kinds and (device != "memory" or str(config.get("numa", "0")) == "1")
    waits = not able and (device == "memory" or item.grow is None)
    return REBOOT if waits else LIVE


def faults(kind: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of one record, whatever the hypervisor looks like."""
    found = []
    known = {option.name for option in TABLES[kind]}
    found += [f"{name}: not an option of a guest of kind {kind}" for name in options if name not in known]
    for name, minimum in (("cores", 1), ("memory_mb", 16), ("swap_mb", 0)):
        if name in options and options[name] < minimum:
            found.append(f"{name}: {options[name]} is below {minimum}")
    for position, nic in enumerate(options.get("networks", [])):
        where = f"networks[{position}]"
        for family in FAMILIES:
            found += _address_faults(nic, family, where)
        if nic.get("mac") and not MAC.fullmatch(nic["mac"]):
            found.append(f"{where}.mac: {nic['mac']!r} is not a MAC address")
        if not 0 <= (nic.get("vlan") or 0) <= 4094:
            found.append(f"{where}.vlan: {nic['vlan']} is not between 1 and 4094 (0: none)")
    found += _name_faults(kind, options.get("networks", []))
    volumes = [("rootfs", options.get("rootfs"))]
    volumes += [(f"disks[{position}]", disk) for position, disk in enumerate(options.get("disks", []))]
    for label, volume in volumes:
        if volume and volume["size_gb"] <= 0:
            found.append(f"{label}.size_gb: {volume['size_gb']} is not a size")
    found += _disk_faults(kind, options.get("disks", []))
    found += [
        f"tags: {tag!r} may hold lower-case letters, digits and _ + . - only"
        for tag in options.get("tags", [])
        if not TAG.fullmatch(tag.lower())
    ]
    startup = str(options.get("startup") or "")
    if startup and not STARTUP.fullmatch(startup):
        found.append(f"startup: {startup!r} is not of the form order=2,up=30,down=60")
    return found + _key_faults(options.get("ssh_public_keys", []))


def _disk_faults(kind: str, disks: list[dict[str, Any]]) -> list[str]:
    found = []
    owners: dict[tuple[str, str], int] = {}
    for position, disk in enumerate(disks):
        where = f"disks[{position}]"
        fault = slot_faults(kind, disk["slot"])
        if fault:
            found.append(f"{where}.slot: {fault}")
        path = (disk.get("path") or "") if kind == "lxc" else ""
        if kind == "lxc" and (not path.startswith("/") or ".." in path.split("/")):
            found.append(f"{where}.path: a container's disk needs an absolute path to be mounted at")
        for name, value in (("slot", disk["slot"]), ("path", canonical_path(path))):
            if value and (name, value) in owners:
                found.append(f"{where}.{name}: {value} is also that of disks[{owners[name, value]}]")
            owners.setdefault((name, value), position)
    return found


def _name_faults(kind: str, nics: list[dict[str, Any]]) -> list[str]:
    """Interfaces that would be one and the same."""
    found = []
    if len(nics) > HIGHEST_NIC + 1:
        found.append(f"networks: {len(nics)} interfaces, and a guest has {HIGHEST_NIC + 1} at most")
    owners: dict[tuple[str, str], int] = {}
    for position, nic in enumerate(nics):
        claims = {"mac": (nic.get("mac") or "").upper()}
        if kind == "lxc":
            claims["name"] = nic.get("name") or f"eth{position}"
        for name, value in claims.items():
            if value and (name, value) in owners:
                found.append(
                    f"networks[{position}].{name}: {value} is also that of networks[{owners[name, value]}]"
                )
            owners.setdefault((name, value), position)
    return found


def _address_faults(nic: Mapping[str, Any], family: Family, where: str) -> list[str]:
    found = []
    address, gateway = nic.get(family.address) or "", nic.get(family.gateway) or ""
    try:
        address = canonical_address(address, family.version)
    except ValueError as error:
        found.append(f"{where}.{family.address}: {error}")
    else:
        if gateway and "/" not in address:
            found.append(f"{where}.{family.gateway}: needs a static {family.address}")
    try:
        canonical_gateway(gateway, family.version)
    except ValueError as error:
        found.append(f"{where}.{family.gateway}: {error}")
    return found


def _key_faults(keys: list[str]) -> list[str]:
    """The server refuses a key only after the guest was made."""
    return [
        f"ssh_public_keys[{position}]: {key[:40]!r} is not a public key as in ~/.ssh/*.pub"
        for position, key in enumerate(keys)
        if key.strip() and not SSH_KEY.fullmatch(key.strip())
    ]


def guest_spec() -> dict[str, Any]:
    """Argument spec of one entry of ``guests``: identity, then the rows of both tables."""
    spec: dict[str, Any] = {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["lxc", "vm"], "default": "lxc"},
        "state": {
            "type": "str",
            "choices": ["present", "started", "stopped", "restarted", "absent", "template"],
            "default": "started",
        },
        "vmid": {"type": "int"},
        "node": {"type": "str"},
        "template": {"type": "str"},
        "clone_of": {"type": "str"},
        "linked": {"type": "bool"},
        "ha": {"type": "bool"},
        "pool": {"type": "str"},
    }
    for table in TABLES.values():
        for option in table:
            spec.setdefault(option.name, dict(option.spec))
    return spec


def module_spec(env_fallback: Callable[..., Any]) -> dict[str, Any]:
    """Argument spec of the module. ``env_fallback`` is Ansible's, which only modules may import."""
    operations = ("create", "clone", "configure", "resize", "start", "stop", "destroy", "lock", "address")
    return {
        **connection_spec(env_fallback),
        "deadlines": {
            "type": "dict",
            "default": {},
            "options": {name: {"type": "int"} for name in operations},
        },
        "workers": {"type": "int", "default": 8},
        "reboot": {"type": "str", "choices": ["never", "if_needed"], "default": "never"},
        "destroy_by_name": {"type": "bool", "default": False},
        "guests": {"type": "list", "elements": "dict", "required": True, "options": guest_spec()},
        "promised": {
            "type": "dict",
            "options": {name: {"type": "list", "elements": "str"} for name in ("pools", "templates")},
        },
    }
