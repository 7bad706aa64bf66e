# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of Grafana: its data sources are there, healthy by its own account, and answer queries through it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._servers.client import Client, Refused
from . import logs, traces
from .model import Check, NotYet, Wanted

KINDS = ("prometheus", "loki", "tempo", "alertmanager")
# Paths that answer cheaply, asked through Grafana's proxy, for kinds whose health Grafana itself cannot tell.
_ALIVE = {
    "prometheus": "/api/v1/status/buildinfo",
    "loki": "/loki/api/v1/labels",
    "tempo": "/api/echo",
    "alertmanager": "/api/v2/status",
}


def checks(wanted: Wanted) -> list[Check]:
    found = []
    uids = {str(url).rstrip("/"): list(names) for url, names in wanted.dashboards.items()}
    for connection in wanted.of("grafana"):
        client = Client(connection)
        kinds = [kind for kind in KINDS if wanted.of(kind)]
        for kind in kinds:
            urls = [str(other["url"]) for other in wanted.of(kind)]
            found.append(
                Check(
                    "grafana",
                    f"{client.url} {kind}",
                    frozenset({"grafana"}),
                    partial(data_source, client, kind, urls),
                    "see Connections > Data sources in Grafana and /etc/grafana/provisioning/datasources",
                )
            )
        found += _dashboards(client, uids.get(client.url, []))
        for kind in (kind for kind in kinds if kind != "alertmanager"):
            # Whether a log line or a trace can be asked for is known only when this run has sent one.
            if kind == "prometheus" or (
                wanted.active and (kind == "tempo" or any(wanted.log_lines.values()))
            ):
                found.append(
                    Check(
                        "grafana",
                        f"{client.url} {kind} query",
                        frozenset({"grafana"}),
                        partial(query_returns_data, client, kind, wanted),
                        f"run the query in Explore; the data source {kind} of Grafana says what the server answered",
                        active=kind != "prometheus",
                    )
                )
    return found


def _dashboards(client: Client, uids: list[str]) -> list[Check]:
    return [
        Check(
            "grafana",
            f"{client.url} dashboards",
            frozenset({"grafana"}),
            partial(dashboards_are_there, client, uids),
            "journalctl -u grafana on its host says which file provisioning refuses",
        )
        for _once in uids[:1]
    ]


def dashboards_are_there(client: Client, uids: list[str]) -> str:
    """Each has been provisioned, and the list that people see has all of them."""
    listed = {str(board["uid"]) for board in client.json("/api/search", {"type": "dash-db", "limit": "5000"})}
    lacking = [uid for uid in uids if uid not in listed]
    for uid in (uid for uid in uids if uid in listed):
        try:
            if not client.json(f"/api/dashboards/uid/{uid}")["meta"].get("provisioned"):
                lacking.append(f"{uid} (there, but made by hand)")
        except Refused as error:
            if error.status != 404:
                raise
            lacking.append(uid)
    if lacking:
        raise NotYet(f"{len(lacking)} of {len(uids)} dashboards are not there: {', '.join(lacking)}")
    return f"{len(uids)} dashboards"


def _sources(client: Client, kind: str) -> list[Mapping[str, Any]]:
    return [source for source in client.json("/api/datasources") if source["type"] == kind]


def data_source(client: Client, kind: str, urls: list[str]) -> str:
    """Each server of this kind has a data source, and each data source of this kind is healthy."""
    sources = _sources(client, kind)
    if not sources:
        raise NotYet(f"no data source of type {kind}")
    found = {str(source["url"]).rstrip("/") for source in sources}
    # A pair of Alertmanagers or Prometheis may stand behind one address; none of ours at all is a fault.
    if not found & {url.rstrip("/") for url in urls}:
        raise NotYet(
            f"data sources of type {kind} point to {', '.join(sorted(found))}, none to {', '.join(urls)}"
        )
    words = [_health(client, kind, str(source["uid"]), str(source["name"])) for source in sources]
    return "; ".join(words)


def _health(client: Client, kind: str, uid: str, name: str) -> str:
    try:
        answer = client.json(f"/api/datasources/uid/{uid}/health")
    except Refused as error:
        # 400 is Grafana's word for unhealthy. Others (404, 500, 501) say that it has no health check
        # for the kind; then the server itself is asked through Grafana.
        if error.status in (401, 403):
            raise
        if error.status == 400:
            raise NotYet(f"{name} is unhealthy: {error.body[:200]}") from error
        try:
            client.text(f"/api/datasources/proxy/uid/{uid}{_ALIVE[kind]}")
        except Refused as proxied:
            raise NotYet(f"{name} does not answer through Grafana: {proxied}") from proxied
        return f"{name} answers"
    if answer.get("status") != "OK":
        raise NotYet(f"{name} is unhealthy: {answer.get('message')}")
    return f"{name} healthy"


def _query(kind: str, wanted: Wanted) -> list[dict[str, Any]]:
    """Queries of which each must return data."""
    if kind == "prometheus":
        return [{"expr": "up", "instant": True}]
    if kind == "loki":
        line = logs.query_of(wanted, next(filter(None, wanted.log_lines.values())))
        return [{"expr": line, "queryType": "range", "maxLines": 10}]
    if wanted.components and "tempo" not in wanted.components:
        # Nobody else sends one in this run. Sent again, it is the same trace.
        for tempo in wanted.of("tempo"):
            trace = traces.trace_id(wanted.run, str(tempo["url"]), "http")
            traces.send_http(tempo, trace, wanted.environment)
    ids = [traces.trace_id(wanted.run, str(tempo["url"]), "http") for tempo in wanted.of("tempo")]
    return [{"query": one, "queryType": "traceId", "limit": 20} for one in ids]


def query_returns_data(client: Client, kind: str, wanted: Wanted) -> str:
    """A query through each data source of this kind comes back with at least one value."""
    sources = _sources(client, kind)
    if not sources:
        raise NotYet(f"no data source of type {kind}")
    rows = 0
    for source in sources:
        reasons = []
        for query in _query(kind, wanted):
            frames, reason = _ask(client, source, query)
            rows += frames
            reasons += [reason] if reason else []
        # Each Tempo holds its own trace: one of them is enough for each data source.
        if len(reasons) == len(_query(kind, wanted)):
            raise NotYet(f"{source['name']}: {'; '.join(reasons)}")
    return f"{rows} rows"


def _ask(client: Client, source: Mapping[str, Any], query: Mapping[str, Any]) -> tuple[int, str]:
    """(rows, "") or (0, why not)."""
    body = {
        "from": "now-1h",
        "to": "now",
        "queries": [
            {
                "refId": "A",
                "datasource": {"type": source["type"], "uid": source["uid"]},
                "maxDataPoints": 100,
                "intervalMs": 15000,
                **query,
            }
        ],
    }
    shown = str(query.get("expr") or query.get("query"))
    try:
        answer = client.json("/api/ds/query", body=body, timeout=30)["results"]["A"]
    except Refused as error:
        return 0, f"query {shown}: {error}"
    if answer.get("error"):
        return 0, f"query {shown}: {answer['error']}"
    rows = sum(
        max((len(column) for column in frame["data"]["values"]), default=0)
        for frame in answer.get("frames", [])
    )
    return rows, "" if rows else f"query {shown} returned nothing"
