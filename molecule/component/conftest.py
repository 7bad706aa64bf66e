# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real runs of ansible-playbook with records of the tests' own, against the scenario's guest."""

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

from tests.platform import LAB, ROOT, Platform

HERE = Path(__file__).parent
TOY = HERE / "toy.py"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
PROGRAMS = ("alertmanager", "amtool")
Json = dict[str, Any]


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

    host = "toys"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = Platform(LAB / "00-platform.yml", LAB / "10-instance", HERE / "inventory/hosts.yml")
        self.address = self.platform.address(31)
        self.variables: Json = {
            "platform_cache_dir": str(folder / "cache"),
            "platform_lock_file": str(folder / "lock.yml"),
        }
        self.versions: dict[str, str] = {}
        (folder / "templates").mkdir()
        (folder / "files").mkdir()

    def store(self, name: str, content: Path, version: str, form: str = "file") -> None:
        """Makes `content` the artifact of that name from now on."""
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
        if store.lookup(name, "amd64") is None:
            copy = store.scratch() / name
            shutil.copy(content, copy)
            store.put(name, "amd64", copy, format=form, version=version, tested=True, source="test")

    def command(self, play: Path, *options: str, **variables: Any) -> list[str]:
        given = json.dumps({**self.variables, **variables})
        return self.platform.command("ansible-playbook", str(play), "-e", given, *options)

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
        done = self.ansible(self.command(play, *options, **variables))
        result = json.loads(out.read_text()) if out.exists() else {}
        return Run(done.returncode, done.stdout + done.stderr, result, time.monotonic() - start)

    def ansible(self, command: list[str], check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=check, env=environment()
        )

    def clear(self) -> None:
        tasks = [
            self.task({"name": name, "state": "absent", "purge": True}) for name in ("toy", "alertmanager")
        ]
        self.ansible(self.command(self.play("clear", tasks)), check=True)

    def start(self, script: str) -> None:
        """A shell script that goes on on the host by itself."""
        code = base64.b64encode(script.encode()).decode()
        self.on_host(
            f"echo {code} | base64 -d > /run/watcher.sh; systemd-run --collect --quiet sh /run/watcher.sh"
        )

    def put(self, place: str, content: bytes) -> None:
        """A file on the host."""
        code = base64.b64encode(content).decode()
        command = self.platform.at(self.address)
        for start in range(0, len(code), 100_000):
            redirect = ">" if not start else ">>"
            done = command.run(f"echo {code[start : start + 100_000]} | base64 -d {redirect} {place}")
            assert done.rc == 0, done.stderr

    def on_host(self, script: str, check: bool = True) -> str:
        """Output of a shell script that runs as root on the host."""
        return self.platform.on(self.address, script, check)


def environment() -> dict[str, str]:
    """The project's settings, without the colours that Molecule forces."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_NOCOLOR": "true",
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    source = Store(str(CACHE))
    for name in PROGRAMS:
        found = source.lookup(name, "amd64")
        assert found is not None, f"{name} is not in {CACHE}: `python tests/suite.py artifacts` puts it there"
        made.store(name, Path(found.path), found.version)
    made.store("toy", TOY, "1")
    yield made
    made.clear()


@pytest.fixture
def clean(site: Site) -> Site:
    """A host without our components."""
    site.clear()
    return site
