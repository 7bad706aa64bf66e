# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people complain about in other modules for this hypervisor, number by number, for both kinds of guest.

Where a table of its own proves more of it, the docstring says which.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from .conftest import KINDS, Site, comparable, guest, outcome

kinds = pytest.mark.parametrize("kind", KINDS)
DISK = {"lxc": "rootfs", "vm": "scsi0"}


def nic(number: int, **values: Any) -> dict[str, Any]:
    return {"networks": [{"bridge": "vmbr0", "address": f"10.0.0.{number}/24", **values}]}


def full(kind: str, **changes: Any) -> dict[str, Any]:
    """Every option a record can have and this hypervisor holds."""
    extra = {"slot": "mp0", "path": "/data"} if kind == "lxc" else {"slot": "scsi1"}
    options = {
        **nic(11, vlan=3, gateway="10.0.0.1", firewall=True, mac="BC:24:11:AA:00:01"),
        "disks": [{"storage": "local-lvm", "size_gb": 1, **extra}],
        "features": {"nesting": True},
        "startup": "order=2,up=30",
        "searchdomain": "example.org",
        "description": "first\nsecond: ä % +",
        "protection": True,
        "pool": "blue",
    }
    return guest(kind, **{**options, **changes})


@pytest.fixture
def site(both: Site) -> Site:
    both.api("POST", "pools", poolid="blue")
    return both


@kinds
def test_1_second_run_is_unchanged_by_reading_alone(site: Site, kind: str) -> None:
    """Every spelling: test_formats."""
    records = [full(kind), *[guest(kind, f"g-{n}", **nic(20 + n)) for n in (1, 2, 3)]]
    site.ok(*records)
    before = len(site.server.requests)
    again = site.ok(*records)
    assert again["changed"] is False
    assert again["diff"] == []
    asked = site.server.requests[before:]
    assert {entry.method for entry in asked} == {"GET"}
    # Where all guests are; of each node its tasks and what its guests are called; each guest.
    assert len(asked) <= 1 + site.visits(tasks=True) + len(records)


@kinds
def test_2_check_mode_and_diff_without_secrets(site: Site, kind: str) -> None:
    """Random sequences: test_random."""
    predicted = site.ok(full(kind), check=True)
    assert site.writes() == 1, "the pool of this test"
    done = site.ok(full(kind))
    assert comparable(done) == comparable(predicted)
    assert site.server.token_secret not in str(
        {key: value for key, value in done.items() if key != "invocation"}
    )
    changed = site.ok(full(kind, tags=["web"]))
    assert changed["diff"] == [
        {
            "before_header": "one",
            "after_header": "one",
            "before": {"tags": ["dev", "luxima"]},
            "after": {"tags": ["web"]},
        }
    ]


def test_3_no_two_guests_fight_for_an_id(site: Site) -> None:
    """Several writers: test_hazards."""
    records = [guest(KINDS[n % 2], f"g-{n}", **nic(20 + n)) for n in range(10)]
    result = site.ok(*records)
    vmids = [found["vmid"] for found in result["guests"].values()]
    assert sorted(vmids) == list(range(100, 110))
    assert all(entry.status == 200 for entry in site.server.requests)


@kinds
def test_4_one_run_makes_all_of_it(site: Site, kind: str) -> None:
    done = outcome(site.ok(full(kind)))
    config = site.config("one")
    assert (int(config["cores"]), int(config["memory"])) == {"lxc": (1, 256), "vm": (2, 2048)}[kind]
    assert f"size={ {'lxc': 4, 'vm': 8}[kind] }G" in config[DISK[kind]]
    assert {"tag=3", "firewall=1", "bridge=vmbr0"} <= set(config["net0"].split(","))
    assert "ip=10.0.0.11/24" in config["net0" if kind == "lxc" else "ipconfig0"]
    assert config["nameserver"] == "10.0.0.1 10.0.0.2"
    assert "size=1G" in config["mp0" if kind == "lxc" else "scsi1"]
    assert site.server.cluster.pool_of(done["vmid"]) == "blue"
    assert site.power("one") == "running"
    assert site.pending("one") == set()
    assert done["needs_reboot"] is False


@kinds
def test_5_interface_and_disk_change_in_place(site: Site, kind: str) -> None:
    """Every property: test_formats."""
    site.ok(guest(kind))
    before = site.config("one")
    mac = next(part for part in before["net0"].split(",") if part.count(":") == 5)
    site.ok(guest(kind, **nic(12, vlan=7), rootfs={"storage": "local-lvm", "size_gb": 12}))
    after = site.config("one")
    assert mac in after["net0"].split(",")
    assert "tag=7" in after["net0"]
    assert after[DISK[kind]].split(",")[0] == before[DISK[kind]].split(",")[0]
    assert site.server.cluster.drivers[site.server.guest("one").kind].disks[100][DISK[kind]] == 12 << 30


@kinds
def test_6_present_makes_and_changes(site: Site, kind: str) -> None:
    assert outcome(site.ok(guest(kind, state="present")))["exists"] is True
    assert outcome(site.ok(guest(kind, state="present", tags=["new"])))["actions"] == ["configured"]
    assert site.ok(guest(kind, state="present", tags=["new"]))["changed"] is False
    site.ok(guest(kind, state="absent", tags=["new"]))
    assert outcome(site.ok(guest(kind, state="present", tags=["new"])))["exists"] is True


@kinds
def test_7_root_file_system_is_never_sent_again(site: Site, kind: str) -> None:
    site.ok(full(kind))
    volumes = {key: value for key, value in site.config("one").items() if "vm-100-" in str(value)}
    before = len(site.server.requests)
    site.ok(full(kind, tags=["x"], memory_mb=512, cores=3, **nic(13)))
    site.ok(full(kind, rootfs={"storage": "local-lvm", "size_gb": 12}, **nic(13)))
    sent = [entry.params for entry in site.server.requests[before:] if entry.method != "GET"]
    assert sent
    assert not any(set(volumes) & set(params) for params in sent)
    now = {key: value for key, value in site.config("one").items() if "vm-100-" in str(value)}
    assert {key: value.split(",")[0] for key, value in now.items()} == {
        key: value.split(",")[0] for key, value in volumes.items()
    }


@kinds
def test_8_template_stays_a_template(site: Site, kind: str) -> None:
    wanted = guest(kind, state="template")
    predicted = site.ok(wanted, check=True)
    done = site.ok(wanted)
    assert comparable(done) == comparable(predicted)
    assert site.config("one")["template"] == 1
    assert site.ok(wanted)["changed"] is False
    assert "is a template" in site.fails(guest(kind, tags=["other"]))


@kinds
def test_9_warnings_are_success(site: Site, kind: str) -> None:
    site.server.faults.task_warnings = 9
    done = site.ok(guest(kind))
    assert outcome(done)["actions"][-1] == "started"
    assert any("something deserves a look" in str(warning) for warning in done["warnings"])


@kinds
def test_10_deadline_tells_the_last_words_and_the_task(site: Site, kind: str) -> None:
    name = {"lxc": "create", "vm": "clone"}[kind]
    site.server.faults.slow(2.5, ["vzcreate", "qmclone"])

    def chatter() -> None:
        (task,) = site.server.cluster.tasks.all()
        for number in range(1, 201):
            task.log(f"copied part {number}.")

    talk = threading.Timer(0.5, chatter)
    talk.start()
    began = time.monotonic()
    message = site.fails(guest(kind), deadlines={name: 1})
    assert time.monotonic() - began < 2.4
    talk.join()
    assert "not finished after 1 s" in message
    assert "UPID:" in message
    assert "copied part 200." in message
    assert "copied part 1." not in message
    # The task went on. The next run waits for it and makes nothing twice.
    site.server.faults.reset()
    site.ok(guest(kind))
    assert site.names() == ["one"]


@kinds
def test_11_further_disk_is_made_once_and_grown(site: Site, kind: str) -> None:
    key = {"lxc": "mp0", "vm": "scsi1"}[kind]
    site.ok(full(kind))
    volume = site.config("one")[key]
    assert site.ok(full(kind))["changed"] is False
    (disk,) = full(kind)["disks"]
    site.ok(full(kind, disks=[{**disk, "size_gb": 2}]))
    assert site.config("one")[key] == volume.replace("size=1G", "size=2G")
    assert "never shrink" in site.fails(full(kind))
    # One that is listed no more stays: nothing of a guest is removed because a record is silent.
    assert site.ok(full(kind, disks=[]))["changed"] is False
    assert not any(name.startswith("unused") for name in site.config("one"))


@kinds
def test_12_nobody_waits_for_an_agent(site: Site, kind: str) -> None:
    """That one which never comes ends the wait: test_states."""
    driver = site.server.cluster.drivers[{"lxc": "lxc", "vm": "qemu"}[kind]]
    # An interface without an address, one that is static, one nobody describes.
    wanted = guest(kind, networks=[{"bridge": "vmbr0"}, {"bridge": "vmbr0", "address": "10.0.0.31/24"}])
    site.server.vm_driver.silent.add(100)
    driver.deaf.add(100)
    began = time.monotonic()
    done = outcome(site.ok(wanted))
    assert done["addresses"] == ["10.0.0.31"]
    site.edit("one", net5="name=eth5,bridge=vmbr0" if kind == "lxc" else "virtio,bridge=vmbr0")
    assert outcome(site.ok(wanted))["addresses"] == ["10.0.0.31"]
    # Destroying asks nobody either.
    site.ok(guest(kind, state="absent"))
    assert time.monotonic() - began < 10
    assert site.names() == []


@kinds
def test_13_nothing_reboots_unasked(site: Site, kind: str) -> None:
    """Change by change: test_effects."""
    site.ok(guest(kind))
    changed = guest(kind, nameservers=["9.9.9.9"], tags=["x"])
    assert outcome(site.ok(changed))["needs_reboot"] is True
    site.ok(changed)
    assert site.server.count("POST", "/status/reboot") == 0
    assert site.server.count("POST", "/status/st") == 1
    assert outcome(site.ok(changed, reboot="if_needed"))["actions"] == ["rebooted"]
    assert outcome(site.ok(changed, reboot="if_needed"))["actions"] == []
    assert site.server.count("POST", "/status/reboot") == 1


@kinds
def test_13_what_is_taken_back_before_it_held_reboots_nothing(site: Site, kind: str) -> None:
    """Somebody's change that waits for a reboot, and is not wanted, is gone without one; check mode knows."""
    wanted = guest(kind, nameservers=[], **({"memory_mb": 512} if kind == "vm" else {}))
    site.ok(wanted)
    site.edit("one", **({"memory": 700} if kind == "vm" else {"nameserver": "1.1.1.1"}))
    predicted = site.ok(wanted, check=True, reboot="if_needed")
    done = site.ok(wanted, reboot="if_needed")
    assert comparable(done) == comparable(predicted)
    assert (outcome(done)["actions"], outcome(done)["needs_reboot"]) == (["configured"], False)
    assert site.server.count("POST", "/status/reboot") == 0
    assert site.ok(wanted, reboot="if_needed")["changed"] is False


@kinds
def test_14_resize_that_has_happened_is_no_error(site: Site, kind: str) -> None:
    """With every fault of the hypervisor: test_faults."""
    site.ok(guest(kind))
    before = site.server.count("PUT", "/resize")
    site.server.faults.drop_reply("PUT", "/resize$")
    done = outcome(site.ok(guest(kind, rootfs={"storage": "local-lvm", "size_gb": 12})))
    assert done["actions"] == ["grown"]
    assert "size=12G" in site.config("one")[DISK[kind]]
    assert site.server.count("PUT", "/resize") == before + 1


@kinds
def test_15_what_nobody_manages_does_not_drift(site: Site, kind: str) -> None:
    site.ok(guest(kind))
    site.api("PUT", "pools", poolid="blue", vms="100")
    lines = {
        "lxc": {
            "arch": "arm64",
            "cmode": "shell",
            "mp9": "/srv/bind,mp=/srv",
            "hookscript": "local:snippets/h",
        },
        "vm": {
            "cpu": "host",
            "ide2": "local-lvm:vm-100-cloudinit,media=cdrom,size=4M",
            "cicustom": "user=local:snippets/u",
        },
    }[kind]
    site.store("one", lines)
    before = site.config("one")
    assert site.ok(guest(kind))["changed"] is False
    site.ok(guest(kind, tags=["x"]))
    assert {**site.config("one"), "tags": before["tags"]} == before
    assert site.server.cluster.pool_of(100) == "blue"


@kinds
def test_15_everything_missing_in_one_message_before_anything_is_made(site: Site, kind: str) -> None:
    bad = {"lxc": "local:vztmpl/none.tar.zst", "vm": "no-such-template"}[kind]
    message = site.fails(
        guest(kind, "g-1", **nic(1), node="pve9"),
        guest(kind, "g-2", **nic(2), rootfs={"storage": "fast", "size_gb": 8}, node="pve1"),
        guest(kind, "g-4", networks=[{"bridge": "vmbr77"}], node="pve1"),
        guest(kind, "g-5", **nic(5), pool="nowhere"),
        guest("lxc", "g-6", **nic(6), rootfs={"size_gb": 4}, node="pve1"),
    )
    for part in (
        "node 'pve9' is not in the cluster (it has pve1, pve2) (for g-1)",
        "storage 'fast' is not on node pve1",
        "bridge 'vmbr77' is not on node pve1",
        "pool 'nowhere' does not exist",
        "storage 'local' on node pve1 does not hold content 'rootdir'",
    ):
        assert part in message
    assert bad in site.fails(guest(kind, template=bad))
    assert "is not a public key" in site.fails(guest(kind, ssh_public_keys=["AAAA not a key"]))
    assert site.names() == []
    assert site.writes() == 1, "the pool of this test"


@kinds
@pytest.mark.parametrize(
    ("name", "privileges"),
    [
        ("auditor", {"VM.Allocate on /vms", "Datastore.AllocateSpace on /storage/local-lvm"}),
        ("operator", {"VM.Allocate on /vms", "VM.Config.Memory on /vms"}),
        ("vmadmin", {"Datastore.AllocateSpace on /storage/local-lvm"}),
    ],
)
def test_15_missing_privileges_are_named_before_anything_is_made(
    site: Site, kind: str, name: str, privileges: set[str]
) -> None:
    account = getattr(site.server, name)
    login = {
        "api_user": account.user,
        "api_token_id": account.token_id,
        "api_token_secret": account.token_secret,
    }
    message = site.fails(guest(kind), **login)
    assert "nothing was changed" in message
    if kind == "vm" and name != "vmadmin":
        privileges = {*privileges, "VM.Clone on /vms/9001"}
    assert [
        text for text in privileges if f"{account.user}!{account.token_id} lacks {text}" not in message
    ] == []
    assert site.names() == []
    assert site.writes() == 1, "the pool of this test"
