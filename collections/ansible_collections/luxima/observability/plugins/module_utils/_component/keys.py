# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Keys without which stored data cannot be read: a release that has another one is not activated. Standard library only.

`/opt/luxima/.data-keys/<component>.json` says which key the data on this host was written with: a digest that is keyed with a salt of its
own, beside it. It outlives releases, roll-backs, a removal that leaves the data, and the host's salt.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from . import state

Json = dict[str, Any]

FOLDER = f"{state.ROOT}/.data-keys"
VERSION = 2
LINE = re.compile(r'^([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"$', re.MULTILINE | re.DOTALL)


def environment_values(text: str) -> dict[str, str]:
    """What a file of variables that we wrote says; the reverse of `unit.environment_text`."""
    return {name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in LINE.findall(text)}


def changed(name: str, manifest: Json, release: Path, salt: str) -> str:
    """Why this release would make stored data unreadable; empty when it would not."""
    current = Path(state.ROOT, name, "current")
    known = _known(name)
    before, salt = (known["keys"], known["salt"]) if known else (_installed(manifest, current, salt), salt)
    declared = {**before, **manifest.get("stored_data_keys", {})}
    now = _digests(release, declared, salt)
    for variable, entry in declared.items():
        old = before.get(variable, {}).get("digest", "")
        if old and old != now.get(variable) and _holds_data(name, entry["data"]):
            return (
                f"{entry['variable']}: what is stored in {entry['data']} was written with another one and could not be read any more. "
                "Put the former value back (playbooks/secrets.yml keeps former files beside, as *.old), or copy the data first: "
                "docs/secrets.md, 'A key of stored data'"
            )
    return ""


def remember(name: str, manifest: Json, release: Path) -> None:
    """Notes the keys of a release that was proven; those that it does not have stay as they were."""
    declared = manifest.get("stored_data_keys", {})
    known = _known(name) or {"salt": secrets.token_hex(16), "keys": {}}
    digests = _digests(release, declared, known["salt"])
    found = {variable: {**declared[variable], "digest": digest} for variable, digest in digests.items()}
    kept = {**known["keys"], **found}
    if kept == known["keys"]:
        return
    folder = Path(FOLDER)
    folder.mkdir(mode=0o700, exist_ok=True)
    scratch = folder / f".{name}.new"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps({**known, "keys": kept, "version": VERSION}))
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / f"{name}.json")


def forget(name: str) -> None:
    """The data is gone."""
    Path(FOLDER, f"{name}.json").unlink(missing_ok=True)
    try:
        Path(FOLDER).rmdir()
    except OSError:
        return


def _known(name: str) -> Json:
    """What was remembered, `{salt, keys}`; nothing of an earlier form, which the installed release says as well."""
    kept = state.read_json(f"{FOLDER}/{name}.json") or {}
    return dict(kept) if kept.get("version") == VERSION else {}


def _installed(manifest: Json, current: Path, salt: str) -> Json:
    """The same of a release from before keys were remembered, unless somebody edited its file."""
    installed = state.read_json(str(current / "manifest.json")) or {}
    spec = installed.get("files", {}).get("etc/environment")
    content = state.read_bytes(str(current / "etc" / "environment"))
    if not spec or content is None or state.digest(content, spec["secret"], salt) != spec["sha256"]:
        return {}
    declared = manifest.get("stored_data_keys", {})
    return {
        variable: {**declared[variable], "digest": digest}
        for variable, digest in _digests(current, declared, salt).items()
    }


def _digests(release: Path, declared: Json, salt: str) -> dict[str, str]:
    content = state.read_bytes(str(release / "etc" / "environment")) or b""
    values = environment_values(content.decode("utf-8", "replace"))
    return {name: state.digest(values[name].encode(), True, salt) for name in declared if values.get(name)}


def _holds_data(name: str, folder: str) -> bool:
    ours = ("lost+found", Path(state.mark(folder, name)).name)
    try:
        return any(entry.name not in ours for entry in Path(folder).iterdir())
    except OSError:
        return False
