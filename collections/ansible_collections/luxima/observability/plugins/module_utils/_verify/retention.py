# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of retention: the periods the servers say they enforce are those of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._retention import readback
from .._retention.servers import Server
from .model import Check, NotYet, Wanted


def checks(wanted: Wanted) -> list[Check]:
    return [
        Check(
            "retention",
            str(connection["url"]),
            frozenset({kind}),
            partial(in_force, wanted.retention, kind, Server(connection)),
            "run site.yml again; the periods come from `platform_retention` and its overrides",
        )
        for kind in readback.READERS
        if wanted.retention.get(kind)
        for connection in wanted.of(kind)
    ]


def in_force(plan: Mapping[str, Any], kind: str, server: Server) -> str:
    """Every period of one server is the configured one."""
    rows = readback.READERS[kind](plan, server)
    wrong = [
        f"{row.data} {row.in_force} in force, configured {row.wanted} ({row.setting})"
        for row in rows
        if not row.ok
    ]
    # A server that has just been reloaded may show the old period for a moment.
    if wrong:
        raise NotYet("; ".join(wrong))
    return ", ".join(f"{row.data} {row.in_force}" for row in rows if not row.data.startswith("(deletes"))
