# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A Debian package with its closure and a locked Python application, from the real registries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Project

ROOT = Path(__file__).resolve().parents[7]


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs a Debian controller")
def test_deb_with_its_closure_is_recorded_by_digest(project: Project) -> None:
    project.artifact("jq", kind="deb", deb={"packages": ["jq"], "files": {"amd64": None}})
    got = project.save().get(sources=["cache", "release"])
    assert got["jq"]["format"] == "debs"
    listing = subprocess.run(
        ["tar", "-tf", got["jq"]["path"]], capture_output=True, text=True, check=True
    ).stdout.split()
    files = project.saved()["artifacts"]["jq"]["deb"]["files"]["amd64"]
    names = {file["name"] for file in files}
    # What jq links against is there; what every Debian has is not.
    assert {"jq", "libjq1", "libonig5"} <= names
    assert not names & {"dpkg", "bash", "base-files", "coreutils"}
    assert len(listing) == len(files)
    assert all(re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) for file in files)
    # A digest of the lock that is not the archive's stops.
    files[0]["sha256"] = "ab" * 32
    project.data["artifacts"]["jq"]["deb"]["files"]["amd64"] = files
    wrong = project.save().run(sources=["release"])
    assert wrong["failed"]
    assert "wrong checksum" in wrong["msg"]
    assert "ab" * 32 in wrong["msg"]


def test_wheelhouse_installs_without_a_registry(project: Project, tmp_path: Path) -> None:
    locked = (ROOT / "requirements.txt").read_text()
    entry = re.search(r"^iniconfig==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", locked, re.MULTILINE)
    assert entry is not None
    requirements = project.lock_file.parent / "wheels" / "requirements.txt"
    requirements.parent.mkdir()
    requirements.write_text(entry.group(0))
    project.artifact(
        "app",
        kind="wheelhouse",
        wheelhouse={"requirements": "wheels/requirements.txt", "version": entry.group(1)},
    )
    got = project.save().get(sources=["cache", "release"])
    assert (got["app"]["format"], got["app"]["version"]) == ("wheelhouse", entry.group(1))
    subprocess.run(["tar", "-xf", got["app"]["path"], "-C", str(tmp_path)], check=True)
    command = ["pip", "install", "--quiet", "--no-index", "--find-links", str(tmp_path), "--require-hashes"]
    command += ["--target", str(tmp_path / "site"), "--requirement", str(tmp_path / "requirements.txt")]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    assert (tmp_path / "site" / "iniconfig" / "__init__.py").is_file()


def test_wheelhouse_with_a_hash_that_is_not_the_registrys_fails(project: Project) -> None:
    requirements = project.lock_file.parent / "requirements.txt"
    requirements.write_text(f"iniconfig==2.0.0 --hash=sha256:{'ab' * 32}\n")
    project.artifact("app", kind="wheelhouse", wheelhouse={"requirements": "requirements.txt"})
    result = project.save().run(sources=["release"])
    assert result["failed"]
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in result["msg"] or "ab" * 32 in result["msg"]
