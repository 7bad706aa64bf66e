# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Where the parts of the project lie, for a checkout and for an installed collection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

NAMESPACE = Path("ansible_collections", "luxima", "observability")


def collection_root(plugin_file: str) -> Path:
    """The folder of the collection that holds a file of plugins/<kind>/."""
    return Path(plugin_file).resolve().parents[2]


def beside(plugin_file: str, *parts: str) -> Path | None:
    """A folder of the collection when installed, else of the project that contains C(collections/)."""
    root = collection_root(plugin_file)
    homes = [root, *root.parents[3:4]]
    return next((home.joinpath(*parts) for home in homes if home.joinpath(*parts).is_dir()), None)


def second_copy(plugin_file: str, project: Path) -> Path | None:
    """The project's own copy of the collection when another one was loaded; None when all is well."""
    own = project / "collections" / NAMESPACE
    if not own.is_dir() or own.resolve() == collection_root(plugin_file):
        return None
    return own


def definitions(sources: Iterable[str], name: str) -> list[str]:
    """Where C(name:) is written in the YAML files of inventory sources, as C(file:line)."""
    pattern = re.compile(rf"(?:^|[\s{{,]){re.escape(name)}\s*:")
    found = []
    for source in sources:
        path = Path(source)
        files = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path] if path.is_file() else []
        for file in files:
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            found += [
                f"{_short(file)}:{number}"
                for number, line in enumerate(lines, 1)
                if not line.lstrip().startswith("#") and pattern.search(line)
            ]
    return found


def _short(file: Path) -> str:
    resolved, here = file.resolve(), Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(file)
