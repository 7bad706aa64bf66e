# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the tasks of one run tell each other: files that belong to this ansible-playbook and that it removes at its end."""

from __future__ import annotations

import os
from pathlib import Path

from ansible import constants as C


def path() -> Path:
    """The folder; nobody else may read it."""
    folder = Path(C.DEFAULT_LOCAL_TMP) / "luxima"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def write(target: Path, text: str) -> None:
    """A whole file or none, whoever else is writing it."""
    temporary = target.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
