# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From a record and its rendered files to the manifest that is sent to a host. Pure, but for reading a source tree."""

from __future__ import annotations

import difflib
import json
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from .record import FileSpec, Record, RecordError, narrow
from .state import digest
from .unit import environment_text, unit_text

Json = dict[str, Any]

REVISION = "{revision}"


@dataclass(frozen=True)
class Content:
    """One file of a release as it shall be."""

    data: bytes
    mode: str
    secret: bool
    on_change: str


def plain(value: Any) -> Any:
    """The value without Ansible's own types, which YAML and JSON writers do not know."""
    if value is None or isinstance(value, bool):
        return None if value is None else bool(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def dumped(path: str, content: Any) -> bytes:
    """Text as it is, anything else as YAML (as JSON in a file called .json)."""
    if isinstance(content, str):
        return str(content).encode()
    if path.endswith(".json"):
        return (json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n").encode()
    text: str = yaml.safe_dump(
        plain(content), sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000
    )
    return text.encode()


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of everything below a folder but what Python left there; a single file under the empty path."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {path.relative_to(folder): path for path in files}
    return {str(name): path.read_bytes() for name, path in found.items() if "__pycache__" not in name.parts}


def contents(record: Record, rendered: Mapping[int, Mapping[str, bytes]]) -> dict[str, Content]:
    """Every file of the release by its path in it; `rendered` holds, per entry of `files`, relative path -> bytes."""
    found: dict[str, Content] = {}
    live = [entry.path + "/" for entry in record.live]
    for index, spec in enumerate(record.files):
        for relative, data in rendered[index].items():
            path = f"{spec.path}/{relative}" if relative else spec.path
            kind = "live" if any(path.startswith(prefix) for prefix in live) else "etc"
            _add(found, f"{kind}/{path}", _content(spec, data))
    if record.secret_environment:
        data = environment_text(record.secret_environment).encode()
        _add(found, "etc/environment", Content(data, "0640", True, "restart"))
    if record.unit:
        _add(
            found,
            f"unit/{record.name}.service",
            Content(unit_text(record).encode(), "0644", False, "restart"),
        )
    _refuse_clashes(found, [entry.path for entry in record.live])
    return found


def closed(files: Mapping[str, Content], secrets: Collection[str]) -> dict[str, Content]:
    """The same, with those that hold one of the secrets readable by the service only, and never shown."""
    forms = {form for secret in secrets for form in _forms(secret)}
    return {
        path: replace(item, secret=True, mode=narrow(item.mode))
        if not item.secret and _holds(path, item.data, secrets, forms)
        else item
        for path, item in files.items()
    }


def _holds(path: str, data: bytes, secrets: Collection[str], forms: Collection[bytes]) -> bool:
    if any(form in data for form in forms):
        return True
    # YAML may fold a text, or write it in one of many ways.
    return path.endswith((".yml", ".yaml")) and any(
        secret in value for value in _scalars(data) for secret in secrets
    )


def _forms(secret: str) -> set[bytes]:
    """How a secret looks in a file: as it is, in JSON, in a URL, in base64."""
    escaped = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    return {
        form.encode() for form in (secret, *escaped, quote(secret, ""), b64encode(secret.encode()).decode())
    }


def _scalars(data: bytes) -> list[str]:
    """Every value of a YAML file; none of one that is something else."""
    try:
        events = list(yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError:
        return []
    return [str(event.value) for event in events if isinstance(event, yaml.ScalarEvent)]


def revised(record: Record, files: Mapping[str, Content]) -> tuple[Record, dict[str, Content]]:
    """The same with the revision in its places: a digest of all that a reload reads, but for secrets, which it would betray."""
    marked = {f"etc/{spec.path}" for spec in record.files if spec.revision}
    if not marked:
        return record, dict(files)
    digests = [
        f"{path} {digest(item.data)}"
        for path, item in sorted(files.items())
        if item.on_change == "reload" and not item.secret
    ]
    revision = f"revision-{digest(chr(10).join(digests).encode())[:12]}"
    put = {
        path: replace(item, data=item.data.replace(REVISION.encode(), revision.encode()))
        if path in marked
        else item
        for path, item in files.items()
    }
    proof = tuple(
        {**entry, "contains": entry["contains"].replace(REVISION, revision)} if "contains" in entry else entry
        for entry in record.proof
    )
    return replace(record, proof=proof), put


def _content(spec: FileSpec, data: bytes) -> Content:
    return Content(data, spec.mode, spec.secret, spec.on_change)


def _add(found: dict[str, Content], path: str, content: Content) -> None:
    if path in found:
        raise RecordError(f"files: {path.partition('/')[2]} is declared twice")
    found[path] = content


def _refuse_clashes(found: Mapping[str, Content], live: list[str]) -> None:
    taken = {path.partition("/")[2] for path in found if not path.startswith("unit/")} | set(live)
    for path in taken:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in taken and parent not in live:
                raise RecordError(f"files: {parent} is a file and, for {path}, also a directory")


def manifest(record: Record, files: Mapping[str, Content], artifacts: Mapping[str, Json], salt: str) -> Json:
    """The manifest; see plan.py for its form."""
    return {
        "name": record.name,
        "user": record.user,
        "groups": list(record.groups),
        "directories": [asdict(entry) for entry in record.directories],
        "live": [asdict(entry) for entry in record.live],
        "files": {
            path: {
                "sha256": digest(item.data, item.secret, salt),
                "mode": item.mode,
                "group": record.user if item.secret else "root",
                "secret": item.secret,
                "on_change": item.on_change,
            }
            for path, item in sorted(files.items())
        },
        "artifacts": dict(artifacts),
        "exec": record.unit.exec_start[0] if record.unit else "",
        "stored_data_keys": {name: dict(entry) for name, entry in record.stored_data_keys.items()},
        "service": {
            "reload": record.reload,
            "ready": record.ready,
            "proof": list(record.proof),
            "needs": list(record.needs),
        },
        **({"data": record.data} if record.data else {}),
    }


def shown_path(name: str, path: str) -> str:
    """How a file of a manifest is called in messages."""
    kind, _, rest = path.partition("/")
    return f"/etc/systemd/system/{rest}" if kind == "unit" else f"/etc/{name}/{rest}"


def differences(
    name: str,
    changes: Mapping[str, str],
    files: Mapping[str, Content],
    before: Mapping[str, Any],
    secret_before: set[str],
) -> list[Json]:
    """Ansible's diff, one entry per changed file; of a secret only that it changed."""
    found: list[Json] = []
    for path, change in changes.items():
        place = shown_path(name, path)
        item = files.get(path)
        if (item and item.secret) or path in secret_before:
            found.append({"prepared": f"{place}: changed (secret)\n"})
            continue
        old = before.get(path) or ""
        new = _text(item.data) if item else ""
        if old == new:
            found.append({"prepared": f"{place}: {change} (mode or owner)\n"})
            continue
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{place} (before)", f"{place} ({change})", lineterm=""
        )
        found.append({"prepared": "\n".join(lines) + "\n"})
    return found


def _text(data: bytes) -> str:
    return "(binary)\n" if b"\0" in data else data.decode("utf-8", "replace")
