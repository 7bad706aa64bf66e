# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""provision.yml and destroy.yml with an inventory of three hosts, through ansible-playbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Site

PROJECT = Path(__file__).resolve().parents[7]
HOSTS = """
guests:
  hosts:
    web-1: {ansible_host: 127.0.0.1, guest_address: 10.0.0.11/24}
    web-2: {ansible_host: 127.0.0.1, guest_address: 10.0.0.12/24, guest_vmid: 450}
    off-3: {ansible_host: 127.0.0.1, guest_address: 10.0.0.13/24, guest_state: stopped}
  vars:
    platform_environment: trial
    ansible_port: 1
    platform_subnet: "10.0.0"
"""


COMPANIONS = """
guests_pools: [{name: watch}]
guests_backup_jobs: [{id: nightly, schedule: "02:30", storage: local, pool: watch, keep: {daily: 7}}]
guests_datacenter_firewall: enabled
platform_operator_networks: [192.0.2.0/24]
guest_firewall: closed
guest_pool: watch
platform_address: "{{ guest_address | split('/') | first }}"
platform_scrape_jobs: [{job_name: shop, static_configs: [{targets: ["10.0.0.12:8000"]}]}]
"""


SECRETS = ("minio_root_password", "grafana_admin_password", "loki_s3_secret_key", "tempo_s3_secret_key")


@pytest.fixture
def play(site: Any, tmp_path: Path) -> Any:
    (tmp_path / "00-platform.yml").write_text("---\nplugin: luxima.observability.platform\n")
    (tmp_path / "hosts.yml").write_text(HOSTS)
    server = site.server
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(
        f"proxmox_api_host: {server.host}\nproxmox_api_port: {server.port}\nproxmox_ca_path: {server.ca_path}\n"
        "minio_root_user: admin\n"
        + "".join(f"{name}: {'x' * 20}\n" for name in SECRETS)
        + f"proxmox_api_token_id: {server.token_id}\nproxmox_api_token_secret: {server.token_secret}\n"
    )

    def more(inventory: str, groups: str = "") -> None:
        (tmp_path / "group_vars" / "all.yml").open("a").write(inventory)
        (tmp_path / "groups.yml").write_text(groups or "{}")

    def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [str(program), "-i", str(tmp_path), f"playbooks/{playbook}.yml", *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
        return subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    run.more = more  # type: ignore[attr-defined]
    return run


def test_check_mode_needs_no_guest(site: Any, play: Any) -> None:
    result = play("provision", "--check", "--diff")
    assert result.returncode == 0, result.stdout + result.stderr
    assert site.server.cluster.guests == {}
    assert '"address": "10.0.0.11/24"' in result.stdout
    assert site.server.token_secret not in result.stdout


def test_guest_that_does_not_answer_is_named(site: Any, play: Any) -> None:
    result = play("provision", "-e", '{"guest_ready_deadline": 1}')
    assert result.returncode != 0
    assert "cannot be managed after 1 s" in result.stdout
    assert "guest_ssh_public_keys" in result.stdout
    assert sorted(guest.name for guest in site.server.cluster.guests.values()) == ["off-3", "web-1", "web-2"]
    assert site.server.guest("web-2").vmid == 450
    assert "environment" not in site.config("web-1")
    assert set(site.config("web-1")["tags"].split(";")) == {"luxima", "trial"}
    assert site.power("off-3") == "stopped"


def test_destroy_asks_for_the_name_of_the_environment(site: Any, play: Any) -> None:
    play("provision", "-e", '{"guest_ready_deadline": 1}')
    refused = play("destroy", "-e", "platform_destroy_confirmed=production")
    assert refused.returncode != 0
    assert "This destroys 3 guests of environment 'trial'" in refused.stdout
    assert "-e platform_destroy_confirmed=trial" in refused.stdout
    assert len(site.server.cluster.guests) == 3
    confirmed = play("destroy", "-e", "platform_destroy_confirmed=trial")
    assert confirmed.returncode == 0, confirmed.stdout
    assert site.server.cluster.guests == {}


def test_second_run_changes_nothing(site: Any, play: Any) -> None:
    """The controller stands in for guests that answer."""
    first = play("provision", "-e", "ansible_connection=local")
    assert first.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    second = play("provision", "-e", "ansible_connection=local")
    assert second.returncode == 0, second.stdout
    assert "changed=1" not in second.stdout
    assert "off-3" not in "".join(line for line in second.stdout.splitlines() if line.startswith("ok:"))


def test_from_nothing_in_one_go_and_then_nothing(site: Site, play: Any) -> None:
    """With pool, firewall and backup job, on a hypervisor whose list of guests is ten seconds late."""
    assert site.server.cluster.statd.period == 10
    play.more(COMPANIONS, GROUPS)
    first = play("provision", "-e", "ansible_connection=local")
    assert first.returncode == 0, first.stdout
    assert len(site.server.cluster.guests) == 3
    lines = first.stdout.splitlines()
    assert "pool watch: created: it was not there" in lines
    assert "guest web-2 (450 on pve2): created, started: it was not there" in [
        re.sub(r"on pve\d", "on pve2", line) for line in lines
    ]
    assert "backup job nightly: created: it was not there" in lines
    assert any(line.startswith("firewall of web-1: rules added, configured: enable 0 -> 1") for line in lines)
    second = play("provision", "-e", "ansible_connection=local")
    assert second.returncode == 0, second.stdout
    assert re.findall(r"localhost +: ok=\d+ +changed=(\d+)", second.stdout) == ["0"]
    assert not any(
        line.startswith(("guest ", "pool ", "firewall ", "backup ")) for line in second.stdout.splitlines()
    )


def test_what_keeps_something_from_being_done_is_a_line_of_its_own(site: Site, play: Any) -> None:
    play.more("guest_template: local:vztmpl/no-such.tar.zst\n", GROUPS)
    refused = play("provision")
    assert refused.returncode != 0
    told = [
        line for line in refused.stdout.splitlines() if line.startswith("- template 'local:vztmpl/no-such")
    ]
    assert told
    assert "(for web-1, web-2, off-3)" in told[0]


GROUPS = """
prometheus: {hosts: {web-1: {}}}
node_exporter: {hosts: {web-1: {}, web-2: {}, off-3: {}}}
loki: {hosts: {web-2: {}}}
promtail: {hosts: {off-3: {}}}
"""


def test_pools_firewalls_and_backup_jobs_are_made_around_the_guests(site: Any, play: Any) -> None:
    play.more(COMPANIONS, GROUPS)
    first = play("provision", "-e", "ansible_connection=local", "--diff")
    assert first.returncode == 0, first.stdout
    assert "changed=4" in first.stdout
    cluster = site.server.cluster
    assert sorted(cluster.pools["watch"].members) == sorted(cluster.guests)
    assert cluster.documents["jobs"]["nightly"]["pool"] == "watch"
    assert "firewall=1" in site.config("web-2")["net0"]
    guest = site.server.guest("web-2")
    rows = site.api("GET", f"nodes/{guest.node}/lxc/{guest.vmid}/firewall/rules")
    assert [(row["comment"], row.get("dport"), row["source"]) for row in rows] == [
        ("ansible: log in for operators", "1", "192.0.2.0/24"),
        ("ansible: echo for operators, blackbox_exporter", None, "192.0.2.0/24"),
        ("ansible: metrics for prometheus", "3100,8000,9100", "10.0.0.11"),
        ("ansible: loki for promtail, grafana, retention, operators", "3100", "10.0.0.13,192.0.2.0/24"),
    ]
    second = play("provision", "-e", "ansible_connection=local")
    assert second.returncode == 0, second.stdout
    assert "changed=0" in second.stdout.partition("localhost")[2]
    confirmed = play("destroy", "-e", "platform_destroy_confirmed=trial")
    assert confirmed.returncode == 0, confirmed.stdout
    assert cluster.guests == {}


TEMPLATES = """
guests_templates:
  - {name: alpine_1_amd64.tar.zst, kind: vztmpl, src: SOURCE}
  - {name: debian-13.qcow2, kind: import, src: SOURCE}
  - {name: debian-13, kind: vm, image: "local:import/debian-13.qcow2", storage: local-zfs}
"""
MACHINES = """
machines:
  hosts: {web-2: {guest_kind: vm, guest_template: debian-13, guest_storage: local-zfs}}
guests:
  vars: {guest_template: "local:vztmpl/alpine_1_amd64.tar.zst"}
"""


def test_check_mode_counts_on_what_the_run_would_make_first(
    site: Any, play: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("files") / "image"
    source.write_bytes(b"QFI\xfb" + bytes(20) + (2 << 30).to_bytes(8, "big"))
    play.more(COMPANIONS + TEMPLATES.replace("SOURCE", str(source)), GROUPS + MACHINES)
    predicted = play("provision", "--check", "--diff")
    assert predicted.returncode == 0, predicted.stdout
    assert "changed=5" in predicted.stdout
    assert not site.server.cluster.guests
    assert not site.server.cluster.pools
    done = play("provision", "-e", "ansible_connection=local")
    assert done.returncode == 0, done.stdout
    assert "changed=5" in done.stdout
    assert site.server.guest("web-2").kind == "qemu"
    assert "size=8G" in site.config("web-2")["scsi0"]
    again = play("provision", "-e", "ansible_connection=local")
    assert "changed=0" in again.stdout.partition("localhost")[2], again.stdout


def test_a_firewall_without_operators_is_refused(site: Any, play: Any) -> None:
    play.more(COMPANIONS.replace("platform_operator_networks: [192.0.2.0/24]", ""), GROUPS)
    refused = play("provision", "-e", "ansible_connection=local")
    assert refused.returncode != 0
    assert "platform_operator_networks is empty, and nobody could log in to web-1" in refused.stdout


LEASED = """
guests:
  hosts:
    lease-1: {}
    lease-2: {ansible_host: 127.0.0.9}
  vars:
    guest_address: dhcp
    ansible_port: 1
    guest_ready_deadline: 1
"""


def test_guest_on_dhcp_is_reached_at_the_address_the_hypervisor_tells(
    site: Any, play: Any, tmp_path: Path
) -> None:
    (tmp_path / "hosts.yml").write_text(LEASED)
    first = play("provision")
    vmid = site.server.guest("lease-1").vmid
    assert f"192.0.2.{100 + vmid % 150} cannot be managed after 1 s" in first.stdout
    # What the inventory says is not overridden.
    assert "127.0.0.9 cannot be managed" in first.stdout
    # Runs that provide no guests ask, too, and change nothing.
    again = play("provision", "--tags", "validate", "-e", "guest_memory_mb=2048", "-v")
    assert again.returncode == 0, again.stdout
    assert f"192.0.2.{100 + vmid % 150}" in again.stdout
    assert site.config("lease-1")["memory"] == 1024


def test_guest_without_ipv4_is_reached_at_the_address_its_network_announces(
    site: Any, play: Any, tmp_path: Path
) -> None:
    six = LEASED.replace("guest_address: dhcp", "guest_address: ''\n    guest_address6: auto")
    (tmp_path / "hosts.yml").write_text(six)
    done = play("provision")
    vmid = site.server.guest("lease-1").vmid
    assert f"fd00:192:0:2::{vmid:x} cannot be managed after 1 s" in done.stdout
    assert "ip=" not in site.config("lease-1")["net0"]


def test_guest_waited_for_at_use_is_waited_for_by_the_first_component(play: Any) -> None:
    play.more("", "node_exporter: {hosts: {web-1: {}}}\n")
    later = ("-e", '{"guest_ready_at": "use", "guest_ready_deadline": 1}')
    made = play("provision", *later)
    assert made.returncode == 0, made.stdout
    used = play("deploy", "--tags", "node_exporter", "--skip-tags", "artifacts", *later)
    assert used.returncode != 0
    assert "127.0.0.1 cannot be managed after 1 s" in used.stdout


def test_snapshot_before_a_deployment_and_back(site: Any, play: Any) -> None:
    play("provision", "-e", "ansible_connection=local")
    taken = play("snapshot", "-e", "snapshot=deploy-1", "--limit", "web-*")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    kept = {guest.name: list(guest.snapshots) for guest in site.server.cluster.guests.values()}
    assert kept == {"web-1": ["deploy-1"], "web-2": ["deploy-1"], "off-3": []}
    site.edit("web-1", description="changed by the deployment")
    arguments = ["-e", "snapshot=deploy-1", "-e", "snapshot_state=rollback", "--limit", "web-1"]
    assert "changed=1" in play("snapshot", *arguments, "--check").stdout
    back = play("snapshot", *arguments, "-e", "ansible_connection=local")
    assert back.returncode == 0, back.stdout + back.stderr
    assert "description" not in site.config("web-1")


def test_templates_of_a_version_are_kept_as_long_as_the_policy_says(site: Any, play: Any) -> None:
    play("provision", "-e", "ansible_connection=local")
    for version in ("1.0", "1.1"):
        made = play("version", "-e", f"version={version}", "--limit", "web-1")
        assert made.returncode == 0, made.stdout + made.stderr
    first = site.server.guest("web-1-1.0")
    head = first.config["description"].rpartition(" ")[0]
    first.config["description"] = f"{head} 2020-01-01T00:00:00Z\n"
    cleaned = play("version", "-e", "version=1.1", "--limit", "web-1")
    assert "changed=1" in cleaned.stdout, cleaned.stdout + cleaned.stderr
    names = [guest.name for guest in site.server.cluster.guests.values()]
    assert sorted(names) == ["off-3", "web-1", "web-1-1.1", "web-2"]
    assert "changed=0" in play("version", "-e", "version=1.1", "--limit", "web-1").stdout


def test_inventory_hands_a_guest_to_the_ha_manager(site: Any, play: Any) -> None:
    play.more("guest_ha: kept\nguest_startup: order=2\n", "all: {}")
    result = play("provision", "-e", "ansible_connection=local")
    assert result.returncode == 0, result.stdout + result.stderr
    states = {entry["sid"]: entry["state"] for entry in site.api("GET", "cluster/ha/resources")}
    assert sorted(states.values()) == ["started", "started", "stopped"]
    assert site.config("web-1")["startup"] == "order=2"


def collections_with(name: str) -> str:
    """The folder of an installed collection's tree; empty when it is not there."""
    places = [*os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":"), "~/.ansible/collections"]
    places += ["/usr/share/ansible/collections", *sys.path]
    places += [str(path) for path in PROJECT.glob(".cache/*/lib/python3*/site-packages")]
    folders = [Path(place).expanduser() for place in places if place]
    return next(
        (str(f) for f in folders if (f / "ansible_collections" / name.replace(".", "/")).is_dir()), ""
    )


COMMUNITY = collections_with("community.proxmox")


@pytest.mark.skipif(not COMMUNITY, reason="community.proxmox is not installed; `make bench-guests` does")
def test_the_documented_inventory_of_the_hypervisor(
    site: Any, play: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """docs/inventory.md as it is written, on what provision.yml made."""
    tags, source = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs/inventory.md").read_text(), re.DOTALL)
    play.more(tags, GROUPS + "vms: {hosts: {web-2: {guest_kind: vm, guest_template: '9001'}}}")
    site.server.cluster.provide_templates()
    assert play("provision", "-e", "ansible_connection=local").returncode == 0
    place = tmp_path_factory.mktemp("asked")
    (place / "guests.proxmox.yml").write_text(source)
    server = site.server
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(place), "--list"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": COMMUNITY,
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
            "PROXMOX_URL": f"https://{server.host}:{server.port}",
            "PROXMOX_USER": server.user,
            "PROXMOX_TOKEN_ID": server.token_id,
            "PROXMOX_TOKEN_SECRET": server.token_secret,
            "REQUESTS_CA_BUNDLE": server.ca_path,
        },
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    groups = {name: sorted(entry["hosts"]) for name, entry in found.items() if "hosts" in entry}
    assert groups["node_exporter"] == ["off-3", "web-1", "web-2"]
    assert (groups["loki"], groups["promtail"], groups["trial"]) == (["web-2"], ["off-3"], groups["luxima"])
    addresses = {name: values["ansible_host"] for name, values in found["_meta"]["hostvars"].items()}
    # ansible-inventory marks what came from outside.
    assert {name: value["__ansible_unsafe"] for name, value in addresses.items()} == {
        "web-1": "10.0.0.11",
        "web-2": "10.0.0.12",
        "off-3": "10.0.0.13",
    }
