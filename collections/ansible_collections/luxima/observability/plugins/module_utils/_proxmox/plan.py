# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""``want, have -> plan``. Pure: the same two values always give the same plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .formats import VOLUME, number
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
    Plan,
    Reboot,
    Start,
    Stop,
    Unguard,
    Want,
)
from .options import BESIDE, CREATION, REBOOT, TABLES, Item, boot_disk, expand


def plan(
    want: Want, have: Guest | None, source: Guest | None = None, reboot: str = "never", fresh: bool = False
) -> Plan:
    """The ordered changes that turn ``have`` (None: not there) into ``want``.

    ``source`` is the guest that is cloned. ``reboot`` is ``never`` or ``if_needed``. ``fresh``: a clone
    of this very run, which still gets what is given at creation only.
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
    privileges = {item.privilege for item in items if item.wire is not None} | {"VM.Allocate"}
    if want.state in ("started", "restarted"):
        changes.append(Start())
        privileges.add("VM.PowerMgmt")
    if want.state == "template":
        changes.append(Convert())
    after["state"] = _aim(want, False)
    _availability(want, None, changes, after, privileges)
    return Plan(tuple(changes), {}, after, False, (), frozenset(privileges))


def _clone(want: Want, source: Guest | None, reboot: str) -> Plan:
    """A clone is the source under another name; what follows is an update of it."""
    noun = NOUN[want.kind]
    if source is None:
        return Plan(
            refusals=(f"there is no {noun} {want.template!r} to clone: correct template or clone_of",)
        )
    if want.linked and not source.template:
        return Plan(refusals=(f"{source.name} ({source.vmid}) is no template, so linked must be false",))
    if want.kind == "lxc" and source.running:
        return Plan(
            refusals=(
                f"container {source.name} ({source.vmid}) runs, so it cannot be cloned: stop it, or clone a template",
            )
        )
    name_key = "hostname" if want.kind == "lxc" else "name"
    params: dict[str, str | int] = {name_key: want.name, "full": int(not want.linked)}
    rootfs = want.options.get("rootfs") or {}
    if rootfs.get("storage") and not want.linked:
        params["storage"] = rootfs["storage"]
    if want.options.get("pool"):
        params["pool"] = want.options["pool"]
    config = {
        key: value for key, value in source.config.items() if key not in ("template", "protection", "lock")
    }
    config[name_key] = want.name
    disk = "rootfs" if want.kind == "lxc" else boot_disk(config)
    if disk and "storage" in params:
        config[disk] = f"{rootfs['storage']}:{str(config[disk]).partition(':')[2]}"
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
    # What only a creation can give, a container has from its source.
    rest = _update(want, copy, reboot, want.kind == "vm")
    first = Clone(source.vmid, source.node, params, str(rootfs.get("storage") or ""))
    return replace(
        rest, changes=(first, *rest.changes), before={}, privileges=rest.privileges | {"VM.Allocate"}
    )


def _update(want: Want, have: Guest, reboot: str, fresh: bool) -> Plan:
    if have.template and want.state != "template":
        return Plan(
            refusals=(
                f"{have.name} ({have.vmid}) is a template, which is never changed: choose another name or vmid",
            )
        )
    items = expand(want.kind, _wanted(want), have.config, fresh or _half_made(have))
    differing = [item for item in items if item.differs or item.refusal]
    values = {item.key: item.wire for item in differing if item.wire is not None}
    delete = tuple(
        item.key for item in differing if item.wire is None and item.grow is None and item.key in have.config
    )
    privileges = {item.privilege for item in differing}
    changes: list[Change] = []
    if values or delete:
        changes.append(Configure(values, delete))
    changes += [Grow(disk=item.key, size_gb=number(item.grow)) for item in differing if item.grow is not None]
    before, after = _values(items, "before"), _values(items, "after")
    pool = want.options.get("pool")
    if pool:
        before["pool"], after["pool"] = have.pool, pool
        if have.pool != pool:
            changes.append(Join(pool=pool))
            privileges.add("Pool.Allocate")
    power, running = _power_change(want, have)
    managed = _managed_keys(want, have)
    # What somebody else asked for and what is taken back to the value that still holds needs no reboot.
    back = {
        key
        for key, holds in have.pending.items()
        if (key in delete if holds is None else key in values and str(values[key]) == str(holds))
    }
    pending = have.pending.keys() - back
    waiting = any(item.effect == REBOOT and item.key not in back for item in differing) or bool(
        pending & managed
    )
    needs_reboot = have.running and running and (waiting or bool(pending))
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
    if have.template and any(VOLUME.fullmatch(item.key) for item in differing):
        refusals += (f"{have.name} ({have.vmid}) is a template, whose volumes are never changed",)
    if want.state == "template" and not have.template:
        changes.append(Convert())
        privileges.add("VM.Allocate")
    _availability(want, have, changes, after, privileges)
    if "ha" in after:
        before["ha"] = bool(have.ha)
    return Plan(tuple(changes), before, after, needs_reboot, refusals, frozenset(privileges))


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


def _half_made(have: Guest) -> bool:
    """Whether a VM is a clone that nobody configured or started yet: a run ended between the two."""
    given = {option.key for option in TABLES["vm"] if option.effect == CREATION}
    plain = have.kind == "vm" and not have.running and not have.template
    return plain and not given & set(have.config)


def _managed_keys(want: Want, have: Guest) -> set[str]:
    return {item.key for item in expand(want.kind, _wanted(want), have.config, False)}


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
