# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of retention: the periods the servers say they enforce are those of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._retention import readback
from .client import Client, Refused
from .model import Check, NotYet, Wanted


class Reader:
    """This package's client in the shape the read-back asks for."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._connection = connection
        self.url = Client(connection).url

    def get_json(self, path: str) -> Any:
        return Client(self._connection).json(path)

    def get_yaml(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        tenant = (headers or {}).get("X-Scope-OrgID")
        client = Client({**self._connection, "tenant": tenant} if tenant else self._connection)
        try:
            return readback.document(client.text(path))
        except ValueError as error:
            raise Refused("GET", self.url + path, 200, str(error)) from error


def checks(wanted: Wanted) -> list[Check]:
    return [
        Check(
            "retention",
            str(connection["url"]),
            frozenset({kind}),
            partial(in_force, wanted.retention, kind, Reader(connection)),
            "run site.yml again; the periods come from `platform_retention` and its overrides",
        )
        for kind in readback.READERS
        if wanted.retention.get(kind)
        for connection in wanted.of(kind)
    ]


def in_force(plan: Mapping[str, Any], kind: str, reader: Reader) -> str:
    """Every period of one server is the configured one."""
    rows = readback.READERS[kind](plan, reader)
    wrong = [
        f"{row.data} {row.in_force} in force, configured {row.wanted} ({row.setting})"
        for row in rows
        if not row.ok
    ]
    # A server that has just been reloaded may show the old period for a moment.
    if wrong:
        raise NotYet("; ".join(wrong))
    return ", ".join(f"{row.data} {row.in_force}" for row in rows if not row.data.startswith("(deletes"))
