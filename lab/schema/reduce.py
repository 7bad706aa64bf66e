# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Reduce the published API schema to what a validator needs.

usage: python -m lab.schema.reduce SOURCE.json.gz DESTINATION.json.gz
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

KEPT = {
    "type",
    "format",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "optional",
    "default",
    "default_key",
    "alias",
    "keyAlias",
    "requires",
    "items",
    "properties",
    "additionalProperties",
}


def reduce_property(prop: dict[str, Any]) -> dict[str, Any]:
    """Keep names, types, formats, limits and enumerations; drop the prose."""
    kept = {key: value for key, value in prop.items() if key in KEPT}
    # Some defaults are sentences.
    if isinstance(kept.get("default"), str) and " " in kept["default"]:
        del kept["default"]
    if isinstance(kept.get("format"), dict):
        kept["format"] = {name: reduce_property(sub) for name, sub in kept["format"].items()}
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {name: reduce_property(sub) for name, sub in kept["properties"].items()}
    if isinstance(kept.get("items"), dict):
        kept["items"] = reduce_property(kept["items"])
    return kept


def reduce_answer(prop: dict[str, Any]) -> dict[str, Any]:
    """Names and types of what a method answers."""
    kept: dict[str, Any] = {"type": prop.get("type", "any")}
    if prop.get("optional"):
        kept["optional"] = 1
    if isinstance(prop.get("enum"), list):
        kept["enum"] = prop["enum"]
    if isinstance(prop.get("items"), dict):
        kept["items"] = reduce_answer(prop["items"])
    if isinstance(prop.get("properties"), dict):
        kept["properties"] = {name: reduce_answer(sub) for name, sub in prop["properties"].items()}
    return kept


def reduce_method(method: dict[str, Any]) -> dict[str, Any]:
    parameters = method.get("parameters") or {}
    permissions = {
        key: value for key, value in (method.get("permissions") or {}).items() if key != "description"
    }
    return {
        "name": method.get("name", ""),
        "allowtoken": int(method.get("allowtoken", 0)),
        "permissions": permissions,
        "parameters": {
            "additionalProperties": parameters.get("additionalProperties", 1),
            "properties": {
                name: reduce_property(prop) for name, prop in (parameters.get("properties") or {}).items()
            },
        },
        "returns": reduce_answer(method.get("returns") or {"type": "null"}),
    }


def main() -> int:
    if len(sys.argv) != 3:
        sys.stderr.write((__doc__ or "") + "\n")
        return 2
    source, destination = Path(sys.argv[1]), Path(sys.argv[2])
    document = json.loads(gzip.decompress(source.read_bytes()))
    reduced = {
        "meta": {
            key: document["meta"][key] for key in ("product", "version", "source", "snapshot", "license")
        },
        "paths": {
            path: {verb: reduce_method(method) for verb, method in sorted(methods.items())}
            for path, methods in sorted(document["paths"].items())
        },
    }
    text = json.dumps(reduced, separators=(",", ":"), sort_keys=True).encode()
    destination.write_bytes(gzip.compress(text, 9, mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
