"""Every inventory renders without any host, and the servers' own checkers accept what would be deployed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
ENVIRONMENTS = ("lab", "development", "staging", "production")


def groups(environment: str) -> dict[str, set[str]]:
    """Hosts of each group, as Ansible sees them."""
    run = subprocess.run(
        ["ansible-inventory", "-i", f"inventories/{environment}", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(run.stdout)

    def hosts(name: str) -> set[str]:
        entry = data.get(name, {})
        return set(entry.get("hosts", [])).union(*(hosts(child) for child in entry.get("children", [])))

    return {name: hosts(name) for name in data if name != "_meta"}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def rendered(request: pytest.FixtureRequest) -> tuple[str, Path]:
    environment = request.param
    target = ROOT / "reports" / "render" / environment
    shutil.rmtree(target, ignore_errors=True)
    run = subprocess.run(
        ["ansible-playbook", "playbooks/render.yml", "-i", f"inventories/{environment}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return environment, target


def test_every_host_and_component_is_there(rendered: tuple[str, Path]) -> None:
    environment, target = rendered
    records = [path / "vars" / "main.yml" for path in (ROOT / "roles").iterdir()]
    # The record of a component is named after its role; `guests` has variables and none.
    components = {
        path.parent.parent.name
        for path in records
        if path.exists() and f"__{path.parent.parent.name}_component:" in path.read_text()
    }
    expected = {
        f"{host}/{name}"
        for name, hosts in groups(environment).items()
        if name in components
        for host in hosts
    }
    found = {f"{path.parent.parent.name}/{path.parent.name}" for path in target.glob("*/*/record.json")}
    assert expected
    assert found == expected


def test_no_secret_is_written(rendered: tuple[str, Path]) -> None:
    _environment, target = rendered
    secret_files = [path for path in target.glob("*/*/etc/environment") if path.is_file()]
    assert secret_files, "some component has secrets; the test would prove nothing otherwise"
    for path in secret_files:
        assert path.read_text().strip() == "<secret>"


def staged(component: Path, record: dict[str, object], scratch: Path) -> dict[str, str]:
    """The folders a validate command names, filled as on a host."""
    store = Store(str(CACHE))
    places = {name: scratch / name for name in ("bin", "share", "scratch")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for name in [*record["artifacts"], *record.get("tools", [])]:  # type: ignore[misc,has-type]
        artifact = store.lookup(name, "amd64")
        assert artifact is not None, f"{name} is not in the artifact cache; run the step `artifacts` first"
        if artifact.format == "file":
            shutil.copy(artifact.path, places["bin"] / name)
            (places["bin"] / name).chmod(0o755)
        elif artifact.format == "tree":
            with tarfile.open(artifact.path) as tree:
                tree.extractall(places["share"] / name, filter="data")
    places["etc"] = shutil.copytree(component / "etc", scratch / "etc", dirs_exist_ok=True)
    # What stands for a secret document is no document.
    for path in places["etc"].rglob("*.json"):
        if path.read_text().strip() == "<secret>":
            path.write_text("{}")
    return {key: str(value) for key, value in places.items()}


def test_nobody_deletes_series_who_only_reaches_the_port(rendered: tuple[str, Path]) -> None:
    _environment, root = rendered
    units = list(root.glob("*/prometheus/unit"))
    assert units
    assert not [unit for unit in units if "--web.enable-admin-api" in unit.read_text()]


def test_the_servers_own_checkers_pass(rendered: tuple[str, Path], tmp_path: Path) -> None:
    _environment, target = rendered
    checked, faults = 0, []
    for path in sorted(target.glob("*/*/record.json")):
        component = path.parent
        record = json.loads(path.read_text())
        if not record.get("validate"):
            continue
        places = staged(component, record, tmp_path / component.name)
        for command in record["validate"]:
            words = [str(word).format(**places) for word in command]
            run = subprocess.run(words, capture_output=True, text=True, check=False, cwd=component)
            checked += 1
            if run.returncode != 0:
                faults.append(f"{component.relative_to(target)}: {' '.join(words)}\n{run.stdout}{run.stderr}")
    assert checked >= 5
    assert not faults, "\n\n".join(faults)
