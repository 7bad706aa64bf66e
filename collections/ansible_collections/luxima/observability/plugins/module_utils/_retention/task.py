# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The work of the module `retention`: every server asked, every row compared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from . import readback
from .servers import Refused, Server, Unreachable


def compare(arguments: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Rows, table and one sentence for each fault, asked again until there is none or `wait` seconds are over.

    Loki and Tempo take up their runtime files some seconds after they were written.
    """
    deadline = time.monotonic() + (0 if check else float(arguments["wait"]))
    while True:
        result = _ask(arguments, check)
        if not result["faults"] or time.monotonic() >= deadline:
            return result
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
    faults += [
        f"{row.store} {row.server}: {row.data}: in force {row.in_force}, wanted {row.wanted} ({row.setting}); run site.yml again"
        for row in rows
        # A difference that this very run would repair is no fault of a rehearsal.
        if not row.ok and not check
    ]
    return {"rows": [row.as_dict() for row in rows], "table": readback.table(rows), "faults": faults}
