# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""From what a host reads to Promtail's scrape configurations: every one ends in the same stages. Pure."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import masking, record
from .record import Claims, Reading, Stage, template

#: Labels that a source does not choose by `labels`: the host's, and those with a key of their own.
OWN_LABELS = ("environment", "host", "job", "log_class", "service")
#: Lines of one entry; the server would take its own end after 128.
MULTILINE = {"max_wait_time": "3s", "max_lines": 1024}
# Keys of what no argument spec describes, with those that are added here.
_CLAIMS = {*record.CLAIMS}
_KEYS = {
    "promtail_units": {*_CLAIMS, "log_class", "pattern"},
    "promtail_containers": {*_CLAIMS, "log_class", "pattern"},
    "promtail_extra_scrape_configs": {*_CLAIMS, "named"},
}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Faults(ValueError):
    """What is declared cannot be read; the text names every variable."""


@dataclass(frozen=True)
class Pipeline:
    """The stages that all sources of a host share."""

    reading: Reading
    masking: Sequence[Stage]
    repair: Sequence[Stage]
    extra: Sequence[Stage]

    def stages(
        self,
        claims: Sequence[Claims] = (),
        own: Sequence[Stage] = (),
        multiline: str = "",
        defaults: Sequence[Stage] = (),
        temporary: Sequence[str] = (),
    ) -> list[Stage]:
        """Masked before stages of somebody's own, which may make labels of what they find, and after them, for they may unpack a line."""
        first = [{"multiline": {"firstline": multiline, **MULTILINE}}] if multiline else []
        before = [*self.masking, *own] if own else []
        after = [*self.extra, *self.masking] if self.extra else []
        every = [
            *first,
            *before,
            *defaults,
            *self.repair,
            *self.masking,
            *record.stages(self.reading, claims),
            *after,
            *record.pinned(self.reading, temporary),
        ]
        return [_apart(stage) for stage in every]


def _apart(value: Any) -> Any:
    """A copy that shares nothing: what is written as YAML would refer to its first place."""
    if isinstance(value, Mapping):
        return {key: _apart(item) for key, item in value.items()}
    return [_apart(item) for item in value] if isinstance(value, (list, tuple)) else value


def pipeline(settings: Mapping[str, Any]) -> Pipeline:
    reading = Reading(
        environment=str(settings["environment"]),
        host=str(settings["host"]),
        environments=settings.get("environment_map") or {},
        levels=settings.get("levels") or [],
        level_map=settings.get("level_map") or {},
        metadata=settings.get("metadata_fields") or [],
    )
    return Pipeline(
        reading,
        masking.stages(settings.get("redact_keys") or [], str(settings.get("redact_text", ""))),
        settings.get("repair") or [],
        settings.get("extra_stages") or [],
    )


def scrapes(sources: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Journal, files, containers and the inventory's own, in this order. Raises Faults."""
    faults = problems(sources, settings)
    if faults:
        raise Faults("; ".join(f"{variable}: {text}" for variable, text in faults))
    line = pipeline(settings)
    labels = {"environment": line.reading.environment, "host": line.reading.host}
    journal = sources.get("journal")
    found = [_journal(sources, line, labels)] if journal else []
    found += [
        _files(group, line, labels) for group in files(sources) if not (journal and group.get("journaled"))
    ]
    if sources.get("docker"):
        found.append(_docker(sources, line, labels))
    return [*found, *(_foreign(one, line, labels) for one in sources.get("extra_scrape_configs") or [])]


def files(sources: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(sources.get("files") or []), *(sources.get("extra_files") or [])]


def _claims(declared: Mapping[str, Any], label: str = "", value: str = "") -> Claims:
    return Claims(**{name: declared.get(name) or [] for name in record.CLAIMS}, label=label, value=value)


def _classes(declared: Mapping[str, Any], meta: str, end: str = "") -> list[dict[str, Any]]:
    return [
        {
            "source_labels": [meta],
            "regex": f"(?:{name}){end}",
            "target_label": "log_class",
            "replacement": one["log_class"],
        }
        for name, one in declared.items()
        if one and one.get("log_class")
    ]


def _journal(sources: Mapping[str, Any], line: Pipeline, labels: Mapping[str, str]) -> dict[str, Any]:
    units = sources.get("units") or {}
    rules: list[dict[str, Any]] = [
        # Fields that begin with an underscore are the journal's own; an identifier is whatever the writer calls itself.
        {"source_labels": ["__journal__transport"], "regex": "kernel", "target_label": "service", "replacement": "kernel"},
        {"source_labels": ["__journal__comm"], "regex": "(.+)", "target_label": "service"},
        {"source_labels": ["__journal__systemd_unit"], "regex": r"(.+)\.service", "target_label": "service"},
        {"source_labels": ["__journal__systemd_unit"], "regex": r"(.+)\.service", "target_label": "unit"},
        {"source_labels": ["__journal_priority_keyword"], "target_label": "level"},
        *_classes(units, "__journal__systemd_unit", r"\.service"),
        # Facilities auth and authpriv: logins, sudo, role changes.
        {"source_labels": ["__journal_syslog_facility"], "regex": "4|10", "target_label": "log_class", "replacement": "security"},
    ]  # fmt: skip
    if sources.get("docker"):
        # Read through Docker's API.
        rules.insert(0, {"source_labels": ["__journal_container_name"], "regex": ".+", "action": "drop"})
    return {
        "job_name": "journal",
        "journal": {
            "max_age": sources["journal_max_age"],
            "labels": {**labels, "job": "journal", "log_class": "syslog", "service": "journal"},
        },
        "relabel_configs": rules,
        "pipeline_stages": line.stages(
            [_claims(one or {}, "unit", name) for name, one in units.items()], temporary=["unit"]
        ),
    }


def _files(group: Mapping[str, Any], line: Pipeline, labels: Mapping[str, str]) -> dict[str, Any]:
    job = str(group["job"])
    own = {
        **(group.get("labels") or {}),
        **labels,
        "job": job,
        "log_class": group["log_class"],
        "service": group.get("service") or job,
    }
    exclude = {"__path_exclude__": group["exclude"]} if group.get("exclude") else {}
    return {
        "job_name": job,
        "static_configs": [
            {"targets": ["localhost"], "labels": {**own, "__path__": path, **exclude}}
            for path in group["paths"]
        ],
        "pipeline_stages": line.stages(
            [_claims(group)], group.get("stages") or [], str(group.get("multiline") or "")
        ),
    }


def _docker(sources: Mapping[str, Any], line: Pipeline, labels: Mapping[str, str]) -> dict[str, Any]:
    containers = sources.get("containers") or {}
    name = "__meta_docker_container_name"
    fixed = {"job": "docker", "log_class": "docker", **labels}
    return {
        "job_name": "docker",
        "docker_sd_configs": [{"host": f"unix://{sources['docker_socket']}", "refresh_interval": "15s"}],
        "relabel_configs": [
            {"source_labels": [name], "regex": "/(.+)", "target_label": "service"},
            {"source_labels": [name], "regex": "/(.+)", "target_label": "container"},
            *({"target_label": label, "replacement": value} for label, value in fixed.items()),
            *_classes({f"/(?:{key})": one for key, one in containers.items()}, name),
        ],
        "pipeline_stages": line.stages(
            [_claims(one or {}, "container", key) for key, one in containers.items()], temporary=["container"]
        ),
    }


def _foreign(config: Mapping[str, Any], line: Pipeline, labels: Mapping[str, str]) -> dict[str, Any]:
    """A configuration in Promtail's own format: its stages come first, and what it does not say is said for it."""
    name = str(config["job_name"])
    rest = {key: value for key, value in config.items() if key not in ("claims", "pipeline_stages")}
    given = {"job": name, "service": name, "log_class": "application"}
    for label in _static(config.get("pipeline_stages") or []):
        given.pop(label, None)
    defaults = [
        template(label, record.first((f".{label}", record.value(label)), ("true", text)))
        for label, text in given.items()
    ]
    own = config.get("pipeline_stages") or []
    return {
        **rest,
        "pipeline_stages": line.stages(
            [_claims(config.get("claims") or {})],
            own,
            defaults=[*defaults, {"labels": dict.fromkeys(given)}] if given else [],
        ),
    }


def _static(stages: Iterable[Mapping[str, Any]]) -> set[str]:
    """Labels that stages set to a fixed value, which later stages do not see."""
    found: set[str] = set()
    for stage in stages:
        found |= set(stage.get("static_labels") or {})
        found |= _static((stage.get("match") or {}).get("stages") or [])
    return found


# What is wrong with it ---------------------------------------------------------------------------


def problems(sources: Mapping[str, Any], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(variable, what is wrong and the way out)."""
    classes = [str(name) for name in settings.get("classes") or []]
    reserved = [str(name) for name in settings.get("reserved_classes") or []]
    found: list[tuple[str, str]] = []
    for variable, where, one in _declared(sources):
        known = _KEYS.get(variable, set())
        found += [(variable, f"{where}: {text}") for text in _faults(one, classes, reserved, known)]
    found += _twice(sources)
    for key in ("scrape_configs", "pipeline_stages"):
        if key in (sources.get("config") or {}):
            found.append(
                (
                    "promtail_config",
                    f"{key} would replace what this role builds, with its masking and labels; "
                    "write further ones to promtail_extra_scrape_configs",
                )
            )
    return found


def _declared(sources: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for variable in ("files", "extra_files"):
        for group in sources.get(variable) or []:
            yield f"promtail_{variable}", str(group.get("job")), group
    for variable in ("units", "containers"):
        for name, one in (sources.get(variable) or {}).items():
            yield f"promtail_{variable}", str(name), {**(one or {}), "pattern": name}
    for config in sources.get("extra_scrape_configs") or []:
        named = config.get("job_name")
        yield (
            "promtail_extra_scrape_configs",
            str(named),
            {**(config.get("claims") or {}), "named": bool(named)},
        )


def _faults(
    one: Mapping[str, Any], classes: Sequence[str], reserved: Sequence[str], known: set[str]
) -> Iterable[str]:
    if one.get("named") is False:
        yield "has no job_name; give it one"
    for key in sorted(str(key) for key in one.keys() - known) if known else []:
        near = difflib.get_close_matches(key, sorted(known), n=1)
        yield f"{key} is no key; {f'did you mean {near[0]}?' if near else 'known are ' + ', '.join(sorted(known))}"
    yield from _class_faults(one, classes, reserved)
    for key in ("pattern", "multiline", "services", "tenants"):
        for pattern in one[key] if isinstance(one.get(key), list) else [one.get(key)]:
            if pattern and (reason := _unreadable(str(pattern))):
                yield f"{key} {pattern!r} is no regular expression: {reason}"
    for label in one.get("labels") or {}:
        if label in OWN_LABELS:
            yield f"label {label} is not set by labels: {_OWN[label]}"
        elif not _LABEL.fullmatch(str(label)):
            yield f"{label!r} is no name of a label; use letters, digits and underscores"


def _class_faults(one: Mapping[str, Any], classes: Sequence[str], reserved: Sequence[str]) -> Iterable[str]:
    own = one.get("log_class")
    if own and str(own) not in classes:
        yield f"log_class {own} is no class of platform_retention with store loki; known are {', '.join(classes)}"
    for name in one.get("log_classes") or []:
        if str(name) in reserved:
            yield f"no record may choose class {name} (promtail_reserved_classes); give the source that log_class"
        elif str(name) not in classes:
            yield f"log_classes names {name}, which is no class of platform_retention with store loki; known are {', '.join(classes)}"


_OWN = {
    "environment": "it is the host's, platform_environment",
    "host": "it is the inventory's name of the host",
    **{name: f"use the key {name}" for name in ("job", "log_class", "service")},
}


def _unreadable(pattern: str) -> str:
    """Go's syntax is a part of Python's, but for names of groups."""
    try:
        re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern))
    except re.error as error:
        return str(error)
    return ""


def _twice(sources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A job or a file that two groups have: its lines would be shipped twice."""
    found: list[tuple[str, str]] = []
    seen: list[Mapping[str, Any]] = []
    for group in files(sources):
        for other in seen:
            if group["job"] == other["job"]:
                found.append(
                    ("promtail_extra_files", f"two groups are job {group['job']}; rename one of them")
                )
            shared = [
                path
                for path in group["paths"]
                for known in other["paths"]
                if fnmatch.fnmatchcase(path, known) or fnmatch.fnmatchcase(known, path)
            ]
            if shared and not (group.get("exclude") or other.get("exclude")):
                found.append(
                    (
                        "promtail_extra_files",
                        f"{', '.join(shared)} of {group['job']} is read by {other['job']} as well, and each line would be there "
                        "twice; take it out of one of them (promtail_files), or give one an exclude",
                    )
                )
        seen.append(group)
    return found
