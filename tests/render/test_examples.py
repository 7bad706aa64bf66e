# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Every example of every README is an inventory that validates, renders, and passes the servers' own checkers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render.test_render import ROOT, staged

BASE = ROOT / "inventories" / "development"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMPONENTS = [path.parent.parent.name for path in sorted(ROOT.glob("roles/*/vars/main.yml"))]
COMPONENTS = [name for name in COMPONENTS if name != "guests"]
READMES = [
    path
    for path in sorted(ROOT.rglob("README.md"))
    if not {".venv", ".cache", "reports", ".lab", "node_modules", ".pytest_cache"}
    & set(path.relative_to(ROOT).parts)
]


@dataclass(frozen=True)
class Example:
    name: str
    text: str


def examples() -> Iterator[Example]:
    for path in READMES:
        for number, match in enumerate(BLOCK.finditer(path.read_text())):
            if match[1] in ("yaml", "yml"):
                yield Example(f"{path.parent.relative_to(ROOT)}-{number}", match[2])


EXAMPLES = list(examples())


class Loader(yaml.SafeLoader):
    """Knows Ansible's tags."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def parts(text: str) -> dict[str, str]:
    """Top-level key -> its lines, as they are written."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines(keepends=True):
        match = re.match(r"(\w+):", line)
        key = match[1] if match else key
        if key:
            found[key] = found.get(key, "") + line
    return found


def is_group(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and value.keys() <= {"hosts", "children", "vars"}


def hosts_of(groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for group in groups.values():
        for host, variables in (group.get("hosts") or {}).items():
            found[host] = {**found.get(host, {}), **(variables or {})}
    return found


def inventory_of(example: Example, folder: Path) -> tuple[Path, list[str]]:
    """The development inventory with the example in it: its groups in place of those of the same name."""
    inventory = folder / "inventory"
    shutil.copytree(BASE, inventory)
    value = yaml.load(example.text, Loader)
    written = parts(example.text)
    assert set(value) == set(written)
    groups = {key: item for key, item in value.items() if is_group(item)}
    base = yaml.safe_load((BASE / "hosts.yml").read_text())
    kept = {name: group for name, group in base.items() if name not in groups or name == "guests"}
    # Hosts that the example takes as known.
    unknown = [host for host, variables in hosts_of(groups).items() if "ansible_host" not in variables]
    kept["all"] = {
        "hosts": {host: {"ansible_host": f"192.0.2.{100 + n}"} for n, host in enumerate(sorted(unknown))}
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump(kept))
    if groups:
        (inventory / "hosts2.yml").write_text("---\n" + "".join(written[name] for name in groups))
    rest = "".join(lines for key, lines in written.items() if key not in groups)
    (inventory / "group_vars" / "all" / "zz-example.yml").write_text("---\n" + rest)
    secrets = dict.fromkeys(re.findall(r"\bvault_\w+", example.text), "https://example.org/of-an-example")
    (inventory / "group_vars" / "all" / "zz-vault.yml").write_text(
        "---\n" + (yaml.safe_dump(secrets) if secrets else "")
    )
    named = {name for name in COMPONENTS for key in value if key == name or key.startswith(f"{name}_")}
    return inventory, [] if any(key.startswith("platform_") for key in value) else sorted(named)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_works_as_it_is_written(example: Example, tmp_path: Path) -> None:
    inventory, tags = inventory_of(example, tmp_path)
    target = tmp_path / "rendered"
    command = ["ansible-playbook", "playbooks/validate.yml", "playbooks/deploy.yml", "-i", str(inventory)]
    command += ["-e", f"platform_render_dir={target}", *(["--tags", ",".join(tags)] if tags else [])]
    run = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rendered = {path.parent.name for path in target.glob("*/*/record.json")}
    assert rendered >= set(tags)
    faults = []
    for path in sorted(target.glob("*/*/record.json")):
        record = json.loads(path.read_text())
        if not record.get("validate"):
            continue
        places = staged(path.parent, record, tmp_path / "staged" / path.parent.parent.name / path.parent.name)
        for command in record["validate"]:
            words = [str(word).format(**places) for word in command]
            checked = subprocess.run(words, capture_output=True, text=True, check=False, cwd=path.parent)
            if checked.returncode:
                faults.append(f"{' '.join(words)}\n{checked.stdout}{checked.stderr}")
    assert not faults, "\n\n".join(faults)


def test_every_role_has_an_example() -> None:
    """A README without one would not be seen."""
    roles = {path.parent.name for path in ROOT.glob("roles/*/defaults")}
    shown = {
        example.name.split("/")[1].rpartition("-")[0]
        for example in EXAMPLES
        if example.name.startswith("roles/")
    }
    assert roles - shown == set()


def test_what_the_readmes_call_is_there() -> None:
    """Playbooks that exist, with variables that they or the roles know."""
    text = "\n".join(path.read_text() for path in READMES)
    playbooks = set(re.findall(r"\b(?:playbooks/[a-z_]+|site)\.yml", text))
    assert len(playbooks) > 10
    assert [name for name in sorted(playbooks) if not (ROOT / name).is_file()] == []
    known = "\n".join(
        path.read_text() for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/defaults/**/*.yml")]
    )
    given = set(re.findall(r"-e (\w+)=", text))
    assert len(given) > 8
    assert [name for name in sorted(given) if not re.search(rf"\b{name}\b", known)] == []
