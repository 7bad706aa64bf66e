# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From the policy document to a plan per store. Pure: no I/O, no clock.

Shapes of the input (the variables of roles/platform/defaults/main/retention.yml):

- policy: {class: {period, stores, selector?, priority?, store_periods?}}
- overrides: {class: {field: value}}, merged over the policy
- tables (an option): {class: [{table, column}]}, the tables of PostgreSQL
- tenants: {tenant: {class: period}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._content.faults import kind
from . import durations, selectors

STORES = ("prometheus", "loki", "tempo", "minio", "postgresql", "proxmox", "webhook")
# The period of these is decided elsewhere.
UNENFORCED = ("webhook",)
# Where nothing of the platform deletes unless it is told to, so that data can be kept for ever.
ENDLESS = ("postgresql", "webhook")
# Stores that know one period for everything.
SINGLE = {"prometheus": "metrics", "tempo": "traces"}
FIELDS = ("period", "stores", "selector", "priority", "store_periods")
STREAM_LABELS = ("environment", "host", "job", "level", "log_class", "service", "tenant_id")
# Loki's tenant when it asks for no tenant header.
LOKI_SINGLE_TENANT = "fake"
TEMPO_SINGLE_TENANT = "single-tenant"
# Classes in object storage that decide lifecycles: copies of logs, and versions that were replaced.
ARCHIVE = "archive"
VERSIONS = "object_storage"
# How the read-back calls the copies of a job.
COPY = "copies of "
# Whose copies a class is: the jobs of the role `backup`.
COPIES = {"database_backup": ("postgresql", "grafana"), "object_storage": ("minio", "prometheus")}
_SIZE = re.compile(r"\d+(B|KB|MB|GB|TB|PB|EB)")
_TENANT = re.compile(r"[A-Za-z0-9!\-_.*'()]{1,150}")
_TABLE = re.compile(r"[a-z_][a-z0-9_]*\.([a-z_][a-z0-9_]*|\*)")
_COLUMN = re.compile(r"[a-z_][a-z0-9_]*")
# The first Prometheus that reads retention from its configuration.
_PROMETHEUS_FROM = (3, 11)
# What a disk needs beside the blocks: the write-ahead log, compaction, the system.
_DISK_SHARE = 0.8
_TENANT_PRIORITY = 1000


class IncoherentPolicy(ValueError):
    """The policy contradicts itself; `problems` has one sentence per contradiction."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the retention policy is incoherent:\n- " + "\n- ".join(problems))


@dataclass(frozen=True)
class Options:
    """What decides the plan beside policy, overrides and tenants."""

    deletion_delay: str = "2h"
    metrics_size: str = ""
    lifecycles: Mapping[str, Any] = field(default_factory=dict)
    stream_labels: tuple[str, ...] = STREAM_LABELS
    loki_multi_tenant: bool = False
    tempo_multi_tenant: bool = False
    tables: Mapping[str, Any] = field(default_factory=dict)
    # Empty and 0: not known.
    prometheus_version: str = ""
    metrics_disk_gb: int = 0


@dataclass(frozen=True)
class DataClass:
    """One class of data. Periods in seconds, per store."""

    name: str
    stated: str
    periods: dict[str, int]
    matchers: list[selectors.Matcher]
    priority: int | None
    priority_rank: int = 0


def _as_mapping(value: Any, variable: str, faults: list[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    faults.append(f"{variable}: is {kind(value)}; write a mapping")
    return {}


def _period(text: Any, where: str, faults: list[str], endless: bool = False) -> int | None:
    if text == durations.FOREVER_WORD and not endless:
        faults.append(f"{where}: cannot keep for ever, only {', '.join(ENDLESS)} can; write a number of days")
        return None
    try:
        seconds = durations.period(text)
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return None
    if seconds != durations.FOREVER and seconds % durations.DAY:
        faults.append(
            f"{where}: {text} is not whole days; Loki and object storage delete by whole days, write for example {seconds // durations.DAY + 1}d"
        )
        return None
    if seconds == 0:
        faults.append(
            f"{where}: 0d would delete at once or keep for ever, depending on the store; the minimum is 1d (24h), "
            f"and what is never deleted is `{durations.FOREVER_WORD}` (in {', '.join(ENDLESS)})"
        )
        return None
    return seconds


def _merged(
    policy: Mapping[str, Any], overrides: Mapping[str, Any], faults: list[str]
) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for name, entry in _as_mapping(policy, "platform_retention", faults).items():
        merged[name] = _as_mapping(entry, f"platform_retention.{name}", faults)
    for name, entry in _as_mapping(overrides, "platform_retention_overrides", faults).items():
        where = f"platform_retention_overrides.{name}"
        if name not in merged:
            faults.append(
                f"{where}: no such class in platform_retention; known are {', '.join(sorted(merged))}"
            )
            continue
        merged[name] = {**merged[name], **_as_mapping(entry, where, faults)}
    return merged


def _read_class(name: str, entry: Mapping[str, Any], options: Options, faults: list[str]) -> DataClass | None:
    where = f"platform_retention.{name}"
    before = len(faults)
    faults.extend(
        f"{where}.{key}: no such field; known are {', '.join(FIELDS)}" for key in entry if key not in FIELDS
    )
    stores = entry.get("stores")
    if not isinstance(stores, (list, tuple)) or not stores:
        faults.append(f"{where}.stores: must be a list of at least one store of {', '.join(STORES)}")
        stores = []
    stores = [str(store) for store in stores]
    faults.extend(
        f"{where}.stores: no such store {store!r}; known are {', '.join(STORES)}"
        for store in stores
        if store not in STORES
    )
    faults.extend(
        f"{where}.stores: {store} stands there twice"
        for store in sorted(set(stores))
        if stores.count(store) > 1
    )
    if "period" not in entry:
        faults.append(f"{where}.period: is missing; say how long, for example 30d")
        return None
    base = _period(entry["period"], f"{where}.period", faults, endless=True)
    own = _as_mapping(entry.get("store_periods", {}), f"{where}.store_periods", faults)
    periods = {store: base for store in stores if base is not None}
    for store, text in own.items():
        if store not in stores:
            faults.append(
                f"{where}.store_periods.{store}: the class is not kept there; {where}.stores is {', '.join(stores)}"
            )
            continue
        seconds = _period(text, f"{where}.store_periods.{store}", faults, endless=True)
        if seconds is not None:
            periods[store] = seconds
    faults.extend(
        f"{where}: {store} cannot keep for ever, only {', '.join(ENDLESS)} can; give it a period of its own, "
        f"for example store_periods: {{{store}: 365d}}"
        for store, seconds in periods.items()
        if seconds == durations.FOREVER and store in STORES and store not in ENDLESS
    )
    matchers = _read_selector(name, entry, stores, options, faults)
    priority = entry.get("priority")
    if priority is not None and (
        isinstance(priority, bool) or not isinstance(priority, int) or not 0 < priority < _TENANT_PRIORITY
    ):
        faults.append(
            f"{where}.priority: must be a whole number from 1 to {_TENANT_PRIORITY - 1}, not {priority!r}"
        )
        priority = None
    if len(faults) > before:
        return None
    return DataClass(name, str(entry["period"]), periods, matchers, priority)


def _read_selector(
    name: str, entry: Mapping[str, Any], stores: list[str], options: Options, faults: list[str]
) -> list[selectors.Matcher]:
    where = f"platform_retention.{name}.selector"
    text = entry.get("selector")
    if "loki" not in stores:
        if text:
            faults.append(
                f"{where}: only Loki reads selectors, but platform_retention.{name}.stores is {', '.join(stores)}"
            )
        return []
    if not isinstance(text, str) or not text:
        faults.append(
            f'{where}: is missing; a class in Loki needs the streams it means, for example {{log_class="{name}"}}'
        )
        return []
    try:
        matchers = selectors.parse(text)
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return []
    for matcher in matchers:
        if matcher.label not in options.stream_labels:
            faults.append(
                f"{where}: label {matcher.label!r} is not a stream label, so Loki's retention never matches it; "
                f"platform_log_labels has {', '.join(options.stream_labels)}"
            )
    return matchers


def _ranked(classes: list[DataClass]) -> list[DataClass]:
    """Distinct priorities for the classes in Loki that keep the order of the stated ones."""
    logs = [one for one in classes if "loki" in one.periods]
    order = sorted(logs, key=lambda one: one.priority or 0)
    rank = {one.name: (place + 1) * 10 for place, one in enumerate(order)}
    return [replace(one, priority_rank=rank.get(one.name, 0)) for one in classes]


def _check_overlaps(classes: list[DataClass], faults: list[str]) -> None:
    logs = [one for one in classes if "loki" in one.periods]
    for index, left in enumerate(logs):
        for right in logs[index + 1 :]:
            if left.priority != right.priority or left.periods["loki"] == right.periods["loki"]:
                continue
            if selectors.may_overlap(left.matchers, right.matchers):
                faults.append(
                    f"platform_retention.{left.name}.selector {selectors.render(left.matchers)} ({durations.days(left.periods['loki'])}) and "
                    f"platform_retention.{right.name}.selector {selectors.render(right.matchers)} ({durations.days(right.periods['loki'])}) "
                    f"can match the same stream at the same priority; give one of them a higher `priority`, or make the selectors disjoint"
                )


def _check_singles(classes: list[DataClass], faults: list[str]) -> None:
    for store, usual in SINGLE.items():
        holders = [one for one in classes if store in one.periods]
        if not holders:
            faults.append(
                f"platform_retention: no class is kept in {store}; class {usual!r} with stores [{store}] is missing"
            )
        for other in holders[1:]:
            faults.append(
                f"platform_retention.{other.name} ({durations.days(other.periods[store])}) and platform_retention.{holders[0].name} "
                f"({durations.days(holders[0].periods[store])}): {store} has one period for everything, so only one class can be kept there"
            )
    if not any("loki" in one.periods for one in classes):
        faults.append(
            "platform_retention: no class is kept in loki; at least one with stores [loki] and a selector is needed"
        )


def _check_records(classes: list[DataClass], faults: list[str]) -> None:
    for one in classes:
        record, copy = one.periods.get("postgresql"), one.periods.get("loki")
        if record is not None and copy is not None and copy < record:
            faults.append(
                f"platform_retention.{one.name}: the log copy in loki ({durations.days(copy)}) is shorter than the record in postgresql "
                f"({durations.days(record)}); raise the period in loki or shorten the record"
            )


def _check_lifecycles(
    classes: list[DataClass], tenants: Mapping[str, Mapping[str, int]], options: Options, faults: list[str]
) -> None:
    try:
        delay = durations.parse(options.deletion_delay)
    except ValueError as error:
        faults.append(f"platform_retention_deletion_delay: {error}")
        return
    for reader, text in _as_mapping(options.lifecycles, "platform_retention_lifecycles", faults).items():
        where = f"platform_retention_lifecycles.{reader}"
        holders = [one for one in classes if reader in one.periods]
        if reader not in ("loki", "tempo"):
            faults.append(f"{where}: no such reader of a bucket; known are loki, tempo")
            continue
        lifecycle = _period(text, where, faults)
        for one in holders if lifecycle is not None else []:
            stated = {f"platform_retention.{one.name}": one.periods[reader]}
            for tenant, own in tenants.items():
                if one.name in own:
                    stated[f"platform_retention_tenants.{tenant}.{one.name}"] = own[one.name]
            for source, seconds in stated.items():
                if lifecycle is not None and lifecycle < seconds + delay:
                    least = -(-(seconds + delay) // durations.DAY)
                    faults.append(
                        f"{where}: the bucket would delete after {durations.days(lifecycle)} what {source} keeps for {durations.days(seconds)} "
                        f"plus platform_retention_deletion_delay {options.deletion_delay}; the lifecycle must be at least {least}d, or absent"
                    )


def _read_tenants(
    tenants: Any, classes: list[DataClass], options: Options, faults: list[str]
) -> dict[str, dict[str, int]]:
    by_name = {one.name: one for one in classes}
    found: dict[str, dict[str, int]] = {}
    for tenant, own in _as_mapping(tenants, "platform_retention_tenants", faults).items():
        where = f"platform_retention_tenants.{tenant}"
        if not _TENANT.fullmatch(tenant):
            faults.append(f"{where}: no usable tenant id; letters, digits and !-_.*'() up to 150 characters")
        for name, text in _as_mapping(own, where, faults).items():
            one = by_name.get(name)
            if one is None:
                faults.append(
                    f"{where}.{name}: no such class in platform_retention; known are {', '.join(sorted(by_name))}"
                )
                continue
            if "loki" not in one.periods and "tempo" not in one.periods:
                faults.append(
                    f"{where}.{name}: {', '.join(one.periods)} (platform_retention.{name}.stores) cannot keep tenants apart; only loki and tempo can"
                )
                continue
            if "tempo" in one.periods and not options.tempo_multi_tenant:
                faults.append(
                    f"{where}.{name}: Tempo keeps all traces as one tenant while tempo_multitenancy_enabled is false, so this period cannot be enforced"
                )
                continue
            if "loki" in one.periods and any(matcher.label == "tenant_id" for matcher in one.matchers):
                faults.append(
                    f"{where}.{name}: platform_retention.{name}.selector already says tenant_id; a tenant's own period would contradict it"
                )
                continue
            seconds = _period(text, f"{where}.{name}", faults)
            if seconds is None:
                continue
            record = one.periods.get("postgresql")
            if record is not None and seconds < record:
                faults.append(
                    f"{where}.{name}: the tenant's log copy ({durations.days(seconds)}) is shorter than the record in postgresql "
                    f"({durations.days(record)}, platform_retention.{name})"
                )
                continue
            found.setdefault(tenant, {})[name] = seconds
    if found and not options.loki_multi_tenant and "tenant_id" not in options.stream_labels:
        faults.append(
            "platform_retention_tenants: tenants are told apart by the stream label tenant_id, which platform_log_labels does not have; "
            "add it or set loki_auth_enabled"
        )
    return found


def _check_tables(classes: list[DataClass], options: Options, faults: list[str]) -> None:
    by_name = {one.name: one for one in classes}
    owner: dict[str, str] = {}
    for name, entries in _as_mapping(options.tables, "platform_retention_tables", faults).items():
        where = f"platform_retention_tables.{name}"
        one = by_name.get(name)
        if one is None:
            faults.append(
                f"{where}: no such class in platform_retention; known are {', '.join(sorted(by_name))}"
            )
        elif "postgresql" not in one.periods:
            faults.append(
                f"{where}: has tables, but platform_retention.{name}.stores is {', '.join(one.periods)}; add postgresql there"
            )
        if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in entries):
            faults.append(f"{where}: must be a list of mappings with table and column")
            continue
        for entry in entries:
            table, column = str(entry.get("table", "")), str(entry.get("column", ""))
            if not _TABLE.fullmatch(table):
                faults.append(
                    f"{where}: {table!r} is no table; write schema.table, or schema.* for all of a schema"
                )
            if not _COLUMN.fullmatch(column):
                faults.append(f"{where}: {table}: {column!r} is no column; name the one that holds the time")
            if table in owner:
                faults.append(
                    f"{where}: {table} stands in platform_retention_tables.{owner[table]} too; a table has one period"
                )
            owner[table] = name


def _check_metrics(classes: list[DataClass], options: Options, faults: list[str]) -> None:
    size = str(options.metrics_size)
    if size and not _SIZE.fullmatch(size):
        faults.append(
            f"platform_retention_metrics_size: {options.metrics_size!r} is no size; write for example 20GB, or nothing for no bound"
        )
    elif size and options.metrics_disk_gb:
        room = int(options.metrics_disk_gb * 2**30 * _DISK_SHARE)
        if durations.size_bytes(size) > room:
            faults.append(
                f"platform_retention_metrics_size: {size} of blocks do not fit on the disk of {options.metrics_disk_gb} GiB (guest_disk_gb) "
                f"beside the write-ahead log and compaction; the bound must be at most {room // 2**30}GB, or the disk larger"
            )
    version = re.match(r"v?(\d+)\.(\d+)", options.prometheus_version)
    if version and (int(version[1]), int(version[2])) < _PROMETHEUS_FROM:
        one = next((one for one in classes if "prometheus" in one.periods), None)
        faults.append(
            f"platform_retention.{one.name if one else 'metrics'}: Prometheus {options.prometheus_version} (components/lock.yml) reads no retention "
            f"from its configuration, so this period would not be in force; it does from {'.'.join(map(str, _PROMETHEUS_FROM))} on"
        )


def _analyse(
    policy: Mapping[str, Any], overrides: Mapping[str, Any], tenants: Mapping[str, Any], options: Options
) -> tuple[list[DataClass], dict[str, dict[str, int]], list[str]]:
    faults: list[str] = []
    merged = _merged(policy, overrides, faults)
    classes: list[DataClass] = []
    for name, entry in merged.items():
        one = _read_class(name, entry, options, faults)
        if one is not None:
            classes.append(one)
    complete = len(classes) == len(merged)
    # With a class unreadable, "missing" and "unknown class" would be echoes of the first fault.
    periods: dict[str, dict[str, int]] = {}
    if complete:
        _check_singles(classes, faults)
        periods = _read_tenants(tenants, classes, options, faults)
    _check_overlaps(classes, faults)
    _check_records(classes, faults)
    _check_lifecycles(classes, periods, options, faults)
    _check_metrics(classes, options, faults)
    if complete:
        _check_tables(classes, options, faults)
    return _ranked(classes), periods, faults


def kept_in(store: str, policy: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> set[str]:
    """Names of the classes that a store keeps, as far as the policy can be read."""
    stores = {name: entry.get("stores") for name, entry in _merged(policy, overrides or {}, []).items()}
    return {name for name, found in stores.items() if isinstance(found, (list, tuple)) and store in found}


def problems(
    policy: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    tenants: Mapping[str, Any] | None = None,
    options: Options | None = None,
) -> list[str]:
    """Everything wrong with a policy, one sentence each; empty when it is coherent."""
    return _analyse(policy, overrides or {}, tenants or {}, options or Options())[2]


def plan(
    policy: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    tenants: Mapping[str, Any] | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """What each store is to enforce. Raises IncoherentPolicy.

    Returns plain data:

    - classes: {name: {period, stores: {store: period}}}
    - prometheus: {time, size}
    - loki: {retention_period, retention_stream, longest, overrides, tenants, deletion_delay}; `overrides` is the content
      of the runtime file per Loki tenant, `longest` what one query must be able to ask for
    - tempo: {block_retention, longest, overrides}; Go durations in hours
    - minio, postgresql, proxmox: {class: period}
    - copies: {job: period}, the jobs of the role `backup`
    - tables: [{table, column, class, period}], the tables of PostgreSQL from which rows are deleted
    - kept_tables: [{table, column, class, period}], those that are kept for ever, whatever pattern of `tables` they fall under
    - lifecycles: {loki, tempo, archive: [{id, prefix, days, noncurrent_days?}]}, the rules of the buckets by reader
    - explanation: [{class, stated, store, enforced, setting, match, why}]; `match` is how the read-back calls the row,
      `setting` is empty where nothing of the platform enforces it, `told` stands where nobody can be asked
    """
    chosen = options or Options()
    classes, own, faults = _analyse(policy, overrides or {}, tenants or {}, chosen)
    if faults:
        raise IncoherentPolicy(faults)
    prometheus = next(one.periods["prometheus"] for one in classes if "prometheus" in one.periods)
    tempo = next(one for one in classes if "tempo" in one.periods)
    return {
        "classes": {
            one.name: {
                "period": one.stated,
                "stores": {store: durations.days(value) for store, value in one.periods.items()},
            }
            for one in classes
        },
        "prometheus": {"time": durations.days(prometheus), "size": str(chosen.metrics_size)},
        "loki": _loki(classes, own, chosen),
        "tempo": {
            "block_retention": durations.hours(tempo.periods["tempo"]),
            "longest": _asked(
                [tempo.periods["tempo"], *(periods.get(tempo.name, 0) for periods in own.values())]
            ),
            "overrides": {
                tenant: {"compaction": {"block_retention": durations.hours(periods[tempo.name])}}
                for tenant, periods in own.items()
                if tempo.name in periods
            },
        },
        **{
            store: {one.name: durations.days(one.periods[store]) for one in classes if store in one.periods}
            for store in ("minio", "postgresql", "proxmox")
        },
        "copies": {
            job: durations.days(one.periods["minio"])
            for one in classes
            if "minio" in one.periods
            for job in COPIES.get(one.name, ())
        },
        "tables": [one for one in _tables(classes, chosen) if one["period"] != durations.FOREVER_WORD],
        "kept_tables": [one for one in _tables(classes, chosen) if one["period"] == durations.FOREVER_WORD],
        "lifecycles": _lifecycles(classes, own, chosen),
        "explanation": _explanation(classes, own, chosen),
    }


def _asked(periods: list[int]) -> str:
    """The longest of the periods, and a day: what is past its period is there until it was deleted, and both ends of a query count."""
    return durations.hours(max(periods) + durations.DAY)


def _tables(classes: list[DataClass], options: Options) -> list[dict[str, str]]:
    periods = {one.name: one.periods["postgresql"] for one in classes if "postgresql" in one.periods}
    return [
        {
            "table": str(entry["table"]),
            "column": str(entry["column"]),
            "class": name,
            "period": durations.days(periods[name]),
        }
        for name, entries in options.tables.items()
        for entry in entries
    ]


def _lifecycles(
    classes: list[DataClass], own: Mapping[str, Mapping[str, int]], options: Options
) -> dict[str, list[dict[str, Any]]]:
    """Rules of the buckets, by who reads them.

    Loki and Tempo delete their own objects, so a rule is made for them only where one was asked for, and then on
    their tenants' data only: Loki's index, its delete requests and its seed must never expire.
    """
    found: dict[str, list[dict[str, Any]]] = {"loki": [], "tempo": [], "archive": []}
    single = {
        "loki": [] if options.loki_multi_tenant else [LOKI_SINGLE_TENANT],
        "tempo": [] if options.tempo_multi_tenant else [TEMPO_SINGLE_TENANT],
    }
    for reader, text in options.lifecycles.items():
        tenants = single[reader] or sorted(own)
        found[reader] = [
            {"id": f"data-{tenant}", "prefix": f"{tenant}/", "days": durations.parse(text) // durations.DAY}
            for tenant in tenants
        ]
    archive = next((one.periods["minio"] for one in classes if one.name == ARCHIVE), None)
    versions = next((one.periods["minio"] for one in classes if one.name == VERSIONS), None)
    for one in classes if archive is not None else []:
        if "loki" in one.periods:
            # A rule for everything would decide for the long ones too: the shortest rule that matches wins.
            kept = max(
                archive or 0, one.periods["loki"], *(periods.get(one.name, 0) for periods in own.values()), 0
            )
            rule = {"id": one.name, "prefix": f"{one.name}/", "days": kept // durations.DAY}
            if versions is not None:
                rule["noncurrent_days"] = versions // durations.DAY
            found["archive"].append(rule)
    return found


def _stream(matchers: list[selectors.Matcher], priority: int, seconds: int) -> dict[str, Any]:
    return {"selector": selectors.render(matchers), "priority": priority, "period": durations.hours(seconds)}


def _loki(classes: list[DataClass], own: Mapping[str, Mapping[str, int]], options: Options) -> dict[str, Any]:
    logs = [one for one in classes if "loki" in one.periods]
    streams = [_stream(one.matchers, one.priority_rank, one.periods["loki"]) for one in logs]
    longest = max(one.periods["loki"] for one in logs)
    overrides: dict[str, Any] = {}
    apart: list[dict[str, Any]] = []
    for tenant, periods in own.items():
        named = [one for one in logs if one.name in periods]
        if not named:
            continue
        if options.loki_multi_tenant:
            effective = {one.name: periods.get(one.name, one.periods["loki"]) for one in logs}
            overrides[tenant] = {
                "retention_period": durations.hours(max(effective.values())),
                "retention_stream": [
                    _stream(one.matchers, one.priority_rank, effective[one.name]) for one in logs
                ],
            }
        else:
            mine = selectors.Matcher("tenant_id", "=", tenant)
            apart += [
                _stream([mine, *one.matchers], _TENANT_PRIORITY + one.priority_rank, periods[one.name])
                for one in named
            ]
    if apart:
        # An entry of the runtime file replaces the whole list, so it repeats the classes.
        overrides[LOKI_SINGLE_TENANT] = {"retention_stream": streams + apart}
    return {
        "retention_period": durations.hours(longest),
        "longest": _asked([longest, *(periods.get(one.name, 0) for periods in own.values() for one in logs)]),
        "retention_stream": streams,
        "overrides": overrides,
        # The one tenant there is; with several, those that have periods of their own.
        "tenants": sorted(overrides) if options.loki_multi_tenant else [LOKI_SINGLE_TENANT],
        "deletion_delay": options.deletion_delay,
    }


_SETTINGS = {
    "prometheus": "storage.tsdb.retention.time",
    "loki": "limits_config.retention_stream",
    "tempo": "compactor.compaction.block_retention",
    "proxmox": "playbooks snapshot.yml and version.yml",
}


def _explanation(
    classes: list[DataClass], own: Mapping[str, Mapping[str, int]], options: Options
) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    tables = {name: [str(entry["table"]) for entry in entries] for name, entries in options.tables.items()}
    for one in classes:
        for store, seconds in one.periods.items():
            why = f"platform_retention.{one.name}"
            if seconds != durations.period(one.stated):
                why += f".store_periods.{store}"
            if store in UNENFORCED:
                why += ": decided by the application that receives it"
            # How the answers of servers and jobs call a row -> what enforces it; a row for each table and each job.
            settings = {selectors.render(one.matchers) if store == "loki" else "": _SETTINGS.get(store, "")}
            told = "when they run" if store == "proxmox" else ""
            if seconds == durations.FOREVER:
                settings = {f"table {name}": "" for name in tables.get(one.name, [])} or settings
                told = "nobody deletes"
            elif store == "postgresql" and tables.get(one.name):
                settings = {f"table {name}": f"timer, table {name}" for name in tables[one.name]}
            elif store == "minio" and one.name in COPIES:
                settings = {f"{COPY}{job}": f"timer, backup of {job}" for job in COPIES[one.name]}
            elif store == "minio" and one.name == ARCHIVE:
                settings, told = {"": "lifecycle of the archive"}, "by class, below"
            rows += [
                {
                    "class": one.name,
                    "stated": one.stated,
                    "store": store,
                    "enforced": "" if store in UNENFORCED else durations.days(seconds),
                    "setting": setting,
                    "match": match,
                    "why": why,
                    **({"told": told} if told else {}),
                }
                for match, setting in settings.items()
            ]
    logs = [one for one in classes if "loki" in one.periods]
    longest = max(logs, key=lambda one: one.periods["loki"])
    rows.append(
        {
            "class": "(no class)",
            "stated": "",
            "store": "loki",
            "enforced": durations.days(longest.periods["loki"]),
            "setting": "limits_config.retention_period",
            "match": "",
            "why": f"the longest class in loki, {longest.name}: a stream without log_class is not lost early",
        }
    )
    for tenant, periods in own.items():
        for name, seconds in periods.items():
            store = "tempo" if any(one.name == name and "tempo" in one.periods for one in classes) else "loki"
            rows.append(
                {
                    "class": name,
                    "stated": durations.days(seconds),
                    "store": store,
                    "enforced": durations.days(seconds),
                    "match": _match(store, tenant, name, classes, options),
                    "setting": f"runtime overrides, {'tenant ' + tenant if options.loki_multi_tenant or store == 'tempo' else 'tenant_id=' + tenant}",
                    "why": f"platform_retention_tenants.{tenant}.{name}",
                }
            )
    archive = [one for one in classes if one.name == ARCHIVE and "minio" in one.periods]
    for rule in _lifecycles(classes, own, options)["archive"] if archive else []:
        rows.append(
            {
                "class": f"archived {rule['id']}",
                "stated": archive[0].stated,
                "store": "minio",
                "enforced": f"{rule['days']}d",
                "setting": f"lifecycle of the archive, {rule['prefix']}",
                "match": f"{ARCHIVE}: {rule['id']}",
                "why": "the longer of platform_retention.archive and of the live copy",
            }
        )
    return rows


def _match(store: str, tenant: str, name: str, classes: list[DataClass], options: Options) -> str:
    if store == "tempo":
        return f"traces of {tenant}"
    (one,) = (one for one in classes if one.name == name)
    matchers = [] if options.loki_multi_tenant else [selectors.Matcher("tenant_id", "=", tenant)]
    return selectors.render([*matchers, *one.matchers])
