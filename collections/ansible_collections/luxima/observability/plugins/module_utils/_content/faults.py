# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What is wrong with a piece of content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# (where it is written, such as `grafana_config.server.domain`; what is wrong and the way out)
Problem = tuple[str, str]


class ContentError(ValueError):
    """Content that a server cannot use; `problems` are all of it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{where}: {text}" for where, text in self.problems))


def refuse(problems: Iterable[Problem]) -> None:
    """Raises ContentError when there are any."""
    found = list(problems)
    if found:
        raise ContentError(found)


def kind(value: Any) -> str:
    """What people call the type of a value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else "text" if isinstance(value, str) else "a number"
