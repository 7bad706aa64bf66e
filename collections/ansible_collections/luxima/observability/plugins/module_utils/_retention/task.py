# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The work of the module `retention`: every server asked, every row compared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .._bucket import server as storage
from . import durations, explain, readback
from .servers import Refused, Server, Unreachable


def compare(arguments: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Rows, table and one sentence for each fault, asked again until there is none or `wait` seconds are over.

    Loki and Tempo take up their runtime files some seconds after they were written.
    """
    deadline = time.monotonic() + (0 if check else float(arguments["wait"]))
    while True:
        result = _ask(arguments, check)
        if not result["faults"] or time.monotonic() >= deadline:
            rows = result.pop("_rows")
            return {**result, **_explain(arguments, rows)}
        time.sleep(1)


def _ask(arguments: Mapping[str, Any], check: bool) -> dict[str, Any]:
    plan = arguments["plan"]
    rows: list[readback.Row] = []
    faults: list[str] = []
    for store, read in readback.READERS.items():
        for connection in arguments[store]:
            try:
                rows += read(plan, Server(connection, float(arguments["timeout"])))
            except Unreachable as error:
                if check:
                    rows += readback.predicted(plan, store, str(connection["url"]))
                else:
                    faults.append(f"{store}: {error}")
            except Refused as error:
                faults.append(f"{store}: {error}")
            except (KeyError, TypeError, ValueError) as error:
                faults.append(
                    f"{store}: {connection['url']} shows no retention where {store} shows it: {error!r}"
                )
    for connection in arguments["minio"]:
        more, words = _buckets(plan, connection, float(arguments["timeout"]), check)
        rows += more
        faults += words
    faults += [
        f"{row.store} {row.server}: {row.data}: in force {row.in_force}, wanted {row.wanted} ({row.setting}); run site.yml again"
        for row in rows
        # A difference that this very run would repair is no fault of a rehearsal.
        if not row.ok and not check
    ]
    return {
        "rows": [row.as_dict() for row in rows],
        "table": readback.table(rows),
        "faults": faults,
        "_rows": rows,
    }


def _buckets(
    plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float, check: bool
) -> tuple[list[readback.Row], list[str]]:
    """The lifecycles of the buckets of one server."""
    if storage.MISSING:
        return [], [f"minio: the Python package minio is missing on the controller: {storage.MISSING}"]
    rows: list[readback.Row] = []
    try:
        server = storage.Server(connection, timeout)
        for bucket in connection["buckets"]:
            if bucket.get("lifecycle") is not None:
                rows += readback.minio(plan, server.url, bucket, server.rules_of(str(bucket["name"])))
    except storage.Unreachable as error:
        return (
            (readback.predicted(plan, "minio", str(connection["url"])), [])
            if check
            else ([], [f"minio: {error}"])
        )
    except (storage.Refused, ValueError) as error:
        return [], [f"minio: {error}"]
    return rows, []


def _explain(arguments: Mapping[str, Any], rows: list[readback.Row]) -> dict[str, Any]:
    """The table of the policy; what a server does not answer here is said in the table and is no fault."""

    def oldest(store: str, one: Mapping[str, Any]) -> str:
        connections = arguments[store] if store in ("prometheus", "loki") else []
        if not connections or not arguments["oldest"]:
            return ""
        server = Server(connections[0], float(arguments["timeout"]))
        try:
            if store == "prometheus":
                return explain.oldest_metrics(server)
            return (
                explain.oldest_line(server, one["match"], durations.parse(one["enforced"]))
                if one["match"]
                else ""
            )
        except (Unreachable, Refused, KeyError, TypeError, ValueError):
            return "no answer"

    found = explain.explanation(arguments["plan"], rows, oldest)
    return {"explanation": found, "explanation_table": explain.table(found)}
