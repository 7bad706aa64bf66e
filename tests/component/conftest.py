# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real runs of ansible-playbook against a real host.

LUXIMA_TEST_INVENTORY names an inventory, LUXIMA_TEST_HOST a host in it that may be changed freely (systemd, root, no
component of the names used here). Without them these tests are deselected, which the summary says.
The programs of Alertmanager are taken from LUXIMA_TEST_CACHE (by default the usual artifact store).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("toy.py")
PROGRAMS = ("alertmanager", "amtool")
Json = dict[str, Any]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in Path(item.path).parents]
    if os.environ.get("LUXIMA_TEST_HOST") or not ours:
        return
    items[:] = [item for item in items if item not in ours]
    config.hook.pytest_deselected(items=ours)
    print(
        f"\ntests/component: {len(ours)} tests deselected, for LUXIMA_TEST_HOST is not set", file=sys.stderr
    )


@dataclass
class Run:
    """One playbook run. `result` is what the component task returned."""

    code: int
    output: str
    result: Json
    seconds: float

    @property
    def message(self) -> str:
        return str(self.result.get("msg", self.output))


class Site:
    """A throw-away project and the host it deploys to."""

    def __init__(self, folder: Path, host: str, inventory: str) -> None:
        self.folder, self.host, self.inventory = folder, host, inventory
        self.variables: Json = {
            "platform_cache_dir": str(folder / "cache"),
            "platform_lock_file": str(folder / "lock.yml"),
        }
        self.versions: dict[str, str] = {}
        (folder / "templates").mkdir()
        (folder / "files").mkdir()

    def store(self, name: str, program: Path, version: str) -> None:
        """Makes `program` the artifact of that name from now on."""
        self.versions[name] = version
        releases = {
            key: {"version": value, "url": "https://example.invalid/x"}
            for key, value in self.versions.items()
        }
        artifacts = {key: {"kind": "binary", "release": key, "member": key} for key in self.versions}
        (self.folder / "lock.yml").write_text(
            yaml.safe_dump({"artifacts": artifacts, "releases": releases, "builds": {}})
        )
        store = Store(str(self.folder / "cache"), str(self.folder / "lock.yml"))
        for arch in ("amd64", "arm64"):
            if store.lookup(name, arch) is None:
                copy = store.scratch() / name
                shutil.copy(program, copy)
                store.put(name, arch, copy, format="file", version=version, tested=True, source="test")

    def command(self, play: Path, *options: str, **variables: Any) -> list[str]:
        given = json.dumps({**self.variables, **variables})
        program = Path(sys.executable).with_name("ansible-playbook")
        return [str(program), "-i", self.inventory, str(play), "-e", given, *options]

    def play(self, name: str, tasks: list[Json], **keys: Any) -> Path:
        path = self.folder / f"{name}.yml"
        path.write_text(
            yaml.safe_dump(
                [{"hosts": self.host, "gather_facts": False, **keys, "tasks": tasks}], sort_keys=False
            )
        )
        return path

    def task(self, record: Json) -> Json:
        return {"name": "Component", "luxima.observability.component": record, "register": "answer"}

    def run(self, record: Json, *options: str, before: list[Json] | None = None, **variables: Any) -> Run:
        out = self.folder / "answer.json"
        out.unlink(missing_ok=True)
        keep: Json = {
            "name": "Keep the answer",
            "ansible.builtin.copy": {"content": "{{ answer | to_json }}", "dest": str(out), "mode": "0600"},
            "delegate_to": "localhost",
            "become": False,
            "check_mode": False,
            "diff": False,
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        }
        play = self.play("play", [{"block": [*(before or []), self.task(record)], "always": [keep]}])
        start = time.monotonic()
        done = subprocess.run(
            self.command(play, *options, **variables),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        result = json.loads(out.read_text()) if out.exists() else {}
        return Run(done.returncode, done.stdout + done.stderr, result, time.monotonic() - start)

    def clear(self) -> None:
        tasks = [
            self.task({"name": name, "state": "absent", "purge": True}) for name in ("toy", "alertmanager")
        ]
        subprocess.run(
            self.command(self.play("clear", tasks)),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )

    def start(self, script: str) -> None:
        """A shell script that goes on on the host by itself."""
        code = base64.b64encode(script.encode()).decode()
        self.on_host(
            f"echo {code} | base64 -d > /run/watcher.sh; systemd-run --collect --quiet sh /run/watcher.sh"
        )

    def on_host(self, script: str, check: bool = True) -> str:
        """Output of a shell script that runs as root on the host."""
        program = Path(sys.executable).with_name("ansible")
        # Whatever callbacks print around it, the output lies between two marks.
        script = f"echo BEGIN-OUTPUT; ( {script}\n); code=$?; echo END-OUTPUT; exit $code"
        command = [
            str(program),
            "-i",
            self.inventory,
            self.host,
            "-b",
            "-m",
            "ansible.builtin.raw",
            "-a",
            script,
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.partition("BEGIN-OUTPUT")[2].partition("END-OUTPUT")[0].replace("\r", "").strip()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    made = Site(folder, os.environ["LUXIMA_TEST_HOST"], os.environ["LUXIMA_TEST_INVENTORY"])
    cache = os.environ.get(
        "LUXIMA_TEST_CACHE", os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/luxima-observability"
    )
    source = Store(cache)
    for name in PROGRAMS:
        found = source.lookup(name, "amd64")
        assert found is not None, f"{name} is not in {cache}: run the artifacts play first"
        made.store(name, Path(found.path), found.version)
    made.store("toy", TOY, "1")
    yield made
    made.clear()


@pytest.fixture
def clean(site: Site) -> Site:
    """A host without our components."""
    site.clear()
    return site
