# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The store on the controller: content by SHA-256, and an index from lock entries to content.

objects/<sha256>                  content, mode 0644, written to a temporary name and renamed
index/<name>-<arch>-<key>.json    what a lock entry led to; key = digest of all that decides the content
tmp/ locks/ go/                   scratch, one lock file per thing being made, Go's caches when none exist
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.luxima.observability.plugins.module_utils._artifacts import lock as lockfile

CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One thing to install. `size` in bytes; `format` is file, tree, debs or wheelhouse."""

    name: str
    version: str
    arch: str
    path: str
    sha256: str
    size: int
    format: str
    tested: bool
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def default_lock_file() -> str:
    """`components/lock.yml` of the installed collection, else of the project that contains `collections/`."""
    roots = list(Path(__file__).resolve().parents)
    # .../ansible_collections/luxima/observability/plugins/module_utils/_artifacts/store.py
    for root in [*roots[3:8], Path.cwd()]:
        found = root / "components" / "lock.yml"
        if found.is_file():
            return str(found)
    raise lockfile.LockError(
        f"no components/lock.yml above {roots[3]} nor in {Path.cwd()}; set platform_lock_file to one"
    )


class Store:
    """Reads and fills the folder `cache_dir`. `lock_file` empty means the project's own."""

    def __init__(self, cache_dir: str, lock_file: str = "") -> None:
        self.root = Path(cache_dir).expanduser()
        self.lock_file = str(Path(lock_file).expanduser()) if lock_file else default_lock_file()

    @property
    def lock(self) -> lockfile.Lock:
        return lockfile.load(self.lock_file)

    def lookup(self, name: str, arch: str) -> Artifact | None:
        """The artifact when it is in the store, whole; None when it was not fetched yet. Changes nothing."""
        index = self._index(name, arch)
        try:
            entry = json.loads(index.read_bytes())
            path = self.root / "objects" / entry["sha256"]
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
            return None
        if (stat.st_size, stat.st_mtime_ns) != (entry["size"], entry.get("mtime_ns")) and (
            stat.st_size != entry["size"] or digest_once(str(path), stat.st_mtime_ns) != entry["sha256"]
        ):
            return None
        return Artifact(
            name=name,
            version=entry["version"],
            arch=arch,
            path=str(path),
            sha256=entry["sha256"],
            size=entry["size"],
            format=entry["format"],
            tested=entry["tested"],
            source=entry["source"],
        )

    def put(
        self,
        name: str,
        arch: str,
        content: Path,
        *,
        format: str,
        version: str,
        tested: bool,
        source: str,
        **about: Any,
    ) -> Artifact:
        """Take the file `content` (it is moved) and let the lock entry of `name` lead to it."""
        sha256 = digest(content)
        target = self.root / "objects" / sha256
        target.parent.mkdir(parents=True, exist_ok=True)
        content.chmod(0o644)
        with content.open("rb") as handle:
            os.fsync(handle.fileno())
        content.replace(target)
        stat = target.stat()
        entry = {
            "sha256": sha256,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "format": format,
            "source": source,
            "version": version,
            "tested": tested,
            **about,
        }
        index = self._index(name, arch)
        index.parent.mkdir(parents=True, exist_ok=True)
        lockfile.write(index, json.dumps(entry, indent=1) + "\n")
        found = self.lookup(name, arch)
        if found is None:
            raise OSError(f"{target} vanished while it was stored")
        return found

    def scratch(self) -> Path:
        """A new folder on the store's file system; the caller removes it."""
        base = self.root / "tmp"
        base.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=base, prefix=f"{os.uname().nodename}.{os.getpid()}-"))

    @contextlib.contextmanager
    def exclusive(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock `name` against other runs; `waiting` is called while another one has it."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("a") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(0.2)
            yield

    def _index(self, name: str, arch: str) -> Path:
        return self.root / "index" / f"{name}-{arch}-{self.lock.key(name, arch)}.json"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


@functools.lru_cache(maxsize=256)
def digest_once(path: str, _mtime: int) -> str:
    return digest(Path(path))
