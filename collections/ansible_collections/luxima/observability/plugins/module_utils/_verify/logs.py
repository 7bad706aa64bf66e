# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of Loki: the line written on each host is found."""

from __future__ import annotations

import json
from functools import partial

from .._servers.client import Client
from .model import Check, NotYet, Wanted, Wrong

# Lines are looked for this far back (seconds): clocks of guests may differ, and the line is older than this run of the module.
LOOK_BACK = 900


def checks(wanted: Wanted) -> list[Check]:
    if not wanted.log_lines:
        return []
    return [
        Check(
            "logs",
            client.url,
            frozenset({"loki", "promtail"}),
            partial(lines_found, client, wanted),
            "on the host: journalctl -t platform-verify shows the line; journalctl -u promtail says why it was not sent",
            active=True,
        )
        for client in map(Client, wanted.of("loki"))
    ]


def query_of(wanted: Wanted, line: str) -> str:
    """The LogQL query for what every line of a run shares: the environment and the first word."""
    return f"{{environment={json.dumps(wanted.environment)}}} |= {json.dumps(line.split(' ')[0])}"


def lines_found(client: Client, wanted: Wanted) -> str:
    """The line of each host is there, with the environment and the host as stream labels."""
    unwritten = [host for host, line in wanted.log_lines.items() if not line]
    if unwritten:
        raise Wrong(f"no line was written on {', '.join(unwritten)}")
    start = int((wanted.started - LOOK_BACK) * 1e9)
    found: dict[str, set[str]] = {}
    queries = sorted({query_of(wanted, line) for line in wanted.log_lines.values()})
    for query in queries:
        answer = client.json(
            "/loki/api/v1/query_range",
            {"query": query, "start": start, "limit": 5000, "direction": "backward"},
            timeout=30,
        )
        for stream in answer["data"]["result"]:
            label = str(stream["stream"].get("host", ""))
            for _, text in (value[:2] for value in stream["values"]):
                for host, line in wanted.log_lines.items():
                    if line in text:
                        found.setdefault(host, set()).add(label)
    missing = [host for host in wanted.log_lines if host not in found]
    if missing:
        raise NotYet(
            f"{len(found)} of {len(wanted.log_lines)} lines found by {' and '.join(queries)}; missing: "
            + ", ".join(f"{host} ({wanted.log_lines[host]})" for host in missing)
        )
    faults = [f"{host} has host={'/'.join(sorted(had))!r}" for host, had in found.items() if host not in had]
    if faults:
        raise NotYet("stream label host is not the inventory's name: " + "; ".join(faults))
    return f"lines of {len(found)} hosts found"
