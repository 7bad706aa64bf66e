# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Debian packages with their closure, and locked Python applications, for hosts that reach no registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._artifacts.fetch import (
    Unavailable,
    WrongDigest,
)
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import digest

_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}


def closure(names: Sequence[str], arch: str, scratch: Path) -> list[dict[str, str]]:
    """The packages `names` and what they need beyond every Debian's base: name, version, sha256, by name.

    Resolved by this machine's apt, against its sources and as if nothing were installed. Raises Unavailable.
    """
    if shutil.which("apt-get") is None:
        raise Unavailable(
            "packages are resolved by apt-get, which this machine does not have; use a directory or a mirror"
        )
    status = scratch / "status"
    status.write_text("")
    out = _run(
        [
            "apt-get", "-qq", "--simulate", "--no-install-recommends",
            "-o", f"Dir::State::status={status}", "-o", f"APT::Architecture={arch}", "-o", f"APT::Architectures={arch}",
            "-o", "Debug::NoLocking=1", "install", *names,
        ],
        scratch,
    )  # fmt: skip
    wanted = dict(re.findall(r"^Inst (\S+) \((\S+) ", out, re.MULTILINE))
    if not wanted:
        raise Unavailable(f"apt-get knows no way to install {' '.join(names)}")
    records = _run(["apt-cache", "show", *(f"{n}:{arch}={v}" for n, v in wanted.items())], scratch)
    found = []
    for record in records.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", record, re.MULTILINE))
        # Every Debian system has these; a second copy could only do harm.
        base = fields.get("Essential") == "yes" or fields.get("Priority") == "required"
        if fields.get("Package") in wanted and (not base or fields["Package"] in names):
            found.append(
                {"name": fields["Package"], "version": fields["Version"], "sha256": fields["SHA256"]}
            )
    return sorted(found, key=lambda f: f["name"])


def debs(files: Sequence[Mapping[str, str]], arch: str, scratch: Path) -> dict[str, Path]:
    """Download exactly these packages. Raises Unavailable, or WrongDigest."""
    for file in files:
        _run(
            ["apt-get", "-qq", "-o", f"APT::Architecture={arch}", "-o", f"APT::Architectures={arch}", "-o", "APT::Sandbox::User=root", "download", f"{file['name']}={file['version']}"],
            scratch,
            hint="; when the archive has moved on, remove `files` of this entry to have it resolved again",
        )  # fmt: skip
    found = {digest(path): path for path in sorted(scratch.glob("*.deb"))}
    for file in files:
        if file["sha256"] not in found:
            mine = next((d for d, p in found.items() if p.name.startswith(file["name"] + "_")), "nothing")
            raise WrongDigest(
                file["name"], f"{file['name']}={file['version']}", file["sha256"], mine, "lock file"
            )
    return {path.name: path for path in found.values()}


def wheelhouse(raw: Mapping[str, Any], requirements: Path, arch: str, scratch: Path) -> dict[str, Path]:
    """Wheels for a locked requirements file with hashes. Raises Unavailable."""
    wheels = scratch / "wheels"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps",
        "--only-binary", ":all:", "--dest", str(wheels), "--requirement", str(requirements),
    ]  # fmt: skip
    if raw.get("python"):
        version = str(raw["python"])
        command += [
            "--python-version",
            version,
            "--implementation",
            "cp",
            "--abi",
            f"cp{version.replace('.', '')}",
        ]
        command += ["--abi", "abi3", "--abi", "none"]
    for level in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
        command += ["--platform", f"{level}_{_PLATFORMS[arch]}"]
    _run(command, scratch)
    return {"requirements.txt": requirements, **{path.name: path for path in sorted(wheels.iterdir())}}


def _run(command: Sequence[str], folder: Path, hint: str = "") -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        words = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise Unavailable(f"{command[0]} ended with {done.returncode}: {words}{hint}")
    return done.stdout
