# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The inventory source, asked through ansible-inventory from a foreign working directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[7]
HOSTS = """
all:
  vars: {own: 1}
guests: {hosts: {one: {ansible_host: 192.0.2.1}, two: {ansible_host: 192.0.2.2, loki_port: 3200}}}
loki: {hosts: {one: {}, two: {}}, vars: {loki_scheme: https}}
"""


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "-i", str(folder / "inventory"), *arguments],
        cwd=folder,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
            # Paths of identities start at the working directory.
            "ANSIBLE_VAULT_IDENTITY_LIST": f"example@{PROJECT}/inventories/example.vault-password",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(folder: Path, expression: str) -> Any:
    done = ask(folder, "one", "-m", "ansible.builtin.debug", "-a", f"msg={{{{ {expression} }}}}")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])["msg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "00-platform.yml").write_text("plugin: luxima.observability.platform\n")
    (inventory / "hosts.yml").write_text(HOSTS)
    return tmp_path


def test_a_fact_of_another_host_is_evaluated_for_its_owner(folder: Path) -> None:
    assert said(folder, "groups.loki | map('extract', hostvars, 'loki_url') | list") == [
        "https://192.0.2.1:3100",
        "https://192.0.2.2:3200",
    ]


def test_an_absent_group_is_empty(folder: Path) -> None:
    assert said(folder, "[groups.tempo, groups.hypervisors]") == [[], []]


def test_defaults_of_another_folder(folder: Path) -> None:
    facts = folder / "facts"
    facts.mkdir()
    (facts / "a.yml").write_text("platform_components: [special]\nplatform_x: '{{ own }}'\n")
    (folder / "inventory" / "00-platform.yml").write_text(
        "plugin: luxima.observability.platform\nplatform_defaults: ../facts\n"
    )
    assert said(folder, "[groups.special, platform_x | int, loki_port | default(0)]") == [[], 1, 0]
    (facts / "b.yml").write_text("platform_x: 2\n")
    assert "already set by another file" in ask(folder, "one", "-m", "ansible.builtin.debug").stderr


def test_a_missing_folder_is_named(folder: Path) -> None:
    (folder / "inventory" / "00-platform.yml").write_text(
        "plugin: luxima.observability.platform\nplatform_defaults: /nowhere\n"
    )
    done = ask(folder, "one", "-m", "ansible.builtin.debug")
    assert done.returncode != 0
    assert "/nowhere" in done.stderr
