# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""docs/traps.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs" / "traps.md").read_text())


def test_every_trap_has_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "traps.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) - 2 == len(NAMED) >= 13


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
