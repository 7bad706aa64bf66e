# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Takes what is wanted out of upstream's archives and packs trees in one reproducible form."""

from __future__ import annotations

import fnmatch
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ansible_collections.luxima.observability.plugins.module_utils._artifacts.fetch import Unavailable


def member(archive: Path, name: str, wanted: str, target: Path) -> None:
    """Write the file `wanted` of an archive called `name` to `target`; `wanted` empty = the file itself.

    Raises Unavailable when the archive is none or does not hold it.
    """
    if not wanted:
        shutil.copyfile(archive, target)
        return
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(archive) as opened, opened.open(wanted) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            return
        with tarfile.open(archive) as tar:
            found = tar.extractfile(_find(tar, wanted))
            if found is None:
                raise KeyError(wanted)
            with found, target.open("wb") as sink:
                shutil.copyfileobj(found, sink, 1 << 20)
    except KeyError:
        raise Unavailable(f"{name} holds no {wanted}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise Unavailable(f"{name} cannot be unpacked: {error}") from None


def _find(tar: tarfile.TarFile, wanted: str) -> tarfile.TarInfo:
    for info in tar:
        if info.name.removeprefix("./") == wanted:
            return info
    raise KeyError(wanted)


def subtree(
    archive: Path, name: str, keep: Sequence[str], drop: Sequence[str], scratch: Path
) -> dict[str, Path]:
    """Unpack the kept files of an archive, without its top folder. Raises Unavailable."""
    files: dict[str, Path] = {}
    try:
        with tarfile.open(archive) as tar:
            for info in tar:
                path = PurePosixPath(info.name.removeprefix("./"))
                relative = str(PurePosixPath(*path.parts[1:])) if len(path.parts) > 1 else ""
                # Only regular files below the top folder: no links, no devices, nothing outside.
                if not info.isfile() or ".." in path.parts or not wanted(relative, keep, drop):
                    continue
                source = tar.extractfile(info)
                if source is None:
                    continue
                target = scratch / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                target.chmod(0o755 if info.mode & stat.S_IXUSR else 0o644)
                files[relative] = target
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Unavailable(f"{name} cannot be unpacked: {error}") from None
    if not files:
        raise Unavailable(f"{name} holds nothing of {', '.join(keep)}")
    return files


def wanted(relative: str, keep: Sequence[str], drop: Sequence[str]) -> bool:
    """Whether a path is kept: at or below one of `keep` (empty = everything), and no pattern of `drop` fits."""
    if not relative:
        return False
    inside = not keep or any(relative == k or relative.startswith(k + "/") for k in keep)
    return inside and not any(fnmatch.fnmatch(relative, pattern) for pattern in drop)


def pack(files: Mapping[str, Path], target: Path) -> None:
    """A tar of `files` (relative path → file) whose bytes depend on nothing but them."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for relative in sorted(files):
            source = files[relative]
            status = source.stat()
            info = tarfile.TarInfo(relative)
            info.size = status.st_size
            info.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            with source.open("rb") as handle:
                tar.addfile(info, handle)
