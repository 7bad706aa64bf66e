# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The firewalls of the cluster, of nodes and of guests, as state: nothing is filtered here."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from lab.api.core import Request, route
from lab.api.guests import names
from lab.errors import ParameterError, die

_FIELDS = (
    "action",
    "comment",
    "dest",
    "dport",
    "enable",
    "icmp-type",
    "iface",
    "log",
    "macro",
    "proto",
    "source",
    "sport",
    "type",
)
# The names of /etc/protocols, in small letters as they stand there.
_PROTOCOLS = frozenset(
    [
        "ip",
        "hopopt",
        "icmp",
        "igmp",
        "ggp",
        "ipencap",
        "st",
        "tcp",
        "egp",
        "igp",
        "pup",
        "udp",
        "hmp",
        "xns-idp",
        "rdp",
        "iso-tp4",
        "dccp",
        "xtp",
        "ddp",
        "idpr-cmtp",
        "ipv6",
        "ipv6-route",
        "ipv6-frag",
        "idrp",
        "rsvp",
        "gre",
        "esp",
        "ah",
        "skip",
        "ipv6-icmp",
        "icmpv6",
        "ipv6-nonxt",
        "ipv6-opts",
        "rspf",
        "vmtp",
        "eigrp",
        "ospf",
        "ax.25",
        "ipip",
        "etherip",
        "encap",
        "pim",
        "ipcomp",
        "vrrp",
        "l2tp",
        "isis",
        "sctp",
        "fc",
        "mobility-header",
        "udplite",
        "mpls-in-ip",
        "manet",
        "hip",
        "shim6",
        "wesp",
        "rohc",
        "ethernet",
    ]
)
# What is not an option or a field of a rule among the parameters.
_ADDRESSING = {"node", "vmid", "pos", "digest", "delete", "moveto"}


def _cluster(_request: Request) -> str:
    return "cluster"


def _node(request: Request) -> str:
    return f"node {request.node}"


def _guest(kind: str) -> Callable[[Request], str]:
    def scope(request: Request) -> str:
        return str(request.cluster.find(int(request.params["vmid"]), request.node, kind).vmid)

    return scope


def _document(request: Request, scope: str) -> dict[str, Any]:
    found: dict[str, Any] = request.cluster.documents["firewall"].setdefault(
        scope, {"options": {}, "rules": []}
    )
    return found


def _digest(document: dict[str, Any], part: str) -> str:
    """Options and rules have one each."""
    return hashlib.sha1(json.dumps(document[part], sort_keys=True).encode()).hexdigest()  # noqa: S324


def _require_current(request: Request, document: dict[str, Any], part: str) -> None:
    expected = request.params.get("digest")
    if expected and expected != _digest(document, part):
        raise die("detected modified configuration - file changed by other user? Try again.")


def _position(request: Request, document: dict[str, Any]) -> int:
    position = int(request.params["pos"])
    if position >= len(document["rules"]):
        raise ParameterError({"pos": f"no rule at position {position}"})
    return position


def _shown(document: dict[str, Any], position: int) -> dict[str, Any]:
    return {"pos": position, **document["rules"][position], "digest": _digest(document, "rules")}


def _check(rule: dict[str, Any]) -> None:
    """What the schema cannot say of a rule."""
    errors: dict[str, str] = {}
    proto = str(rule.get("proto") or "")
    if proto and proto not in _PROTOCOLS and not (proto.isdigit() and int(proto) < 256):
        errors["proto"] = f"invalid format - unknown protocol '{proto}'"
    if re.search(r"[\x00-\x1f]", str(rule.get("comment", ""))):
        errors["comment"] = "invalid format - control characters are not allowed"
    for key in ("source", "dest"):
        versions = set()
        for word in names(rule.get(key)):
            if (word[0].isalpha() and ":" not in word) or word.startswith("+"):
                continue
            try:
                versions.add(ipaddress.ip_network(word, strict=False).version)
            except ValueError:
                errors[key] = f"invalid IP address or network: {word}"
        if len(versions) > 1:
            errors[key] = "detected mixed ipv4/ipv6 addresses in address list"
    for key in ("dport", "sport"):
        if rule.get(key) and not (rule.get("proto") or rule.get("macro")):
            errors["proto"] = f"missing property - '{key}' requires this property"
        for port in names(rule.get(key)):
            low, _, high = port.partition(":")
            if not all(part.isdigit() and 0 < int(part) < 65536 for part in (low, high or low)):
                errors[key] = f"invalid port '{port}'"
    if rule.get("type") != "group" and rule.get("action") not in ("ACCEPT", "REJECT", "DROP"):
        errors["action"] = f"unknown action '{rule.get('action')}'"
    if errors:
        raise ParameterError(errors)


def _register(base: str, scope: Callable[[Request], str]) -> None:
    """The methods of one kind of firewall."""

    def changed(request: Request, document: dict[str, Any], part: str = "rules") -> dict[str, Any]:
        _require_current(request, document, part)
        return document

    @route("GET", base)
    def index(_request: Request) -> list[dict[str, str]]:
        return [{"name": "options"}, {"name": "rules"}]

    @route("GET", f"{base}/options")
    def options(request: Request) -> dict[str, Any]:
        document = _document(request, scope(request))
        return {**document["options"], "digest": _digest(document, "options")}

    @route("PUT", f"{base}/options")
    def set_options(request: Request) -> None:
        with request.cluster.lock:
            document = changed(request, _document(request, scope(request)), "options")
            for key in names(request.params.get("delete")):
                document["options"].pop(key, None)
            given = {k: v for k, v in request.params.items() if k not in _ADDRESSING}
            document["options"].update(given)
            request.cluster.documents.save("firewall")

    @route("GET", f"{base}/rules")
    def rules(request: Request) -> list[dict[str, Any]]:
        document = _document(request, scope(request))
        return [_shown(document, position) for position in range(len(document["rules"]))]

    @route("POST", f"{base}/rules")
    def add(request: Request) -> None:
        rule = {key: request.params[key] for key in _FIELDS if key in request.params}
        rule.setdefault("enable", 0)
        _check(rule)
        with request.cluster.lock:
            document = changed(request, _document(request, scope(request)))
            # Whatever `pos` says: new rules are put on top.
            document["rules"].insert(0, rule)
            request.cluster.documents.save("firewall")

    @route("GET", f"{base}/rules/{{pos}}")
    def rule(request: Request) -> dict[str, Any]:
        document = _document(request, scope(request))
        return _shown(document, _position(request, document))

    @route("PUT", f"{base}/rules/{{pos}}")
    def change(request: Request) -> None:
        with request.cluster.lock:
            document = changed(request, _document(request, scope(request)))
            position, listed = _position(request, document), document["rules"]
            if request.params.get("moveto") is not None and int(request.params["moveto"]) != position:
                target = int(request.params["moveto"])
                moved = [(at, entry) for at, entry in enumerate(listed) if at != position]
                before = [entry for at, entry in moved if at < target]
                after = [entry for at, entry in moved if at >= target]
                document["rules"] = [*before, listed[position], *after]
            else:
                new = dict(listed[position])
                new.update({key: request.params[key] for key in _FIELDS if key in request.params})
                for key in names(request.params.get("delete")):
                    if key in ("type", "action"):
                        raise ParameterError({"delete": f"unable to delete required property '{key}'"})
                    new.pop(key, None)
                _check(new)
                listed[position] = new
            request.cluster.documents.save("firewall")

    @route("DELETE", f"{base}/rules/{{pos}}")
    def remove(request: Request) -> None:
        with request.cluster.lock:
            document = changed(request, _document(request, scope(request)))
            del document["rules"][_position(request, document)]
            request.cluster.documents.save("firewall")


_register("/cluster/firewall", _cluster)
_register("/nodes/{node}/firewall", _node)
_register("/nodes/{node}/lxc/{vmid}/firewall", _guest("lxc"))
_register("/nodes/{node}/qemu/{vmid}/firewall", _guest("qemu"))
