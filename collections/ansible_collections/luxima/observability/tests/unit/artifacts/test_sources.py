# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Each source over the wire or on a real folder, and what happens when it does not serve."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import Project, Upstream, script, sha256, tar_gz, zipped

BASE = "/org/prometheus/releases/download/v3.0.0"
ARCHIVE = f"{BASE}/prometheus-3.0.0.linux-amd64.tar.gz"
FROM_RELEASE = ["cache", "release"]


def test_release_is_fetched_once_checked_and_recorded(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    got = project.save().get(sources=FROM_RELEASE)
    for name in ("prometheus", "promtool"):
        assert Path(got[name]["path"]).read_bytes() == prometheus[name]
        assert got[name]["sha256"] == sha256(prometheus[name])
        assert got[name]["size"] == len(prometheus[name])
        assert (got[name]["version"], got[name]["format"], got[name]["source"]) == (
            "3.0.0",
            "file",
            "release",
        )
        assert Path(got[name]["path"]).stat().st_mode & 0o777 == 0o644
    assert len(upstream.asked(ARCHIVE)) == 1
    assert project.saved()["releases"]["prometheus"]["sha256"] == {
        "amd64": sha256(prometheus["archive"]),
        "arm64": None,
    }
    assert project.lock_file.read_text().startswith("# The head stays.\n")
    assert list((project.cache / "tmp").iterdir()) == []


def test_second_run_asks_nobody_and_changes_nothing(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    first = project.save().run(sources=FROM_RELEASE)
    upstream.requests.clear()
    second = project.run(sources=FROM_RELEASE)
    assert (first["changed"], second["changed"]) == (True, False)
    assert second["artifacts"] == first["artifacts"]
    assert upstream.requests == []


def test_zip_bare_file_and_tree(project: Project, upstream: Upstream) -> None:
    loki = zipped({"loki-linux-amd64": script("loki")})
    project.release("loki", "3.6.0", "loki-linux-{arch}.zip", "SHA256SUMS")
    project.artifact("loki", release="loki", member="loki-linux-{arch}")
    upstream.files["/org/loki/releases/download/v3.6.0/loki-linux-amd64.zip"] = loki
    upstream.files["/org/loki/releases/download/v3.6.0/SHA256SUMS"] = (
        f"{sha256(loki)} *./loki-linux-amd64.zip\n".encode()
    )

    project.release("cadvisor", "0.60.0", "cadvisor-v{version}-linux-{arch}", None)
    project.artifact("cadvisor", release="cadvisor", member="")
    upstream.files["/org/cadvisor/releases/download/v0.60.0/cadvisor-v0.60.0-linux-amd64"] = script(
        "cadvisor"
    )

    grafana = tar_gz(
        {
            "grafana-v1/bin/grafana": script("grafana"),
            "grafana-v1/conf/defaults.ini": b"[server]\n",
            "grafana-v1/public/app.js.map": b"big",
            "grafana-v1/docs/x": b"no",
            "grafana-v1/../../conf/evil": b"no",
        }
    )
    project.release(
        "grafana",
        "10.0.0",
        "grafana-{version}.linux-{arch}.tar.gz",
        "grafana-{version}.linux-{arch}.tar.gz.sha256",
    )
    project.artifact(
        "grafana", kind="tree", release="grafana", keep=["bin/grafana", "conf", "public"], drop=["*.map"]
    )
    where = "/org/grafana/releases/download/v10.0.0/grafana-10.0.0.linux-amd64.tar.gz"
    upstream.files[where] = grafana
    upstream.files[f"{where}.sha256"] = sha256(grafana).encode()

    result = project.save().run(sources=FROM_RELEASE)
    got = {a["name"]: a for a in result["artifacts"]}
    assert Path(got["loki"]["path"]).read_bytes() == script("loki")
    assert Path(got["cadvisor"]["path"]).read_bytes() == script("cadvisor")
    # Without a published checksum the digest is one that was seen, and the operator is told.
    assert len(result["notes"]) == 1
    assert sha256(script("cadvisor")) in result["notes"][0]
    assert project.saved()["releases"]["cadvisor"]["sha256"]["amd64"] == sha256(script("cadvisor"))
    assert got["grafana"]["format"] == "tree"
    with tarfile.open(fileobj=io.BytesIO(Path(got["grafana"]["path"]).read_bytes())) as tar:
        assert [(m.name, m.mode) for m in tar] == [("bin/grafana", 0o755), ("conf/defaults.ini", 0o755)]


@pytest.mark.parametrize("pinned", [False, True], ids=["published", "lock"])
def test_wrong_checksum_stops_with_both_digests(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes], pinned: bool
) -> None:
    expected = "ab" * 32
    if pinned:
        project.data["releases"]["prometheus"]["sha256"]["amd64"] = expected
    else:
        upstream.files[f"{BASE}/sha256sums.txt"] = (
            f"{expected}  prometheus-3.0.0.linux-amd64.tar.gz\n".encode()
        )
    project.hello("prometheus", "promtool")
    result = project.save().run(sources=["cache", "release", "build"])
    assert result["failed"]
    assert expected in result["msg"]
    assert sha256(prometheus["archive"]) in result["msg"]
    # The next source could have served and was not asked.
    assert project.stored() == []
    assert "built" not in result["msg"]


def test_checksum_list_that_does_not_name_the_file_is_no_permission(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    upstream.files[f"{BASE}/sha256sums.txt"] = b"nothing here\n"
    result = project.save().run(sources=FROM_RELEASE)
    assert result["failed"]
    assert "does not list prometheus-3.0.0.linux-amd64.tar.gz" in result["msg"]
    assert project.stored() == []
    assert upstream.asked(ARCHIVE) == []


def test_truncated_once_is_resumed(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    upstream.cut[ARCHIVE] = 1
    got = project.save().get(sources=FROM_RELEASE)
    assert Path(got["prometheus"]["path"]).read_bytes() == prometheus["prometheus"]
    half = len(prometheus["archive"]) // 2
    assert upstream.asked(ARCHIVE) == ["", f"bytes={half}-"]


def test_truncated_always_is_an_error_and_the_next_run_goes_on(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    upstream.cut[ARCHIVE] = 3
    result = project.save().run(sources=FROM_RELEASE)
    assert result["failed"]
    assert "truncated: " in result["msg"]
    assert len(upstream.asked(ARCHIVE)) == 3
    upstream.requests.clear()
    got = project.get(sources=FROM_RELEASE)
    assert Path(got["promtool"]["path"]).read_bytes() == prometheus["promtool"]
    assert upstream.asked(ARCHIVE)[0].startswith("bytes=")


def test_a_file_that_changed_between_two_tries_is_fetched_anew(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    good = upstream.files[ARCHIVE]
    upstream.files[ARCHIVE] = b"x" * len(good)
    upstream.cut[ARCHIVE] = 3
    assert project.save().run(sources=FROM_RELEASE)["failed"]
    upstream.files[ARCHIVE] = good
    got = project.get(sources=FROM_RELEASE)
    assert Path(got["prometheus"]["path"]).read_bytes() == prometheus["prometheus"]


def test_stalled_download_ends(project: Project, upstream: Upstream, prometheus: dict[str, bytes]) -> None:
    upstream.stall.add(ARCHIVE)
    result = project.save().run(sources=FROM_RELEASE, timeout=0.2)
    assert result["failed"]
    assert "stalled" in result["msg"]
    assert len(upstream.asked(ARCHIVE)) == 3


def test_404_leads_to_the_next_source(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    del upstream.files[ARCHIVE]
    project.hello("prometheus", "promtool")
    got = project.save().get(sources=["cache", "release", "build"])
    assert {a["source"] for a in got.values()} == {"build"}
    assert len(upstream.asked(ARCHIVE)) == 1


def test_final_error_says_why_each_source_did_not_serve(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes], tmp_path: Path
) -> None:
    del upstream.files[ARCHIVE]
    result = project.save().run(directory=str(tmp_path), mirror_url=f"{upstream.url}/mirror")
    message = result["msg"]
    assert result["failed"]
    assert "prometheus (amd64), promtool (amd64):" in message
    assert "cache: not there" in message
    assert f"directory: {tmp_path} holds no file for it" in message
    assert f"mirror: {upstream.url}/mirror{ARCHIVE}: HTTP 404" in message
    assert f"release: {upstream.url}{ARCHIVE}: HTTP 404" in message
    assert "build: the lock names no build" in message


def test_unreachable_upstream_is_told_and_built_instead(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        project = Project(tmp_path / "project", f"http://127.0.0.1:{closed.getsockname()[1]}")
        project.release("a", "1.0.0", "a-{arch}.tar.gz", "SHA256SUMS")
        project.release("b", "1.0.0", "b-{arch}.tar.gz", "SHA256SUMS")
        for name in ("a", "b"):
            project.artifact(name, release=name, member=name)
        failed = project.save().run(sources=FROM_RELEASE)
        assert failed["failed"]
        assert "Connection refused" in failed["msg"]
        project.hello("a", "b")
        result = project.save().run(sources=["cache", "release", "build"])
    assert result["counts"] == {"build": 2}


@pytest.mark.parametrize("shape", ["path", "flat"])
def test_mirror(project: Project, upstream: Upstream, prometheus: dict[str, bytes], shape: str) -> None:
    archive, sums = upstream.files.pop(ARCHIVE), upstream.files.pop(f"{BASE}/sha256sums.txt")
    if shape == "path":
        upstream.files |= {f"/m{ARCHIVE}": archive, f"/m{BASE}/sha256sums.txt": sums}
    else:
        file = ARCHIVE.rsplit("/", 1)[1]
        upstream.files |= {f"/m/{file}": archive, f"/m/{file}.sha256": sha256(archive).encode()}
    result = project.save().run(sources=["cache", "mirror"], mirror_url=f"{upstream.url}/m/")
    assert {a["source"] for a in result["artifacts"]} == {"mirror"}
    assert result["notes"] == []
    # Only upstream's own word is recorded for everybody.
    assert project.saved()["releases"]["prometheus"]["sha256"]["amd64"] is None


def test_mirror_with_another_file_than_the_lock_wants(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    project.data["releases"]["prometheus"]["sha256"]["amd64"] = sha256(prometheus["archive"])
    upstream.files[f"/m{ARCHIVE}"] = tar_gz({"prometheus-3.0.0.linux-amd64/prometheus": script("evil")})
    result = project.save().run(sources=["mirror", "release"], mirror_url=f"{upstream.url}/m")
    assert result["failed"]
    assert sha256(prometheus["archive"]) in result["msg"]
    assert project.stored() == []


def test_mirror_serves_what_upstream_does_not_publish(project: Project, upstream: Upstream) -> None:
    project.hello("minio")
    upstream.files["/minio-1.0.0-amd64"] = script("minio")
    upstream.files["/minio-1.0.0-amd64.sha256"] = f"{sha256(script('minio'))}  minio-1.0.0-amd64\n".encode()
    got = project.save().get(sources=["mirror"], mirror_url=upstream.url)
    assert Path(got["minio"]["path"]).read_bytes() == script("minio")


@pytest.mark.parametrize("file", ["prometheus-3.0.0-amd64", "prometheus"])
def test_directory(project: Project, prometheus: dict[str, bytes], tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(script("mine"))
    got = project.save().get(names=["prometheus"], sources=["cache", "directory"], directory=str(tmp_path))
    assert got["prometheus"]["source"] == "directory"
    assert got["prometheus"]["tested"] is (file != "prometheus")
    assert Path(got["prometheus"]["path"]).read_bytes() == script("mine")
    assert (tmp_path / file).read_bytes() == script("mine")


def test_directory_with_upstreams_archive(
    project: Project, prometheus: dict[str, bytes], tmp_path: Path
) -> None:
    project.data["releases"]["prometheus"]["sha256"]["amd64"] = sha256(prometheus["archive"])
    archive = tmp_path / ARCHIVE.rsplit("/", 1)[1]
    archive.write_bytes(prometheus["archive"])
    arguments: dict[str, Any] = {"sources": ["directory"], "directory": str(tmp_path)}
    assert set(project.save().get(**arguments)) == {"prometheus", "promtool"}
    archive.write_bytes(prometheus["archive"] + b"x")
    refused = project.run(**arguments)
    assert refused["failed"]
    assert f"the lock wants {sha256(prometheus['archive'])}" in refused["msg"]


def test_directory_refuses_other_digest_and_other_machine(
    project: Project, prometheus: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "prometheus").write_bytes(script("mine"))
    (tmp_path / "promtool").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00" + bytes(40))
    project.data["artifacts"]["prometheus"]["sha256"] = {"amd64": "cd" * 32}
    result = project.save().run(sources=["directory"], directory=str(tmp_path))
    assert result["failed"]
    assert f"has sha256 {sha256(script('mine'))}, the lock wants {'cd' * 32}" in result["msg"]
    assert "promtool is built for arm64, not for amd64" in result["msg"]


def test_damaged_content_is_not_served(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    got = project.save().get(sources=FROM_RELEASE)
    path = Path(got["prometheus"]["path"])
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    again = project.run(sources=FROM_RELEASE)
    assert again["changed"]
    assert path.read_bytes() == prometheus["prometheus"]
    path.touch()
    upstream.requests.clear()
    assert project.run(sources=FROM_RELEASE)["changed"] is False
    assert upstream.requests == []


def test_check_mode_says_what_would_be_done(
    project: Project, upstream: Upstream, prometheus: dict[str, bytes]
) -> None:
    project.hello("minio")
    before = project.save().lock_file.read_text()
    result = project.run(check=True)
    assert result["changed"]
    assert result["artifacts"] == []
    assert result["predicted"][0] == f"prometheus (amd64): would be fetched from {upstream.url}{ARCHIVE}"
    assert result["predicted"][2] == "minio (amd64): would be built from example.test/hello v0.0.0"
    assert not project.cache.exists()
    assert upstream.requests == []
    assert project.lock_file.read_text() == before


def test_bad_arguments(project: Project, prometheus: dict[str, bytes]) -> None:
    unknown = project.save().run(names=["promethius"])
    assert unknown["failed"]
    assert "no artifact named 'promethius'; it has prometheus, promtool" in unknown["msg"]
    assert "must be one or more of: cache, directory" in project.run(sources=["internet"])["msg"]
    missing = project.run(lock_file=str(project.root / "none.yml"))
    assert "platform_lock_file names it" in missing["msg"]
    project.data["releases"]["prometheus"]["urll"] = "x"
    assert "releases.prometheus: unknown key 'urll'" in project.save().run()["msg"]


def test_no_names_are_none_and_a_cache_that_cannot_be_is_named(
    project: Project, prometheus: dict[str, bytes], tmp_path: Path
) -> None:
    nothing = project.save().run(names=[])
    assert (nothing["changed"], nothing["artifacts"]) == (False, [])
    (tmp_path / "file").write_text("")
    blocked = project.run(cache_dir=str(tmp_path / "file" / "cache"), sources=FROM_RELEASE)
    assert blocked["failed"]
    assert "Not a directory; platform_cache_dir names the folder" in blocked["msg"]


def test_what_a_killed_run_left_is_removed(project: Project, prometheus: dict[str, bytes]) -> None:
    left = project.cache / "tmp" / f"{os.uname().nodename}.4194305-abc"
    others = project.cache / "tmp" / "elsewhere.4194305-abc"
    for folder in (left, others):
        (folder / "src").mkdir(parents=True)
    project.save().get(sources=FROM_RELEASE)
    assert list((project.cache / "tmp").iterdir()) == [others]
