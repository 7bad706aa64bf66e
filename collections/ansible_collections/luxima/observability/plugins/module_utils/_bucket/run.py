# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Reads, plans, applies and reads again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import lifecycle
from .plan import Change, Present, Wanted, after, plan, view
from .server import Refused, Server, Unreachable


def wanted_from(buckets: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """The typed form of the module's argument. Raises Refused for what contradicts itself."""
    found = [_one(entry) for entry in buckets]
    for attribute, what in (("name", "name"), ("access_key", "access_key")):
        counts = Counter(getattr(one, attribute) for one in found if getattr(one, attribute))
        for value in (value for value, count in counts.items() if count > 1):
            raise Refused(
                f"buckets: {what} {value!r} stands there twice; each bucket has its own name and its own key"
            )
    for one in found:
        if one.access_key and (len(one.access_key) < 3 or len(one.secret_key) < 8):
            raise Refused(
                f"buckets: {one.name}: MinIO wants an access_key of at least 3 characters and a secret_key of at least 8"
            )
        if one.lifecycle and not one.versioning and any(rule.noncurrent_days for rule in one.lifecycle):
            raise Refused(
                f"buckets: {one.name}: lifecycle says noncurrent_days and versioning is not true; without versions there is nothing to expire"
            )
        if one.object_lock and one.versioning is False:
            raise Refused(f"buckets: {one.name}: object_lock needs versioning, which is false")
    return found


def _one(entry: Mapping[str, Any]) -> Wanted:
    rules, name = entry.get("lifecycle"), str(entry["name"])
    try:
        return Wanted(
            name=name,
            access_key=entry.get("access_key") or "",
            secret_key=entry.get("secret_key") or "",
            prefix=entry.get("prefix") or "",
            versioning=entry.get("versioning"),
            lifecycle=None if rules is None else lifecycle.from_arguments(rules, f"buckets: {name}"),
            replace_foreign_rules=entry.get("foreign_rules") == "replace",
            encryption=entry.get("encryption"),
            quota=None if entry.get("quota") is None else size(str(entry["quota"])),
            retire_keys=bool(entry.get("retire_keys")),
            key_deletes=entry.get("key_deletes") is not False,
            object_lock=bool(entry.get("object_lock")),
        )
    except ValueError as error:
        raise Refused(
            str(error) if str(error).startswith("buckets") else f"buckets: {name}: {error}"
        ) from None


def size(text: str) -> int:
    """Bytes of `50GiB`, `50GB` or `0`. Raises ValueError with the accepted forms."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(i?)B?", text)
    if not match:
        raise ValueError(f"quota {text!r} is no size; write for example 50GiB, or 0 for none")
    unit = 1024 if match[3] else 1000
    return int(match[1]) * int(unit ** " KMGT".index(match[2] or " "))


def ensure(
    arguments: Mapping[str, Any], check: bool, guard: Callable[[str, list[Change]], None] | None = None
) -> dict[str, Any]:
    """The module's result. `guard` is told the server and its changes before the first of them. Raises Refused or Unreachable."""
    wanted = wanted_from(arguments["buckets"])
    server = Server(arguments["connection"], float(arguments["timeout"]))
    try:
        present = server.read(wanted)
        predicted = False
    except Unreachable:
        if not check:
            raise
        # The server is not there before the first run: everything will be made.
        present, predicted = {}, True
    for one in wanted:
        have = present.get(one.name, Present())
        if one.object_lock and have.exists and not have.object_lock:
            raise Refused(
                f"buckets: {one.name}: object_lock is given to a bucket only when it is made, and {server.url} has it without: "
                "name another bucket and copy the objects, or leave object_lock out"
            )
    changes = plan(wanted, present)
    if guard and changes:
        guard(server.url, changes)
    if not check:
        for change in changes:
            server.apply(change)
        _prove(server, wanted, bool(changes))
    expected = {one.name: after(one, present.get(one.name, Present())) for one in wanted}
    return {
        "changed": bool(changes),
        "actions": [f"{change.bucket.name}: {change.verb.replace('_', ' ')}" for change in changes],
        "predicted": predicted,
        "buckets": [one.name for one in wanted],
        "foreign_rules": {
            one.name: [rule.words() for rule in expected[one.name].rules.foreign]
            for one in wanted
            if expected[one.name].rules.foreign
        },
        "diff": {
            "before": {one.name: view(one, present.get(one.name, Present())) for one in wanted},
            "after": {one.name: view(one, expected[one.name]) for one in wanted},
        },
    }


def told(result: Mapping[str, Any], check: bool) -> list[str]:
    """What was done to each bucket and why, in one line. Pure."""
    verbs: dict[str, list[str]] = {}
    for action in result["actions"]:
        bucket, _, verb = str(action).partition(": ")
        verbs.setdefault(bucket, []).append(verb)
    mode = " (check)" if check else ""
    return [
        f"bucket {bucket}{mode}: {', '.join(done)}"
        + (
            ": the server had none of this name"
            if "create bucket" in done
            else ": it differed from the record"
        )
        for bucket, done in verbs.items()
    ]


def _prove(server: Server, wanted: Sequence[Wanted], changed: bool) -> None:
    """What was written is read back: a server that says yes and keeps something else is a failure."""
    if not changed:
        return
    left = plan(wanted, server.read(wanted))
    if left:
        raise Refused(
            f"{server.url} accepted every change but still differs: "
            + ", ".join(f"{change.bucket.name}: {change.verb.replace('_', ' ')}" for change in left)
        )
