# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The lock file that is shipped: complete, consistent, and fast to ask."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._artifacts import lock
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.engine import Engine, Options
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import (
    Store,
    default_lock_file,
)

NAMES = [
    "prometheus", "promtool", "alertmanager", "amtool", "loki", "promtail", "logcli", "lokitool", "tempo", "grafana",
    "minio", "cadvisor", "node_exporter", "blackbox_exporter",
]  # fmt: skip
LOCK = lock.load(default_lock_file())


def test_every_artifact_of_the_platform_is_there() -> None:
    assert set(LOCK.names) == set(NAMES)


def test_the_file_is_in_the_form_in_which_it_is_rewritten() -> None:
    text = LOCK.path.read_text()
    assert text == lock.header(text) + lock.dump(LOCK.data)


@pytest.mark.parametrize("name", LOCK.names)
def test_entry(name: str) -> None:
    entry = LOCK.entry(name)
    assert entry.build is not None
    manifest = (entry.build.directory / "go.mod").read_text()
    assert f"{entry.build.module} {entry.build.module_version}" in manifest
    sums = (entry.build.directory / "go.sum").read_text()
    assert f"{entry.build.module} {entry.build.module_version} h1:" in sums
    assert f"{entry.build.module} {entry.build.module_version}/go.mod h1:" in sums
    assert entry.main.startswith((entry.build.module, "./"))
    if entry.release is None:
        assert name == "minio"
        return
    for arch in lock.ARCHITECTURES:
        url = entry.release.address(arch)
        assert arch in url
        assert entry.release.version in url
        assert "{" not in url + entry.release.checksums_address(arch)
    # What is tested is what is built here: another version of a release cannot be.
    assert entry.release.tested is (entry.release.version == entry.build.version)


def test_every_folder_of_a_build_is_used_and_complete() -> None:
    builds = [LOCK.build(name) for name in LOCK.data["builds"]]
    used = {build.directory for build in builds} | {folder for b in builds for _, folder, _ in b.tools}
    assert used == {path for path in (LOCK.path.parent / "build").iterdir() if path.is_dir()}
    for folder in used:
        assert (folder / "go.mod").is_file()
        assert (folder / "go.sum").is_file()


def test_digests_that_no_database_knows_are_pinned() -> None:
    pins = {
        "loki": (
            "Z38eMgCD9INnl1Dw43omyrZ32a48c5gnran2Vgrlk4o=",
            "fyXTskE3nLwN0cc/nPnafGGgmigc5Z1cGSH7s/u6uWE=",
        ),
        "tempo": (
            "wnzJov9RhSHGaTYGzTygL4qq986fLen8xSqnQgaMd28=",
            "j1IY7J2rUz7TcTjFVVx6HCpyTlYOJPtXuGRZ7sI+vSo=",
        ),
    }
    for name, (content, manifest) in pins.items():
        build = LOCK.build(name)
        lines = (build.directory / "go.sum").read_text().splitlines()
        assert f"{build.module} {build.module_version} h1:{content}" in lines
        assert f"{build.module} {build.module_version}/go.mod h1:{manifest}" in lines


def test_recording_a_digest_keeps_the_key_and_the_head(tmp_path: Path) -> None:
    copy = tmp_path / "lock.yml"
    copy.write_text(LOCK.path.read_text())
    (tmp_path / "build").symlink_to(LOCK.path.parent / "build")
    before = lock.load(str(copy)).key("loki", "amd64")
    lock.record(str(copy), {("releases", "loki", "sha256", "amd64"): "ab" * 32})
    after = lock.load(str(copy))
    assert after.key("loki", "amd64") == before
    assert after.release("loki").sha256["amd64"] == "ab" * 32
    changed = copy.read_text().splitlines()
    assert len([line for line in LOCK.path.read_text().splitlines() if line not in changed]) <= 1
    assert re.match(r"#", changed[0])


def test_nothing_to_do_takes_less_than_fifty_milliseconds(tmp_path: Path) -> None:
    store = Store(str(tmp_path), str(LOCK.path))
    for name in NAMES:
        content = tmp_path / "content"
        content.write_bytes(name.encode())
        store.put(name, "amd64", content, format="file", version="1", tested=True, source="build")
    times = []
    for _ in range(5):
        started = time.perf_counter()
        result = Engine(Options(cache_dir=str(tmp_path), lock_file=str(LOCK.path))).run()
        times.append(time.perf_counter() - started)
        assert (result["changed"], len(result["artifacts"])) == (False, len(NAMES))
    assert min(times) < 0.05
