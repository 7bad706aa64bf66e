# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""How long the files of a release keep data, whoever wrote a period there, in the shape of the plan's part for that store. Pure.

A store is what a record calls it (`data.store`); its files are given in the record's order (`data.files`), None for one that
is not there, and then the text of its unit.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import yaml

from . import durations, shorten
from .policy import LOKI_SINGLE_TENANT
from .readback import block_retention
from .shorten import Shortening

Json = dict[str, Any]
Texts = Sequence["str | None"]

# What the servers take where nothing is said.
PROMETHEUS_DEFAULT = "15d"
TEMPO_DEFAULT = "336h"
# Where the limits of tenants are, as the roles write it.
LOKI_TENANTS = "/etc/loki/runtime.yml"
TEMPO_TENANTS = "/etc/tempo/overrides.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([^}]*))?\}")


def periods(store: str, texts: Texts, unit: str, hidden: Collection[str] = ()) -> Json:
    """What is kept how long. Raises ValueError for what cannot be read, such as a period in a secret variable (`hidden`)."""
    try:
        return _READERS[store](texts, {**_variables(unit), **{name: f"${{{name}}}" for name in hidden}}, unit)
    except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"the files of {store} cannot be read for the periods in them: {' '.join(str(error).split())}"
        ) from None


def shortened(store: str, want: Json, have: Json, server: str) -> list[Shortening]:
    """What one release keeps shorter than another, both as periods() says it."""
    return _COMPARED[store](want, have, server)


# Reading


def _document(text: str | None, variables: Mapping[str, str] | None = None) -> Json:
    found = yaml.safe_load(_expanded(text or "", variables or {}))
    return found if isinstance(found, dict) else {}


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """As servers do it that are told to expand `${NAME}` and `${NAME:default}`; a secret stays a name."""
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[2] or match[0]), text)


def _words(unit: str, key: str) -> list[str]:
    lines = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
    return [word.replace("%%", "%").replace("$$", "$") for line in lines for word in shlex.split(line)]


def _variables(unit: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(unit, "Environment"))
    return {name: value for name, _, value in pairs}


def _flags(unit: str) -> dict[str, str]:
    """`--name=value` and `--name value` of the command; the last one of a name."""
    found: dict[str, str] = {}
    words = _words(unit, "ExecStart")
    file = next((word for word in words if word.startswith("@")), "")
    if file:
        raise ValueError(
            f"{file} among the arguments stands for those in a file, which cannot be read for periods; write them out"
        )
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--"):
            name, separator, value = word.partition("=")
            found[name] = value if separator else following
    return found


def _prometheus(texts: Texts, variables: Mapping[str, str], unit: str) -> Json:
    """Of both places where a period can stand, the configuration decides."""
    tsdb = (_document(texts[0]).get("storage") or {}).get("tsdb") or {}
    said, flags = tsdb.get("retention") or {}, _flags(unit)
    time = str(said.get("time") or flags.get("--storage.tsdb.retention.time") or "")
    size = str(said.get("size") or flags.get("--storage.tsdb.retention.size") or "")
    time, size = ("" if text in ("0", "0s", "0B") else text for text in (time, size))
    if not time and not size:
        time = PROMETHEUS_DEFAULT
    if time:
        durations.parse(time)
    return {"prometheus": {"time": time, "size": size}}


def _loki(texts: Texts, variables: Mapping[str, str], unit: str) -> Json:
    config = _document(texts[0], variables)
    limits, compactor = config.get("limits_config") or {}, config.get("compactor") or {}
    tenants = _tenants(texts, config.get("runtime_config") or {}, "file", LOKI_TENANTS)
    found = {
        "enabled": bool(compactor.get("retention_enabled")),
        "retention_period": str(limits.get("retention_period") or "0"),
        "retention_stream": limits.get("retention_stream") or [],
        "overrides": {str(name): own or {} for name, own in tenants.items()},
        "tenants": [*map(str, tenants), *([] if config.get("auth_enabled") else [LOKI_SINGLE_TENANT])],
    }
    shorten.readable(found)
    return {"loki": found}


def _tenants(texts: Texts, section: Mapping[str, Any], key: str, ours: str) -> Json:
    """Limits by tenant, which are in force where the configuration names the file that has them. Servers expand nothing in it."""
    named = section.get(key)
    if named and named != ours:
        raise ValueError(
            f"limits of tenants, and with them periods, would be read from {named}, which is not {ours}; leave `{key}` out"
        )
    return _document(texts[1] if named and len(texts) > 1 else None).get("overrides") or {}


def _tempo(texts: Texts, variables: Mapping[str, str], unit: str) -> Json:
    config = _document(texts[0], variables)
    tenants = _tenants(texts, config.get("overrides") or {}, "per_tenant_override_config", TEMPO_TENANTS)
    base = tempo_base(config)
    for period in (base, *filter(None, map(block_retention, tenants.values()))):
        durations.parse(period)
    return {
        "tempo": {"block_retention": base, "overrides": {str(name): own for name, own in tenants.items()}}
    }


def tempo_base(config: Mapping[str, Any]) -> str:
    """The period of a tenant that has none of its own, of a configuration or of what Tempo shows as its own."""
    overrides = config.get("overrides") or {}
    defaults = ((overrides.get("defaults") or {}).get("compaction") or {}).get("block_retention")
    compaction = (config.get("compactor") or {}).get("compaction") or {}
    said = [
        one for one in (defaults, overrides.get("block_retention")) if one and str(one) not in ("0", "0s")
    ]
    # Zero is no period of their own in overrides; of all, it deletes at once.
    return str(next(iter(said), compaction.get("block_retention", TEMPO_DEFAULT)))


def _tables(texts: Texts, variables: Mapping[str, str], unit: str) -> Json:
    job = (json.loads(texts[0] or "{}").get("jobs") or {}).get("tables") or {}
    kept = [{"table": one["table"], "period": durations.FOREVER_WORD} for one in job.get("keep", [])]
    return {
        "tables": [{"table": one["table"], "period": f"{one['days']}d"} for one in job.get("tables", [])],
        "kept_tables": kept,
    }


def _copies(texts: Texts, variables: Mapping[str, str], unit: str) -> Json:
    jobs = json.loads(texts[0] or "{}").get("jobs") or {}
    return {"copies": {name: f"{job['keep_days']}d" for name, job in jobs.items()}}


# Comparing


def _shorter_prometheus(want: Json, have: Json, server: str) -> list[Shortening]:
    said = have["prometheus"]
    return shorten.prometheus(
        want, server, " or ".join(text for text in (said["time"], said["size"]) if text)
    )


def _shorter_loki(want: Json, have: Json, server: str) -> list[Shortening]:
    said = have["loki"]
    names = {*said["tenants"], *want["loki"]["tenants"]}
    tenants = {name: {**said, **said["overrides"].get(name, {})} for name in sorted(names)}
    return shorten.loki(want, server, said, tenants, said["enabled"])


def _shorter_tempo(want: Json, have: Json, server: str) -> list[Shortening]:
    return shorten.tempo(want, server, have["tempo"]["block_retention"], have["tempo"]["overrides"])


def _shorter_tables(want: Json, have: Json, server: str) -> list[Shortening]:
    said = [
        {"pattern": one["table"], "period": one["period"]} for one in [*have["tables"], *have["kept_tables"]]
    ]
    return shorten.tables(want, server, {"tables": said})


def _shorter_copies(want: Json, have: Json, server: str) -> list[Shortening]:
    said = {
        name: {"keep_days": durations.parse(period) // durations.DAY, "copies": "not counted"}
        for name, period in have["copies"].items()
    }
    return shorten.copies(want, server, said)


_READERS: dict[str, Callable[[Texts, Mapping[str, str], str], Json]] = {
    "prometheus": _prometheus,
    "loki": _loki,
    "tempo": _tempo,
    "tables": _tables,
    "copies": _copies,
}
_COMPARED: dict[str, Callable[[Json, Json, str], list[Shortening]]] = {
    "prometheus": _shorter_prometheus,
    "loki": _shorter_loki,
    "tempo": _shorter_tempo,
    "tables": _shorter_tables,
    "copies": _shorter_copies,
}
STORES = tuple(_READERS)
