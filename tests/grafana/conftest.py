# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A real Grafana on loopback, with the files that the role writes and the program that stands around its start."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backup.conftest import artifact
from tests.retention.conftest import ROOT, Process, free_ports

PASSWORD = 'of "this" $test'
PYTHON = os.environ.get("GUEST_PYTHON", "/usr/bin/python3")


class Guest:
    """One guest's /etc/grafana and /var/lib/grafana below a folder; `deploy` is what a run of the role does to it."""

    def __init__(self, home: Path, folder: Path) -> None:
        (port,) = free_ports(1)
        self.home, self.folder, self.url = home, folder, f"http://127.0.0.1:{port}"
        self.etc, self.data = folder / "etc" / "grafana", folder / "data"
        self.data.mkdir(parents=True)
        self.variables: dict[str, Any] = {
            "grafana_port": port,
            "grafana_listen_address": "127.0.0.1",
        }
        self.password = PASSWORD
        command = [
            str(home / "bin" / "grafana"),
            "server",
            f"--homepath={home}",
            f"--config={self.etc}/grafana.ini",
        ]
        environment = {"GF_SECURITY_SECRET_KEY": "of-this-test", "GF_SECURITY_ADMIN_PASSWORD": self.password}
        self.process = Process("grafana", command, f"{self.url}/api/health", folder, environment)

    def write(self, **variables: Any) -> dict[str, Any]:
        """Renders the role with the variables so far; returns the component's record."""
        self.variables |= variables
        target = self.folder / "render"
        extra = {**self.variables, "platform_render_dir": str(target)}
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "playbooks/deploy.yml",
                "--tags",
                "grafana",
                "-i",
                "inventories/development",
                "-e",
                json.dumps(extra),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (record,) = target.glob("*/grafana/record.json")
        fresh = self.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(record.parent / "etc", fresh)
        for file in [
            path for path in fresh.rglob("*") if path.suffix in (".ini", ".yml") or path.name == "start.json"
        ]:
            text = file.read_text().replace("/opt/luxima/grafana/current/share/grafana", str(self.home))
            text = text.replace("/var/lib/grafana", str(self.data))
            file.write_text(text.replace("/etc/grafana", str(self.etc)))
        (fresh / "secrets" / "admin-password").write_text(self.password)
        self.etc.parent.mkdir(exist_ok=True)
        shutil.rmtree(self.etc, ignore_errors=True)
        fresh.rename(self.etc)
        return dict(json.loads(record.read_text()))

    def helper(self, when: str, check: bool = True) -> str:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import json, pathlib, start; home = pathlib.Path(sys.argv[1]);"
            " s = start.Start(json.loads((home / 'start.json').read_text()), home);"
            " s.before() if sys.argv[2] == 'before' else s.after(60)"
        )
        done = subprocess.run(
            [PYTHON, "-B", "-c", code, str(self.etc), when],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.process.environment},
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, check: bool = True) -> str:
        """What the unit does."""
        self.process.stop()
        said = self.helper("before")
        self.process.start()
        return said + self.helper("after", check)

    def deploy(self, **variables: Any) -> dict[str, Any]:
        record = self.write(**variables)
        self.start()
        return record

    def ask(self, path: str, body: Any = None, login: str = "admin", method: str | None = None) -> Any:
        token = base64.b64encode(f"{login}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def status(self, path: str, login: str = "admin") -> int:
        try:
            self.ask(path, login=login)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    def sources(self, login: str = "admin") -> list[str]:
        return sorted(str(source["name"]) for source in self.ask("/api/datasources", login=login))

    def boards(self, login: str = "admin") -> list[str]:
        return sorted(str(board["uid"]) for board in self.ask("/api/search?type=dash-db", login=login))


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact("grafana", tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def seed(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a Grafana that was deployed once; to make a database takes longer than any test."""
    first = Guest(program, tmp_path_factory.mktemp("seed") / "guest")
    first.deploy()
    first.process.stop()
    return first.data


@pytest.fixture
def guest(program: Path, seed: Path, tmp_path: Path) -> Iterator[Guest]:
    made = Guest(program, tmp_path / "guest")
    shutil.copytree(seed, made.data, dirs_exist_ok=True, symlinks=True)
    yield made
    made.process.stop()
