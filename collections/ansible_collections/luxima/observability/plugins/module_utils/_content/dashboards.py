# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Dashboards as people have them (exports from a browser, too) and as Grafana's provisioning takes them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .faults import Problem, kind, refuse

Json = dict[str, Any]

VARIABLE = "grafana_dashboards"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*\Z")
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")
_PLACEHOLDER = re.compile(r"\$\{((?:DS|VAR)_[A-Z0-9_.-]+)\}", re.IGNORECASE)
# What the export adds for whoever imports it in a browser.
_OF_EXPORTS = ("__inputs", "__requires", "__elements")


@dataclass
class Found:
    """Dashboards by name, each with its uid; and all that is wrong."""

    boards: dict[str, Json] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def prepare(dashboards: Any, shipped: Sequence[str], sources: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """Name to what Grafana gets. Raises ContentError."""
    found = inspect(dashboards, shipped, sources)
    refuse(found.problems)
    return found.boards


def uids(dashboards: Any, shipped: Sequence[str]) -> list[str]:
    """The uids of all that is provisioned; of what cannot be read, none."""
    found = inspect(dashboards, shipped, None)
    return sorted({*shipped, *(str(board["uid"]) for board in found.boards.values())})


def inspect(dashboards: Any, shipped: Sequence[str], sources: Sequence[Mapping[str, Any]] | None) -> Found:
    """`shipped`: uids of the role's own, which are also the names of their files. `sources`: the data sources that
    exports are bound to, in order; None when they are not known."""
    found = Found()
    if not isinstance(dashboards, Mapping):
        found.problems.append((VARIABLE, f"is {kind(dashboards)}; write a mapping of name to dashboard"))
        return found
    owners = dict.fromkeys(shipped, "a dashboard of this role")
    titles: dict[str, str] = {}
    for name, content in dashboards.items():
        where = f"{VARIABLE}.{name}"
        board, problems = _read(where, str(name), content, shipped)
        if board is not None:
            problems += _identify(where, str(name), board, owners, titles)
            problems += _bind(where, board, sources)
            if not problems:
                found.boards[str(name)] = _bound(board, sources)
        found.problems += problems
    return found


def _read(where: str, name: str, content: Any, shipped: Sequence[str]) -> tuple[Json | None, list[Problem]]:
    problems: list[Problem] = []
    if not _NAME.match(name):
        problems.append((where, "is no name of a file; use letters, digits, . _ - and blanks"))
    if name in shipped:
        problems.append((where, "is the file of a dashboard of this role; choose another name"))
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError as error:
            return None, [*problems, (where, f"is no JSON: {error}")]
    if not isinstance(content, Mapping):
        return None, [*problems, (where, f"is {kind(content)}; a dashboard is a JSON object")]
    inner = content.get("dashboard")
    if isinstance(inner, Mapping) and "panels" not in content:
        # As the API answers it.
        content = inner
    return dict(content), problems


def _identify(
    where: str, name: str, board: Json, owners: dict[str, str], titles: dict[str, str]
) -> list[Problem]:
    """Every dashboard has a uid and a title of its own. Two with one uid replace each other, and when one of them goes,
    both are gone until Grafana looks again."""
    board.pop("id", None)
    if not board.get("uid"):
        board["uid"] = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40].strip("-")
    uid, title = str(board["uid"]), board.get("title")
    board["uid"] = uid
    problems: list[Problem] = []
    if not _UID.match(uid):
        problems.append((f"{where}.uid", f"{uid!r} is no uid; use up to 40 letters, digits, _ and -"))
    elif uid in owners:
        text = f"{uid} is the uid of {owners[uid]} too; give this one another uid, or take it out to have a new one made of its name"
        problems.append((f"{where}.uid", text))
    if not isinstance(title, str) or not title.strip():
        problems.append((f"{where}.title", "is missing; Grafana takes no dashboard without a title"))
    elif title.strip().lower() in titles:
        text = f"{title!r} is the title of {titles[title.strip().lower()]} too, and in one folder a title is there once"
        problems.append((f"{where}.title", text))
    else:
        titles[title.strip().lower()] = where
    owners.setdefault(uid, where)
    return problems


def _inputs(board: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = board.get("__inputs")
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _values(board: Mapping[str, Any], sources: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What each placeholder of an export stands for here."""
    first: dict[str, str] = {}
    for source in sources:
        first.setdefault(str(source.get("type")), str(source.get("uid") or source.get("name") or ""))
    found: dict[str, str] = {}
    for entry in _inputs(board):
        if entry.get("type") == "datasource":
            uid = first.get(str(entry.get("pluginId")), "")
            if uid:
                found[str(entry.get("name"))] = uid
        elif "value" in entry:
            found[str(entry.get("name"))] = str(entry["value"])
    return found


def _bind(where: str, board: Mapping[str, Any], sources: Sequence[Mapping[str, Any]] | None) -> list[Problem]:
    """Placeholders that nothing stands for."""
    if sources is None:
        return []
    values = _values(board, sources)
    declared = {str(entry.get("name")): entry for entry in _inputs(board)}
    body = json.dumps({key: value for key, value in board.items() if key not in _OF_EXPORTS})
    problems: list[Problem] = []
    variables = {str(item.get("name")) for item in (board.get("templating") or {}).get("list") or []}
    for name in sorted(set(_PLACEHOLDER.findall(body)) | set(declared)):
        if name in values or (name in variables and name not in declared):
            continue
        entry = declared.get(name)
        if entry is None:
            text = f"holds the placeholder ${{{name}}} of an export, and no __inputs say what it is; write the data source's uid in its place"
        elif entry.get("type") == "datasource":
            text = f"asks for a data source of type {entry.get('pluginId')} ({name}), and there is none; add one to grafana_datasources with a uid"
        else:
            text = f"asks for a value of {name}, and __inputs hold none; write it in place of ${{{name}}}"
        problems.append((where, text))
    return problems


def _bound(board: Json, sources: Sequence[Mapping[str, Any]] | None) -> Json:
    values = _values(board, sources or [])
    body = {key: value for key, value in board.items() if key not in _OF_EXPORTS}
    return {str(key): _filled(value, values) for key, value in body.items()}


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {str(key): _filled(item, values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(item, values) for item in value]
    return value
