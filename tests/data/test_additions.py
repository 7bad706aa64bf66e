# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Files beside each other add to the same lists: none replaces what another one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .test_bad_input import copied, play

OWN = """---
platform_scrape_jobs: [{job_name: own, static_configs: [{targets: ['own:1']}]}]
platform_operator_networks: [192.0.2.0/24]
"""
SHOP = """---
platform_scrape_jobs_shop: [{job_name: shop, static_configs: [{targets: ['shop:1']}]}]
platform_probes_shop: [{url: 'https://shop.example.org'}]
prometheus_rule_groups_shop: [{name: shop, rules: [{alert: ShopIsDown, expr: 'up{job="shop"} == 0'}]}]
alertmanager_receivers_shop: [{name: shop}]
alertmanager_routes_shop: [{receiver: shop, matchers: ['team = "shop"']}]
"""
BANK = """---
alertmanager_receivers_bank: [{name: bank}]
promtail_units_bank: {bank: {tenants: [b.+]}}
"""


def written(inventory: Path, name: str, text: str) -> None:
    (inventory / "group_vars" / "all" / name).write_text(text)


def test_each_file_adds_and_none_replaces(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    for name, text in (("own.yml", OWN), ("shop.yml", SHOP), ("bank.yml", BANK)):
        written(inventory, name, text)
    code, output, result = play(inventory)
    assert (code, result.get("faults", [])) == (0, []), output
    words = ["-e", f"platform_render_dir={tmp_path / 'r'}", "--tags", "prometheus,alertmanager,promtail"]
    code, output, _ = play(inventory, *words, playbook="playbooks/deploy.yml")
    assert code == 0, output

    def rendered(path: str) -> Any:
        return yaml.safe_load((tmp_path / "r" / "stg-obs1" / path).read_text())

    jobs = [job["job_name"] for job in rendered("prometheus/etc/prometheus.yml")["scrape_configs"]]
    assert {"own", "shop", "probe"} <= set(jobs)
    rules = rendered("prometheus/etc/rules/inventory.yml")["groups"]
    assert [group["name"] for group in rules] == ["shop"]
    config = rendered("alertmanager/etc/alertmanager.yml")
    assert [one["name"] for one in config["receivers"]] == ["default", "bank", "shop"]
    assert [one["receiver"] for one in config["route"]["routes"]] == ["shop"]
    text = (tmp_path / "r" / "stg-obs1" / "promtail" / "etc" / "promtail.yml").read_text()
    # The inventory's own, and the one beside it.
    assert "billing" in text
    assert "b.+" in text


def test_what_cannot_be_joined_is_named(tmp_path: Path) -> None:
    inventory = copied(tmp_path)
    written(
        inventory,
        "shop.yml",
        "platform_scrape_jobs_shop: {job_name: shop}\n"
        "platform_scrape_jobs_x: [{job_name: x, static_config: []}]\n"
        "promtail_units_a: {a: {}}\npromtail_units_b: {a: {}}\nplatform_scrap_jobs_y: []\n",
    )
    code, output, result = play(inventory)
    assert code == 2, output
    told = [f"{fault['variable']}: {fault['message']}" for fault in result["faults"]]
    for words in (
        "platform_scrape_jobs_shop: ",
        "promtail_units_b: a stands in promtail_units_a too",
        "platform_scrap_jobs_y: no such variable",
    ):
        assert [line for line in told if line.startswith(words)], told
