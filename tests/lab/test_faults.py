# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Faults of a running server, switched over the wire as `python -m lab fault` does."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from lab import faults
from lab.testing import TestServer

from .test_api import Client, _session, api, srv

__all__ = ["api", "srv"]


def switch(srv: TestServer, api: Client, name: str = "", on: int = 1, **values: Any) -> requests.Response:
    url = f"https://{srv.host}:{srv.port}/lab/faults"
    return api.session.post(url, data={"name": name, "on": on, **values}, timeout=10)


def happens(srv: TestServer, api: Client, name: str) -> str:
    """What a client meets when the fault is on."""
    made = {"vmid": 101, "ostemplate": "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst"}
    made |= {"rootfs": "local-lvm:4"}
    if name in ("storage-lock", "quota-full", "task-warnings", "slow-clone", "slow-task"):
        began = time.monotonic()
        status = api.task(api("POST", "/nodes/pve1/lxc", **made), None)["exitstatus"]
        return "slow" if status == "OK" and time.monotonic() - began > 0.5 else str(status)
    if name == "drop-reply":
        with pytest.raises(requests.exceptions.ConnectionError):
            api("POST", "/pools", poolid="p")
        return str([pool["poolid"] for pool in api("GET", "/pools")])
    answer = api.session.put(api.base + "/nodes/pve1/lxc/100/config", data={"tags": "a"}, timeout=10)
    return f"{answer.status_code} {answer.reason}"


@pytest.mark.parametrize(
    ("name", "values", "effect"),
    [
        ("slow-clone", {"seconds": 0.6}, "slow"),
        ("slow-task", {"seconds": 0.6, "types": "vzcreate,vzstart"}, "slow"),
        ("task-warnings", {}, "WARNINGS: 1"),
        ("storage-lock", {}, "cfs-lock 'storage-local-lvm' error: got lock request timeout"),
        ("quota-full", {}, "insufficient free space"),
        ("file-lock", {}, "500 can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout"),
        ("drop-reply", {"path": "/pools$"}, "['p']"),
        ("no-reply", {"method": "PUT"}, "596 Connection timed out"),
        ("lock-held", {"vmid": 100, "lock": "migrate"}, "500 CT is locked (migrate)"),
    ],
)
def test_switched_on_and_off_while_it_runs(
    srv: TestServer, api: Client, name: str, values: dict[str, Any], effect: str
) -> None:
    api.create()
    assert switch(srv, api, name, **values).ok
    off = {key: value for key, value in values.items() if key == "vmid"}
    assert switch(srv, api, name, on=0, **off).ok
    calm = happens(srv, api, name) if name != "drop-reply" else "nothing"
    assert calm in ("OK", "200 OK", "nothing")
    if calm == "OK":
        api.task(api("DELETE", "/nodes/pve1/lxc/101"))
    assert switch(srv, api, name, **values).ok
    assert effect in happens(srv, api, name)


def test_expired_ticket(srv: TestServer, api: Client) -> None:
    session = _session(srv)
    login = {"username": srv.user, "password": srv.password}
    ticket = session.post(f"{api.base}/access/ticket", data=login, timeout=10).json()["data"]["ticket"]
    session.cookies.set("PVEAuthCookie", ticket)
    assert session.get(f"{api.base}/nodes", timeout=10).status_code == 200
    assert switch(srv, api, "expired-ticket").ok
    assert session.get(f"{api.base}/nodes", timeout=10).status_code == 401


def test_what_is_on_is_listed_and_all_of_it_switched_off(srv: TestServer, api: Client) -> None:
    switch(srv, api, "storage-lock", times=3)
    answer = switch(srv, api, "no-reply", path="/nodes")
    assert answer.json()["data"] == ["storage-lock times=3", "no-reply method=* path=/nodes times=1"]
    assert switch(srv, api, on=0).json()["data"] == []


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("nonsense", {}, "there is no fault 'nonsense'; faults are dead-node, deaf, drop-reply"),
        ("slow-clone", {"times": 1}, "slow-clone has no value 'times'; it has seconds"),
        ("slow-clone", {"seconds": "long"}, "slow-clone: could not convert"),
        ("drop-reply", {"path": "("}, "drop-reply: "),
        ("lock-held", {}, "there is no guest 0; add vmid=<id>"),
    ],
)
def test_wrong_switch_is_told(
    srv: TestServer, api: Client, name: str, values: dict[str, Any], text: str
) -> None:
    answer = switch(srv, api, name, **values)
    assert answer.status_code == 400
    assert text in answer.reason


def test_others_than_root_switch_nothing(srv: TestServer) -> None:
    assert switch(srv, Client(srv, srv.vmadmin), "file-lock").status_code == 403
    assert srv.faults.file_lock == 0


def test_help_names_every_fault() -> None:
    from lab import __main__

    assert all(name in str(__main__.__doc__) for name in faults.SWITCHES)
