# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What every source of data is, and what sources share: files to copy, services to stop."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Protocol

from jobs.commands import PIECE, command
from jobs.errors import JobError

from .repository import Repository

Json = dict[str, Any]


@dataclass
class Entry:
    """One file of a copy. `version` names its content: equal path and version are not read again; empty: always read.

    `open` gives attributes and content.
    """

    path: str
    version: str
    open: Callable[[], tuple[Json, Iterator[bytes]]]


@dataclass
class Restored:
    """What a restore did: files and bytes written, files that were there already."""

    files: int = 0
    size: int = 0
    kept: int = 0
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """One kind of data on this host. Errors are JobError."""

    def version(self) -> str:
        """Of the server whose data it is, asked while captured; empty when it does not say."""

    def capture(self, folder: Path) -> contextlib.AbstractContextManager[Iterable[Entry]]:
        """The files of one consistent state, valid inside the context; `folder` is for what must be written down."""

    def nothing(self) -> str:
        """Why a copy without any file is right just now, for people. Raises JobError when it cannot be."""

    def restore(self, copies: Repository, manifest: Json, overwrite: bool, folder: Path) -> Restored:
        """Puts a copy in place. Nothing that is there is replaced without `overwrite`."""


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            yield piece


def fetch(copies: Repository, entry: Json, path: Path) -> None:
    """Writes a file of a copy and compares it as a whole."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        for chunk in copies.read(entry):
            digest.update(chunk)
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    if digest.hexdigest() != entry["sha256"]:
        raise JobError(f"{entry['path']} of the copy is damaged: its digest differs")


def own(path: Path, like: Path) -> None:
    """Gives a path, with all below it, to who owns another one."""
    stamp = like.stat()
    os.chown(path, stamp.st_uid, stamp.st_gid)
    for one in path.rglob("*") if path.is_dir() else []:
        os.chown(one, stamp.st_uid, stamp.st_gid)


@contextlib.contextmanager
def stopped(service: str) -> Iterator[None]:
    """While a service does not run; it is started again whatever happens. No name: nobody runs it."""
    if service:
        command(["systemctl", "stop", service])
    try:
        yield
    finally:
        if service:
            command(["systemctl", "start", service])
