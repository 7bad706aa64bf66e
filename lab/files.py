# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Files that clients put on storages: container templates, ISO images, disk images."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from lab.errors import die

# Folders on a storage of type dir, and the endings that the server takes.
FOLDERS = {"vztmpl": "template/cache", "iso": "template/iso", "import": "import"}
ENDINGS = {
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"),
    "iso": (".iso", ".img"),
    "import": (".qcow2", ".raw", ".vmdk", ".ova"),
}


class Files:
    """`folder` None: a folder of its own, which goes with the process."""

    def __init__(self, folder: Path | None) -> None:
        self._scratch = None if folder else tempfile.TemporaryDirectory(prefix="lab-files-")
        self._folder = folder or Path(self._scratch.name if self._scratch else "")

    def path(self, node: str, storage: str, content: str, name: str) -> Path:
        """Where a file lies, whether it exists or not."""
        if content not in FOLDERS or "/" in name or name.startswith("."):
            raise die(f"unable to parse volume ID '{storage}:{content}/{name}'")
        return self._folder / node / storage / FOLDERS[content] / name

    def find(self, node: str, storage: str, content: str, name: str) -> Path | None:
        path = self.path(node, storage, content, name)
        return path if path.is_file() else None

    def listing(self, node: str, storage: str, content: str) -> list[Path]:
        folder = self._folder / node / storage / FOLDERS[content]
        return sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith("."))

    @staticmethod
    def verify(path: Path, checksum: str, algorithm: str) -> None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        if found != checksum.lower():
            raise RuntimeError(f"checksum mismatch: got '{found}' != expect '{checksum}'")

    def keep(self, source: Path, target: Path) -> None:
        """Move a complete file to its place at once."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
        shutil.move(source, partial)
        partial.chmod(0o644)
        partial.replace(target)


def virtual_size(path: Path) -> int:
    """Bytes that a disk image shows to its guest."""
    with path.open("rb") as stream:
        head = stream.read(32)
    return int.from_bytes(head[24:32], "big") if head[:4] == b"QFI\xfb" else path.stat().st_size
