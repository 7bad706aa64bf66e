# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The host keys that SSH remembers, asked and changed through SSH's own programs."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"


def changed(reason: str) -> bool:
    """Whether a connection failed because another key answers than the one that is remembered."""
    return CHANGED in reason


def remembered(arguments: Sequence[str], host: str) -> tuple[str, list[Path]]:
    """The name under which SSH, called with these arguments, looks for the key of a host, and the files in which it does."""
    asked = subprocess.run(["ssh", "-G", *arguments, host], capture_output=True, text=True, check=False)
    shown = dict(line.partition(" ")[::2] for line in asked.stdout.splitlines())
    name, port = shown.get("hostkeyalias", ""), shown.get("port", "22")
    if not name or name == "none":
        name = shown.get("hostname", host)
        name = name if port == "22" else f"[{name}]:{port}"
    text = shown.get("userknownhostsfile", "")
    # Several files, or one whose name has blanks.
    every = [Path(one).expanduser() for one in (text, *text.split())]
    return name, [path for path in dict.fromkeys(every) if path.is_file()]


def forget(arguments: Sequence[str], host: str, lock: Path) -> bool:
    """Whether a key of the host was remembered; it is not any more. `lock` keeps those apart who do it at the same time."""
    name, files = remembered(arguments, host)
    found = False
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for file in files:
            known = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, check=False)
            if known.returncode == 0:
                subprocess.run(["ssh-keygen", "-R", name, "-f", file], capture_output=True, check=True)
                found = True
    return found


def way_out(arguments: Sequence[str], host: str) -> str:
    """What a person does about a key that changed."""
    name, files = remembered(arguments, host)
    commands = [shlex.join(["ssh-keygen", "-R", name, "-f", str(file)]) for file in files]
    return (
        f"another host key answers at {host} than the one that is remembered, and the guest was not made by this run. If it was made "
        f"again or got a new key, say so: {' ; '.join(commands) or 'remove the old key of ' + name}. If not, somebody else answers there"
    )
