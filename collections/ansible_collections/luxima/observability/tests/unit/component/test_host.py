# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""File work on a real file system."""

from __future__ import annotations

import ctypes
import errno
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component import state
from ansible_collections.luxima.observability.plugins.module_utils._component.host import Host, HostError


def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    return tmp_path / "a", tmp_path / "b"


def test_an_exchange_swaps_whole_directories(tmp_path: Path) -> None:
    left, right = folders(tmp_path)
    inodes = (left.stat().st_ino, right.stat().st_ino)
    Host("x").exchange(left, right)
    assert (left / "who").read_text() == "b"
    assert (right.stat().st_ino, left.stat().st_ino) == inodes


def test_an_exchange_without_the_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = folders(tmp_path)

    class Old:
        """A C library of a system whose file system says EINVAL."""

        def __getattr__(self, name: str) -> Any:
            def call(*_: Any) -> int:
                ctypes.set_errno(errno.EINVAL)
                return -1

            return call

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Old())
    Host("x").exchange(left, right)
    assert (left / "who").read_text() == "b"
    assert (right / "who").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_stands_in_the_place_of_a_link_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "prometheus"
    place.write_text("somebody's")
    Host("x").link(place, "/opt/luxima/x/current/bin/prometheus")
    assert state.link_target(str(place)) == "/opt/luxima/x/current/bin/prometheus"
    assert (tmp_path / "prometheus.before-luxima").read_text() == "somebody's"
    place.unlink()
    place.write_text("again")
    with pytest.raises(HostError, match="move one of them away"):
        Host("x").link(place, "/y")
    assert place.read_text() == "again"


def test_an_archive_cannot_leave_its_folder(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("../evil")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises((HostError, tarfile.TarError)):
        Host("x").extract(archive, tmp_path / "in")
    assert not (tmp_path / "evil").exists()


def test_content_with_another_digest_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with pytest.raises(HostError, match="expected 00"):
        Host("x").unpack(source, tmp_path / "target", {"sha256": "00" * 32})
    Host("x").unpack(source, tmp_path / "target", {"sha256": state.digest(b"content")})
    assert (tmp_path / "target").read_bytes() == b"content"


def test_a_tree_is_shared_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("c")
    (tmp_path / "a/l").symlink_to("b/c")
    Host("x").same_tree(tmp_path / "a", tmp_path / "z")
    assert (tmp_path / "z/b/c").stat().st_ino == (tmp_path / "a/b/c").stat().st_ino
    assert state.link_target(str(tmp_path / "z/l")) == "b/c"


def test_stamps_see_every_change(tmp_path: Path) -> None:
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/d/f").write_text("1")
    first = state.stamp(str(tmp_path / "t"))
    assert first == state.stamp(str(tmp_path / "t"))
    (tmp_path / "t/d/f").write_text("22")
    second = state.stamp(str(tmp_path / "t"))
    (tmp_path / "t/d/g").write_text("")
    assert len({str(first), str(second), str(state.stamp(str(tmp_path / "t")))}) == 3
    assert state.stamp(str(tmp_path / "nothing")) is None


def test_a_program_that_fails_says_so() -> None:
    with pytest.raises(HostError, match="ended with 3: no"):
        Host("x").run(["sh", "-c", "echo no; exit 3"])
    assert Host("x").attempt(["/does/not/exist"])[0] == 127
    code, words = Host("x").attempt(["sh", "-c", "echo begun; sleep 5"], timeout=0.3)
    assert code == 124
    assert "begun" in words
