# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a module did, or would do, in one line per object: what and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Key of a module's result and what its objects are called.
NOUNS = {
    "proxmox_guests": ("guests", "guest"),
    "proxmox_pool": ("pools", "pool"),
    "proxmox_template": ("templates", "template"),
    "proxmox_firewall": ("guests", "firewall of"),
    "proxmox_backup_job": ("jobs", "backup job"),
    "proxmox_snapshot": ("guests", "snapshots of"),
    "proxmox_version": ("guests", "versions of"),
}
#: More reasons than these are counted, and longer values cut.
SHOWN, LONGEST = 4, 48
#: What says that an object was not there before, or is not there any more.
_MADE = {"created", "cloned", "uploaded", "downloaded"}
_GONE = {"destroyed"}


def lines(module: str, result: Mapping[str, Any], check: bool = False) -> list[str]:
    """Of everything that was changed, and of guests that wait for a reboot."""
    key, noun = NOUNS[module]
    told = []
    for name, found in (result.get(key) or {}).items():
        subject = f"{noun} {name}{_place(found)}"
        if found.get("actions"):
            mode = " (check)" if check else ""
            told.append(f"{subject}{mode}: {', '.join(map(str, found['actions']))}: {reason(found)}")
        if found.get("pending"):
            waiting = ", ".join(map(str, found["pending"]))
            told.append(f"{subject}: waits for a reboot: {waiting} (with reboot: if_needed a run does it)")
    return told


def _place(found: Mapping[str, Any]) -> str:
    return f" ({found['vmid']} on {found['node']})" if found.get("vmid") and found.get("node") else ""


def reason(found: Mapping[str, Any]) -> str:
    """Why an object was changed."""
    actions, before, after = set(found["actions"]), found.get("before") or {}, found.get("after") or {}
    if actions & _GONE or (actions == {"removed"} and after.get("state") == "absent"):
        return "its record says absent"
    if actions & _MADE and not (set(before) - {"state"}):
        return "it was not there"
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    words = [_difference(key, before.get(key), after.get(key)) for key in differing]
    if len(words) > SHOWN:
        words[SHOWN:] = [f"{len(words) - SHOWN} more"]
    return "; ".join(words) or "its record asks for it"


def _difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        signs = [f"+ {_short(entry)}" for entry in new if entry not in old]
        signs += [f"- {_short(entry)}" for entry in old if entry not in new]
        if len(signs) > SHOWN:
            signs[SHOWN:] = [f"{len(signs) - SHOWN} more"]
        return f"{key} {', '.join(signs) or 'in another order'}"
    if old in (None, ""):
        return f"{key} {_short(new)}"
    if new in (None, ""):
        return f"{key} no longer {_short(old)}"
    return f"{key} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def refusals(result: Mapping[str, Any]) -> Sequence[str]:
    """Why a module failed, as lines."""
    return str(result.get("msg") or "").splitlines() if result.get("failed") else []
