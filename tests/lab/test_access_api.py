# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Users, tokens and access lists of the API, made as an operator makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.access import Access
from lab.testing import Account, TestServer

from .test_api import Client, api, srv

__all__ = ["api", "srv"]

USER = "automation@pve"


def token(api: Client, **params: Any) -> Account:
    api("POST", "/access/users", userid=USER, comment="for Ansible")
    made = api("POST", f"/access/users/{USER}/token/ansible", **params)
    assert made["full-tokenid"] == f"{USER}!ansible"
    return Account(USER, "ansible", made["value"])


def test_a_token_has_what_was_granted_to_it_and_its_user(srv: TestServer, api: Client) -> None:
    client = Client(srv, token(api))
    missing = client("POST", "/pools", 403, poolid="p").reason
    assert missing == "Permission check failed (/pool/p, Pool.Allocate)"
    api("PUT", "/access/acl", path="/", users=USER, roles="PVEPoolAdmin,PVEVMAdmin")
    assert client("POST", "/pools", 403, poolid="p").reason == missing, "a separated token needs its own"
    api("PUT", "/access/acl", path="/pool", tokens=f"{USER}!ansible", roles="PVEPoolAdmin")
    client("POST", "/pools", poolid="p")
    assert client("GET", "/access/permissions", path="/vms") == {"/vms": {}}
    api("PUT", "/access/acl", path="/pool", tokens=f"{USER}!ansible", roles="PVEPoolAdmin", delete=1)
    client("DELETE", "/pools", 403, poolid="p")


def test_a_token_without_separation_has_all_of_its_user(srv: TestServer, api: Client) -> None:
    client = Client(srv, token(api, privsep=0))
    api("PUT", "/access/acl", path="/pool", users=USER, roles="PVEPoolAdmin", propagate=0)
    client("POST", "/pools", 403, poolid="p")
    api("PUT", "/access/acl", path="/pool", users=USER, roles="PVEPoolAdmin")
    client("POST", "/pools", poolid="p")
    [entry] = [entry for entry in api("GET", "/access/acl") if entry["ugid"] == USER]
    assert entry == {"path": "/pool", "ugid": USER, "type": "user", "roleid": "PVEPoolAdmin", "propagate": 1}


def test_a_user_that_is_disabled_or_gone_gets_nowhere(srv: TestServer, api: Client) -> None:
    client = Client(srv, token(api, privsep=0))
    client("GET", "/nodes")
    api("PUT", f"/access/users/{USER}", enable=0)
    client("GET", "/nodes", 401)
    api("PUT", f"/access/users/{USER}", enable=1)
    api("DELETE", f"/access/users/{USER}/token/ansible")
    client("GET", "/nodes", 401)
    api("DELETE", f"/access/users/{USER}")
    assert USER not in [entry["userid"] for entry in api("GET", "/access/users")]


def test_only_those_who_may_change_the_directory(srv: TestServer, api: Client) -> None:
    client = Client(srv, srv.vmadmin)
    assert "Realm.AllocateUser" in client("POST", "/access/users", 403, userid=USER).reason
    assert (
        "Permissions.Modify" in client("PUT", "/access/acl", 403, path="/", users="x@pve", roles="x").reason
    )
    assert [entry["userid"] for entry in client("GET", "/access/users")] == [srv.vmadmin.user]
    client("POST", f"/access/users/{srv.vmadmin.user}/token/own")


def test_what_does_not_exist_is_told(api: Client) -> None:
    answer = api("PUT", "/access/acl", 400, path="/", users="nobody@pve", roles="PVEAuditor")
    assert answer.json()["errors"] == {"users": "user 'nobody@pve' does not exist\n"}
    answer = api("PUT", "/access/acl", 400, path="/", users="root@pam", roles="Emperor")
    assert answer.json()["errors"] == {"roles": "role 'Emperor' does not exist\n"}


def test_the_directory_outlives_the_server(tmp_path: Path) -> None:
    from lab.access import Token, User

    first = Access(state=tmp_path / "access.json")
    first.users[USER] = User("secret", {"ansible": Token("value", privsep=False)}, comment="c")
    first.acl["/vms", USER] = "PVEVMAdmin"
    first.flat.add(("/vms", USER))
    first.save()
    second = Access(state=tmp_path / "access.json")
    assert (second.users, second.acl, second.flat) == (first.users, first.acl, first.flat)
    assert (tmp_path / "access.json").stat().st_mode & 0o777 == 0o600
