# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Builds pinned Go modules. Every dependency is checked against the go.sum beside the lock file."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible_collections.luxima.observability.plugins.module_utils._artifacts.fetch import Unavailable
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.lock import Build
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.unpack import wanted

WAYS_OUT = (
    "Or do without building: the source `release` (needs a way to upstream), the source `mirror` "
    "(platform_artifact_mirror_url) or the source `directory` (platform_artifact_directory)."
)
_CROSS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
_CROSS_PACKAGES = {
    "amd64": "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
    "arm64": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
# What `go build -v` prints: one import path per compiled package.
_PACKAGE = re.compile(r"^[\w./@~+-]+$")


@functools.lru_cache(maxsize=16)
def go_version(command: str, path: str) -> str:
    """`1.26.8` for a Go command, '' when it does not run. `path` (PATH) is part of the cache's key only."""
    try:
        out = subprocess.run(
            [command, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "on"},
            cwd="/",
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"go(\d+(?:\.\d+)*)", out)
    return match.group(1) if match else ""


def toolchain(build: Build) -> tuple[str, str]:
    """(command, version) of a Go that can build this. Raises Unavailable with one message that says what to do."""
    path = os.environ.get("PATH", "")
    seen = []
    for command in dict.fromkeys(
        c for c in (build.toolchain, shutil.which("go"), "/usr/local/go/bin/go") if c
    ):
        version = go_version(command, path)
        if not version:
            continue
        if _numbers(version)[:2] == _numbers(build.go)[:2] or (
            not build.exact and _numbers(version) > _numbers(build.go)
        ):
            return command, version
        seen.append(f"{version} at {command}")
    need = f"exactly Go {build.go}" if build.exact else f"Go {build.go} or newer"
    found = f"found {', '.join(seen)}" if seen else "found none"
    install = (
        f"install it with `apt-get install {build.package}`"
        if build.exact
        else "install it from https://go.dev/dl to /usr/local/go, or newer Debian's `golang-go`"
    )
    raise Unavailable(f"building needs {need}, {found}; {install}. {WAYS_OUT}")


def c_compiler(build: Build, arch: str) -> str:
    """The C compiler for a build that needs one ('' for Go's own default). Raises Unavailable."""
    if not build.cgo:
        return ""
    native = _MACHINES.get(os.uname().machine) == arch
    command = (os.environ.get("CC") or "gcc") if native else _CROSS[arch]
    if shutil.which(command) is None:
        packages = "gcc libc6-dev" if native else _CROSS_PACKAGES[arch]
        raise Unavailable(
            f"building needs the C compiler {command}; install it with `apt-get install {packages}`. {WAYS_OUT}"
        )
    if build.headers and not Path(build.headers).exists():
        raise Unavailable(
            f"building needs the header {build.headers}; install it with `apt-get install {build.package}`. {WAYS_OUT}"
        )
    return command


class GoBuild:
    """One build of one module for one architecture, into a folder of its own.

    `scratch` is removed by the caller. `said(done, total)` is called with the number of compiled packages.
    """

    def __init__(
        self,
        build: Build,
        arch: str,
        scratch: Path,
        caches: Path,
        said: Callable[[str, int, int], None] = lambda step, done, total: None,
    ) -> None:
        self.build = build
        self.arch = arch
        self.scratch = scratch
        self.said = said
        self.compiler = c_compiler(build, arch)
        self.command, self.version = toolchain(build)
        self.environment = self._environment(caches)
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the running command and everything it started."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def run(self, mains: Mapping[str, str]) -> dict[str, Path]:
        """Compile each main package of `mains` (name → import path) and return the executables."""
        source = self._copy() if self.build.copy else self.build.directory
        self._steps(source)
        out = self.scratch / "out"
        out.mkdir()
        flags = ["-trimpath", *self._tags(), "-ldflags", self._ldflags()]
        packages = list(dict.fromkeys(mains.values()))
        total = self._stale(source, flags, packages)
        done = 0

        def line(text: str) -> None:
            nonlocal done
            if _PACKAGE.match(text):
                done += 1
                self.said("compiling", min(done, total), total)

        self.said("compiling", 0, total)
        # One target is named, several go to a folder: Go names a module's root package after its folder otherwise.
        if len(packages) == 1:
            target = out / next(iter(mains))
            self._go(["build", "-v", *flags, "-o", str(target), packages[0]], source, line)
            return dict.fromkeys(mains, target)
        self._go(["build", "-v", *flags, "-o", f"{out}/", *packages], source, line)
        return {name: out / package.rsplit("/", 1)[-1] for name, package in mains.items()}

    def tree(self, name: str, executable: Path) -> dict[str, Path]:
        """What a tree artifact holds: the executable and the kept parts of the sources, by relative path."""
        source = self.scratch / "src"
        files = {str(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()}
        kept = {name: path for name, path in files.items() if wanted(name, self.build.keep, self.build.drop)}
        return {**kept, f"bin/{name}": executable}

    def _copy(self) -> Path:
        """A writable copy of the module: some generate code, which Go's read-only module cache does not allow."""
        module = f"{self.build.module}@{self.build.module_version}"
        self.said("downloading", 0, 0)
        answer = json.loads(self._go(["mod", "download", "-json", module], self.build.directory))
        copy = self.scratch / "src"
        # Only the content: the cache's files are read-only.
        shutil.copytree(answer["Dir"], copy, copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        return copy

    def _steps(self, source: Path) -> None:
        if not self.build.steps:
            return
        tools = self.scratch / "tools"
        tools.mkdir()
        for name, directory, main in self.build.tools:
            # Tools run here, whatever they help to build.
            native = {**self.environment, "CGO_ENABLED": "0"}
            native.pop("GOARCH")
            self._go(["build", "-trimpath", "-o", str(tools / name), main], directory, environment=native)
        path = f"{tools}{os.pathsep}{Path(self.command).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        for step in self.build.steps:
            self.said(f"running {step[0]}", 0, 0)
            self._run(
                [str(tools / step[0]) if (tools / step[0]).exists() else step[0], *step[1:]],
                source,
                None,
                {**self.environment, "PATH": path},
            )

    def _stale(self, source: Path, flags: Sequence[str], packages: Sequence[str]) -> int:
        """How many packages Go will have to compile; 0 when it cannot say."""
        fetched = 0

        def line(text: str) -> None:
            nonlocal fetched
            if text.startswith("go: downloading"):
                fetched += 1
                self.said("downloading modules", fetched, 0)

        self.said("reading modules", 0, 0)
        out = self._go(["list", "-deps", "-f", "{{if .Stale}}x{{end}}", *flags, *packages], source, line)
        return out.count("x")

    def _tags(self) -> list[str]:
        return ["-tags", ",".join(self.build.tags)] if self.build.tags else []

    def _ldflags(self) -> str:
        words = ["-s", "-w"]
        if self.build.cgo == "static":
            # Static, so that the guest's C library need not be the controller's.
            words += ["-linkmode", "external", "-extldflags", "-static"]
        words += [f"-X {variable}={value}" for variable, value in sorted(self.build.variables.items())]
        return " ".join(words)

    def _environment(self, caches: Path) -> dict[str, str]:
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("GO", "CGO_"))
            or key
            in (
                "GOPROXY",
                "GONOPROXY",
                "GOPRIVATE",
                "GOCACHE",
                "GOMODCACHE",
                "GOPATH",
                "GOMAXPROCS",
                "GOINSECURE",
            )
        }
        environment.update(
            GO111MODULE="on",
            GOFLAGS="-mod=readonly -buildvcs=false -modcacherw",
            GOTOOLCHAIN="local",
            GOWORK="off",
            GOOS="linux",
            GOARCH=self.arch,
            CGO_ENABLED="1" if self.build.cgo else "0",
        )
        if self.compiler:
            environment["CC"] = self.compiler
        answer = subprocess.run(
            [self.command, "env", "-json", "GOCACHE", "GOMODCACHE"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            cwd="/",
        )
        known = json.loads(answer.stdout) if answer.returncode == 0 else {}
        for key, ours in (("GOCACHE", "build"), ("GOMODCACHE", "mod")):
            if known.get(key, "off") in ("", "off") or not Path(known[key]).is_dir():
                environment[key] = str(caches / ours)
        return environment

    def _go(
        self,
        arguments: Sequence[str],
        folder: Path,
        line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        return self._run([self.command, *arguments], folder, line, environment or self.environment)

    def _run(
        self,
        command: Sequence[str],
        folder: Path,
        line: Callable[[str], None] | None,
        environment: Mapping[str, str],
    ) -> str:
        """Standard output of a command; its standard error goes line by line to `line`. Raises Unavailable."""
        if self._stopped.is_set():
            raise Unavailable("stopped")
        tail: list[str] = []
        output: list[str] = []
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._stopped.is_set():
            # The end was asked for while the command was starting.
            self.stop()
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(
            target=lambda stream=process.stdout: output.append(stream.read()), daemon=True
        )
        reader.start()
        for text in process.stderr:
            if line is not None:
                line(text.rstrip())
            if line is None or not _PACKAGE.match(text.rstrip()):
                tail = [*tail, text.rstrip()][-15:]
        process.wait()
        reader.join()
        if process.returncode:
            # Go tells errors of `-json` commands on its standard output.
            said = tail or [text for text in "".join(output).splitlines() if text.strip(" {}")][-15:]
            words = "\n  ".join(said) or "it said nothing"
            raise Unavailable(
                f"`{Path(command[0]).name} {' '.join(command[1:3])} …` ended with {process.returncode}:\n  {words}"
            )
        return "".join(output)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in version.split("."))
