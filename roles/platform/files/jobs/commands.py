# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Commands of this host, as users of the system."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import JobError

PIECE = 1 << 20


def account(user: str) -> dict[str, Any]:
    """Arguments of subprocess that run a command as that user; none when we are that user or nobody special."""
    if not user or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise JobError(f"there is no user {user} on this host") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def command(
    words: Sequence[str], user: str = "", environment: Mapping[str, str] | None = None, **more: Any
) -> str:
    """Standard output of a command. Raises JobError with the last lines of its errors."""
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
        raise JobError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        raise JobError(f"{words[0]}: {last_words(done.stderr) or f'exit status {done.returncode}'}")
    return str(done.stdout)


def said(*words: str) -> str:
    """Standard output of a command, whatever its exit status; empty when it is not there."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def last_words(text: str, count: int = 4) -> str:
    return " | ".join(text.strip().splitlines()[-count:])


def output(
    words: Sequence[str], user: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Standard output of a command as it comes. Raises JobError at its end when it failed."""
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
            raise JobError(f"{words[0]}: {error.strerror}") from None
        try:
            while piece := process.stdout.read(PIECE) if process.stdout else b"":
                yield piece
            if process.wait():
                errors.seek(0)
                told = last_words(errors.read().decode(errors="replace"))
                raise JobError(f"{words[0]}: {told or f'exit status {process.returncode}'}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
