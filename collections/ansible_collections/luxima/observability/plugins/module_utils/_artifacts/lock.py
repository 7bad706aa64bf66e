# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""components/lock.yml: what is installed, from where, in which version.

The file has three parts. `artifacts` names what hosts install; each entry points to a release (an archive
of upstream) and to a build (a pinned Go module), which several artifacts share, so that an archive is fetched
once and a module is built once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KINDS = ("binary", "tree", "deb", "wheelhouse")
FORMATS = {"binary": "file", "tree": "tree", "deb": "debs", "wheelhouse": "wheelhouse"}
ARCHITECTURES = ("amd64", "arm64")
# Changes when what is stored for the same lock entry changes.
_KEY_VERSION = 1

# The C parser is ten times faster; the file is read in every task that installs something.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LockError(Exception):
    """The lock file is missing or says something that cannot be; the message names the file and the entry."""


@dataclass(frozen=True)
class Release:
    """An archive (or a bare file) that upstream publishes."""

    name: str
    version: str
    tested: bool
    url: str
    checksums: str
    sha256: Mapping[str, str | None]

    def address(self, arch: str) -> str:
        return self.url.format(version=self.version, arch=arch)

    def checksums_address(self, arch: str) -> str:
        return self.checksums.format(version=self.version, arch=arch) if self.checksums else ""


@dataclass(frozen=True)
class Build:
    """A pinned Go module. `directory` holds the go.mod and go.sum that pin it."""

    name: str
    version: str
    tested: bool
    module: str
    module_version: str
    directory: Path
    go: str
    exact: bool
    toolchain: str
    package: str
    cgo: str
    headers: str
    tags: tuple[str, ...]
    variables: Mapping[str, str]
    copy: bool
    tools: tuple[tuple[str, Path, str], ...]
    steps: tuple[tuple[str, ...], ...]
    keep: tuple[str, ...]
    drop: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One artifact of the lock."""

    name: str
    kind: str
    release: Release | None
    member: str
    keep: tuple[str, ...]
    drop: tuple[str, ...]
    build: Build | None
    main: str
    sha256: Mapping[str, str | None]
    raw: Mapping[str, Any]

    @property
    def format(self) -> str:
        return FORMATS[self.kind]


class Lock:
    """The parsed lock file. Entries are checked when they are asked for, so that looking one up stays cheap."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self.path = path
        self.data = data

    @property
    def names(self) -> list[str]:
        return list(self.data["artifacts"])

    def entry(self, name: str) -> Entry:
        raw = self.data["artifacts"].get(name)
        if raw is None:
            raise LockError(f"{self.path}: no artifact named {name!r}; it has {', '.join(self.names)}")
        where = f"{self.path}: artifacts.{name}"
        _known(
            where,
            raw,
            {"kind", "sha256", "release", "member", "keep", "drop", "build", "main", "deb", "wheelhouse"},
        )
        kind = raw.get("kind", "binary")
        if kind not in KINDS:
            raise LockError(f"{where}.kind: {kind!r} is not one of {', '.join(KINDS)}")
        release = self.release(raw["release"]) if raw.get("release") else None
        build = self.build(raw["build"]) if raw.get("build") else None
        if kind in ("binary", "tree") and not (release or build):
            raise LockError(f"{where}: needs a release or a build")
        if kind in ("deb", "wheelhouse") and not raw.get(kind):
            raise LockError(f"{where}: kind {kind} needs the key {kind}")
        if build and not raw.get("main"):
            raise LockError(f"{where}: build needs main, the import path of the main package")
        return Entry(
            name=name,
            kind=kind,
            release=release,
            member=raw.get("member", ""),
            keep=tuple(raw.get("keep", ())),
            drop=tuple(raw.get("drop", ())),
            build=build,
            main=raw.get("main", ""),
            sha256=dict(raw.get("sha256") or {}),
            raw=raw,
        )

    def release(self, name: str) -> Release:
        raw = self._part("releases", name)
        where = f"{self.path}: releases.{name}"
        _known(where, raw, {"version", "tested", "url", "checksums", "sha256"})
        digests: dict[str, str | None] = dict(raw.get("sha256") or {})
        for arch, digest in digests.items():
            if digest is not None and not _SHA256.fullmatch(str(digest)):
                raise LockError(f"{where}.sha256.{arch}: {digest!r} is not a SHA-256 in hexadecimal")
        return Release(
            name=name,
            version=str(_need(where, raw, "version")),
            tested=bool(raw.get("tested", False)),
            url=_need(where, raw, "url"),
            checksums=raw.get("checksums") or "",
            sha256=digests,
        )

    def build(self, name: str) -> Build:
        raw = self._part("builds", name)
        where = f"{self.path}: builds.{name}"
        _known(
            where,
            raw,
            {
                "version",
                "tested",
                "module",
                "module_version",
                "directory",
                "go",
                "exact",
                "toolchain",
                "package",
            }
            | {"cgo", "headers", "tags", "variables", "copy", "tools", "steps", "keep", "drop"},
        )
        base = self.path.parent
        return Build(
            name=name,
            version=str(_need(where, raw, "version")),
            tested=bool(raw.get("tested", False)),
            module=_need(where, raw, "module"),
            module_version=_need(where, raw, "module_version"),
            directory=base / _need(where, raw, "directory"),
            go=str(_need(where, raw, "go")),
            exact=bool(raw.get("exact", False)),
            toolchain=raw.get("toolchain", ""),
            package=raw.get("package", "golang-go"),
            cgo=_choice(where, raw, "cgo", ("", "static", "dynamic")),
            headers=raw.get("headers", ""),
            tags=tuple(raw.get("tags", ())),
            variables=dict(raw.get("variables", {})),
            copy=bool(raw.get("copy", False)),
            tools=tuple((t["name"], base / t["directory"], t["main"]) for t in raw.get("tools", ())),
            steps=tuple(tuple(step) for step in raw.get("steps", ())),
            keep=tuple(raw.get("keep", ())),
            drop=tuple(raw.get("drop", ())),
        )

    def key(self, name: str, arch: str) -> str:
        """Digest of all that decides the content of an artifact, without what is only recorded about it."""
        artifact = self.data["artifacts"].get(name)
        if artifact is None:
            raise LockError(f"{self.path}: no artifact named {name!r}; it has {', '.join(self.names)}")
        artifact = {k: v for k, v in artifact.items() if k != "sha256"}
        if artifact.get("deb"):
            # The list of files is written at first use: it follows from the package, as a digest does.
            artifact["deb"] = {**artifact["deb"], "files": None}
        parts: dict[str, Any] = {"v": _KEY_VERSION, "arch": arch, "artifact": artifact}
        if artifact.get("release"):
            release = self._part("releases", artifact["release"])
            parts["release"] = {k: v for k, v in release.items() if k != "sha256"}
        if artifact.get("build"):
            build = self._part("builds", artifact["build"])
            parts["build"] = build
            directories = [build["directory"], *(tool["directory"] for tool in build.get("tools", ()))]
            parts["files"] = [self._digest(f"{d}/{f}") for d in directories for f in ("go.mod", "go.sum")]
        if artifact.get("wheelhouse"):
            parts["files"] = [self._digest(artifact["wheelhouse"]["requirements"])]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _digest(self, relative: str) -> str:
        try:
            return hashlib.sha256((self.path.parent / relative).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise LockError(f"{self.path} names {relative}, which is not there") from None

    def _part(self, part: str, name: str) -> Mapping[str, Any]:
        found = self.data.get(part, {}).get(name)
        if found is None:
            raise LockError(f"{self.path}: {part}.{name} is named by an artifact and is not there")
        return dict(found)


def load(path: str) -> Lock:
    """The lock file at `path`; parsed once per process and state of the file."""
    file = Path(path)
    try:
        stat = file.stat()
    except OSError as error:
        raise LockError(f"lock file {path}: {error.strerror}; platform_lock_file names it") from None
    return _load(str(file), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _load(path: str, _mtime: int, _size: int) -> Lock:
    try:
        data = _parse(Path(path).read_text())
    except yaml.YAMLError as error:
        raise LockError(f"lock file {path}: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("artifacts"), dict):
        raise LockError(f"lock file {path}: needs a mapping with the key `artifacts`")
    return Lock(Path(path), data)


def _parse(text: str) -> Any:
    loader = _SafeLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def record(path: str, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Set values in the lock file, each under its path of keys, and keep the comment at its head.

    The caller holds the lock of the store. Raises OSError when the file cannot be written.
    """
    file = Path(path)
    text = file.read_text()
    data = _parse(text)
    for keys, value in changes.items():
        at = data
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value
    write(file, header(text) + dump(data))


def header(text: str) -> str:
    """The comment lines at the head of a lock file."""
    return "".join(line for line in _leading_comment(text))


def _leading_comment(text: str) -> list[str]:
    lines = []
    for line in text.splitlines(keepends=True):
        if not line.startswith("#") and line.strip() != "---":
            break
        lines.append(line)
    return lines


def dump(data: Mapping[str, Any]) -> str:
    """The one form in which a lock file is written."""
    return yaml.safe_dump(data, sort_keys=False, width=160, allow_unicode=True)


def write(file: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
        Path(name).chmod(file.stat().st_mode & 0o7777 if file.exists() else 0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _need(where: str, raw: Mapping[str, Any], key: str) -> Any:
    if raw.get(key) in (None, ""):
        raise LockError(f"{where}: {key} is missing")
    return raw[key]


def _choice(where: str, raw: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = raw.get(key, choices[0])
    if value not in choices:
        raise LockError(f"{where}: {key} is {value!r}; it may be {' or '.join(filter(None, choices))}")
    return str(value)


def _known(where: str, raw: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(raw) - known)
    if unknown:
        raise LockError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
