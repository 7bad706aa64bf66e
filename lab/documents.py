# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""State of the cluster beside guests, pools and tasks: plain JSON by name, kept in one file each."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

from lab.errors import die


def trimmed(values: dict[str, Any]) -> dict[str, Any]:
    """Values as a file of sections gives them back: a line ends with what is no blank, and is one line."""
    for key, value in values.items():
        if re.search(r"[\x00-\x1f\x7f]", str(value)):
            raise die(f"detected unexpected control character in key '{key}'")
    return {key: value.strip() if isinstance(value, str) else value for key, value in values.items()}


class Documents:
    """`folder` None: nothing outlives the process."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._loaded: dict[str, dict[str, Any]] = {}
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The document, empty at first; whoever changes it calls `save` afterwards."""
        if name not in self._loaded:
            path = self._folder / f"{name}.json" if self._folder else None
            text = path.read_text(encoding="utf-8") if path and path.exists() else "{}"
            self._loaded[name] = json.loads(text)
        return self._loaded[name]

    def save(self, name: str) -> None:
        if self._folder:
            path = self._folder / f"{name}.json"
            scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            scratch.write_text(json.dumps(self[name], indent=1, sort_keys=True), encoding="utf-8")
            scratch.replace(path)
