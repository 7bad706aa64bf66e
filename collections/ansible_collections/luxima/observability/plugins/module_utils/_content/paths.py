# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Files that a server's configuration names. A service has no folder of its own to start from: it runs in `/`. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .faults import Problem, refuse

# Keys whose value is a file: `api_url_file`, `ca_file`, and Loki's and Tempo's `tls_ca_path`.
_FILE = re.compile(r"\w+_file\Z|tls_\w+_path\Z")
# A value that is known only where the server runs.
_LATER = re.compile(r"\$\{|\$\w|\{\{")


def _files(config: Any, where: str) -> Iterator[tuple[str, str]]:
    """(where it is written, file) of every file that is named."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if isinstance(value, str) and value and _FILE.match(str(key)) and not _LATER.search(value):
                yield f"{where}.{key}", value
            else:
                yield from _files(value, f"{where}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from _files(value, f"{where}[{index}]")


def relative(config: Any, variable: str) -> list[Problem]:
    """Files of a server that has no folder for files of its users: a relative name finds nothing."""
    return [
        (where, f"names {file!r}, and the server runs in /; write the file's absolute path on the host")
        for where, file in _files(config, variable)
        if not file.startswith("/")
    ]


def undeclared(
    config: Any, variable: str, folder: str, secrets: Mapping[str, Any], owner: str
) -> list[Problem]:
    """Files below `<folder>/secrets` that nobody puts there; `owner` is the variable that would."""
    found: list[Problem] = []
    for where, file in _files(config, variable):
        place, name = posixpath.split(posixpath.normpath(posixpath.join(folder, file)))
        if place == f"{folder}/secrets" and name not in secrets:
            have = f"it has {', '.join(sorted(secrets))}" if secrets else "it is empty"
            found.append((where, f"names {file}, and {owner} has no {name} ({have}); add it there"))
        elif not file.startswith("/") and place != f"{folder}/secrets":
            text = (
                f"names {file!r}; files of {owner} are secrets/<name>, any other file needs its absolute path"
            )
            found.append((where, text))
    return found


def absolute(config: Any, folder: str) -> Any:
    """The same configuration, every file by its absolute path. A folder that is exchanged cannot be worked in: a
    process stays in the one it was started in, whose files are those of the release before."""
    return _mapped(config, lambda file: file if file.startswith("/") else f"{folder}/{file}")


def _mapped(config: Any, change: Callable[[str], str]) -> Any:
    if isinstance(config, Mapping):
        return {
            key: change(value)
            if isinstance(value, str) and value and _FILE.match(str(key)) and not _LATER.search(value)
            else _mapped(value, change)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return [_mapped(value, change) for value in config]
    return config


def only_absolute(config: Any, variable: str) -> Any:
    """The configuration as it is. Raises ContentError for a relative file."""
    refuse(relative(config, variable))
    return config
