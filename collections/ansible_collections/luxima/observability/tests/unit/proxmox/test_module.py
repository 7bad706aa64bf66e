# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The module over the wire: what it makes, what it leaves alone, what it says."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest


def outcome(result: dict[str, Any], name: str = "web-1") -> dict[str, Any]:
    guest: dict[str, Any] = result["guests"][name]
    return guest


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """What check mode must predict."""
    return {
        "changed": result["changed"],
        "diff": result["diff"],
        "guests": {
            name: {
                key: guest[key]
                for key in ("vmid", "node", "addresses", "before", "after", "actions", "needs_reboot")
            }
            for name, guest in result["guests"].items()
        },
    }


def test_creates_and_then_changes_nothing(site: Any, web: Any) -> None:
    first = site.ok(web)
    assert outcome(first)["actions"] == ["created", "started"]
    assert outcome(first)["addresses"] == ["10.0.0.11"]
    assert outcome(first)["exists"] is True
    assert len(outcome(first)["upids"]) == 2
    config = site.config("web-1")
    assert int(config["memory"]) == 256
    assert "operator" in str(site.server.requests[-1]) or any(
        "ssh-public-keys" in (entry.params or {}) for entry in site.server.requests if entry.method == "POST"
    )
    second = site.ok(web)
    assert second["changed"] is False
    assert outcome(second)["actions"] == []
    assert second["diff"] == []


def test_unchanged_run_asks_once_per_node_and_guest(site: Any, make: Any) -> None:
    guests = [make(f"web-{number}") for number in range(1, 7)]
    site.ok(*guests)
    before = len(site.server.requests)
    assert site.ok(*guests)["changed"] is False
    new = site.server.requests[before:]
    assert all(entry.method == "GET" for entry in new)
    nodes = {site.server.guest(guest["name"]).node for guest in guests}
    assert len(new) <= 1 + len(nodes) + len(guests)


def test_spreads_over_nodes_evenly(site: Any, make: Any) -> None:
    result = site.ok(*[make(f"web-{number}") for number in range(1, 7)])
    nodes = [guest["node"] for guest in result["guests"].values()]
    assert {nodes.count(node) for node in nodes} == {2}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"memory_mb": 512},
        {"cores": 2, "tags": ["dev"]},
        {"rootfs": {"storage": "local-lvm", "size_gb": 6}},
        {"state": "stopped"},
        {"state": "restarted"},
        {"state": "absent"},
        {"nameservers": ["9.9.9.9"]},
        {"networks": [{"bridge": "vmbr0", "address": "dhcp"}], "state": "stopped"},
        {"disks": [{"slot": "mp0", "storage": "local-lvm", "size_gb": 1, "path": "/data"}]},
    ],
)
@pytest.mark.parametrize("reboot", ["never", "if_needed"])
def test_check_mode_predicts_what_a_run_does(
    site: Any, web: Any, change: dict[str, Any], reboot: str
) -> None:
    predicted = site.ok(web, check=True)
    assert site.server.cluster.guests == {}
    assert outcome(predicted)["exists"] is False
    assert comparable(site.ok(web)) == comparable(predicted)
    changed = {**web, **change}
    writes = site.server.count("POST") + site.server.count("PUT") + site.server.count("DELETE")
    predicted = site.ok(changed, check=True, reboot=reboot)
    assert writes == site.server.count("POST") + site.server.count("PUT") + site.server.count("DELETE")
    done = site.ok(changed, reboot=reboot)
    assert comparable(done) == comparable(predicted)
    if change.get("state") != "restarted":
        assert site.ok(changed, reboot=reboot)["changed"] is False


def test_diff_shows_what_differs_and_no_key(site: Any, web: Any) -> None:
    site.ok(web)
    result = site.ok({**web, "memory_mb": 512, "ssh_public_keys": ["ssh-ed25519 other"]})
    assert result["diff"] == [
        {
            "before_header": "web-1",
            "after_header": "web-1",
            "before": {"memory_mb": 256},
            "after": {"memory_mb": 512},
        }
    ]


def test_secret_appears_nowhere(site: Any, web: Any) -> None:
    assert site.server.token_secret not in str(site.run(web)).replace("api_token_secret", "")


def test_repairs_only_what_was_changed_by_hand(site: Any, make: Any) -> None:
    guests = [make(f"web-{number}") for number in range(1, 4)]
    site.ok(*guests)
    site.edit("web-1", memory=300)
    site.edit("web-2", tags="somebody")
    result = site.ok(*guests)
    assert [guest["changed"] for guest in result["guests"].values()] == [True, True, False]
    assert int(site.config("web-1")["memory"]) == 256
    assert set(site.config("web-2")["tags"].split(";")) == {"dev", "luxima"}


def test_leaves_unmanaged_keys_and_the_mac_alone(site: Any, web: Any) -> None:
    site.ok(web)
    mac = site.config("web-1")["net0"].split("hwaddr=")[1].split(",")[0]
    site.edit("web-1", cpulimit=1, net1="name=eth1,bridge=vmbr0,ip=dhcp")
    assert site.ok(web)["changed"] is False
    nic = {"bridge": "vmbr0", "vlan": 7, "address": "10.0.0.99/24", "gateway": "10.0.0.1"}
    site.ok({**web, "networks": [nic]})
    config = site.config("web-1")
    assert f"hwaddr={mac}" in config["net0"]
    assert "tag=7" in config["net0"]
    assert "ip=10.0.0.99/24" in config["net0"]
    assert "name=eth1" in config["net1"]
    assert str(config["cpulimit"]) == "1"


def test_grows_a_volume_and_refuses_to_shrink_it(site: Any, web: Any) -> None:
    site.ok(web)
    grown = site.ok({**web, "rootfs": {"storage": "local-lvm", "size_gb": 6}})
    assert outcome(grown)["actions"] == ["grown"]
    assert "size=6G" in site.config("web-1")["rootfs"]
    message = site.fails(web)
    assert "rootfs has 6 GB and the record says 4 GB" in message
    assert "never shrink" in message
    assert "size=6G" in site.config("web-1")["rootfs"]


def test_refuses_what_is_fixed_at_creation(site: Any, web: Any) -> None:
    site.ok(web)
    message = site.fails({**web, "unprivileged": False})
    assert "unprivileged is True and the record says False" in message


def test_reboot_policy(site: Any, web: Any) -> None:
    site.ok(web)
    changed = {**web, "nameservers": ["9.9.9.9"]}
    assert outcome(site.ok(changed))["actions"] == ["configured"]
    again = site.ok({**web, "nameservers": ["8.8.8.8"]}, reboot="if_needed")
    assert outcome(again)["actions"] == ["configured", "rebooted"]
    assert outcome(again)["needs_reboot"] is False


def test_pending_value_is_not_a_change(site: Any, web: Any) -> None:
    site.ok(web)
    changed = {**web, "features": {"nesting": True}}
    first = outcome(site.ok(changed))
    assert first["needs_reboot"] is True
    second = site.ok(changed)
    assert second["changed"] is False
    assert outcome(second)["needs_reboot"] is True
    third = outcome(site.ok(changed, reboot="if_needed"))
    assert third["actions"] == ["rebooted"]
    assert outcome(site.ok(changed, reboot="if_needed"))["actions"] == []


def test_power_states(site: Any, web: Any) -> None:
    site.ok({**web, "state": "present"})
    assert site.power("web-1") == "stopped"
    assert outcome(site.ok(web))["actions"] == ["started"]
    assert outcome(site.ok({**web, "state": "restarted"}))["actions"] == ["rebooted"]
    assert outcome(site.ok({**web, "state": "stopped"}))["actions"] == ["stopped"]
    assert site.ok({**web, "state": "stopped"})["changed"] is False
    site.ok(web)
    assert outcome(site.ok({**web, "state": "absent"}))["actions"] == ["stopped", "destroyed"]
    gone = site.ok({**web, "state": "absent"})
    assert gone["changed"] is False
    assert outcome(gone)["exists"] is False


def test_protected_guest_is_not_destroyed(site: Any, web: Any) -> None:
    site.ok({**web, "protection": True})
    assert "protection is on" in site.fails({**web, "state": "absent"})
    assert site.power("web-1") == "running"
    site.ok({**web, "state": "absent", "protection": False})
    assert site.server.cluster.guests == {}


def test_two_guests_of_one_name_are_refused(site: Any, web: Any) -> None:
    site.ok(web)
    site.api(
        "POST", "nodes/pve2/lxc", vmid=900, hostname="web-1", ostemplate=web["template"], rootfs="local-lvm:4"
    )
    deadline = time.monotonic() + 5
    while len(site.server.cluster.guests) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    message = site.fails(web)
    assert "2 guests have this name" in message
    assert "900 on pve2" in message
    assert "set vmid" in message
    assert site.ok({**web, "vmid": outcome_vmid(site)})["changed"] is False


def outcome_vmid(site: Any) -> int:
    return min(int(vmid) for vmid in site.server.cluster.guests)


def test_foreign_guest_under_the_id_is_left_alone(site: Any, web: Any, make: Any) -> None:
    site.ok({**make("db-2"), "tags": ["theirs"], "vmid": 500})
    message = site.fails({**web, "vmid": 500})
    assert "vmid 500 belongs to 'db-2'" in message
    assert "left alone" in message
    assert "belongs to 'db-2'" in site.fails({"name": "web-1", "vmid": 500, "state": "absent"})
    assert site.server.guest("db-2").vmid == 500


def test_renames_its_own_guest_by_id(site: Any, web: Any) -> None:
    site.ok({**web, "vmid": 500})
    site.edit("web-1", hostname="renamed")
    assert outcome(site.ok({**web, "vmid": 500}))["actions"] == ["configured"]
    assert site.server.guest("web-1").vmid == 500


def test_everything_missing_in_one_message(site: Any, web: Any, make: Any) -> None:
    nic = {"bridge": "vmbr77", "address": "10.0.0.50/24"}
    message = site.fails(
        {**web, "node": "pve9"},
        {**make("web-2"), "rootfs": {"storage": "fast", "size_gb": 4}, "node": "pve1"},
        {**make("web-3"), "template": "local:vztmpl/none.tar.zst", "node": "pve2"},
        {**make("web-4"), "networks": [nic], "node": "pve3"},
        {**make("web-5"), "pool": "nowhere"},
    )
    for part in (
        "node 'pve9' is not in the cluster (it has pve1, pve2, pve3) (for web-1)",
        "storage 'fast' is not on node pve1",
        "template 'local:vztmpl/none.tar.zst' is not on node pve2",
        "bridge 'vmbr77' is not on node pve3",
        "pool 'nowhere' does not exist",
    ):
        assert part in message
    assert site.server.cluster.guests == {}


def test_missing_privileges_are_found_before_anything_is_made(site: Any, web: Any) -> None:
    account = site.server.auditor
    message = site.fails(
        web, api_user=account.user, api_token_id=account.token_id, api_token_secret=account.token_secret
    )
    assert "auditor@pve!ro lacks VM.Allocate on /vms" in message
    assert "auditor@pve!ro lacks Datastore.AllocateSpace on /storage/local-lvm" in message
    assert "nothing was changed" in message
    assert site.server.count("POST", "/lxc") == 0


def test_faulty_records_in_one_message(site: Any, web: Any, make: Any) -> None:
    message = site.fails(
        {**web, "name": "bad_name"},
        {**make("web-2"), "networks": [{"bridge": "vmbr0", "address": "10.0.0.12"}]},
        {**make("web-3"), "tags": ["no spaces"]},
        {**make("web-4"), "vmid": 7},
        make("web-5"),
        {**make("web-6"), "networks": [{"bridge": "vmbr0", "address": "10.0.0.15/24"}]},
    )
    for part in (
        "'bad_name' is not a host name",
        "has no prefix length",
        "'no spaces'",
        "vmid: 7",
        "10.0.0.15 is also that of web-5",
    ):
        assert part in message
    assert site.server.requests == []


def test_one_failing_guest_does_not_stop_the_others(site: Any, web: Any, make: Any) -> None:
    site.ok({**make("web-2"), "rootfs": {"storage": "local-lvm", "size_gb": 8}})
    result = site.run(web, make("web-2"), make("web-3"))
    assert result["failed"]
    assert result["msg"].startswith("1 of 3 guests failed:\n- container web-2: ")
    assert result["guests"]["web-1"]["exists"]
    assert result["guests"]["web-3"]["actions"] == ["created", "started"]
    assert result["changed"] is True


def test_refused_by_the_server_during_the_run(site: Any, web: Any, make: Any) -> None:
    site.server.faults.fail("POST", "/status/start$", 500, "unable to open file: no space left on device")
    result = site.run(web)
    assert "start container web-1" in result["msg"]
    assert "no space left on device" in result["msg"]
    assert outcome(result)["exists"] is True
    assert outcome(result)["actions"] == ["created"]
    assert outcome(site.ok(web))["actions"] == ["started"]


def test_two_runs_at_the_same_time_share_the_ids(site: Any, make: Any) -> None:
    groups = [
        [make(f"a-{number}") for number in range(1, 6)],
        [make(f"b-{number}") for number in range(21, 26)],
    ]
    site.server.faults.slow(0.1, ["vzcreate"])
    processes = [site.process(*group) for group in groups]
    for process in processes:
        output, _none = process.communicate(timeout=60)
        assert process.returncode == 0, output
    names = sorted(guest.name for guest in site.server.cluster.guests.values())
    assert names == sorted(guest["name"] for group in groups for guest in group)
    assert site.ok(*groups[0], *groups[1])["changed"] is False


def test_killed_run_is_finished_by_the_next(site: Any, make: Any) -> None:
    guests = [make(f"web-{number}") for number in range(1, 4)]
    site.server.faults.slow(0.6, ["vzcreate"])
    process = site.process(*guests)
    deadline = time.monotonic() + 20
    while len(site.server.cluster.guests) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=20)
    result = site.ok(*guests)
    assert [guest["actions"] for guest in result["guests"].values()] == [["started"]] * 3
    assert len(site.server.cluster.guests) == 3
    assert site.ok(*guests)["changed"] is False


def test_id_that_only_the_server_knows_is_taken(site: Any, web: Any) -> None:
    site.server.faults.fail(
        "POST", "/lxc$", 500, "unable to create CT 100 - CT 100 already exists on node 'pve2'"
    )
    result = outcome(site.ok(web))
    assert result["vmid"] == 101
    assert result["actions"] == ["created", "started"]


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("POST", "/lxc$", None),
        ("POST", "/status/start$", None),
        ("PUT", "/config$", {"memory_mb": 512}),
        ("PUT", "/resize$", {"rootfs": {"storage": "local-lvm", "size_gb": 6}}),
        ("POST", "/status/shutdown$", {"state": "stopped"}),
        ("DELETE", "/lxc/[0-9]+$", {"state": "absent"}),
        ("GET", "/pending$", {}),
    ],
)
def test_lost_reply_is_looked_up_and_not_repeated(
    site: Any, web: Any, method: str, path: str, change: Any
) -> None:
    if change is not None:
        site.ok(web)
    site.server.faults.drop_reply(method, path)
    wanted = {**web, **(change or {})}
    result = outcome(site.ok(wanted))
    expected = {
        "/lxc$": ["created", "started"],
        "/status/start$": ["created", "started"],
        "/config$": ["configured"],
        "/resize$": ["grown"],
        "/status/shutdown$": ["stopped"],
        "/lxc/[0-9]+$": ["stopped", "destroyed"],
        "/pending$": [],
    }
    assert result["actions"] == expected[path]
    assert [guest.name for guest in site.server.cluster.guests.values()] == (
        [] if wanted.get("state") == "absent" else ["web-1"]
    )
    assert site.ok(wanted)["changed"] is False


def test_request_that_never_arrived_is_repeated(site: Any, web: Any) -> None:
    site.server.faults.fail("POST", "/lxc$", 596, "Connection timed out")
    assert outcome(site.ok(web))["actions"] == ["created", "started"]
    assert len(site.server.cluster.guests) == 1


@pytest.mark.parametrize("switch", ["storage_lock", "file_lock"])
def test_lock_of_the_server_is_waited_for(site: Any, web: Any, switch: str) -> None:
    if switch == "file_lock":
        site.ok(web)
    setattr(site.server.faults, switch, 2)
    site.ok({**web, "memory_mb": 512})
    assert getattr(site.server.faults, switch) == 0
    assert int(site.config("web-1")["memory"]) == 512


def test_locked_guest_is_waited_for(site: Any, web: Any) -> None:
    site.ok(web)
    vmid = site.server.guest("web-1").vmid
    site.server.lock_guest(vmid, "backup")
    timer = threading.Timer(0.8, site.server.lock_guest, (vmid, ""))
    timer.start()
    began = time.monotonic()
    assert outcome(site.ok({**web, "memory_mb": 512}))["actions"] == ["configured"]
    assert time.monotonic() - began >= 0.6
    timer.join()


def test_lock_that_stays_is_reported(site: Any, web: Any) -> None:
    site.ok(web)
    site.server.lock_guest(site.server.guest("web-1").vmid, "backup")
    message = site.fails({**web, "memory_mb": 512}, deadlines={"lock": 1})
    assert "locked" in message
    assert "deadlines.lock" in message


def test_change_by_others_is_planned_again(site: Any, web: Any) -> None:
    site.ok(web)
    site.server.faults.fail(
        "PUT", "/config$", 500, "detected modified configuration - file changed by other user? Try again."
    )
    assert outcome(site.ok({**web, "memory_mb": 512}))["actions"] == ["configured"]
    digests = [
        entry.params.get("digest")
        for entry in site.server.requests
        if entry.method == "PUT" and entry.path.endswith("/config")
    ]
    assert digests
    assert all(digests)


def test_warnings_of_a_task_are_no_failure(site: Any, web: Any) -> None:
    site.server.faults.task_warnings = 1
    result = site.ok(web)
    assert outcome(result)["actions"] == ["created", "started"]
    assert any("container web-1" in str(warning) for warning in result["warnings"])


def test_deadline_names_the_task(site: Any, web: Any) -> None:
    site.server.faults.slow(3, ["vzcreate"])
    message = site.fails(web, deadlines={"create": 1})
    assert "not finished after 1 s" in message
    assert "UPID:" in message


def test_password_login(site: Any, web: Any) -> None:
    site.ok(web, api_password=site.server.password, api_token_id="", api_token_secret="")
    message = site.fails(web, api_password="wrong", api_token_id="", api_token_secret="")
    assert "refused the login of root@pam" in message


def test_wrong_token(site: Any, web: Any) -> None:
    assert "api_token_id and api_token_secret" in site.fails(
        web, api_token_secret="00000000-dead-4000-8000-000000000000"
    )


def test_nobody_listens(site: Any, web: Any) -> None:
    message = site.fails(web, api_port=1)
    assert message.startswith("no Proxmox VE API at https://127.0.0.1:1 (connection refused)")


def test_certificate_is_checked(site: Any, web: Any) -> None:
    assert "not trusted" in site.fails(web, ca_path="/etc/ssl/certs/ca-certificates.crt")
    site.ok(web, ca_path=None, validate_certs=False)


def test_pool(site: Any, web: Any) -> None:
    site.api("POST", "pools", poolid="blue")
    site.api("POST", "pools", poolid="green")
    site.ok({**web, "pool": "blue"})
    assert site.ok({**web, "pool": "blue"})["changed"] is False
    assert outcome(site.ok({**web, "pool": "green"}))["actions"] == ["pooled"]
    assert site.ok({**web, "pool": "green"})["changed"] is False
