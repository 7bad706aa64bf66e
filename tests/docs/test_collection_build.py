"""The Galaxy artifact, installed somewhere else, carries roles and facts with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed collection and an inventory that uses its plugin."""
    place = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, ROOT / "tests" / "build_collection.py", place / "dist"], check=True)
    (artifact,) = (place / "dist").glob("*.tar.gz")
    install = run(
        place, "ansible-galaxy", "collection", "install", "--offline", str(artifact), "-p", "collections"
    )
    assert "installed successfully" in install.stdout, install.stdout + install.stderr
    (place / "ansible.cfg").write_text(
        "[defaults]\ncollections_path = ./collections\n"
        "[inventory]\nenable_plugins = luxima.observability.platform, ansible.builtin.yaml\n"
    )
    (place / "inventory").mkdir()
    (place / "inventory" / "00-platform.yml").write_text("plugin: luxima.observability.platform\n")
    (place / "inventory" / "hosts.yml").write_text(
        "node_exporter: {hosts: {elsewhere: {ansible_host: 192.0.2.10, platform_environment: test}}}\n"
    )
    return place


def test_facts_of_the_platform_come_with_it(installed: Path) -> None:
    listing = run(installed, "ansible-inventory", "-i", "inventory", "--list")
    assert listing.returncode == 0, listing.stderr
    assert json.loads(listing.stdout)["_meta"]["hostvars"]["elsewhere"]["loki_port"] == 3100


BY_ITSELF = """- hosts: node_exporter
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: luxima.observability.node_exporter
"""
AFTER_THE_FACTS = """- hosts: node_exporter
  gather_facts: false
  roles: [luxima.observability.platform, luxima.observability.node_exporter]
"""


@pytest.mark.parametrize(
    ("play", "inventory"), [(BY_ITSELF, "inventory"), (AFTER_THE_FACTS, "inventory/hosts.yml")]
)
def test_a_role_runs_by_its_full_name(installed: Path, tmp_path: Path, play: str, inventory: str) -> None:
    """On an inventory without the plugin the role with the facts comes first."""
    (installed / "one.yml").write_text(play)
    words = ("one.yml", "-e", f"platform_render_dir={tmp_path}")
    done = run(installed, "ansible-playbook", "-i", inventory, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "elsewhere" / "node_exporter" / "record.json").read_text())
    assert record["name"] == "node_exporter"
