# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""/access and /version."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from lab.access import ROLES, Identity, Token, User
from lab.api.core import Request, route
from lab.api.guests import names
from lab.cluster import VERSION
from lab.errors import ApiError, ParameterError, die


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
    if "tfa-challenge" in request.params:
        raise ApiError(401, "authentication failure")
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


# -- users


def _user(request: Request) -> tuple[str, User]:
    name = str(request.params["userid"])
    found = request.cluster.access.users.get(name)
    if found is None:
        raise die(f"no such user ('{name}')")
    return name, found


def _token(request: Request) -> tuple[User, str, Token]:
    _, user = _user(request)
    name = str(request.params["tokenid"])
    if name not in user.tokens:
        raise die(f"no such token '{name}' for user '{request.params['userid']}'")
    return user, name, user.tokens[name]


def _entry(user: User) -> dict[str, Any]:
    return {"enable": int(user.enabled), "expire": 0, **({"comment": user.comment} if user.comment else {})}


@route("GET", "/access/users")
def users(request: Request) -> list[dict[str, Any]]:
    access = request.cluster.access
    everyone = access.has(request.who, "/access/groups", ["User.Modify", "Sys.Audit"], any_of=True)
    wanted = request.params.get("enabled")
    return [
        {"userid": name, **_entry(user)}
        for name, user in sorted(access.users.items())
        if (everyone or name == request.who.user) and wanted in (None, int(user.enabled))
    ]


@route("POST", "/access/users")
def create_user(request: Request) -> None:
    access, params = request.cluster.access, request.params
    name = str(params["userid"])
    if name in access.users:
        raise die(f"create user failed: user '{name}' already exists")
    password = str(params.get("password") or secrets.token_urlsafe(24))
    enabled = bool(params.get("enable", 1))
    access.users[name] = User(password, comment=str(params.get("comment", "")), enabled=enabled)
    access.save()


@route("GET", "/access/users/{userid}")
def read_user(request: Request) -> dict[str, Any]:
    _, user = _user(request)
    return {
        **_entry(user),
        "groups": [],
        "tokens": {name: _told(token) for name, token in user.tokens.items()},
    }


@route("PUT", "/access/users/{userid}")
def update_user(request: Request) -> None:
    _, user = _user(request)
    user.comment = str(request.params.get("comment", user.comment))
    user.enabled = bool(request.params.get("enable", user.enabled))
    request.cluster.access.save()


@route("DELETE", "/access/users/{userid}")
def delete_user(request: Request) -> None:
    access, (name, _) = request.cluster.access, _user(request)
    if name == "root@pam":
        raise die("delete user failed: unable to delete root@pam")
    del access.users[name]
    for path, who in [key for key in access.acl if key[1].partition("!")[0] == name]:
        del access.acl[path, who]
    access.save()


# -- tokens


def _told(token: Token) -> dict[str, Any]:
    return {"privsep": int(token.privsep), "expire": 0}


@route("GET", "/access/users/{userid}/token")
def tokens(request: Request) -> list[dict[str, Any]]:
    _, user = _user(request)
    return [{"tokenid": name, **_told(token)} for name, token in sorted(user.tokens.items())]


@route("GET", "/access/users/{userid}/token/{tokenid}")
def read_token(request: Request) -> dict[str, Any]:
    return _told(_token(request)[2])


@route("POST", "/access/users/{userid}/token/{tokenid}")
def create_token(request: Request) -> dict[str, Any]:
    name, user = _user(request)
    token = str(request.params["tokenid"])
    if token in user.tokens:
        raise ParameterError({"tokenid": "Token already exists."})
    made = user.tokens[token] = Token(str(uuid.uuid4()), bool(request.params.get("privsep", 1)))
    request.cluster.access.save()
    return {"full-tokenid": f"{name}!{token}", "info": _told(made), "value": made.secret}


@route("PUT", "/access/users/{userid}/token/{tokenid}")
def update_token(request: Request) -> dict[str, Any]:
    user, name, token = _token(request)
    privsep = bool(request.params.get("privsep", token.privsep))
    user.tokens[name] = Token(token.secret, privsep)
    request.cluster.access.save()
    return _told(user.tokens[name])


@route("DELETE", "/access/users/{userid}/token/{tokenid}")
def delete_token(request: Request) -> None:
    user, name, _ = _token(request)
    del user.tokens[name]
    request.cluster.access.save()


# -- roles and who has them where


@route("GET", "/access/roles")
def roles(_request: Request) -> list[dict[str, Any]]:
    return [
        {"roleid": name, "privs": ",".join(sorted(held)), "special": 1}
        for name, held in sorted(ROLES.items())
    ]


@route("GET", "/access/roles/{roleid}")
def role(request: Request) -> dict[str, int]:
    name = str(request.params["roleid"])
    if name not in ROLES:
        raise die(f"role '{name}' does not exist")
    return dict.fromkeys(sorted(ROLES[name]), 1)


@route("GET", "/access/acl")
def access_list(request: Request) -> list[dict[str, Any]]:
    access = request.cluster.access
    return [
        {
            "path": path,
            "ugid": who,
            "type": "token" if "!" in who else "user",
            "roleid": name,
            "propagate": int((path, who) not in access.flat),
        }
        for (path, who), given in sorted(access.acl.items())
        for name in given.split(",")
        if access.has(request.who, path, ["Permissions.Modify", "Sys.Audit"], any_of=True)
    ]


@route("PUT", "/access/acl")
def grant(request: Request) -> None:
    access, params = request.cluster.access, request.params
    path, wanted = str(params["path"]).rstrip("/") or "/", names(params["roles"])
    if params.get("groups"):
        raise ApiError(501, "groups are not implemented")
    unknown = [name for name in wanted if name not in ROLES]
    if unknown:
        raise ParameterError({"roles": f"role '{unknown[0]}' does not exist"})
    for who in [*names(params.get("users")), *names(params.get("tokens"))]:
        user, _, token = who.partition("!")
        if user not in access.users or (token and token not in access.users[user].tokens):
            raise ParameterError({"tokens" if token else "users": f"user '{who}' does not exist"})
        present = set(filter(None, access.acl.get((path, who), "").split(",")))
        left = present - set(wanted) if params.get("delete") else present | set(wanted)
        access.flat.discard((path, who))
        if not left:
            access.acl.pop((path, who), None)
            continue
        access.acl[path, who] = ",".join(sorted(left))
        if not params.get("propagate", 1):
            access.flat.add((path, who))
    access.save()
