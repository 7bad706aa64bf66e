# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The shipped rules, rendered as the role renders them: promtool accepts them, every one fires and is silent when it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEVERITIES = {"critical", "high", "warning", "notice", "info"}
# Fires by design all the time, so no case can be silent.
ALWAYS = {"Watchdog"}
TESTS = sorted(HERE.glob("*.test.yml"))


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


def _cached_promtool() -> str:
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luxima-observability"
    found = Store(str(cache), str(ROOT / "components/lock.yml")).lookup("promtool", "amd64")
    return str(found.path) if found else ""


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PROMTOOL, else the artifact cache, else PATH. Its absence is a failure: rules without tests are not shipped."""
    found = os.environ.get("PROMTOOL") or _cached_promtool() or shutil.which("promtool")
    assert found, "no promtool: set PROMTOOL, or fill the artifact cache, or put it into PATH"
    # What is in the cache is content, not a program.
    program = tmp_path_factory.mktemp("bin") / "promtool"
    shutil.copyfile(found, program)
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the rendered rules and, beside them, their tests."""
    folder = tmp_path_factory.mktemp("rules")
    inventory = tmp_path_factory.mktemp("inventory") / "00-platform.yml"
    inventory.write_text("plugin: luxima.observability.platform\n")
    ansible = Path(sys.executable).parent / "ansible-playbook"
    _run(ansible, "-i", inventory, "-e", f"rules_dir={folder}", HERE / "render.yml")
    for path in TESTS:
        shutil.copy(path, folder)
    return folder


def _alerts(folder: Path) -> list[dict[str, Any]]:
    groups = [
        group
        for path in sorted(folder.glob("*.yml"))
        if not path.name.endswith(".test.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def _cases() -> list[dict[str, Any]]:
    found = [case for path in TESTS for case in yaml.safe_load(path.read_text())["tests"]]
    return [item for case in found for item in case.get("alert_rule_test", [])]


def test_promtool_accepts_the_rules(promtool: Path, rules: Path) -> None:
    files = [path for path in rules.glob("*.yml") if not path.name.endswith(".test.yml")]
    assert files
    _run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *files)


@pytest.mark.parametrize("name", [path.name for path in TESTS])
def test_rules_fire_and_are_silent(promtool: Path, rules: Path, name: str) -> None:
    _run(promtool, "test", "rules", name, cwd=rules)


def test_every_alert_has_a_firing_and_a_silent_case(rules: Path) -> None:
    cases = _cases()
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    names = {rule["alert"] for rule in _alerts(rules)}
    assert names - fires == set()
    assert names - silent - ALWAYS == set()
    assert fires | silent <= names, "cases for alerts that do not exist"


def test_every_alert_says_what_it_is_and_what_to_do(rules: Path) -> None:
    alerts = _alerts(rules)
    assert alerts
    for rule in alerts:
        name = rule["alert"]
        assert rule["labels"]["severity"] in SEVERITIES, name
        assert rule["labels"]["priority"] in {"P0", "P1", "P2", "P3"}, name
        for annotation in ("summary", "description", "runbook", "runbook_url"):
            assert rule["annotations"].get(annotation), f"{name} has no {annotation}"
        if name not in ALWAYS:
            assert rule["for"], name
            assert rule["keep_firing_for"], name
