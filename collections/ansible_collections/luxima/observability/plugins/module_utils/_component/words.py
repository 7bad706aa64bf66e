# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the operating system refused, as one sentence for people."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from . import state

_SAID = re.compile(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?\Z", re.DOTALL)


def said(error: BaseException) -> str:
    """One sentence; of many failures of the same copy the first one, and how many there were."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return _many(error.args[0])
    if isinstance(error, OSError) and error.errno:
        return _one(error.errno, error.strerror or os.strerror(error.errno), _place(error))
    return str(error)


def _many(failures: list[object]) -> str:
    """shutil's list of (source, target, reason)."""
    first = failures[0]
    target, reason = (
        (str(first[1]), str(first[2])) if isinstance(first, tuple) and len(first) > 2 else ("", str(first))
    )
    match = _SAID.match(reason)
    sentence = _one(int(match[1]), match[2], target) if match else f"{target}: {reason}"
    return sentence if len(failures) == 1 else f"{sentence} ({len(failures)} files of one copy)"


def _place(error: OSError) -> str:
    named = error.filename2 or error.filename
    return os.fspath(named) if isinstance(named, (str, os.PathLike)) else ""


def _one(number: int, words: str, place: str) -> str:
    where = place or state.ROOT
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{words}: {where}{_room(where)}; make room on that file system and run again"
    if number == errno.EROFS:
        return f"{words}: {where}; its file system was mounted, or has become, read-only: dmesg on the host says why"
    return f"{words}: {place}" if place else words


def _room(place: str) -> str:
    """How much is left where a file should have gone."""
    path = Path(place)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
    except OSError:
        return ""
    if found.f_files and not found.f_favail:
        return " (no inode is free: too many small files)"
    free, size = found.f_bavail * found.f_frsize >> 20, found.f_blocks * found.f_frsize >> 20
    return f" ({free} MiB free of {size} MiB)"
