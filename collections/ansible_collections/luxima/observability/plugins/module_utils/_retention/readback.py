# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The plan beside what the servers say they enforce. Pure, but for the reader passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import yaml

from .._bucket.lifecycle import Foreign, Rule, Rules, from_arguments
from . import durations, selectors
from .policy import COPY


class Reader(Protocol):
    """What is asked of a server."""

    url: str

    def get_json(self, path: str) -> Any: ...

    def get_yaml(self, path: str, tenant: str = "") -> Any: ...


def document(text: str) -> Any:
    """The YAML of a page; Tempo writes the page's name before it. Raises ValueError for what is none."""
    if text.startswith("GET "):
        text = text.partition("\n")[2].removeprefix("---\n")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Row:
    """One period of one server."""

    data: str
    store: str
    server: str
    wanted: str
    in_force: str
    ok: bool
    setting: str

    def as_dict(self) -> dict[str, Any]:
        return {"class": self.data, **{key: value for key, value in asdict(self).items() if key != "data"}}


def prometheus(plan: Mapping[str, Any], server: Reader) -> list[Row]:
    """Time and size bound of the blocks; `storageRetention` is `30d`, `20GiB` or `30d or 20GiB`."""
    want = plan["prometheus"]
    text = str(server.get_json("/api/v1/status/runtimeinfo")["data"]["storageRetention"])
    parts = text.split(" or ")
    size = next((part for part in parts if part.endswith("B")), "")
    time = next((part for part in parts if not part.endswith("B")), "")
    rows = [_period("metrics", "prometheus", server.url, want["time"], time, "storage.tsdb.retention.time")]
    if want.get("size") or size:
        wanted = str(want.get("size") or "")
        same = durations.size_bytes(size) == durations.size_bytes(wanted)
        rows.append(
            Row(
                "metrics",
                "prometheus",
                server.url,
                wanted or "no bound",
                size or "no bound",
                same,
                "storage.tsdb.retention.size",
            )
        )
    return rows


def loki(plan: Mapping[str, Any], server: Reader) -> list[Row]:
    """Global period, streams, tenants of the runtime file, and whether anything deletes at all."""
    want = plan["loki"]
    config = server.get_yaml("/config")
    limits, compactor = config["limits_config"], config.get("compactor") or {}
    enabled = bool(compactor.get("retention_enabled"))
    rows = [
        Row(
            "(deletes)",
            "loki",
            server.url,
            "enabled",
            "enabled" if enabled else "disabled",
            enabled,
            "compactor.retention_enabled",
        ),
        _period(
            "(deletes after)",
            "loki",
            server.url,
            want["deletion_delay"],
            compactor.get("retention_delete_delay"),
            "compactor.retention_delete_delay",
        ),
        _period(
            "(no class)",
            "loki",
            server.url,
            want["retention_period"],
            limits.get("retention_period"),
            "limits_config.retention_period",
        ),
    ]
    rows += _streams(
        server.url,
        want["retention_stream"],
        limits.get("retention_stream"),
        "limits_config.retention_stream",
    )
    for tenant in loki_tenants(plan):
        have = loki_limits(server, tenant)
        setting = f"runtime overrides, tenant {tenant}"
        planned = want["overrides"].get(tenant, {})
        # Of a tenant without periods of its own only what somebody changed is told; the rest stands above.
        own = planned or want
        found = []
        if "retention_period" in own:
            shown = have.get("retention_period")
            found.append(_period("(no class)", "loki", server.url, own["retention_period"], shown, setting))
        found += _streams(server.url, own.get("retention_stream", []), have.get("retention_stream"), setting)
        rows += [row for row in found if planned or not row.ok]
    return rows


def loki_tenants(plan: Mapping[str, Any]) -> list[str]:
    """Tenants whose limits may differ from everybody's. Loki has no page that lists those of its runtime file."""
    return sorted({*plan["loki"]["overrides"], *plan["loki"]["tenants"]})


def loki_limits(server: Reader, tenant: str) -> dict[str, Any]:
    """The limits in force for a tenant."""
    return dict(server.get_yaml("/config/tenant/v1/limits", tenant))


def tempo(plan: Mapping[str, Any], server: Reader) -> list[Row]:
    """The period of all blocks, and those of tenants in the runtime file."""
    want = plan["tempo"]
    shown = server.get_yaml("/status/config")["compactor"]["compaction"].get("block_retention")
    rows = [
        _period(
            "traces",
            "tempo",
            server.url,
            want["block_retention"],
            shown,
            "compactor.compaction.block_retention",
        )
    ]
    page = server.get_yaml("/status/runtime_config") or {}
    have = {tenant: block_retention(own) for tenant, own in (page.get("overrides") or {}).items()}
    for tenant in sorted({*want["overrides"], *(tenant for tenant, period in have.items() if period)}):
        wanted = block_retention(want["overrides"].get(tenant))
        rows.append(
            _period(
                f"traces of {tenant}",
                "tempo",
                server.url,
                wanted,
                have.get(tenant, ""),
                f"runtime overrides, tenant {tenant}",
            )
        )
    return rows


def postgresql(
    plan: Mapping[str, Any], server: str, report: Mapping[str, Any] | None, check: bool
) -> list[Row]:
    """The periods that the job on the server has, and whether its timer runs; `report` is what it says of itself."""
    if not plan["tables"]:
        return []
    if report is None and check:
        return predicted(plan, "postgresql", server)
    have = {str(one["pattern"]): str(one["period"]) for one in (report or {}).get("tables", [])}
    wanted = {str(one["table"]): str(one["period"]) for one in [*plan["tables"], *plan["kept_tables"]]}
    timer = str((report or {}).get("timer") or "none")
    rows = [Row("(deletes)", "postgresql", server, "active", timer, timer == "active", "timer")]
    rows += [
        _period(
            f"table {name}",
            "postgresql",
            server,
            wanted.get(name, ""),
            have.get(name, ""),
            f"timer, table {name}",
        )
        for name in sorted({*wanted, *have})
    ]
    return rows


def copies(plan: Mapping[str, Any], server: str, report: Mapping[str, Any] | None) -> list[Row]:
    """How long the jobs of the role `backup` on a host keep their copies; `report` is what they say of themselves."""
    return [
        _period(
            f"{COPY}{job}",
            "minio",
            server,
            plan["copies"].get(job, ""),
            f"{int(own['keep_days'])}d",
            f"timer, backup of {job}",
        )
        for job, own in sorted((report or {}).items())
    ]


def block_retention(own: Any) -> str:
    """The period in a tenant's overrides; zero is Tempo's word for none of its own."""
    text = str(((own or {}).get("compaction") or {}).get("block_retention") or "")
    return "" if text in ("0", "0s") else text


def minio(plan: Mapping[str, Any], url: str, bucket: Mapping[str, Any], rules: Rules | None) -> list[Row]:
    """Rules of ours that are not as wanted, and rules of others that would delete what somebody still keeps."""
    name, consumer = str(bucket["name"]), str(bucket.get("consumer") or bucket["name"])
    wanted = {rule.id: rule for rule in from_arguments(bucket.get("lifecycle") or [], name)}
    have = {rule.id: rule for rule in (rules.ours if rules else ())}

    def words(rule: Rule | None) -> str:
        return rule.words().partition(": ")[2] if rule else "none"

    rows = [
        Row(
            f"{consumer}: {key}",
            "minio",
            url,
            words(wanted.get(key)),
            words(have.get(key)) if rules is not None else "no such bucket",
            rules is not None and wanted.get(key) == have.get(key),
            f"lifecycle of bucket {name}",
        )
        for key in sorted({*wanted, *have})
    ]
    for rule in rules.foreign if rules else ():
        least = _least(plan, consumer, rule)
        if rule.enabled and rule.days is not None and rule.days * durations.DAY < least:
            days = -(-least // durations.DAY)
            rows.append(
                Row(
                    f"{consumer}: (rule of others) {rule.id}",
                    "minio",
                    url,
                    f"{days}d or more",
                    f"{rule.days}d",
                    False,
                    f"lifecycle of bucket {name}",
                )
            )
    return rows


def _least(plan: Mapping[str, Any], consumer: str, rule: Foreign) -> int:
    """The shortest period, in seconds, that a rule of others may have without deleting what the policy keeps."""
    if consumer == "loki":
        every = [plan["loki"], *plan["loki"]["overrides"].values()]
        periods = [one["period"] for limits in every for one in limits.get("retention_stream", [])] + [
            limits["retention_period"] for limits in every if "retention_period" in limits
        ]
    elif consumer == "tempo":
        periods = [plan["tempo"]["block_retention"]] + [
            block_retention(own) for own in plan["tempo"]["overrides"].values() if block_retention(own)
        ]
    else:
        return max(
            (
                one["days"] * durations.DAY
                for one in plan["lifecycles"].get(consumer, [])
                if one["prefix"].startswith(rule.prefix) or rule.prefix.startswith(one["prefix"])
            ),
            default=0,
        )
    return max(durations.parse(str(one)) for one in periods) + durations.parse(plan["loki"]["deletion_delay"])


READERS: dict[str, Callable[[Mapping[str, Any], Reader], list[Row]]] = {
    "prometheus": prometheus,
    "loki": loki,
    "tempo": tempo,
}


def predicted(plan: Mapping[str, Any], store: str, url: str) -> list[Row]:
    """The rows of a server that does not exist yet."""
    return [
        Row(one["match"] or one["class"], store, url, one["enforced"], "not there yet", True, one["setting"])
        for one in plan["explanation"]
        if one["store"] == store
        and one["setting"]
        and not one.get("told")
        and not one["match"].startswith(COPY)
    ]


def table(rows: list[Row]) -> str:
    """The rows for people, in columns."""
    head = ("class", "store", "server", "wanted", "in force", "", "setting")
    cells = [head] + [
        (
            row.data,
            row.store,
            row.server,
            row.wanted,
            row.in_force,
            "ok" if row.ok else "DIFFERS",
            row.setting,
        )
        for row in rows
    ]
    return columns(cells)


def columns(cells: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells under each other."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    )


def _period(data: str, store: str, url: str, wanted: Any, shown: Any, setting: str) -> Row:
    try:
        same = durations.period(str(wanted)) == durations.period(str(shown))
    except ValueError:
        same = False
    return Row(data, store, url, people(wanted), people(shown), same, setting)


def people(text: Any) -> str:
    """`30d` for `720h0m0s`; what is no duration stays as it is."""
    if text in (None, ""):
        return "none"
    try:
        return durations.days(durations.parse(str(text)))
    except ValueError:
        return str(text)


def _streams(url: str, wanted: Any, shown: Any, setting: str) -> list[Row]:
    want = {_key(one["selector"]): one for one in wanted or []}
    have = {_key(one["selector"]): one for one in shown or []}
    rows = []
    for key, one in want.items():
        found = have.get(key, {})
        row = _period(str(one["selector"]), "loki", url, one["period"], found.get("period"), setting)
        same_priority = found.get("priority") == one["priority"]
        rows.append(
            row
            if same_priority or not found
            else Row(
                **{
                    **asdict(row),
                    "ok": False,
                    "in_force": f"{row.in_force} at priority {found.get('priority')}",
                }
            )
        )
    rows += [
        Row(str(one["selector"]), "loki", url, "none", people(one["period"]), False, setting)
        for key, one in have.items()
        if key not in want
    ]
    return rows


def _key(text: str) -> tuple[str, ...]:
    return tuple(sorted(str(matcher) for matcher in selectors.parse(str(text))))
