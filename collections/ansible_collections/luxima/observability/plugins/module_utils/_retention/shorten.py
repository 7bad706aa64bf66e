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
    new, old = durations.parse(want["time"]), durations.parse(time) if time else None
    if old is None or new < old:
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
    rest = durations.parse(str(have["retention_period"])), durations.parse(str(wanted["retention_period"]))
    found = []
    for key in {**after, **before}:
        matchers = list(key)
        # A stream that has no rule of its own has that of a rule it may fall under; in doubt data is precious.
        old = before.get(key) or max(_overlapping(before, matchers), default=rest[0])
        new = after.get(key) or min(_overlapping(after, matchers), default=rest[1])
        if not enabled or new < old:
            text = selectors.render(matchers)
            found.append(Shortening("loki", url, text, old if enabled else None, new, text, tenant))
    if rest[1] < rest[0]:
        found.append(Shortening("loki", url, "(no class)", rest[0], rest[1], "", tenant))
    return found


def _periods(limits: Mapping[str, Any]) -> dict[tuple[selectors.Matcher, ...], int]:
    return {
        tuple(sorted(selectors.parse(str(one["selector"])), key=str)): durations.parse(str(one["period"]))
        for one in limits.get("retention_stream") or []
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
        before = block_retention(tenants.get(tenant))
        after = block_retention(want["overrides"].get(tenant))
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
        if rule.days and (before is None or before.days is None or rule.days < before.days):
            old = before.days * durations.DAY if before and before.days else None
            new = rule.days * durations.DAY
            found.append(
                Shortening("minio", url, f"{consumer}: {rule.id}", old, new, rule.prefix, bucket=name)
            )
    return found


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
