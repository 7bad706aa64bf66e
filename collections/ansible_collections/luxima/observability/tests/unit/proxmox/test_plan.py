# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The pure core: formats, tables, plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._proxmox import formats
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.allocate import Ids, spread
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.client import meaning
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.errors import (
    Absent,
    Conflict,
    Failed,
)
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.model import (
    Clone,
    Configure,
    Create,
    Destroy,
    Grow,
    Guest,
    Join,
    Reboot,
    Start,
    Stop,
    Want,
)
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.plan import plan
from ansible_collections.luxima.observability.plugins.module_utils._proxmox.survey import held
from hypothesis import given, settings
from hypothesis import strategies as st


def lxc(**options: Any) -> Want:
    state = options.pop("state", "started")
    return Want("web", "lxc", state, template="local:vztmpl/t", options=options)


def applied(have: Guest | None, changes: tuple[Any, ...]) -> Guest | None:
    """What a server makes of changes."""
    for change in changes:
        if isinstance(change, Create):
            config: dict[str, Any] = {}
            for key, value in change.params.items():
                if key in ("ostemplate", "storage", "pool", "ssh-public-keys"):
                    continue
                config[key] = stored(key, value)
            have = Guest(
                100,
                str(config["hostname"]),
                "lxc",
                "pve1",
                config=config,
                pool=str(change.params.get("pool", "")),
            )
            continue
        assert have is not None
        config = dict(have.config)
        if isinstance(change, Configure):
            config.update({key: stored(key, value) for key, value in change.values.items()})
            for key in change.delete:
                config.pop(key)
            have = replace(have, config=config, name=str(config["hostname"]))
        elif isinstance(change, Grow):
            assert formats.parse_size(config[change.disk].split("size=")[1].split(",")[0]) < change.size_gb
            volume = config[change.disk].split("size=")
            rest = volume[1].partition(",")[2]
            config[change.disk] = f"{volume[0]}size={change.size_gb}G" + (f",{rest}" if rest else "")
            have = replace(have, config=config)
        elif isinstance(change, Destroy):
            assert not have.running
            have = None
        else:
            running = have.running if isinstance(change, Join) else not isinstance(change, Stop)
            have = replace(have, running=running, pool=getattr(change, "pool", have.pool))
    return have


def stored(key: str, value: Any) -> Any:
    """A value as it is read back."""
    if key == "rootfs" or (key.startswith("mp") and ":" in str(value) and "size=" not in str(value)):
        storage, _colon, rest = str(value).partition(":")
        size, _comma, more = rest.partition(",")
        return f"{storage}:vm-100-{key},size={size}G" + (f",{more}" if more else "")
    if key.startswith("net") and "hwaddr" not in str(value):
        return f"{value},hwaddr=BC:24:11:00:00:01,type=veth"
    if key == "description":
        return f"{value}\n"
    return str(value)


octets = st.integers(1, 250)
records = st.fixed_dictionaries(
    {},
    optional={
        "cores": st.integers(1, 8),
        "memory_mb": st.integers(16, 4096),
        "swap_mb": st.integers(0, 512),
        "nameservers": st.lists(octets.map(lambda n: f"10.0.0.{n}"), max_size=3),
        "searchdomain": st.sampled_from(["example.org", "example.net"]),
        "tags": st.lists(st.from_regex(r"[a-z0-9_][a-z0-9_+.-]{0,8}", fullmatch=True), max_size=4),
        "description": st.text(
            st.characters(codec="ascii", exclude_characters="\r\n", min_codepoint=32), max_size=20
        ),
        "onboot": st.booleans(),
        "protection": st.booleans(),
        "features": st.dictionaries(st.sampled_from(["nesting", "keyctl", "fuse"]), st.booleans()),
        "startup": st.integers(1, 9).map(lambda n: f"order={n},up=30"),
        "rootfs": st.integers(1, 64).map(lambda n: {"storage": "a", "size_gb": float(n)}),
        "disks": st.integers(1, 64).map(
            lambda n: [{"slot": "mp0", "storage": "a", "size_gb": float(n), "path": "/data"}]
        ),
        "networks": st.lists(
            st.fixed_dictionaries(
                {"bridge": st.sampled_from(["vmbr0", "vmbr1"])},
                optional={
                    "vlan": st.integers(0, 9),
                    "address": st.one_of(st.just("dhcp"), octets.map(lambda n: f"10.0.0.{n}/24")),
                    "gateway": octets.map(lambda n: f"10.0.0.{n}"),
                    "firewall": st.booleans(),
                    "mac": st.just("bc:24:11:aa:bb:cc"),
                },
            ),
            max_size=3,
        ),
        "pool": st.sampled_from(["blue", "green"]),
        "state": st.sampled_from(["present", "started", "stopped", "absent"]),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(records, min_size=1, max_size=6), st.sampled_from(["never", "if_needed"]))
def test_applying_a_plan_leaves_nothing_to_plan(sequence: list[dict[str, Any]], reboot: str) -> None:
    """Whatever was wanted before: apply, and the second plan is empty, its before is the first one's after."""
    have: Guest | None = None
    for options in sequence:
        want = lxc(**options)
        first = plan(want, have, None, reboot)
        if first.refusals:
            assert any("shrink" in refusal or "protection" in refusal for refusal in first.refusals)
            continue
        have = applied(have, first.changes)
        second = plan(want, have, None, reboot)
        assert second.changes == ()
        assert {**second.before} == {**first.after}
        assert second.difference() == ({}, {})


@settings(max_examples=100, deadline=None)
@given(records)
def test_unmanaged_keys_survive(options: dict[str, Any]) -> None:
    have = applied(None, plan(lxc(rootfs={"storage": "a", "size_gb": 1.0}), None).changes)
    assert have is not None
    extra = {
        "cpulimit": "2",
        "net7": "name=eth7,bridge=vmbr9,hwaddr=BC:24:11:77:77:77",
        "hookscript": "local:snippets/x",
    }
    have = replace(have, config={**have.config, **extra})
    wanted = plan(lxc(**options), have)
    if wanted.refusals or options.get("state") == "absent":
        return
    after = applied(have, wanted.changes)
    assert after is not None
    assert {key: after.config[key] for key in extra} == extra


HAVE = Guest(
    100,
    "web",
    "lxc",
    "pve1",
    running=True,
    config={
        "hostname": "web",
        "memory": 512,
        "rootfs": "local-lvm:vm-100-disk-0,size=8G",
        "net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:01:02:03,ip=10.0.0.5/24,gw=10.0.0.1,type=veth",
        "nameserver": "10.0.0.1 10.0.0.2",
        "description": "notes\n",
        "tags": "b;a",
        "unprivileged": 1,
    },
)


@pytest.mark.parametrize(
    ("options", "values", "delete"),
    [
        ({"memory_mb": 512}, {}, ()),
        ({"memory_mb": 1024}, {"memory": 1024}, ()),
        ({"cores": 2}, {"cores": 2}, ()),
        ({"tags": ["A", "b"]}, {}, ()),
        ({"tags": []}, {}, ("tags",)),
        ({"tags": ["c", "a"]}, {"tags": "a;c"}, ()),
        ({"nameservers": ["10.0.0.1", "10.0.0.2"]}, {}, ()),
        ({"nameservers": ["10.0.0.2", "10.0.0.1"]}, {"nameserver": "10.0.0.2 10.0.0.1"}, ()),
        ({"nameservers": []}, {}, ("nameserver",)),
        ({"description": "notes"}, {}, ()),
        ({"onboot": False}, {}, ()),
        ({"onboot": True}, {"onboot": 1}, ()),
        ({"features": {"nesting": False}}, {}, ()),
        ({"features": {"nesting": True}}, {"features": "nesting=1"}, ()),
        ({"rootfs": {"storage": "local-lvm", "size_gb": 8.0}}, {}, ()),
        ({"networks": [{"bridge": "vmbr0"}]}, {}, ()),
        (
            {"networks": [{"bridge": "vmbr0", "vlan": 0, "address": "10.0.0.5/24", "gateway": "10.0.0.1"}]},
            {},
            (),
        ),
        (
            {"networks": [{"bridge": "vmbr0", "address": "dhcp"}]},
            {"net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:01:02:03,ip=dhcp,type=veth"},
            (),
        ),
        (
            {"networks": [{"bridge": "vmbr1"}]},
            {"net0": "name=eth0,bridge=vmbr1,hwaddr=BC:24:11:01:02:03,ip=10.0.0.5/24,gw=10.0.0.1,type=veth"},
            (),
        ),
        ({"networks": [{"bridge": "vmbr0"}, {"bridge": "vmbr1"}]}, {"net1": "name=eth1,bridge=vmbr1"}, ()),
    ],
)
def test_only_real_differences_are_written(options: Any, values: Any, delete: Any) -> None:
    changes = plan(lxc(**options), HAVE).changes
    assert changes == ((Configure(values, delete),) if values or delete else ())


def test_order_of_changes() -> None:
    stopped = replace(HAVE, running=False)
    want = lxc(memory_mb=1024, rootfs={"storage": "local-lvm", "size_gb": 9.0}, pool="blue")
    assert [type(change).__name__ for change in plan(want, stopped).changes] == [
        "Configure",
        "Grow",
        "Join",
        "Start",
    ]
    assert [type(change) for change in plan(lxc(state="absent"), HAVE).changes] == [Stop, Destroy]


def test_pending_and_reboot_policy() -> None:
    waiting = replace(HAVE, config={**HAVE.config, "features": "nesting=1"}, pending={"features": None})
    want = lxc(features={"nesting": True})
    assert plan(want, waiting).changes == ()
    assert plan(want, waiting).needs_reboot
    assert plan(want, waiting, reboot="if_needed").changes == (Reboot(),)
    foreign = replace(HAVE, pending={"cpulimit": 1})
    assert plan(lxc(), foreign, reboot="if_needed").changes == ()
    assert plan(lxc(), foreign).needs_reboot


def test_template_is_never_changed() -> None:
    result = plan(lxc(memory_mb=1), replace(HAVE, template=True))
    assert result.changes == ()
    assert "is a template" in result.refusals[0]


def test_vm_is_cloned_then_configured_grown_and_started() -> None:
    source = Guest(
        9000,
        "debian",
        "vm",
        "pve1",
        template=True,
        config={
            "template": 1,
            "memory": "2048",
            "scsi0": "fast:base-9000-disk-0,size=4G",
            "boot": "order=scsi0",
            "net0": "virtio=BC:24:11:00:00:09,bridge=vmbr0",
        },
    )
    want = Want(
        "vm-1",
        "vm",
        "started",
        template="debian",
        options={
            "memory_mb": 1024,
            "cores": 2,
            "rootfs": {"storage": "fast", "size_gb": 8.0},
            "networks": [{"bridge": "vmbr1", "address": "10.0.0.9/24", "gateway": "10.0.0.1"}],
            "ssh_public_keys": ["ssh-ed25519 A+/B me"],
        },
    )
    changes = plan(want, None, source).changes
    assert [type(change) for change in changes] == [Clone, Configure, Grow, Start]
    assert isinstance(changes[1], Configure)
    assert changes[1].values["sshkeys"] == "ssh-ed25519%20A%2B%2FB%20me"
    assert changes[1].values["ipconfig0"] == "ip=10.0.0.9/24,gw=10.0.0.1"
    assert changes[1].values["net0"] == "virtio=BC:24:11:00:00:09,bridge=vmbr1"
    assert changes[2] == Grow("scsi0", 8)
    assert "no VM 'debian' to clone" in plan(want, None).refusals[0]


@pytest.mark.parametrize(
    ("status", "text", "kind", "reason"),
    [
        (500, "CT is locked (backup)", Conflict, "lock"),
        (500, "can't lock file '/var/lock/lxc/pve-config-100.lock' - got timeout", Conflict, "lock"),
        (500, "cfs-lock 'storage-x' error: got lock request timeout", Conflict, "lock"),
        (500, "checksum mismatch (file change by other user?)", Conflict, "digest"),
        (500, "detected modified configuration - file changed by other user? Try again.", Conflict, "digest"),
        (500, "unable to create VM 102: config file already exists", Conflict, "exists"),
        (500, "CT 102 already exists on node 'x'", Conflict, "exists"),
        (500, "CT 102 already running", Conflict, "power"),
        (500, "Configuration file 'nodes/pve1/lxc/100.conf' does not exist", Absent, ""),
        (400, "Parameter verification failed.", Failed, ""),
        (500, "unable to shrink disk size", Failed, ""),
    ],
)
def test_meaning_of_answers(status: int, text: str, kind: type, reason: str) -> None:
    error = meaning(status, text, "do it")
    assert type(error) is kind
    assert getattr(error, "reason", "") == reason
    assert str(error) == f"do it: {text}"


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8), ("512M", 0.5), ("1T", 1024), ("1073741824", 1), ("1048576K", 1)]
)
def test_sizes(text: str, size: float) -> None:
    assert formats.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=5", "vm"),
        ("name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp", "lxc"),
    ],
)
def test_nic_both_ways(text: str, kind: str) -> None:
    assert formats.format_nic(formats.parse_nic(text, kind), kind) == text


def test_permissions_are_inherited_where_they_propagate() -> None:
    permissions = {"/": {"VM.Audit": 1, "Sys.Audit": 0}, "/vms/100": {"VM.Allocate": 1}}
    assert held(permissions, "/vms/200", "VM.Audit")
    assert not held(permissions, "/vms/100", "VM.Audit")
    assert held(permissions, "/vms/100", "VM.Allocate")
    assert not held(permissions, "/vms", "Sys.Audit")
    assert held(permissions, "/", "Sys.Audit")


def test_ids_and_nodes() -> None:
    ids = Ids(100, {100, 102})
    assert [ids.take(), ids.take(), ids.take(200), ids.take()] == [101, 103, 200, 201]
    assert spread(["b", "a", "c"], {"a": 1, "c": 0, "b": 0}) == "b"
