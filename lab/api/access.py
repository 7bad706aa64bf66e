# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/access and /version."""

from __future__ import annotations

from typing import Any

from lab.access import Identity
from lab.api.core import Request, route
from lab.cluster import VERSION
from lab.errors import ApiError


@route("GET", "/version")
def version(_request: Request) -> dict[str, str]:
    return dict(VERSION)


@route("GET", "/access/ticket")
def ticket_index(_request: Request) -> None:
    return None


@route("POST", "/access/ticket")
def login(request: Request) -> dict[str, Any]:
    user = str(request.params["username"])
    if "@" not in user:
        user += "@" + str(request.params.get("realm", "pam"))
    answer = request.cluster.access.login(user, str(request.params["password"]))
    table = request.cluster.access.table(Identity(user))
    answer["cap"] = {
        name: table.get(path, {})
        for name, path in {
            "access": "/access",
            "dc": "/",
            "nodes": "/nodes",
            "sdn": "/sdn",
            "storage": "/storage",
            "vms": "/vms",
        }.items()
    }
    answer["clustername"] = "lab"
    return answer


@route("GET", "/access/permissions")
def permissions(request: Request) -> dict[str, dict[str, int]]:
    who = request.who
    asked = str(request.params.get("userid", who.owner))
    if asked != who.owner:
        user, _, token = asked.partition("!")
        known = request.cluster.access.users.get(user)
        if known is None or (token and token not in known.tokens):
            raise ApiError(500, f"no such user or token '{asked}'")
        if not (token and user == who.user):
            request.cluster.access.require(who, "/access", ["Sys.Audit"])
        who = Identity(user, token)
    path = request.params.get("path")
    return request.cluster.access.table(who, str(path) if path else None)
