# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A real MinIO on loopback, and the real main() of the module as a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODULE = "ansible_collections.luxima.observability.plugins.modules.bucket"
COLLECTIONS = next(parent for parent in Path(__file__).resolve().parents if parent.name == "collections")


def minio_binary() -> str:
    """The artifact under test: named by the environment, in the artifact cache, or on the path."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
    for index in sorted(cache.glob("index/minio-*.json")):
        found = cache / "objects" / json.loads(index.read_text(encoding="utf-8"))["sha256"]
        if found.exists():
            return str(found)
    named = os.environ.get("MINIO_BINARY") or shutil.which("minio")
    if not named:
        pytest.skip("no minio: `make demo` puts one into the cache, or set MINIO_BINARY")
    return named


@dataclass
class Server:
    url: str
    user: str
    password: str
    data: Path

    @property
    def connection(self) -> dict[str, Any]:
        return {"url": self.url, "username": self.user, "password": self.password}


@dataclass
class Outcome:
    rc: int
    result: dict[str, Any]
    text: str


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    key = base64.b64encode(os.urandom(32)).decode()
    with running(tmp_path_factory.mktemp("minio"), {"MINIO_KMS_SECRET_KEY": f"objects:{key}"}) as server:
        yield server


@pytest.fixture(scope="session")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a key of its own."""
    with running(tmp_path_factory.mktemp("keyless"), {}) as server:
        yield server


@contextmanager
def running(folder: Path, more: dict[str, str]) -> Iterator[Server]:
    binary = folder / "minio"
    shutil.copy(minio_binary(), binary)
    binary.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", "root-user", "root-password", folder / "data")
    environment = {
        "MINIO_ROOT_USER": server.user,
        "MINIO_ROOT_PASSWORD": server.password,
        "MINIO_BROWSER": "off",
        **more,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(binary), "server", "--address", f"127.0.0.1:{port}", str(folder / "data")],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{server.url}/minio/health/ready", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def run() -> Callable[..., Outcome]:
    def call(check: bool = False, **arguments: Any) -> Outcome:
        document = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}}
        starter = (
            "import runpy,sys\n"
            "from ansible.module_utils.testing import patch_module_args\n"
            "import json\n"
            "with patch_module_args(json.load(sys.stdin)['ANSIBLE_MODULE_ARGS']):\n"
            f"    runpy.run_module('{MODULE}', run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", starter],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            timeout=120,
            check=False,
        )
        assert done.stdout, done.stderr
        return Outcome(done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr)

    return call
