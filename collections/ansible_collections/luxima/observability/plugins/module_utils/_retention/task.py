# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The work of the module `retention`: every server asked, every row compared, every period that becomes shorter found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._bucket import server as storage
from .._servers.client import Refused, Unreachable
from . import durations, explain, measure, readback, rendered, shorten
from .policy import COPY
from .servers import Server

_BAD_ANSWER = (AttributeError, KeyError, TypeError, ValueError)


def compare(arguments: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Rows, table and one sentence for each fault, asked again until there is none or `wait` seconds are over.

    Loki and Tempo take up their runtime files some seconds after they were written.
    """
    deadline = time.monotonic() + (0 if check else float(arguments["wait"]))
    while True:
        result = _ask(arguments, check)
        if not result["faults"] or time.monotonic() >= deadline:
            rows, silent = result.pop("_rows"), result.pop("_silent")
            return {**result, **_explain(arguments, rows, silent)}
        time.sleep(1)


def _ask(arguments: Mapping[str, Any], check: bool) -> dict[str, Any]:
    plan = arguments["plan"]
    rows: list[readback.Row] = []
    faults: list[str] = []
    silent: set[str] = set()
    for store, read in readback.READERS.items():
        for connection in arguments[store]:
            try:
                rows += read(plan, Server(connection, float(arguments["timeout"])))
            except Unreachable as error:
                silent.add(store)
                if check:
                    rows += readback.predicted(plan, store, str(connection["url"]))
                else:
                    faults.append(f"{store}: {error}")
            except Refused as error:
                faults.append(f"{store}: {error}")
            except _BAD_ANSWER as error:
                faults.append(
                    f"{store}: {connection['url']} shows no retention where {store} shows it: {error!r}"
                )
    for connection in arguments["minio"]:
        try:
            more, words = _buckets(plan, connection, float(arguments["timeout"]))
            rows += more
            faults += words
        except storage.Unreachable as error:
            silent.add("minio")
            if check:
                rows += readback.predicted(plan, "minio", str(connection["url"]))
            else:
                faults.append(f"minio: {error}")
    for one in arguments["postgresql"]:
        rows += readback.postgresql(plan, str(one["server"]), one.get("report"), check)
    for one in arguments["backup"]:
        rows += readback.copies(plan, str(one["server"]), one.get("report"))
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
        "_silent": silent,
    }


def _buckets(
    plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float
) -> tuple[list[readback.Row], list[str]]:
    """The lifecycles of the buckets of one server, and what is wrong. Raises Unreachable."""
    if storage.MISSING:
        return [], [f"minio: the Python package minio is missing on the controller: {storage.MISSING}"]
    rows: list[readback.Row] = []
    try:
        server = storage.Server(connection, timeout)
        for bucket in connection["buckets"]:
            if bucket.get("lifecycle") is not None:
                rows += readback.minio(plan, server.url, bucket, server.rules_of(str(bucket["name"])))
    except (storage.Refused, ValueError) as error:
        return [], [f"minio: {error}"]
    return rows, []


def _explain(arguments: Mapping[str, Any], rows: list[readback.Row], silent: set[str]) -> dict[str, Any]:
    """The table of the policy; what a server does not answer here is said in the table and is no fault.

    `silent`: stores that did not answer before; who did not answer once is not waited for again in every row.
    """
    stores = Stores(arguments)

    def oldest(store: str, one: Mapping[str, Any]) -> str:
        if not arguments["oldest"] or not stores.has(store, str(one["match"])):
            return ""
        asked = "minio" if store == "tempo" else store
        if asked in silent:
            return "no answer"
        try:
            return stores.oldest(store, one)
        except (Unreachable, storage.Unreachable):
            silent.add(asked)
            return "no answer"
        except (Refused, storage.Refused, *_BAD_ANSWER):
            return "no answer"

    found = explain.explanation(arguments["plan"], rows, oldest)
    return {"explanation": found, "explanation_table": explain.table(found)}


class Stores:
    """The first server of each store, asked for its data."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments
        self._timeout = float(arguments["timeout"])
        self._blocks: list[measure.Block] | None = None

    def has(self, store: str, match: str) -> bool:
        if match.startswith(COPY):
            return bool(self._arguments["backup"])
        return bool(self._arguments["minio" if store == "tempo" else store] if store in _ASKED else [])

    def _server(self, store: str) -> Server:
        return Server(self._arguments[store][0], self._timeout)

    def storage(self) -> storage.Server:
        """Object storage, seen by its administrator. Raises Refused without its SDK."""
        if storage.MISSING:
            raise storage.Refused(f"the Python package minio is missing on the controller: {storage.MISSING}")
        if not self._arguments["minio"]:
            raise storage.Refused("no object storage of the platform is known here")
        return storage.Server(self._arguments["minio"][0], self._timeout)

    def bucket(self, consumer: str) -> str:
        """Name of the bucket of a consumer; empty without one."""
        buckets = [one for given in self._arguments["minio"] for one in given["buckets"]]
        return next((str(one["name"]) for one in buckets if one.get("consumer") == consumer), "")

    def blocks(self) -> list[measure.Block]:
        """Blocks of traces, read once."""
        if self._blocks is None:
            self._blocks = measure.blocks(self.storage(), self.bucket("tempo"))
        return self._blocks

    def oldest(self, store: str, one: Mapping[str, Any]) -> str:
        """When the oldest data of a row of the plan is from; empty when nobody can be asked."""
        match = str(one["match"])
        if store == "prometheus":
            return measure.date(measure.oldest_metrics(self._server(store)))
        if store == "loki":
            period = durations.parse(one["enforced"])
            return measure.date(measure.oldest_line(self._server(store), match, period)) if match else ""
        if store == "tempo":
            tenant = match.removeprefix("traces of ") if match else ""
            starts = [block.start for block in self.blocks() if not tenant or block.tenant == tenant]
            return measure.date(min(starts, default=None))
        if store == "postgresql":
            return _oldest_row(self._arguments[store][0].get("report") or {}, match)
        if match.startswith(COPY):
            return _oldest_copy(self._arguments["backup"], match.removeprefix(COPY))
        prefix = match.partition("archive: ")[2]
        if prefix or one["class"] == "archive":
            folder = f"{prefix}/" if prefix else ""
            return measure.date(measure.oldest_object(self.storage(), self.bucket("archive"), folder))
        return ""

    def goes(self, one: shorten.Shortening) -> dict[str, int]:
        """How much a shortening deletes, as its store can say. Raises what asking raises."""
        server = self._of(one)
        if one.store == "prometheus" and server:
            return (
                measure.metrics_above(server, one.new)
                if one.subject == "size"
                else measure.metrics_beyond(server, one.new)
            )
        if one.store == "loki" and server:
            # Without any retention before, as far back as anybody would look.
            old = one.old or max(10 * one.new, 400 * durations.DAY)
            return measure.lines_beyond(server, one.subject, old, one.new, one.tenant) if one.subject else {}
        if one.store == "tempo":
            own = {one.subject} if one.subject else None
            return measure.traces_beyond(self.blocks(), one.new, own)
        if one.data.startswith(COPY):
            return _copies_beyond(self._arguments["backup"], one)
        if one.versions:
            return measure.versions_beyond(self.storage(), one.bucket, one.subject, one.new)
        if one.store == "minio":
            return measure.objects_beyond(self.storage(), one.bucket, one.subject, one.new)
        return _rows_beyond(self._arguments["postgresql"], one)

    def _of(self, one: shorten.Shortening) -> Server | None:
        given = self._arguments[one.store] if one.store in ("prometheus", "loki") else []
        return next(
            (Server(own, self._timeout) for own in given if str(own["url"]).rstrip("/") == one.server), None
        )


_ASKED = ("prometheus", "loki", "tempo", "minio", "postgresql")


def _oldest_row(report: Mapping[str, Any], match: str) -> str:
    entries = [one for one in report.get("tables", []) if f"table {one['pattern']}" == match]
    ages = [float(one["oldest"]) for one in entries if one.get("oldest") is not None]
    return measure.date(min(ages, default=None)) if report else ""


def _oldest_copy(given: list[Mapping[str, Any]], job: str) -> str:
    """Of the hosts that have the job; empty when none could say."""
    states = [own["report"][job] for own in given if job in (own.get("report") or {})]
    ages = [float(one["oldest"]) for one in states if one.get("oldest") is not None]
    return measure.date(min(ages, default=None)) if states else ""


def _copies_beyond(given: list[Mapping[str, Any]], one: shorten.Shortening) -> dict[str, int]:
    """At most: how many there are is known, not how old each is. The newest whole one is never deleted."""
    report = next((own.get("report") or {} for own in given if own["server"] == one.server), {})
    state = report.get(one.subject, {})
    if not isinstance(state.get("copies"), int):
        return {}
    older = float(state.get("oldest") or 0) < time.time() - one.new
    return {"copies at most": int(state.get("copies") or 0) - 1 if older else 0}


def _rows_beyond(given: list[Mapping[str, Any]], one: shorten.Shortening) -> dict[str, int]:
    report = next((own.get("report") or {} for own in given if own["server"] == one.server), {})
    rows = [entry["beyond"] for entry in report.get("tables", []) if entry["pattern"] == one.subject]
    # What was kept for ever is counted only for a period that was asked about.
    return {} if None in rows else {"rows": sum(int(count) for count in rows)}


def protect(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What this plan would delete earlier than what is in force. `unknown` has what could not be asked."""
    stores = Stores(arguments)
    found: list[shorten.Shortening] = []
    unknown: list[str] = []
    refused: list[str] = []
    for store, ask in _SHORTENINGS.items():
        for connection in arguments[store]:
            try:
                found += ask(arguments["plan"], connection, float(arguments["timeout"]))
            except (Unreachable, storage.Unreachable) as error:
                (refused if holds_data(stores, store) else unknown).append(f"{store}: {error}")
            except (Refused, storage.Refused) as error:
                refused.append(f"{store}: {error}")
            except _BAD_ANSWER as error:
                refused.append(
                    f"{store}: {connection['url']} shows no retention where {store} shows it: {error!r}"
                )
    for one in arguments["postgresql"]:
        found += shorten.tables(arguments["plan"], str(one["server"]), one.get("report"))
    for one in arguments["backup"]:
        found += shorten.copies(arguments["plan"], str(one["server"]), one.get("report"))
    rows = [row for one in found for row in priced(stores, one)]
    return {
        "shortened": rows,
        "shortened_table": shorten.table(rows),
        "unknown": unknown,
        "unanswered": refused,
    }


def priced(stores: Stores, one: shorten.Shortening) -> Iterator[dict[str, str]]:
    """The row of a shortening with what it takes; none for one that takes nothing because it is a first run's."""
    try:
        amount = stores.goes(one)
    except (Unreachable, Refused, storage.Unreachable, storage.Refused, *_BAD_ANSWER) as error:
        yield shorten.described(one, f"unknown ({error})")
        return
    # A rule where none was, on a bucket without old objects, takes nothing: so does a first run.
    first = one.old is None and one.store in ("minio", "postgresql")
    if not first or any(amount.values()):
        yield shorten.described(one, measure.words(amount) if amount else "not counted")


def holds_data(stores: Stores, store: str) -> bool:
    """Whether the bucket of a store that does not answer has objects: then its periods are unknown, not absent."""
    bucket = stores.bucket(store)
    try:
        # The name that a server gives itself at its first start is no data.
        names = (one.name for one in stores.storage().listed(bucket)) if bucket else iter(())
        return any(not name.endswith("_cluster_seed.json") for name in names)
    except (storage.Unreachable, storage.Refused):
        return False


def in_force(
    store: str, plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float
) -> list[shorten.Shortening] | None:
    """What a plan's part for one store shortens of what its server enforces; None when that cannot be asked."""
    try:
        return _SHORTENINGS[store](plan, connection, timeout)
    except (Unreachable, Refused, *_BAD_ANSWER):
        return None


def _prometheus(plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float) -> list[Any]:
    server = Server(connection, timeout)
    shown = server.get_json("/api/v1/status/runtimeinfo")["data"]["storageRetention"]
    return shorten.prometheus(plan, server.url, str(shown))


def _loki(plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float) -> list[Any]:
    server = Server(connection, timeout)
    config = server.get_yaml("/config")
    enabled = bool((config.get("compactor") or {}).get("retention_enabled"))
    limits = {tenant: readback.loki_limits(server, tenant) for tenant in readback.loki_tenants(plan)}
    return shorten.loki(plan, server.url, config["limits_config"], limits, enabled)


def _tempo(plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float) -> list[Any]:
    server = Server(connection, timeout)
    shown = rendered.tempo_base(server.get_yaml("/status/config"))
    page = server.get_yaml("/status/runtime_config") or {}
    return shorten.tempo(plan, server.url, str(shown), page.get("overrides") or {})


def _minio(plan: Mapping[str, Any], connection: Mapping[str, Any], timeout: float) -> list[Any]:
    if storage.MISSING:
        raise storage.Refused(f"the Python package minio is missing on the controller: {storage.MISSING}")
    server = storage.Server(connection, timeout)
    return [
        one
        for bucket in connection["buckets"]
        for one in shorten.lifecycle(server.url, bucket, server.rules_of(str(bucket["name"])))
    ]


_SHORTENINGS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], float], list[Any]]] = {
    "prometheus": _prometheus,
    "loki": _loki,
    "tempo": _tempo,
    "minio": _minio,
}
