# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What of a component's configuration must stay as it is while there is data, as its record says (`data.fixed`). Pure.

A release is seen as its directories and the texts of some of its files, by their path in the manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

Json = dict[str, Any]
# Longer values are cut in messages.
_SHOWN = 300


@dataclass(frozen=True)
class Release:
    """One release as far as data depends on it; None is a file that is not there."""

    texts: Mapping[str, str | None] = field(default_factory=dict)
    directories: Sequence[str] = ()


def paths(name: str, data: Mapping[str, Any]) -> list[str]:
    """The files of a manifest that decide about data: those that say periods, those with fixed keys, and the unit."""
    named = [*data.get("files", []), *(one["file"] for one in data.get("fixed", []) if "file" in one)]
    return [*dict.fromkeys(f"etc/{one}" for one in named), unit_path(name)]


def unit_path(name: str) -> str:
    return f"unit/{name}.service"


def broken(name: str, data: Mapping[str, Any], before: Release, after: Release, today: str) -> list[str]:
    """One sentence for each fixed value that differs; `today` as 2030-01-31. What was not there before is not broken."""
    found = []
    for one in data.get("fixed", []):
        old, new = (_value(name, one, release) for release in (before, after))
        if old is None or _plain(old) == _plain(new):
            continue
        words = _grown(old, new, one["grows"], today) if one.get("grows") else f"{_text(old)} -> {_text(new)}"
        if words:
            found.append(_sentence(one, words))
    left = [path for path in before.directories if path not in after.directories]
    if left:
        found.append(
            f"directories: {', '.join(left)} -> {', '.join(after.directories) or 'none'}: what is in the former would stay behind there"
        )
    return found


def _sentence(one: Mapping[str, Any], words: str) -> str:
    place = f"{one['key']} in {one['file']}" if "file" in one else "the unit"
    return f"{one['variable']}: {place}: {words}" + (f"; {one['instead']}" if one.get("instead") else "")


def _value(name: str, one: Mapping[str, Any], release: Release) -> Any:
    """What stands there; None when the file is not there, or nothing in its place."""
    if "unit" in one:
        text = release.texts.get(unit_path(name))
        # Without such a line the server's own choice holds, which is a value too.
        return None if text is None else re.findall(one["unit"], text, re.MULTILINE)
    text = release.texts.get(f"etc/{one['file']}")
    if text is None:
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    for part in str(one["key"]).split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _grown(old: Any, new: Any, by: str, today: str) -> str:
    """Why a list of periods is not the former one with later ones added; empty when it is."""
    before, after = (value if isinstance(value, list) else [] for value in (old, new))
    holding = [one for one in before if _start(one, by) <= today]
    if _plain(after[: len(holding)]) != _plain(holding):
        return f"what holds since {_start(holding[-1], by)} differs: {_text(holding)} -> {_text(after)}"
    late = [one for one in after[len(holding) :] if _start(one, by) <= today]
    if late:
        return f"a period from {_start(late[0], by)} would change how data is read that is stored already; let it begin later than {today}"
    return ""


def _start(one: Any, by: str) -> str:
    return str(one.get(by, ""))[:10] if isinstance(one, Mapping) else ""


def _plain(value: Any) -> str:
    """The same text for the same value, whether a day was written with or without quotes."""
    return json.dumps(value, default=str, sort_keys=True)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else _plain(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
