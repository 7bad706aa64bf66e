# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/nodes/{node}/lxc: the life of a container."""

from __future__ import annotations

import re
from typing import Any

from lab.api.core import Request, route
from lab.api.guests import (
    asked_changes,
    convert,
    is_running,
    keep_volume,
    listing,
    making,
    normal_tags,
    normal_words,
    overlaid,
    pending_entries,
    require_allocation,
    require_keys,
    require_space,
    require_space_of_clone,
    require_unshared,
    rescanned,
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
    format_size,
    join_properties,
    parse_size,
    split_properties,
)
from lab.errors import ApiError, ParameterError, die
from lab.tasks import Task

BASE = "/nodes/{node}/lxc"
ONE = BASE + "/{vmid}"

# Parameters of creation that are not options of the configuration.
_NOT_CONFIG = {
    "bwlimit",
    "force",
    "ha-managed",
    "ignore-unpack-errors",
    "node",
    "ostemplate",
    "password",
    "pool",
    "restore",
    "ssh-public-keys",
    "start",
    "storage",
    "unique",
    "vmid",
}
_NOT_OPTIONS = {"delete", "digest", "node", "revert", "vmid"}
_READ_ONLY = {"arch", "ostype", "unprivileged"}
# Options that a running container obeys at once.
_LIVE = {
    "cores",
    "cpulimit",
    "cpuunits",
    "description",
    "hookscript",
    "hostname",
    "lock",
    "memory",
    "onboot",
    "protection",
    "startup",
    "swap",
    "tags",
    "timezone",
}
_CGROUP = {"cores", "cpulimit", "cpuunits", "hostname", "memory", "swap"}
_PRIVILEGE = {
    "VM.Config.CPU": {"cores", "cpulimit", "cpuunits"},
    "VM.Config.Memory": {"memory", "swap"},
    "VM.Config.Network": {"hostname", "nameserver", "searchdomain"},
}

_NEW_VOLUME = re.compile(r"([a-zA-Z][\w.\-]*):(\d+(?:\.\d+)?)")


def _is_volume(key: str) -> bool:
    return key == "rootfs" or re.fullmatch(r"(mp|unused)\d+", key) is not None


def _is_net(key: str) -> bool:
    return re.fullmatch(r"net\d+", key) is not None


def _guest(request: Request) -> Guest:
    return request.cluster.find(int(request.params["vmid"]), request.node, "lxc")


# -- values as they are stored


def _normal_net(value: str, current: str = "") -> str:
    net = split_properties(value)
    old = split_properties(current)
    net.setdefault("hwaddr", old.get("hwaddr", ""))
    net["hwaddr"] = net["hwaddr"].upper()
    net["type"] = "veth"
    return net_text(net)


def net_text(net: dict[str, str]) -> str:
    """`name` first, the rest sorted, as the server writes it."""
    rest = {key: value for key, value in net.items() if key != "name"}
    return join_properties({"name=" + net["name"]: "name=" + net["name"], **rest}, "name=" + net["name"])


def _store(request: Request, guest: Guest, key: str, value: Any) -> Any:
    """The value as the configuration keeps it."""
    if _is_net(key):
        text = _normal_net(str(value), str(guest.config.get(key, "")))
        net = split_properties(text)
        if not net["hwaddr"]:
            net["hwaddr"] = request.cluster.new_mac()
        return net_text(net)
    if key == "tags":
        return normal_tags(str(value))
    if key == "description":
        return str(value).rstrip("\n") + "\n"
    if key in ("nameserver", "searchdomain"):
        return normal_words(str(value))
    return value


def _check_options(request: Request, guest: Guest | None, values: dict[str, Any]) -> None:
    """What the schema cannot say: references to storages and bridges, rights per option."""
    who, access = request.who, request.cluster.access
    errors: dict[str, str] = {}
    for key, value in values.items():
        if _is_net(key):
            net = split_properties(str(value))
            bridge = net.get("bridge")
            if bridge and bridge != "vmbr0":
                errors[key] = f"bridge '{bridge}' does not exist"
            if ("gw" in net and "ip" not in net) or ("gw6" in net and "ip6" not in net):
                errors[key] = "gateway without an address"
        if key == "features" and not who.is_root:
            if not (values if guest is None else guest.config).get("unprivileged", int(guest is None)):
                raise ApiError(
                    403,
                    "Permission check failed (changing feature flags for privileged container is only allowed for root@pam)",
                )
            old = split_properties(str(guest.config.get(key, "")) if guest else "")
            if {name for name, _flag in old.items() ^ split_properties(str(value)).items()} - {"nesting"}:
                raise ApiError(
                    403,
                    "Permission check failed (changing feature flags (except nesting) is only allowed for root@pam)",
                )
    if errors:
        raise ParameterError(errors)
    require_use(request, [split_properties(str(raw)) for key, raw in values.items() if _is_net(key)])
    if guest is None:
        return
    for key, value in values.items():
        new = _NEW_VOLUME.fullmatch(split_properties(str(value), "volume").get("volume", ""))
        if new and _is_volume(key):
            require_space(request, new[1])
        needed = next((name for name, keys in _PRIVILEGE.items() if key in keys), "VM.Config.Options")
        if _is_net(key):
            needed = "VM.Config.Network"
        elif _is_volume(key):
            needed = "VM.Config.Disk"
        access.require(who, f"/vms/{guest.vmid}", [needed])


def _allocate(request: Request, guest: Guest, key: str, value: str) -> str:
    """`storage:GiB` becomes a volume with a name; anything else is kept."""
    disk = split_properties(value, "volume")
    match = _NEW_VOLUME.fullmatch(disk.get("volume", ""))
    if match is None:
        return value
    storage = require_storage(request, match[1], "rootdir")
    if float(match[2]) <= 0:
        raise die(f"{key}: invalid size '{match[2]}'")
    disk["volume"] = request.cluster.allocate(guest, storage.id, volumes(guest))
    disk["size"] = format_size(int(float(match[2]) * 1024**3))
    return join_properties(disk, "volume")


# -- reading


@route("GET", BASE)
def index(request: Request) -> list[dict[str, Any]]:
    return listing(request, "lxc", _status)


def _status(request: Request, guest: Guest) -> dict[str, Any]:
    return {
        **row(request, guest),
        "type": "lxc",
        "swap": request.cluster.driver(guest).runtime(guest).swap,
        "maxswap": int(guest.config.get("swap", 512)) << 20,
    }


@route("GET", ONE + "/status/current")
def current(request: Request) -> dict[str, Any]:
    guest = _guest(request)
    return {**_status(request, guest), "ha": request.cluster.ha_status(guest)}


@route("GET", ONE + "/config")
def config(request: Request) -> dict[str, Any]:
    return overlaid(_guest(request), bool(request.params.get("current")))


@route("GET", ONE + "/pending")
def pending(request: Request) -> list[dict[str, Any]]:
    return pending_entries(_guest(request))


@route("GET", ONE + "/interfaces")
def interfaces(request: Request) -> list[dict[str, Any]]:
    guest = _guest(request)
    if not is_running(request.cluster, guest):
        return []
    return request.cluster.driver(guest).interfaces(guest)


# -- creation and removal


@route("POST", BASE)
def create(request: Request) -> str:
    params, cluster, who = request.params, request.cluster, request.who
    vmid = int(params["vmid"])
    cluster.require_free(vmid, "lxc")
    if params.get("restore"):
        raise ApiError(501, "restoring an archive is not implemented")
    pool = str(params.get("pool", ""))
    require_allocation(request, vmid, pool)

    options = {key: value for key, value in params.items() if key not in _NOT_CONFIG}
    _check_options(request, None, options)
    require_keys(str(params.get("ssh-public-keys", "")))
    match = re.fullmatch(r"([^:]+):vztmpl/([^/]+)", str(params["ostemplate"]))
    if match is None:
        raise ParameterError({"ostemplate": "unable to parse volume ID"})
    require_storage(request, match[1], "vztmpl")
    template = match[2]
    archive = cluster.files.find(request.node, match[1], "vztmpl", template)
    if archive is None and template not in cluster.drivers["lxc"].templates():
        raise die(f"volume '{params['ostemplate']}' does not exist")

    default = str(params.get("storage", "local"))
    options.setdefault("rootfs", f"{default}:4")
    for key, value in options.items():
        if _is_volume(key):
            storage = split_properties(str(value), "volume").get("volume", "").partition(":")[0]
            require_storage(request, storage, "rootdir")
            cluster.access.require(who, f"/storage/{storage}", ["Datastore.AllocateSpace"])

    guest = Guest(vmid, request.node, "lxc", {"lock": "create"})
    wanted: dict[str, Any] = {
        "arch": "amd64",
        "cmode": None,
        "hostname": f"CT{vmid}",
        "memory": 512,
        "ostype": "debian",
        "swap": 512,
        "unprivileged": 1,
        **options,
    }
    if not wanted["unprivileged"]:
        del wanted["unprivileged"]
    creation = Creation(
        template=template,
        ssh_public_keys=str(params.get("ssh-public-keys", "")),
        password=str(params.get("password", "")),
        archive=archive,
    )

    def fill() -> None:
        for key, value in sorted(wanted.items()):
            if value is not None:
                guest.config[key] = (
                    _allocate(request, guest, key, str(value))
                    if _is_volume(key)
                    else _store(request, guest, key, value)
                )

    make = making(request, guest, pool, creation, fill)

    def work(task: Task) -> None:
        make(task)
        if params.get("start"):
            cluster.driver(guest).start(guest, task)

    return spawn(request, "create", guest, work)


@route("POST", ONE + "/clone")
def clone(request: Request) -> str:
    cluster, params = request.cluster, request.params
    source = _guest(request)
    cluster.require_unlocked(source)
    if params.get("target", source.node) != source.node:
        raise die(f"can't clone to non-shared storage '{source.volume('rootfs').partition(':')[0]}'")
    snapshot = str(params.get("snapname", ""))
    if is_running(cluster, source) and not snapshot:
        raise die("Full clone of a running container is only possible from a snapshot")
    if not source.config.get("template") and params.get("full") == 0:
        raise die("Linked clone feature is only available for templates")
    source = source_of_clone(source, snapshot)
    for key in source.config:
        if re.fullmatch(r"mp\d+", key) and source.volume(key).startswith("/"):
            raise die(f"unable to clone mountpoint '{key}' (type bind)")
    if source.config.get("template") and not params.get("full") and params.get("storage"):
        raise ParameterError({"storage": "parameter 'storage' not allowed for linked clones"})
    newid, pool = int(params["newid"]), str(params.get("pool", ""))
    require_allocation(request, newid, pool)
    require_use(request, [split_properties(str(raw)) for key, raw in source.config.items() if _is_net(key)])
    if params.get("storage"):
        require_storage(request, str(params["storage"]), "rootdir")
    require_space_of_clone(request, source)
    linked = bool(source.config.get("template")) and not params.get("full")
    guest = Guest(newid, source.node, "lxc", {"lock": "create"}, base=source.vmid if linked else 0)

    def fill() -> None:
        for key, value in source.config.items():
            if key in ("lock", "parent", "template") or key.startswith("unused"):
                continue
            if _is_volume(key):
                disk = split_properties(str(value), "volume")
                storage = str(params.get("storage") or disk["volume"].partition(":")[0])
                disk["volume"] = cluster.allocate(guest, storage, volumes(guest))
                guest.config[key] = join_properties(disk, "volume")
            elif _is_net(key):
                net = split_properties(str(value))
                net["hwaddr"] = cluster.new_mac()
                guest.config[key] = net_text(net)
            else:
                guest.config[key] = value
        for key in ("hostname", "description"):
            if key in params:
                guest.config[key] = _store(request, guest, key, params[key])

    creation = Creation(source=source, snapshot=snapshot)
    return spawn(request, "clone", source, making(request, guest, pool, creation, fill))


@route("POST", ONE + "/template")
def make_template(request: Request) -> None:
    convert(request, _guest(request))


@route("DELETE", ONE)
def destroy(request: Request) -> str:
    guest, cluster = _guest(request), request.cluster
    cluster.require_no_ha(guest, bool(request.params.get("purge")))
    with cluster.change(guest):
        if guest.config.get("protection"):
            raise die(f"can't remove CT {guest.vmid} - protection mode enabled")
        if is_running(request.cluster, guest) and not request.params.get("force"):
            raise die(f"unable to destroy CT {guest.vmid} - container is running")

    def work(task: Task) -> None:
        driver = cluster.driver(guest)
        require_unshared(cluster, guest)
        with cluster.change(guest):
            guest.config["lock"] = "destroyed"
        if driver.runtime(guest).running:
            driver.stop(guest, task)
        driver.destroy(guest, task)
        # Last of all, otherwise the id could be given away while its disks are still there.
        cluster.remove(guest)

    return spawn(request, "destroy", guest, work)


# -- configuration


@route("PUT", ONE + "/config")
def update(request: Request) -> None:
    guest, cluster, params = _guest(request), request.cluster, request.params
    values, deleted, reverted = asked_changes(request, "lxc", _NOT_OPTIONS)
    for name in deleted:
        if name in ("rootfs", "arch", "ostype"):
            raise die(f"unable to delete required option '{name}'")
    for key in [*values, *deleted]:
        if key in _READ_ONLY and str(values.get(key)) != str(guest.config.get(key, "0")):
            raise die(f"unable to modify read-only option: '{key}'")
    _check_options(request, guest, {**values, **dict.fromkeys(deleted, "")})

    with cluster.change(guest, params.get("digest")):
        live = is_running(request.cluster, guest)
        for name in reverted:
            guest.pending.pop(name, None)
            if name in guest.pending_delete:
                guest.pending_delete.remove(name)
        changed: list[str] = []
        for key, value in values.items():
            if _is_volume(key):
                value = _allocate(request, guest, key, str(value))
            stored = _store(request, guest, key, value)
            guest.pending.pop(key, None)
            if key in guest.pending_delete:
                guest.pending_delete.remove(key)
            if guest.config.get(key) == stored:
                continue
            if live and not (key in _LIVE or _is_net(key) or (_is_volume(key) and key not in guest.config)):
                guest.pending[key] = stored
            else:
                guest.config[key] = rescanned(guest, key, stored)
                changed.append(key)
        for key in deleted:
            guest.pending.pop(key, None)
            if key not in guest.config:
                continue
            if live and not (key in _LIVE or _is_net(key)):
                if key not in guest.pending_delete:
                    guest.pending_delete.append(key)
            else:
                keep_volume(guest, key)
                del guest.config[key]
                changed.append(key)
        if live:
            for key in changed:
                if key in _CGROUP or _is_net(key):
                    cluster.driver(guest).apply(guest, key)


@route("PUT", ONE + "/resize")
def resize(request: Request) -> str:
    guest, cluster = _guest(request), request.cluster
    disk, text = str(request.params["disk"]), str(request.params["size"])
    with cluster.change(guest, request.params.get("digest")):
        if disk not in guest.config:
            raise die(f"disk '{disk}' does not exist")
        require_space(request, guest.volume(disk).partition(":")[0])
        now = guest.disk_size(disk)
        wanted = parse_size(text.lstrip("+"))
        size = now + wanted if text.startswith("+") else wanted
        if size < now:
            raise die("unable to shrink disk size")
        if size == now:
            raise die("disk is already at specified size")

    def work(task: Task) -> None:
        with cluster.change(guest):
            cluster.driver(guest).resize(guest, disk, size, task)
            entry = split_properties(str(guest.config[disk]), "volume")
            entry["size"] = format_size(size)
            guest.config[disk] = join_properties(entry, "volume")

    return request.cluster.tasks.spawn(guest.node, "resize", str(guest.vmid), request.who.owner, work)
