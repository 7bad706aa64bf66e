# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What containers and virtual machines have in common behind the API."""

from __future__ import annotations

import re
from typing import Any

from lab.api.core import Request
from lab.cluster import digest
from lab.drivers.base import Guest
from lab.errors import ParameterError, die


def normal_tags(value: str) -> str:
    return ";".join(sorted({tag.lower() for tag in re.split(r"[;, ]+", value) if tag}))


def names(text: Any) -> list[str]:
    """Words of a list parameter."""
    return [name for name in re.split(r"[;, ]+", str(text or "")) if name]


def overlaid(guest: Guest, current: bool) -> dict[str, Any]:
    """The configuration with its digest; what is pending holds already, unless it is `current` that is asked for."""
    found = dict(guest.config)
    if not current:
        found.update(guest.pending)
        for key in list(guest.pending_delete):
            found.pop(key, None)
    found["digest"] = digest(guest)
    return found


def pending_entries(guest: Guest) -> list[dict[str, Any]]:
    now, later, gone = dict(guest.config), dict(guest.pending), list(guest.pending_delete)
    found: list[dict[str, Any]] = []
    for key in sorted({*now, *later}):
        entry: dict[str, Any] = {"key": key}
        if key in now:
            entry["value"] = now[key]
        if key in later:
            entry["pending"] = later[key]
        if key in gone:
            entry["delete"] = 1
        found.append(entry)
    found.append({"key": "digest", "value": digest(guest)})
    return found


def require_startable(request: Request, guest: Guest, refusal: str) -> None:
    """A guest that is locked, or a template (`refusal`), is not started."""
    if not request.params.get("skiplock"):
        request.cluster.require_unlocked(guest)
    elif not request.who.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})
    if guest.config.get("template"):
        raise die(refusal)


def apply_pending(request: Request, guest: Guest) -> None:
    """What happens to pending changes when a guest is not running any more."""
    with request.cluster.change(guest, skiplock=True):
        for key in guest.pending_delete:
            guest.config.pop(key, None)
        guest.config.update(guest.pending)
        guest.pending, guest.pending_delete = {}, []
