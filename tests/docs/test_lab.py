# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""docs/lab.md names every method that the lab implements, and no other; and every fault."""

from __future__ import annotations

import re
from pathlib import Path

from lab.api import ROUTES
from lab.faults import SWITCHES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "lab.md"
METHOD = re.compile(r"^\| `((?:GET|POST|PUT|DELETE)(?:, (?:GET|POST|PUT|DELETE))*) (/\S*)` \|")


def told(text: str) -> list[tuple[str, str]]:
    """Verb and path of every method in the tables."""
    found = []
    for line in text.splitlines():
        match = METHOD.match(line)
        for kind in ("lxc", "qemu") if match and "{guest}" in match[2] else ("",):
            if match:
                found += [(verb, match[2].replace("{guest}", kind)) for verb in match[1].split(", ")]
    return found


def test_every_method_of_the_lab_is_described_once() -> None:
    listed = told(PAGE.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(set(listed)), "listed twice"
    assert sorted(set(listed) - set(ROUTES)) == [], "described and not implemented"
    assert sorted(set(ROUTES) - set(listed)) == [], "implemented and not described"


def test_every_fault_is_described() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Making it misbehave")[2]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)(?: [^`]*)?`", section)) - {"python"}
    assert set(SWITCHES) - named == set()
    assert {name for name in named if "-" in name} - set(SWITCHES) == set()


def test_a_missing_method_would_be_found() -> None:
    assert told("| `GET, PUT /nodes/{node}/{guest}/{vmid}/config` | x | y |\n| `GET` of nothing |") == [
        ("GET", "/nodes/{node}/lxc/{vmid}/config"),
        ("PUT", "/nodes/{node}/lxc/{vmid}/config"),
        ("GET", "/nodes/{node}/qemu/{vmid}/config"),
        ("PUT", "/nodes/{node}/qemu/{vmid}/config"),
    ]


def test_people_are_led_to_the_page() -> None:
    for page in ("README.md", "docs/architecture.md"):
        assert "lab.md" in (ROOT / page).read_text(encoding="utf-8")
