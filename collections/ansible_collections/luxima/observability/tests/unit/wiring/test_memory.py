# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How the memory of a guest is shared, with the table that is shipped."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.luxima.observability.plugins.filter.wiring import memory_limits

ROOT = Path(__file__).resolve().parents[7]
FACTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/platform/defaults/main/memory.yml").read_text())
SHARES: dict[str, dict[str, int]] = FACTS["platform_memory_shares"]
OTHERS, SYSTEM = FACTS["platform_memory_others"], FACTS["platform_memory_system"]
# MiB at rest, all of them on one guest.
AT_REST = {"minio": 224, "loki": 203, "tempo": 175, "prometheus": 162, "promtail": 134, "grafana": 132}


def limits(total: int, *groups: str) -> dict[str, int]:
    found = memory_limits(SHARES, groups, total, OTHERS, SYSTEM)
    assert all(re.fullmatch(r"[0-9]+MiB", text) for text in found.values())
    return {name: int(text[:-3]) for name, text in found.items()}


def test_stores_in_four_gigabytes() -> None:
    found = limits(4096, "guests", "minio", "loki", "tempo", "node_exporter", "promtail")
    assert sum(found.values()) <= 4096 - 409
    assert {
        "minio": found["minio"] >= 900,
        "loki": found["loki"] >= 1200,
        "tempo": found["tempo"] >= 900,
    } == {
        "minio": True,
        "loki": True,
        "tempo": True,
    }


@pytest.mark.parametrize("total", [512, 1024, 2048, 4096, 8192, 65536])
def test_nobody_gets_less_than_it_needs(total: int) -> None:
    for pair in combinations(SHARES, 3):
        for name, given in limits(total, *pair).items():
            assert given >= SHARES[name]["least_mb"] >= AT_REST.get(name, 0) * 3 // 2


@pytest.mark.parametrize("total", [6144, 8192, 16384, 65536])
def test_all_together_leave_room_for_the_system(total: int) -> None:
    assert sum(limits(total, *SHARES).values()) <= total - max(256, total // 10)


def test_programs_of_others_keep_theirs() -> None:
    alone, beside = limits(8192, "loki"), limits(8192, "loki", "docker")
    assert beside["loki"] <= alone["loki"] - 8192 * 0.5


def test_an_agent_does_not_take_what_is_free() -> None:
    assert limits(65536, "promtail", "node_exporter") == {"promtail": 1024, "node_exporter": 256}


def test_nothing_is_limited_where_the_memory_is_not_known() -> None:
    assert limits(0, *SHARES) == {}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"loki": {"weight": 1}}, r"platform_memory_shares\.loki\.least_mb: is missing"),
        ({"loki": {"weight": 1, "least": 5}}, r"platform_memory_shares\.loki\.least: no such key"),
        (
            {"loki": {"weight": "much", "least_mb": 1}},
            r"platform_memory_shares\.loki\.weight: must be a number",
        ),
        ({"loki": {"weight": -1, "least_mb": 1}}, "must not be negative"),
        ({"loki": None}, r"platform_memory_shares\.loki: must be a dictionary"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(shares: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        memory_limits(shares, ["loki"], 1024, {}, SYSTEM)
