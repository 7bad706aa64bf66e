# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the operating system refused, on a real file system that is full."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._component.host import Host
from ansible_collections.luxima.observability.plugins.module_utils._component.words import said


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB and 64 inodes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_tree_that_does_not_fit_is_one_sentence(small: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"file{number}").write_bytes(b"x" * 50_000)
    with pytest.raises(shutil.Error) as caught:
        Host("x").same_tree(source, small / "target")
    text = said(caught.value)
    assert text.startswith(f"No space left on device: {small}/target/file")
    assert "; make room on that file system and run again (1" in text
    assert "Errno" not in text
    assert len(text) < 300


def test_a_file_that_does_not_fit_says_how_much_is_left(small: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        Host("x").write(small / "file", b"x" * 400_000)
    # The write itself names no file.
    assert said(caught.value).startswith("No space left on device: /opt/luxima (")


def test_no_inode_is_free(small: Path) -> None:
    def fill() -> None:
        for number in range(100):
            (small / f"file{number}").touch()

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert "no inode is free" in said(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied: /x"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("plain"), "plain"),
        (ValueError("other"), "other"),
        (shutil.Error("one word"), "one word"),
    ],
)
def test_anything_else_in_its_own_words(error: Exception, text: str) -> None:
    assert said(error) == text


def test_a_read_only_file_system_says_where_to_look() -> None:
    assert "dmesg on the host" in said(OSError(errno.EROFS, "Read-only file system", "/opt/x"))
