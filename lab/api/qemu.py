# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes/{node}/qemu: the life of a virtual machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from lab.api.core import Request, route
from lab.api.guests import (
    asked_changes,
    convert,
    is_running,
    keep_volume,
    listing,
    making,
    names,
    normal_tags,
    overlaid,
    pending_entries,
    require_allocation,
    require_keys,
    require_space,
    require_space_of_clone,
    require_unshared,
    row,
    spawn,
)
from lab.api.networks import require_use
from lab.api.snapshots import source_of_clone
from lab.api.storage import require_storage
from lab.cluster import volumes
from lab.drivers.base import (
    Creation,
    Guest,
    MachineDriver,
    format_size,
    join_properties,
    parse_nic,
    parse_size,
    split_properties,
)
from lab.errors import ApiError, ParameterError, die
from lab.files import virtual_size
from lab.tasks import Task

BASE = "/nodes/{node}/qemu"
ONE = BASE + "/{vmid}"

# Parameters of creation that are not options of the configuration.
_NOT_CONFIG = {
    "archive",
    "bwlimit",
    "force",
    "ha-managed",
    "import-working-storage",
    "live-restore",
    "node",
    "pool",
    "start",
    "storage",
    "unique",
    "vmid",
}
_NOT_OPTIONS = {"background_delay", "delete", "digest", "force", "node", "revert", "skiplock", "vmid"}
# Options that hold at once on a running machine; interfaces and new disks do, too.
_LIVE = {"description", "hookscript", "lock", "name", "onboot", "protection", "shares", "startup", "tags"}
_PRIVILEGES = {
    "VM.Config.CPU": r"cores|sockets|cpu|cpulimit|cpuunits|vcpus|numa\d*|affinity",
    "VM.Config.Memory": r"memory|balloon|shares|hugepages",
    "VM.Config.Network": r"net\d+",
    "VM.Config.Disk": r"(scsi|virtio|sata|ide|unused)\d+|boot|scsihw|bootdisk",
    "VM.Config.HWType": r"agent|bios|machine|vga|serial\d+|usb\d+|tablet|keyboard|audio\d+|ostype",
    "VM.Config.Cloudinit": r"ci\w+|sshkeys|ipconfig\d+|nameserver|searchdomain",
}
_DISK = re.compile(r"(scsi|virtio|sata|ide)\d+")
_NEW_VOLUME = re.compile(r"([a-zA-Z][\w.\-]*):(\d+(?:\.\d+)?)")
_CLOUDINIT = re.compile(r"([a-zA-Z][\w.\-]*):cloudinit")


def _guest(request: Request) -> Guest:
    return request.cluster.find(int(request.params["vmid"]), request.node, "qemu")


def _driver(request: Request) -> MachineDriver:
    return cast("MachineDriver", request.cluster.drivers["qemu"])


# -- values as they are stored


def _is_net(key: str) -> bool:
    return re.fullmatch(r"net\d+", key) is not None


def nic_text(net: dict[str, str]) -> str:
    """`virtio=<MAC>` first, the rest sorted, as the server writes it."""
    rest = {key: value for key, value in net.items() if key not in ("model", "macaddr")}
    return ",".join(
        filter(None, [f"{net.get('model', 'virtio')}={net['macaddr'].upper()}", join_properties(rest)])
    )


def _store(request: Request, guest: Guest, key: str, value: Any) -> Any:
    """The value as the configuration keeps it; volumes are allocated."""
    if _is_net(key):
        net = parse_nic(str(value))
        net.setdefault("macaddr", request.cluster.new_mac())
        return nic_text(net)
    if _DISK.fullmatch(key):
        return _volume(request, guest, key, str(value))
    if key == "tags":
        return normal_tags(str(value))
    if key == "description":
        return str(value).rstrip("\n") + "\n"
    if key == "sshkeys":
        return str(value).strip()
    return value


def _volume(request: Request, guest: Guest, key: str, value: str) -> str:
    """`storage:GiB` becomes a volume with a name, `storage:cloudinit` the drive of that name; anything else is kept."""
    disk = split_properties(value, "file")
    match = _CLOUDINIT.fullmatch(disk.get("file", ""))
    if match:
        require_storage(request, match[1], "images")
        return f"{match[1]}:vm-{guest.vmid}-cloudinit,media=cdrom"
    match = _NEW_VOLUME.fullmatch(disk.get("file", ""))
    if match is None:
        return value
    storage = require_storage(request, match[1], "images")
    origin = disk.pop("import-from", "")
    if float(match[2]) <= 0 and not origin:
        raise die(f"{key}: invalid size '{match[2]}'")
    size = virtual_size(_image(request, origin)) if origin else int(float(match[2]) * 1024**3)
    disk["file"] = request.cluster.allocate(guest, storage.id, volumes(guest))
    disk["size"] = format_size(size)
    return join_properties(disk, "file")


def _image(request: Request, volume: str) -> Path:
    """The file of a disk image, which must be on the machine's node."""
    storage, _, name = volume.partition(":import/")
    require_storage(request, storage, "import")
    path = request.cluster.files.find(request.node, storage, "import", name)
    if path is None:
        raise die(f"volume '{volume}' does not exist")
    return path


def _images(request: Request, options: dict[str, Any]) -> dict[str, Path]:
    """Disk images that a new machine's disks are copied from."""
    disks = {key: split_properties(str(raw), "file") for key, raw in options.items() if _DISK.fullmatch(key)}
    return {key: _image(request, disk["import-from"]) for key, disk in disks.items() if "import-from" in disk}


def _check_options(request: Request, guest: Guest | None, values: dict[str, Any]) -> None:
    """What the schema cannot say: references to storages and bridges, keys, rights per option."""
    errors: dict[str, str] = {}
    for key, value in values.items():
        if _is_net(key):
            bridge = parse_nic(str(value)).get("bridge")
            if bridge and bridge != "vmbr0":
                errors[key] = f"bridge '{bridge}' does not exist"
        if re.fullmatch(r"ipconfig\d+", key):
            ip = split_properties(str(value))
            for gateway, address in (("gw", "ip"), ("gw6", "ip6")):
                if gateway in ip and address not in ip:
                    errors[key] = (
                        f"invalid format - format error\n{gateway}: missing property - requires '{address}'"
                    )
        if key == "sshkeys":
            require_keys(unquote(str(value)))
        if "import-from" in str(value) and _DISK.fullmatch(key) and guest is not None:
            raise ApiError(501, "importing a disk into an existing machine is not implemented")
        if key == "cicustom":
            raise ApiError(501, "custom cloud-init files are not implemented")
    if errors:
        raise ParameterError(errors)
    require_use(request, [parse_nic(str(raw)) for key, raw in values.items() if _is_net(key)])
    if "startup" in values:
        # It changes what the node does.
        request.cluster.access.require(request.who, "/", ["Sys.Modify"])
    if guest is None:
        return
    for key, value in values.items():
        needed = next(
            (name for name, keys in _PRIVILEGES.items() if re.fullmatch(keys, key)), "VM.Config.Options"
        )
        if "cloudinit" in str(value) or "media=cdrom" in str(value):
            needed = "VM.Config.CDROM"
        either = ["VM.Config.Cloudinit", "VM.Config.Network"] if needed == "VM.Config.Cloudinit" else [needed]
        request.cluster.access.require(request.who, f"/vms/{guest.vmid}", either, any_of=True)
        new = _NEW_VOLUME.fullmatch(split_properties(str(value), "file").get("file", ""))
        if new and _DISK.fullmatch(key):
            require_space(request, new[1])


def _check_balloon(guest: Guest, values: dict[str, Any]) -> None:
    """The memory that a machine keeps may not be more than the memory it has."""
    if not {"memory", "balloon"} & set(values):
        return
    found = {"memory": "512", **guest.config, **guest.pending, **values}
    memory = split_properties(str(found["memory"]), "current")["current"]
    if int(found.get("balloon") or 0) > int(memory):
        raise die("balloon value too large (must be smaller than assigned memory)")


# -- reading


@route("GET", BASE)
def index(request: Request) -> list[dict[str, Any]]:
    return listing(request, "qemu", row)


@route("GET", ONE + "/status/current")
def current(request: Request) -> dict[str, Any]:
    guest = _guest(request)
    entry = row(request, guest)
    enabled = split_properties(str(guest.config.get("agent", "0")), "enabled").get("enabled", "0")
    return {
        **entry,
        "qmpstatus": entry["status"],
        "agent": int(enabled),
        "ha": request.cluster.ha_status(guest),
    }


@route("GET", ONE + "/config")
def config(request: Request) -> dict[str, Any]:
    found = overlaid(_guest(request), bool(request.params.get("current")))
    if "cipassword" in found:
        found["cipassword"] = "**********"
    return found


@route("GET", ONE + "/pending")
def pending(request: Request) -> list[dict[str, Any]]:
    found = pending_entries(_guest(request))
    for entry in found:
        if entry["key"] == "cipassword":
            entry |= {key: "**********" for key in ("value", "pending") if key in entry}
    return found


# -- creation and removal


@route("POST", BASE)
def create(request: Request) -> str:
    params, cluster = request.params, request.cluster
    vmid, pool = int(params["vmid"]), str(params.get("pool", ""))
    cluster.require_free(vmid, "qemu")
    if params.get("archive"):
        raise ApiError(501, "restoring an archive is not implemented")
    require_allocation(request, vmid, pool)
    options = {key: value for key, value in params.items() if key not in _NOT_CONFIG}
    _check_options(request, None, options)
    for key, value in options.items():
        match = (
            _NEW_VOLUME.fullmatch(split_properties(str(value), "file").get("file", ""))
            if _DISK.fullmatch(key)
            else None
        )
        if match:
            require_storage(request, match[1], "images")
            cluster.access.require(request.who, f"/storage/{match[1]}", ["Datastore.AllocateSpace"])
    guest = Guest(vmid, request.node, "qemu", {"lock": "create", "name": params.get("name", f"VM{vmid}")})

    def fill() -> None:
        for key, value in sorted({"memory": "512", "cores": 1, **options}.items()):
            guest.config[key] = _store(request, guest, key, value)
        devices = [key for key in sorted(guest.config) if _DISK.fullmatch(key) or _is_net(key)]
        guest.config.setdefault(
            "boot", "order=" + ";".join(sorted(devices, key=lambda key: key.startswith("net")))
        )

    work = making(request, guest, pool, Creation(images=_images(request, options)), fill)

    def and_start(task: Task) -> None:
        work(task)
        if params.get("start"):
            cluster.driver(guest).start(guest, task)

    return spawn(request, "create", guest, and_start)


@route("POST", ONE + "/clone")
def clone(request: Request) -> str:
    cluster, params, source = request.cluster, request.params, _guest(request)
    cluster.require_unlocked(source)
    template = bool(source.config.get("template"))
    linked = not params["full"] if "full" in params else template
    if params.get("target", source.node) != source.node:
        storage = next(iter(sorted(volumes(source))), "local").partition(":")[0]
        raise die(f"can't clone to non-shared storage '{storage}'")
    snapshot = str(params.get("snapname", ""))
    if linked and not template:
        raise die("Linked clone feature is only available for templates")
    if linked and params.get("storage"):
        raise ParameterError({"storage": "parameter 'storage' not allowed for linked clones"})
    if is_running(cluster, source) and not snapshot:
        raise ApiError(501, "cloning a running VM is not implemented")
    source = source_of_clone(source, snapshot)
    newid, pool = int(params["newid"]), str(params.get("pool", ""))
    if newid in cluster.guests:
        raise die(f"unable to create VM {newid}: config file already exists")
    require_allocation(request, newid, pool)
    require_use(request, [parse_nic(str(raw)) for key, raw in source.config.items() if _is_net(key)])
    target = str(params.get("storage", ""))
    if target:
        require_storage(request, target, "images")
    require_space_of_clone(request, source)
    guest = Guest(newid, source.node, "qemu", {"lock": "clone"}, base=source.vmid if linked else 0)

    def fill() -> None:
        for key, value in sorted(source.config.items()):
            if key in ("template", "lock", "name", "parent") or key.startswith("unused"):
                continue
            if _is_net(key):
                guest.config[key] = nic_text({**parse_nic(str(value)), "macaddr": cluster.new_mac()})
            elif _DISK.fullmatch(key) and source.volume(key):
                disk = split_properties(str(value), "file")
                storage = target or disk["file"].partition(":")[0]
                if disk["file"].endswith("cloudinit"):
                    disk["file"] = f"{storage}:vm-{newid}-cloudinit"
                else:
                    disk["file"] = cluster.allocate(guest, storage, volumes(guest))
                guest.config[key] = join_properties(disk, "file")
            else:
                guest.config[key] = value
        guest.config["name"] = str(params.get("name", f"Copy-of-VM-{source.name}"))
        if "description" in params:
            guest.config["description"] = _store(request, guest, "description", params["description"])

    return spawn(
        request,
        "clone",
        source,
        making(request, guest, pool, Creation(source=source, linked=linked, snapshot=snapshot), fill),
    )


@route("POST", ONE + "/template")
def make_template(request: Request) -> str:
    return convert(request, _guest(request))


@route("DELETE", ONE)
def destroy(request: Request) -> str:
    guest, cluster = _guest(request), request.cluster
    cluster.require_no_ha(guest, bool(request.params.get("purge")))
    with cluster.change(guest, skiplock=guest.config.get("lock") == "suspended"):
        if guest.config.get("protection"):
            raise die(f"can't remove VM {guest.vmid} - protection mode enabled")
        if is_running(request.cluster, guest):
            raise die(f"VM {guest.vmid} is running - destroy failed")

    def work(task: Task) -> None:
        require_unshared(cluster, guest)
        # One that sleeps on disk goes with its state.
        with cluster.change(guest, skiplock=guest.config.get("lock") == "suspended"):
            guest.config["lock"] = "destroyed"
        cluster.driver(guest).destroy(guest, task)
        # Last of all, otherwise the id could be given away while its disks are still there.
        cluster.remove(guest)

    return spawn(request, "destroy", guest, work)


# -- configuration


def _change(request: Request, guest: Guest) -> Callable[[Task | None], None]:
    """The checked change of a configuration, to be carried out now or by a task."""
    cluster, params = request.cluster, request.params
    values, deleted, reverted = asked_changes(request, "qemu", _NOT_OPTIONS)
    _check_options(request, guest, {**values, **dict.fromkeys(deleted, "")})
    # A stale digest and a lock are told at once, also where a task does the work.
    with cluster.change(guest, params.get("digest")):
        if guest.config.get("template") and any(_DISK.fullmatch(key) for key in values):
            raise die("unable to modify disks of a template")
        _check_balloon(guest, values)

    def work(task: Task | None) -> None:
        with cluster.change(guest):
            _write(request, guest, values, deleted, reverted, task)

    return work


def _hotplug(guest: Guest) -> set[str]:
    """What a running machine takes and gives back."""
    text = str(guest.config.get("hotplug", "1"))
    return set(names("network,disk,usb" if text == "1" else text))


def _write(
    request: Request,
    guest: Guest,
    values: dict[str, Any],
    deleted: list[str],
    reverted: list[str],
    task: Task | None,
) -> None:
    hotplug = _hotplug(guest)
    driver, live = _driver(request), is_running(request.cluster, guest)
    for name in [*reverted, *values, *deleted]:
        guest.pending.pop(name, None)
        if name in guest.pending_delete:
            guest.pending_delete.remove(name)
    for key, value in values.items():
        stored = _store(request, guest, key, value)
        if guest.config.get(key) == stored:
            continue
        is_net, is_disk = (
            _is_net(key),
            _DISK.fullmatch(key) and "media=cdrom" not in str(stored),
        )
        new_disk = is_disk and key not in guest.config
        plugged = bool(is_net and "network" in hotplug) or bool(new_disk and "disk" in hotplug)
        plugged |= key == "memory" and "memory" in hotplug and bool(guest.config.get("numa"))
        # The device stays, and takes another target.
        plugged |= key == "balloon" and "balloon" in guest.config and bool(stored)
        if live and not (key in _LIVE or plugged):
            guest.pending[key] = stored
            continue
        guest.config[key] = stored
        if new_disk and guest.disk_size(key):
            driver.attach(
                guest,
                key,
                task or Task(f"UPID:{guest.node}:00000000:00000000:00000000:qmconfig::root@pam:", None),
            )
        elif live and is_net:
            driver.apply(guest, key)
    for key in deleted:
        if key not in guest.config:
            continue
        is_net = _is_net(key)
        if live and not (key in _LIVE or (is_net and "network" in hotplug)):
            guest.pending_delete.append(key)
            continue
        keep_volume(guest, key)
        del guest.config[key]
        _leave_boot_order(guest, key)
        if live and is_net:
            driver.apply(guest, key)


def _leave_boot_order(guest: Guest, key: str) -> None:
    """A device that is taken away is no device to boot from."""
    order = split_properties(str(guest.config.get("boot", ""))).get("order", "").split(";")
    if key in order:
        guest.config["boot"] = "order=" + ";".join(device for device in order if device != key)


@route("PUT", ONE + "/config")
def update(request: Request) -> None:
    _change(request, _guest(request))(None)


@route("POST", ONE + "/config")
def update_by_task(request: Request) -> str:
    guest = _guest(request)
    return spawn(request, "config", guest, _change(request, guest))


@route("PUT", ONE + "/resize")
def resize(request: Request) -> str:
    guest, cluster = _guest(request), request.cluster
    disk, text = str(request.params["disk"]), str(request.params["size"])
    with cluster.change(guest, request.params.get("digest")):
        if not guest.disk_size(disk):
            raise die(f"disk '{disk}' does not exist")
        require_space(request, guest.volume(disk).partition(":")[0])

    def work(task: Task) -> None:
        with cluster.change(guest):
            now, wanted = guest.disk_size(disk), parse_size(text.lstrip("+"))
            size = now + wanted if text.startswith("+") else wanted
            if size < now:
                raise RuntimeError("shrinking disks is not supported")
            if size > now:
                cluster.driver(guest).resize(guest, disk, size, task)
                entry = split_properties(str(guest.config[disk]), "file")
                guest.config[disk] = join_properties({**entry, "size": format_size(size)}, "file")

    return request.cluster.tasks.spawn(guest.node, "resize", str(guest.vmid), request.who.owner, work)


# -- the agent inside


def _require_agent(request: Request) -> Guest:
    guest = _guest(request)
    if split_properties(str(guest.config.get("agent", "0")), "enabled").get("enabled") != "1":
        raise die("No QEMU guest agent configured")
    if not is_running(request.cluster, guest):
        raise die(f"VM {guest.vmid} is not running")
    return guest


@route("POST", ONE + "/agent/ping")
def ping(request: Request) -> dict[str, Any]:
    guest = _require_agent(request)
    if not _driver(request).ping(guest):
        raise die("QEMU guest agent is not running")
    return {"result": {}}


@route("GET", ONE + "/agent/network-get-interfaces")
def interfaces(request: Request) -> dict[str, Any]:
    guest = _require_agent(request)
    try:
        return {"result": request.cluster.driver(guest).interfaces(guest)}
    except OSError as error:
        raise die("QEMU guest agent is not running") from error
