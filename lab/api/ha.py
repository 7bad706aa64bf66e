# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/cluster/ha: services that the HA manager keeps, and rules about where."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lab.api.core import Request, route
from lab.api.guests import names
from lab.api.power import obey_ha
from lab.documents import trimmed
from lab.drivers.base import Guest
from lab.errors import ParameterError, die

_DEFAULTS: dict[str, Any] = {"state": "started", "max_relocate": 1, "max_restart": 1, "failback": 1}
_WORDS = {"lxc": "ct", "qemu": "vm"}


def _sid(request: Request) -> tuple[str, Guest]:
    """The service id `vm:100`, which may be given as `100`, and the guest behind it."""
    text = str(request.params["sid"])
    word, _, number = text.rpartition(":")
    guest = request.cluster.guests.get(int(number)) if number.isdigit() else None
    if guest is None or word not in ("", _WORDS[guest.kind]):
        raise die(f"resource '{text}' does not exist in cluster")
    return request.cluster.sid(guest), guest


def _known(request: Request) -> tuple[str, Guest]:
    sid, guest = _sid(request)
    if sid not in request.cluster.ha:
        raise die(f"no such resource '{sid}'")
    return sid, guest


def _digest(document: object) -> str:
    return hashlib.sha1(json.dumps(document, sort_keys=True).encode()).hexdigest()  # noqa: S324


def _entry(request: Request, sid: str) -> dict[str, Any]:
    return {
        "sid": sid,
        "type": sid.partition(":")[0],
        **request.cluster.ha[sid],
        "digest": _digest(request.cluster.ha),
    }


@route("GET", "/cluster/ha/resources")
def index(request: Request) -> list[dict[str, Any]]:
    kind = request.params.get("type")
    return [
        _entry(request, sid) for sid in sorted(request.cluster.ha) if kind in (None, sid.partition(":")[0])
    ]


@route("GET", "/cluster/ha/resources/{sid}")
def read(request: Request) -> dict[str, Any]:
    return _entry(request, _known(request)[0])


def _values(request: Request) -> dict[str, Any]:
    if "group" in request.params:
        raise die("cannot use group: ha groups have been migrated to rules")
    return trimmed(
        {
            key: value
            for key, value in request.params.items()
            if key not in ("sid", "type", "digest", "delete", "group")
        }
    )


@route("POST", "/cluster/ha/resources")
def create(request: Request) -> None:
    cluster, (sid, guest) = request.cluster, _sid(request)
    with cluster.lock:
        if sid in cluster.ha:
            raise die(f"resource ID '{sid}' already defined")
        if guest.config.get("template"):
            raise die(f"unable to add template {guest.vmid} to HA")
        cluster.ha[sid] = {**_DEFAULTS, **_values(request)}
        cluster.save_ha()
    obey_ha(cluster, guest)


@route("PUT", "/cluster/ha/resources/{sid}")
def update(request: Request) -> None:
    cluster, (sid, guest) = request.cluster, _known(request)
    with cluster.lock:
        expected = request.params.get("digest")
        if expected and expected != _digest(cluster.ha):
            raise die("detected modified configuration - file changed by other user? Try again.")
        entry = {**cluster.ha[sid], **_values(request)}
        for name in names(request.params.get("delete")):
            entry.pop(name, None)
        cluster.ha[sid] = {**_DEFAULTS, **entry}
        cluster.save_ha()
    obey_ha(cluster, guest)


@route("DELETE", "/cluster/ha/resources/{sid}")
def delete(request: Request) -> None:
    cluster, (sid, _) = request.cluster, _known(request)
    with cluster.lock:
        del cluster.ha[sid]
        cluster.save_ha()


@route("GET", "/cluster/ha/groups")
def groups(_request: Request) -> None:
    raise die("cannot index groups: ha groups have been migrated to rules")


@route("GET", "/cluster/ha/status/current")
def status(request: Request) -> list[dict[str, Any]]:
    cluster = request.cluster
    found: list[dict[str, Any]] = [
        {"id": "quorum", "type": "quorum", "node": cluster.nodes[0], "status": "OK", "quorate": 1}
    ]
    for sid, entry in sorted(cluster.ha.items()):
        guest = cluster.guests.get(int(sid.partition(":")[2]))
        if guest:
            found.append(
                {
                    "id": f"service:{sid}",
                    "type": "service",
                    "sid": sid,
                    "node": guest.node,
                    "state": entry["state"],
                    "request_state": entry["state"],
                    "status": f"{sid} ({guest.node}, {entry['state']})",
                }
            )
    return found


# -- rules


@route("GET", "/cluster/ha/rules")
def rules(request: Request) -> list[dict[str, Any]]:
    kind, resource = request.params.get("type"), request.params.get("resource")
    return [
        {"rule": name, **entry, "digest": _digest(request.cluster.ha_rules)}
        for name, entry in sorted(request.cluster.ha_rules.items())
        if kind in (None, entry["type"]) and (not resource or resource in names(entry.get("resources")))
    ]


def _rule(request: Request) -> str:
    name = str(request.params["rule"])
    if name not in request.cluster.ha_rules:
        raise die(f"no such ha rule '{name}'")
    return name


@route("GET", "/cluster/ha/rules/{rule}")
def read_rule(request: Request) -> dict[str, Any]:
    name = _rule(request)
    return {
        "rule": name,
        **request.cluster.ha_rules[name],
        "digest": _digest(request.cluster.ha_rules),
    }


@route("POST", "/cluster/ha/rules")
def create_rule(request: Request) -> None:
    cluster, params = request.cluster, request.params
    name = str(params["rule"])
    with cluster.lock:
        if name in cluster.ha_rules:
            raise die(f"HA rule '{name}' already defined")
        for sid in names(params["resources"]):
            if sid not in cluster.ha:
                raise ParameterError({"resources": f"cannot use unmanaged resource(s) {sid}."})
        cluster.ha_rules[name] = trimmed({key: value for key, value in params.items() if key != "rule"})
        cluster.save_ha()


@route("PUT", "/cluster/ha/rules/{rule}")
def update_rule(request: Request) -> None:
    cluster, name = request.cluster, _rule(request)
    with cluster.lock:
        entry = cluster.ha_rules[name]
        entry |= {
            key: value for key, value in request.params.items() if key not in ("rule", "delete", "digest")
        }
        for key in names(request.params.get("delete")):
            entry.pop(key, None)
        cluster.save_ha()


@route("DELETE", "/cluster/ha/rules/{rule}")
def delete_rule(request: Request) -> None:
    with request.cluster.lock:
        del request.cluster.ha_rules[_rule(request)]
        request.cluster.save_ha()
