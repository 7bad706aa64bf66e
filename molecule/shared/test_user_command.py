"""What `ansible-playbook site.yml -i inventories/<environment> -e @overrides` made of the lab, and the report it left."""

from __future__ import annotations

import json
import os

import pytest

from tests.platform import ROOT, Platform, get

ENVIRONMENT = os.environ["SITE_ENVIRONMENT"]
OVERRIDES = ROOT / ".lab" / "overrides.json"
ADDRESSES = os.environ.get("SITE_ADDRESSES", "")
SITE = Platform(
    ROOT / "inventories" / ENVIRONMENT,
    *([ROOT / ADDRESSES] if ADDRESSES else []),
    options=("-e", f"@{OVERRIDES}"),
)
# Where the API is and how to log in, storages, sizes, addresses.
ALLOWED = ("proxmox_", "ansible_", "guest_storage", "guest_cores", "guest_memory_mb", "guest_disk_gb")
ALLOWED += ("guest_ssh_public_keys", "platform_subnet", "lab_state_dir")


def test_only_access_storages_sizes_and_addresses_are_the_labs() -> None:
    names = set(json.loads(OVERRIDES.read_text()))
    kind = {"guest_kind", "guest_template"} if os.environ.get("SITE_KIND") else set()
    assert {name for name in names if not name.startswith(ALLOWED)} == kind


def test_report_of_the_run() -> None:
    report = json.loads((ROOT / "reports" / f"verify-{ENVIRONMENT}.json").read_text())
    assert report["ok"]
    assert report["environment"] == ENVIRONMENT
    checks = {result["check"] for result in report["results"]}
    assert {"targets", "rules", "logs", "traces", "alert", "grafana", "buckets", "retention"} <= checks


def test_guests_are_what_the_inventory_says() -> None:
    wanted = SITE.values("guest_kind", "guest_node")
    names = SITE.groups["guests"]
    found = {row["name"]: row for row in SITE.guests()}
    assert {name: (found[name]["type"], found[name]["node"], found[name]["status"]) for name in names} == {
        name: (
            {"vm": "qemu", "lxc": "lxc"}[wanted[name]["guest_kind"]],
            wanted[name]["guest_node"],
            "running",
        )
        for name in names
    }
    tagged = {name for name, row in found.items() if ENVIRONMENT in str(row.get("tags", "")).split(";")}
    assert tagged == set(names)


def test_what_stands_beside_the_guests_is_what_the_inventory_says() -> None:
    wanted = SITE.values("guest_pool", "guest_firewall", "guests_pools", "guests_backup_jobs")
    names = SITE.groups["guests"]
    found = {row["name"]: row for row in SITE.guests()}
    assert {name: found[name].get("pool", "") for name in names} == {
        name: wanted[name]["guest_pool"] for name in names
    }
    filtered = {
        name: SITE.api("GET", f"nodes/{row['node']}/{row['type']}/{row['vmid']}/firewall/options").get(
            "enable", 0
        )
        for name, row in found.items()
        if name in names
    }
    assert filtered == {name: int(wanted[name]["guest_firewall"] == "closed") for name in names}
    anybody = wanted[names[0]]
    pools = {pool["poolid"] for pool in SITE.api("GET", "pools")}
    assert pools == {pool["name"] for pool in anybody["guests_pools"] or []}
    jobs = {job["id"] for job in SITE.api("GET", "cluster/backup")}
    assert jobs == {job["id"] for job in anybody["guests_backup_jobs"] or []}


@pytest.mark.skipif(not ADDRESSES, reason="the guests of this environment have IPv4")
def test_guests_without_ipv4_are_scraped_and_searchable() -> None:
    for host in SITE.groups["guests"]:
        shown = json.loads(SITE.guest(host).run("ip -j address show scope global").stdout)
        families = {one["family"] for link in shown for one in link.get("addr_info", []) if one}
        assert families == {"inet6"}, host
        address = SITE.values("ansible_host")[host]["ansible_host"]
        for component in ("node_exporter", "promtail"):
            (row,) = SITE.wait_for(f'up{{job="{component}",host="{host}"}} == 1')
            assert row["metric"]["instance"].startswith(f"{host}:")
        targets = get(f"{SITE.first('prometheus', 'prometheus_url')}/api/v1/targets")["data"]["activeTargets"]
        assert f"http://[{address}]:9100/metrics" in {one["scrapeUrl"] for one in targets}
        assert SITE.logs(f'{{host="{host}"}}'), host


def test_every_server_of_a_group_sees_every_host() -> None:
    hosts = {*SITE.groups["guests"], *SITE.groups.get("hypervisors", [])}
    urls = SITE.values("prometheus_url")
    for server in SITE.groups["prometheus"]:
        answer = get(f"{urls[server]['prometheus_url']}/api/v1/query", query='up{job="node_exporter"} == 1')
        assert {row["metric"]["host"] for row in answer["data"]["result"]} == hosts, server
