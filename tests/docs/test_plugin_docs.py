"""Every plugin of the collection has documentation that ansible-doc can build."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "collections/ansible_collections/luxima/observability/plugins"
# The folder's name and ansible-doc's word for it. Actions are documented by the module of the same name.
KINDS = {"modules": "module", "inventory": "inventory", "filter": "filter", "callback": "callback"}


def documented() -> list[tuple[str, str]]:
    return [
        (kind, path.stem)
        for folder, kind in KINDS.items()
        for path in sorted((PLUGINS / folder).glob("*.py"))
        if path.stem != "__init__"
    ]


@pytest.fixture(scope="module")
def docs() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for kind in KINDS.values():
        names = [f"luxima.observability.{name}" for k, name in documented() if k == kind]
        if kind == "filter":
            names = ["luxima.observability.retention_plan"]
        run = subprocess.run(
            ["ansible-doc", "--json", "--type", kind, *names],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found[kind] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize(("kind", "name"), [row for row in documented() if row[0] != "filter"])
def test_documentation_is_complete(docs: dict[str, dict[str, object]], kind: str, name: str) -> None:
    entry = docs[kind].get(f"luxima.observability.{name}")
    assert isinstance(entry, dict), f"ansible-doc knows no {kind} {name}"
    doc = entry["doc"]
    assert doc["short_description"]
    assert doc["description"]
    if kind == "module":
        assert entry["examples"], f"{name} has no EXAMPLES"
        assert entry["return"], f"{name} has no RETURN"
        undescribed = [key for key, spec in doc["options"].items() if not spec.get("description")]
        assert not undescribed


def test_every_action_has_its_module() -> None:
    actions = {path.stem for path in (PLUGINS / "action").glob("*.py")} - {"__init__"}
    modules = {path.stem for path in (PLUGINS / "modules").glob("*.py")}
    assert actions <= modules
