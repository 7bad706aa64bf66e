# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The module over the wire: what it makes, what it leaves alone, what it says."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import comparable, guest, outcome


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


def test_faulty_records_in_one_message(site: Any, web: Any, make: Any) -> None:
    message = site.fails(
        {**web, "name": "bad_name"},
        {**make("web-2"), "networks": [{"bridge": "vmbr0", "address": "10.0.0.12"}]},
        {**make("web-3"), "tags": ["no spaces"]},
        {**make("web-4"), "vmid": 7},
        make("web-5"),
        {**make("web-6"), "networks": [{"bridge": "vmbr0", "address": "10.0.0.15/24"}]},
        {
            **make("web-7"),
            "networks": [
                {"bridge": "vmbr0", "address": "10.0.0.17", "address6": "auto", "gateway6": "fd00::1"},
                {"bridge": "vmbr0", "address": "fd00::1/64", "gateway": "router", "address6": "fd00::17"},
            ],
        },
        {**make("web-8"), "networks": [{"bridge": "vmbr0", "address6": "fd00::18/64"}]},
        {**make("web-9"), "networks": [{"bridge": "vmbr0", "address6": "fd00:0::18/64"}]},
    )
    for part in (
        "'bad_name' is not a host name",
        "has no prefix length",
        "'no spaces'",
        "vmid: 7",
        "10.0.0.15 is also that of web-5",
        "web-7: networks[0].address: '10.0.0.17' has no prefix length (write 10.0.0.17/24) and is not dhcp or manual",
        "web-7: networks[0].gateway6: needs a static address6",
        "web-7: networks[1].address: 'fd00::1/64' is not an IPv4 address with a prefix length",
        "web-7: networks[1].gateway: 'router' is not an IPv4 address",
        "web-7: networks[1].address6: 'fd00::17' has no prefix length (write fd00::17/64) and is not auto, dhcp or manual",
        "web-9: address6: fd00::18 is also that of web-8",
    ):
        assert part in message
    assert site.server.requests == []


@pytest.mark.parametrize("kind", ["lxc", "vm"])
@pytest.mark.parametrize(
    ("nic", "told"),
    [
        ({"address": "10.0.0.11/24", "address6": "fd00:0::11/64"}, ["10.0.0.11", "fd00::11"]),
        ({"address": "10.0.0.11/24", "address6": "auto"}, ["10.0.0.11", "fd00:192:0:2::64"]),
        ({"address": "dhcp", "address6": "fd00::11/64"}, ["192.0.2.200", "fd00::11"]),
        ({"address": "dhcp", "address6": "dhcp"}, ["192.0.2.200", "fd00:192:0:2::64"]),
        ({"address6": "auto"}, ["fd00:192:0:2::64"]),
        # Not described, so it is not told.
        ({"address": "dhcp"}, ["192.0.2.200"]),
    ],
)
def test_addresses_of_both_versions(both: Any, kind: str, nic: dict[str, str], told: list[str]) -> None:
    wanted = guest(kind, vmid=100, networks=[{"bridge": "vmbr0", **nic}])
    assert outcome(both.ok(wanted), "one")["addresses"] == told
    again = both.ok(wanted)
    assert again["changed"] is False
    assert outcome(again, "one")["addresses"] == told


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
