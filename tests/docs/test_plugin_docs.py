"""Every plugin of the collection has documentation that ansible-doc can build."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

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
def docs() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS.values():
        names = [f"luxima.observability.{name}" for k, name in documented() if k == kind]
        if kind == "filter":
            names = [
                f"luxima.observability.{path.stem}" for path in sorted((PLUGINS / "filter").glob("*.yml"))
            ]
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
def test_documentation_is_complete(docs: dict[str, dict[str, Any]], kind: str, name: str) -> None:
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


def test_every_filter_is_documented(docs: dict[str, dict[str, Any]]) -> None:
    assert docs["filter"]
    assert all(entry["doc"]["description"] and entry["examples"] for entry in docs["filter"].values())


def test_every_action_has_its_module() -> None:
    actions = {path.stem for path in (PLUGINS / "action").glob("*.py")} - {"__init__"}
    modules = {path.stem for path in (PLUGINS / "modules").glob("*.py")}
    assert actions <= modules


# What an option may say. In flow style an unquoted comma ends a description and makes a key of the rest.
OPTION_KEYS = {
    "aliases",
    "choices",
    "default",
    "description",
    "elements",
    "env",
    "ini",
    "required",
    "suboptions",
}
OPTION_KEYS |= {"type", "vars", "version_added", "no_log", "key"}


def strange_keys(options: dict[str, Any], path: str) -> list[str]:
    found = []
    for name, option in options.items():
        found += [f"{path}{name}: {key}" for key in option if key not in OPTION_KEYS]
        found += strange_keys(option.get("suboptions") or {}, f"{path}{name}.")
    return found


def test_strange_keys_are_found() -> None:
    assert strange_keys({"a": {"suboptions": {"b": {"description": "x", "the rest": None}}}}, "") == [
        "a.b: the rest"
    ]


@pytest.mark.parametrize(("kind", "name"), [row for row in documented() if row[0] != "filter"])
def test_options_say_only_what_options_can(docs: dict[str, dict[str, Any]], kind: str, name: str) -> None:
    assert strange_keys(docs[kind][f"luxima.observability.{name}"]["doc"].get("options") or {}, "") == []


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("roles/*/meta/argument_specs.yml")), ids=lambda p: p.parts[-3]
)
def test_specs_say_only_what_options_can(path: Path) -> None:
    for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
        options = entry.get("options") or {}
        for name, option in options.items():
            if "options" in option:
                option["suboptions"] = option.pop("options")
            assert strange_keys({name: option}, "") == []
