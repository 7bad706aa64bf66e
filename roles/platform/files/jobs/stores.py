# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Where jobs write: a directory, or a bucket of an S3 server. Both know names with slashes and whole contents."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from .errors import Gone, JobError
from .s3 import S3

_HALF = ".half-"


@dataclass(frozen=True)
class Lock:
    """Nobody deletes or shortens before `until` (seconds since 1970); `mode` is governance, which some may bypass, or compliance."""

    mode: str
    until: float


class Store(Protocol):
    """`put` is whole or not at all; `list` gives name and size below a prefix."""

    def put(self, name: str, content: bytes, lock: Lock | None = None) -> None: ...

    def get(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]: ...

    def place(self, name: str) -> str:
        """What a person calls that name."""


class Directory:
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def put(self, name: str, content: bytes, lock: Lock | None = None) -> None:
        if lock:
            raise JobError(f"{self._path}: a directory locks nothing; only a bucket does")
        file = self._path / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            half = file.with_name(_HALF + file.name)
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            half.replace(file)
        except OSError as error:
            raise JobError(f"{file}: {error.strerror}") from None

    def get(self, name: str) -> bytes:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            raise Gone(f"{self._path / name} is not there") from None
        except OSError as error:
            raise JobError(f"{self._path / name}: {error.strerror}") from None

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        top = self._path / prefix
        for folder, _folders, files in os.walk(top):
            for name in files:
                if not name.startswith(_HALF):
                    file = Path(folder) / name
                    yield str(file.relative_to(self._path)), file.stat().st_size

    def place(self, name: str) -> str:
        return str(self._path / name)


class Bucket:
    def __init__(self, server: S3, bucket: str) -> None:
        self._server, self._bucket = server, bucket

    def put(self, name: str, content: bytes, lock: Lock | None = None) -> None:
        headers = {}
        if lock:
            until = datetime.fromtimestamp(lock.until, timezone.utc)
            # The server wants a digest of what it is to lock.
            digest = hashlib.md5(content, usedforsecurity=False).digest()
            headers = {
                "content-md5": base64.b64encode(digest).decode(),
                "x-amz-object-lock-mode": lock.mode.upper(),
                "x-amz-object-lock-retain-until-date": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        self._server.put(self._bucket, name, content, headers)

    def get(self, name: str) -> bytes:
        return self._server.get(self._bucket, name).body

    def delete(self, name: str) -> None:
        self._server.delete(self._bucket, name)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        for one in self._server.objects(self._bucket, prefix):
            yield one.key, one.size

    def place(self, name: str) -> str:
        return f"{self._server.url}/{self._bucket}/{name}"


def store(target: Mapping[str, Any], secret_key: str) -> Store:
    """`target` has either `directory`, or `url`, `bucket` and `access_key`."""
    if target.get("directory"):
        return Directory(str(target["directory"]))
    if target.get("url"):
        return Bucket(S3(target, secret_key), str(target["bucket"]))
    raise JobError("the target has neither `directory` nor `url`")
