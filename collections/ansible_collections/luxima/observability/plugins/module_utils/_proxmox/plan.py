# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""``want, have -> plan``. Pure: the same two values always give the same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .disks import HEARD_BY_CLOUD_INIT, bound, clone_storage, copied, data_volumes, unheard
from .formats import VOLUME, number, parse_nic, storage_of
from .model import (
    NOUN,
    Change,
    Clone,
    Configure,
    Convert,
    Create,
    Destroy,
    Grow,
    Guard,
    Guest,
    Join,
    Move,
    Plan,
    Reboot,
    Start,
    Stop,
    Unguard,
    Want,
)
from .options import BESIDE, CREATION, REBOOT, TABLES, Item, expand

#: What a VM whose memory lies on a disk does not take.
_CONFIGURING = (Configure, Move, Grow, Convert)


def plan(
    want: Want, have: Guest | None, source: Guest | None = None, reboot: str = "never", fresh: bool = False
) -> Plan:
    """The ordered changes that turn ``have`` (None: not there) into ``want``.

    ``source`` is the guest that is cloned. ``reboot`` is ``never`` or ``if_needed``. ``fresh``: a clone
    of this very run, which still gets what is given at creation only, and its volumes where they belong.
    """
    if want.state == "absent":
        return _absent(want, have)
    if have is None:
        return _clone(want, source, reboot) if want.cloned else _create(want)
    return _update(want, have, reboot, fresh)


def _wanted(want: Want) -> dict[str, Any]:
    return {"name": want.name, **{name: raw for name, raw in want.options.items() if name not in BESIDE}}


def _values(items: list[Item], side: str) -> dict[str, Any]:
    result = {item.label: getattr(item, side) for item in items}
    return {label: value for label, value in result.items() if value is not None}


def _absent(want: Want, have: Guest | None) -> Plan:
    if have is None:
        return Plan()
    changes: list[Change] = []
    refusals: tuple[str, ...] = ()
    if str(have.config.get("protection", "0")) == "1":
        if want.options.get("protection") is False:
            changes.append(Configure({"protection": 0}))
        else:
            refusals = ("protection is on: a guest is destroyed only when its record says protection: false",)
        if have.asleep and not refusals:
            refusals = (_sleeping("its protection cannot be taken away"),)
    if have.running:
        changes.append(Stop(hard=True))
    changes.append(Destroy())
    items = expand(want.kind, {"name": have.name}, have.config, False)
    before = {**_values(items, "before"), "vmid": have.vmid, "node": have.node, "state": _power(have)}
    return Plan(tuple(changes), before, {}, False, refusals, frozenset({"VM.Allocate"}))


def _create(want: Want) -> Plan:
    items = expand("lxc", _wanted(want), {}, True)
    params: dict[str, str | int] = {"ostemplate": want.template}
    for item in items:
        if item.wire is not None:
            params[item.key] = item.wire
    if want.options.get("rootfs", {}).get("storage"):
        params["storage"] = want.options["rootfs"]["storage"]
    pool = want.options.get("pool")
    if pool:
        params["pool"] = pool
    changes: list[Change] = [Create(params, str(params.get("storage", "local")))]
    after = {label: value for label, value in _values(items, "after").items() if label != "ssh_public_keys"}
    if pool:
        after["pool"] = pool
    needs = _needs(
        [item for item in items if item.wire is not None], {}, want.options.get("unprivileged", True)
    )
    privileges = needs.pop("privileges") | {"VM.Allocate"}
    if want.state in ("started", "restarted"):
        changes.append(Start())
        privileges.add("VM.PowerMgmt")
    if want.state == "template":
        changes.append(Convert())
    after["state"] = _aim(want, False)
    _availability(want, None, changes, after, privileges)
    return Plan(tuple(changes), {}, after, privileges=frozenset(privileges), **needs)


def _clone(want: Want, source: Guest | None, reboot: str) -> Plan:
    """A clone is the source under another name; what follows is an update of it."""
    noun = NOUN[want.kind]
    if source is None:
        return Plan(
            refusals=(f"there is no {noun} {want.template!r} to clone: correct template or clone_of",)
        )
    refusal = _uncloneable(want, source)
    if refusal:
        return Plan(refusals=(refusal,))
    name_key = "hostname" if want.kind == "lxc" else "name"
    params: dict[str, str | int] = {name_key: want.name, "full": int(not want.linked)}
    # All volumes go to a storage that is named: where the root file system lies there already, none is.
    storage = "" if want.linked else clone_storage(want.kind, source.config, want.options)
    if storage:
        params["storage"] = storage
    if want.options.get("pool"):
        params["pool"] = want.options["pool"]
    config = copied(want.kind, source.config, storage)
    config[name_key] = want.name
    copy = replace(
        source,
        name=want.name,
        template=False,
        running=False,
        config=config,
        pool=str(params.get("pool", "")),
        lock="",
        ha="",
        pending={},
    )
    rest = _update(want, copy, reboot, fresh=True)
    nics = {_bridge(value, want.kind) for key, value in config.items() if _is_nic(key)}
    lost, why = unheard(config, want.options) if want.kind == "vm" else ([], "")
    refusals, warnings = rest.refusals, rest.warnings
    if lost and "drive" in why:
        refusals += (
            f"{source.name} ({source.vmid}), which it is cloned from, has {why}, so the VM would never get {', '.join(lost)} "
            "of the record: add a cloud-init drive to it (Hardware, Add, CloudInit Drive), or leave them out",
        )
    elif lost:
        warnings += (
            f"{source.name} ({source.vmid}) has {why}: the VM does not get {', '.join(lost)} of the record",
        )
    return replace(
        rest,
        changes=(Clone(source.vmid, source.node, params, storage), *rest.changes),
        before={},
        refusals=refusals,
        warnings=warnings,
        privileges=rest.privileges | {"VM.Allocate"},
        storages=rest.storages | (frozenset(data_volumes(config).values()) - {""}),
        bridges=rest.bridges | nics,
    )


def _uncloneable(want: Want, source: Guest) -> str:
    """Why a source cannot be cloned; empty when it can."""
    where = f"{source.name} ({source.vmid})"
    if want.linked and not source.template:
        return f"{where} is no template, so linked must be false"
    if want.kind == "lxc" and source.running:
        return f"container {where} runs, so it cannot be cloned: stop it, or clone a template"
    if source.asleep:
        return f"VM {where} is hibernated, so it cannot be cloned: resume and stop it, or clone a template"
    folders = bound(source.config) if want.kind == "lxc" else []
    if folders:
        return (
            f"container {where} has folders of its node mounted ({', '.join(folders)}), so it cannot be cloned: take them away, "
            "or clone another"
        )
    return ""


def _is_nic(key: str) -> bool:
    return key.startswith("net") and key[3:].isdigit()


def _bridge(value: Any, kind: str) -> tuple[str, str]:
    """Bridge and VLAN tag of an interface."""
    nic = parse_nic(str(value), kind)
    return nic.get("bridge", ""), nic.get("tag", "")


def _needs(
    items: Iterable[Item], config: Mapping[str, Any], unprivileged: bool, kind: str = "lxc"
) -> dict[str, Any]:
    """What changes ask of whoever makes them: fields of a plan."""
    privileges: set[str] = set()
    storages: set[str] = set()
    bridges: set[tuple[str, str]] = set()
    root: list[str] = []
    for item in items:
        privileges |= item.privileges
        if VOLUME.fullmatch(item.key) and item.before is None:
            storages.add(storage_of(str(item.wire or "")))
        elif VOLUME.fullmatch(item.key):
            storages |= {
                item.move,
                storage_of(str(config.get(item.key, ""))) if item.grow is not None else "",
            }
        if _is_nic(item.key):
            bridges |= {_bridge(value, kind) for value in (item.wire, config.get(item.key)) if value}
        if item.key == "features" and item.differs:
            flags = [name for name in item.after if item.after[name] != item.before[name]]
            held = [name for name in flags if name != "nesting" or not unprivileged]
            root += [
                f"features.{name}{'' if unprivileged else ' of a privileged container'}" for name in held
            ]
    return {
        "privileges": privileges,
        "storages": frozenset(storages - {""}),
        "bridges": frozenset(bridges - {("", "")}),
        "root_only": tuple(sorted(root)),
    }


def _sleeping(what: str) -> str:
    return f"it is hibernated, so {what}: set state to started, which resumes it, or stop it on the hypervisor, which loses its memory"


def _resume(want: Want, have: Guest, reboot: str, fresh: bool) -> Plan:
    """A VM whose memory lies on a disk runs again before anything else, or nothing of it is changed."""
    if want.state in ("started", "restarted"):
        rest = _update(want, replace(have, running=True, lock=""), reboot, fresh)
        return replace(
            rest,
            changes=(Start(), *rest.changes),
            before={**rest.before, "state": _power(have)},
            privileges=rest.privileges | {"VM.PowerMgmt"},
        )
    rest = _update(want, replace(have, lock=""), reboot, fresh)
    if any(isinstance(change, _CONFIGURING) for change in rest.changes):
        return replace(rest, refusals=(*rest.refusals, _sleeping("it takes no changes")))
    return rest


def _update(want: Want, have: Guest, reboot: str, fresh: bool) -> Plan:
    if have.template and want.state != "template":
        return Plan(
            refusals=(
                f"{have.name} ({have.vmid}) is a template, which is never changed: choose another name or vmid",
            )
        )
    if have.asleep:
        return _resume(want, have, reboot, fresh)
    config = have.layout
    creating = have.kind == "vm" and (fresh or _half_made(want, have))
    items = expand(want.kind, _wanted(want), config, creating)
    placed = (fresh or creating) and not want.linked
    differing = [item for item in items if item.differs or item.refusal]
    changes, values, delete = _steps(differing, config, placed)
    needs = _needs(differing, config, str(config.get("unprivileged", "0")) == "1", want.kind)
    privileges = needs.pop("privileges")
    before, after = _values(items, "before"), _values(items, "after")
    pool = want.options.get("pool")
    if pool:
        before["pool"], after["pool"] = have.pool, pool
        if have.pool != pool:
            changes.append(Join(pool=pool))
            privileges.add("Pool.Allocate")
    power, running = _power_change(want, have)
    waiting, pending = _waits(want, have, differing, values, delete)
    needs_reboot = have.running and running and (waiting or pending)
    if isinstance(power, Reboot):
        needs_reboot = False
    elif power is None and needs_reboot and waiting and reboot == "if_needed":
        power, needs_reboot = Reboot(), False
    if power is not None:
        # What becomes a template is stopped first: then every change of it holds at once.
        changes.insert(0 if want.state == "template" else len(changes), power)
        privileges.add("VM.PowerMgmt")
    before["state"] = _power(have)
    after["state"] = _aim(want, running)
    refusals = tuple(item.refusal for item in items if item.refusal)
    refusals += tuple(item.unmoved for item in items if item.unmoved and not placed)
    if have.template and any(VOLUME.fullmatch(item.key) for item in differing):
        refusals += (f"{have.name} ({have.vmid}) is a template, whose volumes are never changed",)
    if want.state == "template" and not have.template:
        changes.append(Convert())
        privileges.add("VM.Allocate")
    _availability(want, have, changes, after, privileges)
    if "ha" in after:
        before["ha"] = bool(have.ha)
    return Plan(
        tuple(changes),
        before,
        after,
        needs_reboot,
        refusals,
        frozenset(privileges),
        warnings=() if fresh else _unheard(have, differing, config),
        **needs,
    )


def _steps(
    differing: Iterable[Item], config: Mapping[str, Any], placed: bool
) -> tuple[list[Change], dict[str, str | int], tuple[str, ...]]:
    """Changes of a configuration in their order, with the values that are written and the keys that are taken away."""
    values = {item.key: item.wire for item in differing if item.wire is not None}
    delete = tuple(
        item.key
        for item in differing
        if item.wire is None and item.grow is None and not item.move and item.key in config
    )
    changes: list[Change] = [
        Move(disk=item.key, storage=item.move) for item in differing if item.move and placed
    ]
    grown = {
        item.key: Grow(disk=item.key, size_gb=number(item.grow))
        for item in differing
        if item.grow is not None
    }
    # A volume whose line changes, too, tells its size there: it is grown before, or the two would differ.
    changes += [grow for key, grow in grown.items() if key in values]
    if values or delete:
        changes.append(Configure(values, delete))
    changes += [grow for key, grow in grown.items() if key not in values]
    return changes, values, delete


def _waits(
    want: Want,
    have: Guest,
    differing: Iterable[Item],
    values: Mapping[str, str | int],
    delete: Iterable[str],
) -> tuple[bool, bool]:
    """Whether something of ours will wait for a reboot, and whether something of anybody does already."""
    # What somebody else asked for and what is taken back to the value that still holds needs no reboot.
    back = {
        key
        for key, holds in have.pending.items()
        if (key in delete if holds is None else key in values and str(values[key]) == str(holds))
    }
    pending = have.pending.keys() - back
    ours = any(item.effect == REBOOT and item.key not in back for item in differing)
    return ours or bool(pending & _managed_keys(want, have)), bool(pending)


def _unheard(have: Guest, differing: Iterable[Item], config: Mapping[str, Any]) -> tuple[str, ...]:
    """A warning for what is only written down, because no cloud-init tells it to the VM."""
    if have.kind != "vm":
        return ()
    changed = {item.label.partition(".")[0] for item in differing if item.privilege == "VM.Config.Cloudinit"}
    every = {
        name: [{"address": "/"}] if name == "networks" else name
        for name in HEARD_BY_CLOUD_INIT
        if name in changed
    }
    lost, why = unheard(config, every)
    return (f"it has {why}: the VM does not get {', '.join(lost)} of the record",) if lost else ()


def _availability(
    want: Want, have: Guest | None, changes: list[Change], after: dict[str, Any], privileges: set[str]
) -> None:
    """Hand the guest to the HA manager last, and take it away first."""
    wanted, kept = want.options.get("ha"), bool(have and have.ha)
    if want.state == "template":
        wanted = False if kept else None
    if wanted is None:
        return
    after["ha"] = wanted
    if wanted and not kept:
        changes.append(Guard("started" if after["state"] == "running" else "stopped"))
    elif kept and not wanted:
        changes.insert(0, Unguard())
    if wanted != kept:
        privileges.add("Sys.Console")


def _half_made(want: Want, have: Guest) -> bool:
    """Whether a VM is a clone that nobody configured or started yet: a run ended between the two."""
    given = {option.name: option.key for option in TABLES["vm"] if option.effect == CREATION}
    plain = have.kind == "vm" and not have.running and not have.template
    promised = any(want.options.get(name) for name in given)
    return plain and promised and not set(given.values()) & set(have.config)


def _managed_keys(want: Want, have: Guest) -> set[str]:
    return {item.key for item in expand(want.kind, _wanted(want), have.layout, False)}


def _aim(want: Want, running: bool) -> str:
    """The power state in the end; ``running``: whether it runs when the record does not say."""
    if want.state == "template":
        return "template"
    return "running" if running or want.state in ("started", "restarted") else "stopped"


def _power(have: Guest) -> str:
    if have.template:
        return "template"
    return "running" if have.running else "stopped"


def _power_change(want: Want, have: Guest) -> tuple[Change | None, bool]:
    """The power change and whether the guest runs after it."""
    if want.state == "present":
        return None, have.running
    if want.state in ("stopped", "template"):
        return (Stop() if have.running else None), False
    if not have.running:
        return Start(), True
    return (Reboot() if want.state == "restarted" else None), True
