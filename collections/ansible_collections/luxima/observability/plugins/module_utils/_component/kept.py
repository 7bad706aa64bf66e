# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What of a component's configuration must stay as it is while there is data, as its record says (`data.fixed`). Pure.

A release is seen as its directories and the texts of some of its files, by their path in the manifest.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterable, Mapping, Sequence
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
    # Names of the secret variables of its environment.
    hidden: Sequence[str] = ()


def paths(name: str, data: Mapping[str, Any]) -> list[str]:
    """The files of a manifest that decide about data: those that say periods, those with fixed keys, and the unit."""
    named = [*data.get("files", []), *(one["file"] for one in data.get("fixed", []) if "file" in one)]
    return [*dict.fromkeys(f"etc/{one}" for one in named), unit_path(name)]


def unit_path(name: str) -> str:
    return f"unit/{name}.service"


def broken(name: str, data: Mapping[str, Any], before: Release, after: Release, today: str) -> list[str]:
    """One sentence for each fixed value that differs; `today` as 2030-01-31. A file that was not there before is not broken."""
    found = []
    for one in data.get("fixed", []):
        old, new = (_value(name, one, release) for release in (before, after))
        if old is None or _plain(old) == _plain("" if new is None else new):
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
    """What stands there, empty when nothing does, for then the server's own choice holds; None when the file is not there."""
    if "unit" in one:
        text = release.texts.get(unit_path(name))
        return None if text is None else re.findall(one["unit"], text, re.MULTILINE)
    text = release.texts.get(f"etc/{one['file']}")
    if text is None:
        return None
    if str(one["file"]).endswith(".ini"):
        return _of_ini(text, str(one["key"]))
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(found, Mapping):
        return None
    for part in str(one["key"]).split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return "" if found is None else found


def _of_ini(text: str, key: str) -> str | None:
    section, _, option = key.rpartition(".")
    found = configparser.RawConfigParser(strict=False, delimiters=("=",), empty_lines_in_values=False)
    try:
        # What stands above the first section is in none.
        found.read_string(f"[ ]\n{text}")
    except configparser.Error:
        return None
    return found.get(section, option, fallback="")


def hidden(data: Mapping[str, Any], secret_environment: Iterable[str]) -> str:
    """Why a secret variable of the environment must be an open one: it decides where data is. Empty when there is none."""
    for one in data.get("fixed", []):
        for name in secret_environment if "unit" in one else ():
            if re.search(one["unit"], f"Environment={name}=x", re.MULTILINE):
                return f"{one['variable']}: {name} decides where data is, which is compared before a change, so it cannot be a secret; write it there in clear text"
    return ""


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
    text = (value or "nothing") if isinstance(value, str) else _plain(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
