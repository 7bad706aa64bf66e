# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A server on loopback in upstream's shape, a small project with a lock file, and the module's real main()."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

COLLECTIONS = Path(__file__).resolve().parents[6]
PROGRAM = """
import signal, sys
from ansible.module_utils import basic
# As at a terminal, also where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.luxima.observability.plugins.modules.artifacts import main
main()
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def script(text: str) -> bytes:
    return f"#!/bin/sh\necho {text}\n".encode()


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Upstream:
    """Files by path; `cut[path]` = how often a transfer ends half-way, `stall` = paths that send half and then nothing."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    stall: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    def asked(self, path: str) -> list[str]:
        """The Range header of each GET of `path`."""
        return [ranges for method, asked, ranges in self.requests if (method, asked) == ("GET", path)]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    state = Upstream()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, head: bool) -> None:
            state.requests.append((self.command, self.path, self.headers.get("Range", "")))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            tag = f'"{sha256(content)[:8]}"'
            start = 0
            if self.headers.get("Range") and self.headers.get("If-Range") == tag:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if head:
                return
            rest = content[start:]
            if state.cut.get(self.path, 0) > 0 or self.path in state.stall:
                self.wfile.write(rest[: len(rest) // 2])
                self.wfile.flush()
                if self.path in state.stall:
                    time.sleep(2)
                else:
                    state.cut[self.path] -= 1
                self.close_connection = True
                return
            self.wfile.write(rest)

        def log_message(self, *_args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


class Project:
    """A checkout with components/lock.yml, and the module run against it."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        self.cache = root / "cache"
        self.lock_file = root / "components" / "lock.yml"
        self.data: dict[str, Any] = {"artifacts": {}, "releases": {}, "builds": {}}
        self.lock_file.parent.mkdir(parents=True)

    def release(self, name: str, version: str, file: str, checksums: str | None, **digests: str) -> None:
        base = f"{self.url}/org/{name}/releases/download/v{{version}}/"
        self.data["releases"][name] = {
            "version": version,
            "tested": True,
            "url": base + file,
            "checksums": base + checksums if checksums else None,
            "sha256": {"amd64": None, "arm64": None, **digests},
        }

    def artifact(self, name: str, **entry: Any) -> None:
        self.data["artifacts"][name] = {"kind": "binary", **entry}

    def hello(self, *names: str, text: str = "hello", **more: Any) -> None:
        """A Go module with one main package per name, found without any proxy."""
        folder = self.lock_file.parent / "build" / "hello"
        for name in names:
            source = folder / "src" / "cmd" / name
            source.mkdir(parents=True)
            (source / "main.go").write_text(
                f'package main\n\nvar version = "none"\n\nfunc main() {{ println("{text} {name} " + version) }}\n'
            )
        (folder / "src" / "go.mod").write_text("module example.test/hello\n\ngo 1.21\n")
        (folder / "go.mod").write_text(
            "module build\n\ngo 1.21\n\nrequire example.test/hello v0.0.0\n\nreplace example.test/hello => ./src\n"
        )
        (folder / "go.sum").write_text("")
        self.data["builds"]["hello"] = {
            "version": "1.0.0",
            "tested": True,
            "module": "example.test/hello",
            "module_version": "v0.0.0",
            "directory": "build/hello",
            "go": "1.21",
            "variables": {"main.version": "1.0.0"},
            **more,
        }
        for name in names:
            entry = self.data["artifacts"].setdefault(name, {"kind": "binary"})
            entry.update(build="hello", main=f"example.test/hello/cmd/{name}")

    def save(self) -> Project:
        text = "# The head stays.\n" + yaml.safe_dump(self.data, sort_keys=False, width=160)
        self.lock_file.write_text(text)
        return self

    def saved(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.lock_file.read_text()))

    def start(self, environment: Mapping[str, str] | None = None, **arguments: Any) -> subprocess.Popen[str]:
        check = arguments.pop("check", False)
        given = {
            "cache_dir": str(self.cache),
            "lock_file": str(self.lock_file),
            "timeout": 0.5,
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": str(self.root),
            **arguments,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(COLLECTIONS),
                "GOPROXY": "off",
                "no_proxy": "*",
                **(environment or {}),
            },
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, environment: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
        """What the module printed."""
        out, err = self.start(environment, **arguments).communicate(timeout=120)
        assert out, err
        return dict(json.loads(out))

    def get(self, **arguments: Any) -> dict[str, dict[str, Any]]:
        """The artifacts by name, of a run that must succeed."""
        result = self.run(**arguments)
        assert not result.get("failed"), result["msg"]
        return {artifact["name"]: artifact for artifact in result["artifacts"]}

    def stored(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "objects").glob("*"))


@pytest.fixture
def project(tmp_path: Path, upstream: Upstream) -> Project:
    return Project(tmp_path / "project", upstream.url)


@pytest.fixture
def prometheus(project: Project, upstream: Upstream) -> dict[str, bytes]:
    """Two binaries in one archive, with upstream's list of checksums beside it."""
    binaries = {"prometheus": script("prometheus"), "promtool": script("promtool")}
    archive = tar_gz({f"prometheus-3.0.0.linux-amd64/{name}": content for name, content in binaries.items()})
    project.release("prometheus", "3.0.0", "prometheus-{version}.linux-{arch}.tar.gz", "sha256sums.txt")
    for name in binaries:
        project.artifact(name, release="prometheus", member=f"prometheus-{{version}}.linux-{{arch}}/{name}")
    base = "/org/prometheus/releases/download/v3.0.0"
    upstream.files[f"{base}/prometheus-3.0.0.linux-amd64.tar.gz"] = archive
    upstream.files[f"{base}/sha256sums.txt"] = (
        f"{'0' * 64}  prometheus-3.0.0.linux-arm64.tar.gz\n{sha256(archive)}  prometheus-3.0.0.linux-amd64.tar.gz\n"
    ).encode()
    return {**binaries, "archive": archive}
