# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Which periods in force are longer than those of the plan: what the next run would delete earlier. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._bucket.lifecycle import Rule, Rules, from_arguments
from . import durations, selectors
from .policy import COPY
from .readback import block_retention, people


@dataclass(frozen=True)
class Shortening:
    """One period that becomes shorter. `old` and `new` in seconds (bytes for a size); None: there is no bound."""

    store: str
    server: str
    data: str
    old: int | None
    new: int
    # What to ask of the store: a selector, a tenant, a prefix, or `size`.
    subject: str = ""
    tenant: str = ""
    bucket: str = ""
    # Only versions that were replaced.
    versions: bool = False

    def words(self) -> str:
        if self.subject == "size" and self.store == "prometheus":
            before = "no bound" if self.old is None else f"{self.old} bytes"
            return f"{self.data}: {before} -> {self.new} bytes"
        before = "no bound" if self.old is None else durations.days(self.old)
        return f"{self.data}: {before} -> {durations.days(self.new)}"


def prometheus(plan: Mapping[str, Any], url: str, in_force: str) -> list[Shortening]:
    """Time and size; `in_force` is the server's own `30d or 20GiB`."""
    parts = in_force.split(" or ")
    time = next((part for part in parts if not part.endswith("B")), "")
    size = next((part for part in parts if part.endswith("B")), "")
    want = plan["prometheus"]
    found = []
    new = durations.parse(want["time"]) if want.get("time") else None
    old = durations.parse(time) if time else None
    if new is not None and (old is None or new < old):
        found.append(Shortening("prometheus", url, "metrics", old, new))
    if want.get("size") and (not size or durations.size_bytes(want["size"]) < durations.size_bytes(size)):
        before = durations.size_bytes(size) if size else None
        found.append(
            Shortening(
                "prometheus", url, "size of metrics", before, durations.size_bytes(want["size"]), "size"
            )
        )
    return found


def loki(
    plan: Mapping[str, Any],
    url: str,
    limits: Mapping[str, Any],
    tenants: Mapping[str, Mapping[str, Any]],
    enabled: bool = True,
) -> list[Shortening]:
    """Streams and the rest, for everybody and for each tenant; `limits` and `tenants` as the server shows them."""
    want = plan["loki"]
    if not want.get("enabled", True):
        return []
    scopes = [("", limits, want)]
    scopes += [(name, have, {**want, **want["overrides"].get(name, {})}) for name, have in tenants.items()]
    found: dict[tuple[str, int | None, int], Shortening] = {}
    for tenant, have, wanted in scopes:
        for one in _streams(url, have, wanted, tenant, enabled):
            # A single tenant's limits repeat those of all.
            found.setdefault((one.data, one.old, one.new), one)
    return list(found.values())


def _streams(
    url: str, have: Mapping[str, Any], wanted: Mapping[str, Any], tenant: str, enabled: bool
) -> list[Shortening]:
    before, after = _periods(have), _periods(wanted)
    rest = _kept(have.get("retention_period")), _kept(wanted.get("retention_period"))
    found = []
    for key in {**after, **before}:
        matchers = list(key)
        # A stream that has no rule of its own has that of a rule it may fall under; in doubt data is precious.
        old = before.get(key) or max(_overlapping(before, matchers), default=rest[0])
        new = after.get(key) or min(_overlapping(after, matchers), default=rest[1])
        old = max([old, *_outranked(have, wanted, key, new)])
        if new < durations.FOREVER and (not enabled or new < old):
            text = selectors.render(matchers)
            bound = old if enabled and old < durations.FOREVER else None
            found.append(Shortening("loki", url, text, bound, new, text, tenant))
    if rest[1] < rest[0]:
        bound = rest[0] if rest[0] < durations.FOREVER else None
        found.append(Shortening("loki", url, "(no class)", bound, rest[1], "", tenant))
    return found


def readable(limits: Mapping[str, Any]) -> None:
    """Raises ValueError where a period or a selector of limits, or of a tenant's, is none."""
    for one in [limits, *(limits.get("overrides") or {}).values()]:
        _kept(one.get("retention_period"))
        _periods(one)


def _kept(period: Any) -> int:
    """Seconds; Loki's zero is for ever."""
    return durations.parse(str(period or "0")) or durations.FOREVER


def _key(selector: Any) -> tuple[selectors.Matcher, ...]:
    return tuple(sorted(selectors.parse(str(selector)), key=str))


def _periods(limits: Mapping[str, Any]) -> dict[tuple[selectors.Matcher, ...], int]:
    return {_key(one["selector"]): _kept(one["period"]) for one in limits.get("retention_stream") or []}


def _outranked(
    have: Mapping[str, Any], wanted: Mapping[str, Any], key: tuple[selectors.Matcher, ...], new: int
) -> list[int]:
    """Periods of rules that had the last word over this one, and now have it no more."""
    before, after = _ranks(have), _ranks(wanted)
    if key not in before or key not in after:
        return []
    return [
        period
        for other, period in _periods(have).items()
        if period > new
        and before[other] > before[key]
        and other in after
        and after[other] <= after[key]
        and selectors.may_overlap(list(other), list(key))
    ]


def _ranks(limits: Mapping[str, Any]) -> dict[tuple[selectors.Matcher, ...], int]:
    return {
        _key(one["selector"]): int(one.get("priority") or 0) for one in limits.get("retention_stream") or []
    }


def _overlapping(
    periods: Mapping[tuple[selectors.Matcher, ...], int], matchers: list[selectors.Matcher]
) -> list[int]:
    return [period for key, period in periods.items() if selectors.may_overlap(list(key), matchers)]


def tempo(
    plan: Mapping[str, Any], url: str, in_force: str, tenants: Mapping[str, Any], names: Sequence[str] = ()
) -> list[Shortening]:
    """Traces of all and of each tenant; `names` are tenants that have data."""
    want = plan["tempo"]
    old, new = durations.parse(in_force), durations.parse(want["block_retention"])
    found = [Shortening("tempo", url, "traces", old, new)] if new < old else []
    for tenant in sorted({*want["overrides"], *tenants}):
        # A tenant without an entry of its own has that of all others.
        before = block_retention(tenants.get(tenant, tenants.get("*")))
        after = block_retention(want["overrides"].get(tenant, want["overrides"].get("*")))
        pair = durations.parse(before) if before else old, durations.parse(after) if after else new
        if pair[1] < pair[0]:
            found.append(Shortening("tempo", url, f"traces of {tenant}", *pair, tenant))
    return found


def lifecycle(url: str, bucket: Mapping[str, Any], rules: Rules | None) -> list[Shortening]:
    """Rules of ours that come or become shorter; a rule that comes may turn out to delete nothing."""
    name, consumer = str(bucket["name"]), str(bucket.get("consumer") or bucket["name"])
    have: dict[str, Rule] = {rule.prefix: rule for rule in (rules.ours if rules else ()) if rule.enabled}
    found = []
    for rule in from_arguments(bucket.get("lifecycle") or [], name) if rules is not None else ():
        before = have.get(rule.prefix)
        kept = before.noncurrent_days if before else None
        if rule.noncurrent_days and (kept is None or rule.noncurrent_days < kept):
            what = f"{consumer}: {rule.id}, replaced versions"
            ends = kept * durations.DAY if kept else None, rule.noncurrent_days * durations.DAY
            found.append(Shortening("minio", url, what, *ends, rule.prefix, bucket=name, versions=True))
        if rule.days and (before is None or before.days is None or rule.days < before.days):
            old = before.days * durations.DAY if before and before.days else None
            new = rule.days * durations.DAY
            found.append(
                Shortening("minio", url, f"{consumer}: {rule.id}", old, new, rule.prefix, bucket=name)
            )
    return found


def blocks(directory: str, metas: Sequence[Mapping[str, Any]], time: str, server: str) -> list[Shortening]:
    """What a Prometheus with this period deletes of the blocks that lie there, by what they say of themselves (milliseconds)."""
    ends = [int(one["maxTime"]) // 1000 for one in metas]
    new = durations.parse(time) if time else None
    # As Prometheus counts: from the end of the newest one.
    old = max(ends) - min(int(one["minTime"]) // 1000 for one in metas) if metas else 0
    if new is None or not metas or max(ends) - min(ends) < new:
        return []
    return [Shortening("prometheus", server, f"metrics in {directory}", old, new)]


def tables(plan: Mapping[str, Any], server: str, report: Mapping[str, Any] | None) -> list[Shortening]:
    """Tables of PostgreSQL; `report` is what the job on the server says, None before there is one."""
    in_force = {
        str(one["pattern"]): durations.period(str(one["period"])) for one in (report or {}).get("tables", [])
    }
    wanted = {str(one["table"]): durations.parse(one["period"]) for one in plan["tables"]}
    named = {*wanted, *(str(one["table"]) for one in plan["kept_tables"])}
    for name in in_force:
        every = f"{name.partition('.')[0]}.*"
        if name not in named and every in wanted:
            # No class names it any more: it falls under that of its schema.
            wanted[name] = wanted[every]
    found = []
    for name, new in wanted.items():
        old = in_force.get(name)
        if old is None or new < old:
            found.append(Shortening("postgresql", server, f"table {name}", old, new, name))
    return found


def copies(plan: Mapping[str, Any], server: str, report: Mapping[str, Any] | None) -> list[Shortening]:
    """Copies of the role `backup`; `report` is what its jobs on the server say, None before there are any."""
    found = []
    for job, own in sorted((report or {}).items()):
        old, new = int(own["keep_days"]) * durations.DAY, durations.parse(plan["copies"].get(job, "0"))
        if new and new < old and own.get("copies"):
            found.append(Shortening("minio", server, f"{COPY}{job}", old, new, job))
    return found


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """For people: what becomes shorter and how much goes."""
    return "\n".join(f"- {row['store']} {row['server']}: {row['words']}; goes: {row['goes']}" for row in rows)


def way_out(environment: str) -> str:
    """How a run says that it is meant."""
    return f"To delete it all the same, add: -e platform_retention_shorten_confirmed={environment}"


def described(one: Shortening, goes: str) -> dict[str, str]:
    """One row of the module's result."""
    return {
        "store": one.store,
        "server": one.server,
        "data": one.data,
        "in_force": "no bound" if one.old is None else people_of(one, one.old),
        "wanted": people_of(one, one.new),
        "words": one.words(),
        "goes": goes,
    }


def people_of(one: Shortening, value: int) -> str:
    return (
        f"{value} bytes"
        if one.subject == "size" and one.store == "prometheus"
        else people(durations.days(value))
    )
