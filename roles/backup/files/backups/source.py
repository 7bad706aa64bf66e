# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What every source of data is, and what sources share: files to copy, commands of other users, services to stop."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Protocol

from .errors import BackupError
from .repository import Repository

Json = dict[str, Any]
PIECE = 1 << 20


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
    """One kind of data on this host. Errors are BackupError."""

    def version(self) -> str:
        """Of the server whose data it is, asked while captured; empty when it does not say."""

    def capture(self, folder: Path) -> contextlib.AbstractContextManager[Iterable[Entry]]:
        """The files of one consistent state, valid inside the context; `folder` is for what must be written down."""

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
        raise BackupError(f"{entry['path']} of the copy is damaged: its digest differs")


def own(path: Path, like: Path) -> None:
    """Gives a path, with all below it, to who owns another one."""
    stamp = like.stat()
    os.chown(path, stamp.st_uid, stamp.st_gid)
    for one in path.rglob("*") if path.is_dir() else []:
        os.chown(one, stamp.st_uid, stamp.st_gid)


def account(user: str) -> Json:
    """Arguments of subprocess that run a command as that user; none when we are that user or nobody special."""
    if not user or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise BackupError(f"there is no user {user} on this host") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def command(
    words: Sequence[str], user: str = "", environment: Mapping[str, str] | None = None, **more: Any
) -> str:
    """Standard output of a command. Raises BackupError with the last lines of its errors."""
    try:
        done = subprocess.run(
            list(words),
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={**os.environ, **(environment or {})},
            **account(user),
            **more,
        )
    except OSError as error:
        raise BackupError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        raise BackupError(f"{words[0]}: {last_words(done.stderr) or f'exit status {done.returncode}'}")
    return str(done.stdout)


def last_words(text: str, count: int = 4) -> str:
    return " | ".join(text.strip().splitlines()[-count:])


def output(
    words: Sequence[str], user: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Standard output of a command as it comes. Raises BackupError at its end when it failed."""
    who: Any = account(user)
    with tempfile.TemporaryFile() as errors:
        try:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                list(words),
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env={**os.environ, **(environment or {})},
                **who,
            )
        except OSError as error:
            raise BackupError(f"{words[0]}: {error.strerror}") from None
        try:
            while piece := process.stdout.read(PIECE) if process.stdout else b"":
                yield piece
            if process.wait():
                errors.seek(0)
                told = last_words(errors.read().decode(errors="replace"))
                raise BackupError(f"{words[0]}: {told or f'exit status {process.returncode}'}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class Server:
    """A server with an HTTP API: url, ca_file, username and, apart, a password."""

    def __init__(self, connection: Mapping[str, Any], password: str) -> None:
        self.url = str(connection["url"]).rstrip("/")
        context = None
        if self.url.startswith("https:"):
            context = ssl.create_default_context(cafile=connection.get("ca_file") or None)
            if connection.get("cert_file"):
                context.load_cert_chain(connection["cert_file"], connection.get("key_file") or None)
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if connection.get("username"):
            known = urllib.request.HTTPPasswordMgrWithPriorAuth()
            known.add_password(None, self.url, str(connection["username"]), password, is_authenticated=True)
            handlers.append(urllib.request.HTTPBasicAuthHandler(known))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, method: str = "GET", timeout: float = 30) -> str:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:300].strip()
            raise BackupError(f"{method} {self.url}{path}: {error.code} {told or error.reason}") from None
        except (urllib.error.URLError, OSError) as error:
            raise BackupError(f"{method} {self.url}{path}: {getattr(error, 'reason', error)}") from None

    def json(self, path: str, method: str = "GET", timeout: float = 30) -> Any:
        try:
            return json.loads(self.ask(path, method, timeout))
        except ValueError:
            raise BackupError(f"{method} {self.url}{path}: the answer is no JSON") from None

    def wait(self, path: str, seconds: float) -> None:
        """Until it answers. Raises BackupError with its last words."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.ask(path, timeout=5)
                return
            except BackupError as error:
                if time.monotonic() > end:
                    raise BackupError(f"not ready after {seconds:g} s: {error}") from None
            time.sleep(0.5)


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
