# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""``want, have -> plan``. Pure: the same two values always give the same plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .formats import number
from .model import (
    Change,
    Clone,
    Configure,
    Create,
    Destroy,
    Grow,
    Guest,
    Join,
    Plan,
    Reboot,
    Start,
    Stop,
    Want,
)
from .options import CREATION, REBOOT, TABLES, Item, boot_disk, expand


def plan(
    want: Want, have: Guest | None, source: Guest | None = None, reboot: str = "never", fresh: bool = False
) -> Plan:
    """The ordered changes that turn ``have`` (None: not there) into ``want``.

    ``source`` is the guest that a VM is cloned from. ``reboot`` is ``never`` or ``if_needed``. ``fresh``: a clone
    of this very run, which still gets what is given at creation only.
    """
    if want.state == "absent":
        return _absent(want, have)
    if have is None:
        return _create(want) if want.kind == "lxc" else _clone(want, source, reboot)
    return _update(want, have, reboot, fresh)


def _wanted(want: Want) -> dict[str, Any]:
    return {"name": want.name, **want.options}


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
    after["state"] = "running" if want.state in ("started", "restarted") else "stopped"
    return Plan(tuple(changes), {}, after, False, (), frozenset(privileges))


def _clone(want: Want, source: Guest | None, reboot: str) -> Plan:
    """A clone is the source under another name; what follows is an update of it."""
    if source is None:
        return Plan(refusals=(f"there is no VM {want.template!r} to clone: correct template or clone_of",))
    params: dict[str, str | int] = {"name": want.name, "full": 1}
    rootfs = want.options.get("rootfs") or {}
    if rootfs.get("storage"):
        params["storage"] = rootfs["storage"]
    if want.options.get("pool"):
        params["pool"] = want.options["pool"]
    config = {
        key: value for key, value in source.config.items() if key not in ("template", "protection", "lock")
    }
    config["name"] = want.name
    disk = boot_disk(config)
    if disk and rootfs.get("storage"):
        config[disk] = f"{rootfs['storage']}:{str(config[disk]).partition(':')[2]}"
    copy = replace(
        source,
        name=want.name,
        template=False,
        running=False,
        config=config,
        pool=str(params.get("pool", "")),
        lock="",
        pending=frozenset(),
    )
    rest = _update(want, copy, reboot, True)
    first = Clone(source.vmid, source.node, params, str(rootfs.get("storage") or ""))
    return replace(
        rest, changes=(first, *rest.changes), before={}, privileges=rest.privileges | {"VM.Allocate"}
    )


def _update(want: Want, have: Guest, reboot: str, fresh: bool) -> Plan:
    if have.template:
        return Plan(
            refusals=(
                f"{have.name} ({have.vmid}) is a template, which is never changed: choose another name or vmid",
            )
        )
    options = {name: value for name, value in _wanted(want).items() if name != "pool"}
    items = expand(want.kind, options, have.config, fresh or _half_made(have))
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
    waiting = any(item.effect == REBOOT for item in differing) or bool(have.pending & managed)
    needs_reboot = have.running and running and (waiting or bool(have.pending))
    if isinstance(power, Reboot):
        needs_reboot = False
    elif power is None and needs_reboot and waiting and reboot == "if_needed":
        power, needs_reboot = Reboot(), False
    if power is not None:
        changes.append(power)
        privileges.add("VM.PowerMgmt")
    before["state"] = _power(have)
    after["state"] = "running" if running else "stopped"
    refusals = tuple(item.refusal for item in items if item.refusal)
    return Plan(tuple(changes), before, after, needs_reboot, refusals, frozenset(privileges))


def _half_made(have: Guest) -> bool:
    """Whether a VM is a clone that nobody configured or started yet: a run ended between the two."""
    given = {option.key for option in TABLES["vm"] if option.effect == CREATION}
    return have.kind == "vm" and not have.running and not given & set(have.config)


def _managed_keys(want: Want, have: Guest) -> set[str]:
    return {item.key for item in expand(want.kind, _wanted(want), have.config, False)}


def _power(have: Guest) -> str:
    return "running" if have.running else "stopped"


def _power_change(want: Want, have: Guest) -> tuple[Change | None, bool]:
    """The power change and whether the guest runs after it."""
    if want.state == "present":
        return None, have.running
    if want.state == "stopped":
        return (Stop() if have.running else None), False
    if not have.running:
        return Start(), True
    return (Reboot() if want.state == "restarted" else None), True
