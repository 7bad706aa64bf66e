# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Stages that read a record, and how much of what it says about itself is believed. Pure.

The host decides environment, host, class, service and tenant. A record may choose a service, a tenant or a class only
where its source declares them; what is refused stays with the line as metadata ``refused_<name>``, beside ``refused``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Stage = dict[str, Any]
#: A refused value is kept so far: longer metadata would cost the line itself.
KEPT = 128
#: What a claim is called where it is declared, the record's field, and the label.
CLAIMS = {
    "services": ("record_service", "service"),
    "tenants": ("record_tenant", "tenant_id"),
    "log_classes": ("record_class", "log_class"),
}


@dataclass(frozen=True)
class Claims:
    """What the records of one source may say. Services and tenants are regular expressions that match as a whole."""

    services: Sequence[str] = ()
    tenants: Sequence[str] = ()
    log_classes: Sequence[str] = ()
    #: The label that tells sources of one scrape apart, and a regular expression for its value; empty: all of it.
    label: str = ""
    value: str = ""

    def condition(self, claim: str) -> str:
        """A condition of a Go template, false where nothing is declared."""
        allowed = list(getattr(self, claim))
        if not allowed:
            return ""
        pattern = literal(allowed) if claim == "log_classes" else whole(allowed)
        said = f"regexMatch {pattern} .{CLAIMS[claim][0]}"
        if not self.label:
            return said
        return f"and .{self.label} (regexMatch {whole([self.value])} .{self.label}) ({said})"


@dataclass(frozen=True)
class Reading:
    """How records are read on a host."""

    environment: str
    host: str
    #: What records call an environment -> the label.
    environments: Mapping[str, str] = field(default_factory=dict)
    levels: Sequence[str] = ()
    level_map: Mapping[str, str] = field(default_factory=dict)
    metadata: Sequence[str] = ()


def whole(patterns: Sequence[str]) -> str:
    """A quoted pattern that matches one of these and nothing around it."""
    return json.dumps("^(?:" + "|".join(f"(?:{one})" for one in patterns) + ")$")


def literal(words: Sequence[str]) -> str:
    """A quoted pattern that matches one of these words."""
    return whole([re.escape(str(one)) for one in words])


def first(*cases: tuple[str, str]) -> str:
    """The text of the first condition that holds, in Go's templates."""
    words = [
        f"{{{{ {'else ' if number else ''}if {condition} }}}}{text}"
        for number, (condition, text) in enumerate(cases)
    ]
    return "".join(words) + "{{ end }}"


def value(name: str) -> str:
    return f"{{{{ .{name} }}}}"


def template(source: str, text: str) -> Stage:
    return {"template": {"source": source, "template": text}}


def stages(reading: Reading, claims: Sequence[Claims]) -> list[Stage]:
    """Parse, decide, label, keep what was refused."""
    metadata = [*reading.metadata, "parse_error", "refused", *(f"refused_{name}" for name in _REFUSABLE)]
    labels = ["service", "level", "log_class", "tenant_id"]
    return [
        {"json": {"expressions": _expressions(reading.metadata)}},
        # A line that looks like a record and is none keeps its text and says so.
        template("parse_error", r'{{ if and (not .record) (regexMatch "^\\s*\\{" .Entry) }}true{{ end }}'),
        *_claimed(claims),
        *_level(reading),
        *_refusals(reading),
        {"labels": dict.fromkeys(labels)},
        {"structured_metadata": dict(zip(metadata, metadata))},
        # Without a time of its own a line has the time it was read.
        {"timestamp": {"source": "record_time", "format": "RFC3339Nano", "action_on_failure": "skip"}},
    ]


def pinned(reading: Reading, temporary: Sequence[str]) -> list[Stage]:
    """The end of every pipeline: nobody says for a host where it is."""
    drop = [{"labeldrop": list(temporary)}] if temporary else []
    return [*drop, {"static_labels": {"environment": reading.environment, "host": reading.host}}]


_REFUSABLE = {
    "service": "record_service",
    "tenant_id": "record_tenant",
    "log_class": "record_class",
    "environment": "record_environment",
    "level": "record_level",
}


def _expressions(metadata: Sequence[str]) -> dict[str, str]:
    return {
        **{name: name for name in metadata},
        "record": "length(@)",
        "record_service": "service",
        "record_environment": "environment",
        "record_level": "level",
        "record_class": "log_class",
        "record_tenant": "tenant_id",
        "record_time": "timestamp || time",
        "event": "event",
    }


def _claimed(claims: Sequence[Claims]) -> list[Stage]:
    found = []
    for claim, (said, label) in CLAIMS.items():
        conditions = [condition for one in claims if (condition := one.condition(claim))]
        if conditions:
            allowed = f"and .{said} (or {' '.join(f'({one})' for one in conditions)})"
            found.append(template(label, first((allowed, value(said)), (f".{label}", value(label)))))
    return found


def _level(reading: Reading) -> list[Stage]:
    """The record's level, else the source's; one word of a few, or `unknown`."""
    known = [*reading.levels, *reading.level_map.values()]
    words = [(f"eq $l {json.dumps(str(name))}", str(level)) for name, level in reading.level_map.items()]
    words += [(f"regexMatch {literal(known)} $l", "{{ $l }}"), ("$l", "unknown")]
    return [template("level", '{{ $l := ToLower (or .record_level .level | default "") }}' + first(*words))]


def _refusals(reading: Reading) -> list[Stage]:
    own = [reading.environment, *(k for k, v in reading.environments.items() if v == reading.environment)]
    differs = {label: f"ne .{said} (print .{label})" for label, said in _REFUSABLE.items()}
    differs["environment"] = f"not (regexMatch {literal(own)} .record_environment)"
    differs["level"] = 'eq .level "unknown"'
    found = [
        template(
            f"refused_{label}", first((f".{said}", first((differs[label], value(f"{said} | trunc {KEPT}")))))
        )
        for label, said in _REFUSABLE.items()
    ]
    marks = " ".join(f".refused_{label}" for label in _REFUSABLE)
    return [*found, template("refused", first((f"or {marks}", "true")))]
