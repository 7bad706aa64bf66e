# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Lifecycle rules of a bucket: ours as data, foreign ones untouched as the server wrote them. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Rules whose id begins so are ours; all others belong to somebody else.
OURS = "platform-"
_WRITTEN = {"ID", "Status", "Prefix", "Days", "NoncurrentDays"}
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True)
class Rule:
    """One rule of ours. Days are whole; None leaves that kind of expiry out."""

    id: str
    prefix: str = ""
    days: int | None = None
    noncurrent_days: int | None = None
    enabled: bool = True
    # Something in it that we never write: it is not as wanted, whatever its days say.
    altered: bool = False

    def words(self) -> str:
        """For people: `audit/: 180d, noncurrent 14d`."""
        parts = [f"{self.days}d"] if self.days else []
        parts += [f"noncurrent {self.noncurrent_days}d"] if self.noncurrent_days else []
        parts += [] if self.enabled else ["disabled"]
        parts += ["altered by hand"] if self.altered else []
        return f"{self.prefix or '(all objects)'}: {', '.join(parts)}"


@dataclass(frozen=True)
class Foreign:
    """A rule of somebody else: its XML, and what of it matters to a reader of the bucket."""

    xml: str
    id: str
    prefix: str
    days: int | None
    enabled: bool

    def words(self) -> str:
        days = f"{self.days}d" if self.days else "no expiry by days"
        return f"{self.id or '(no id)'}: {self.prefix or '(all objects)'}: {days}{'' if self.enabled else ', disabled'}"


@dataclass(frozen=True)
class Rules:
    """All rules of one bucket."""

    ours: tuple[Rule, ...] = ()
    foreign: tuple[Foreign, ...] = ()


def parse(document: str) -> Rules:
    """The rules of a server's answer. Raises ValueError for what is no lifecycle."""
    # The only way to make a small document large; no lifecycle has one.
    if "<!DOCTYPE" in document:
        raise ValueError("the lifecycle has a DOCTYPE")
    try:
        root = ET.fromstring(document)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"the lifecycle is no XML: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    ours: list[Rule] = []
    foreign: list[Foreign] = []
    for rule in root.findall("Rule"):
        name = rule.findtext("ID") or ""
        if name.startswith(OURS):
            ours.append(_rule(rule, name[len(OURS) :]))
        else:
            xml = ET.tostring(rule, encoding="unicode").strip()
            enabled = rule.findtext("Status") == "Enabled"
            foreign.append(Foreign(xml, name, _prefix(rule), _number(rule, "Expiration/Days"), enabled))
    return Rules(tuple(sorted(ours, key=lambda one: one.id)), tuple(foreign))


def render(rules: Rules) -> bytes:
    """The document to send."""
    root = ET.Element("LifecycleConfiguration", {"xmlns": _NAMESPACE})
    for one in rules.foreign:
        root.append(ET.fromstring(one.xml))  # noqa: S314
    for rule in rules.ours:
        element = ET.SubElement(root, "Rule")
        ET.SubElement(element, "ID").text = OURS + rule.id
        ET.SubElement(element, "Status").text = "Enabled"
        ET.SubElement(ET.SubElement(element, "Filter"), "Prefix").text = rule.prefix
        if rule.days:
            ET.SubElement(ET.SubElement(element, "Expiration"), "Days").text = str(rule.days)
        if rule.noncurrent_days:
            part = ET.SubElement(element, "NoncurrentVersionExpiration")
            ET.SubElement(part, "NoncurrentDays").text = str(rule.noncurrent_days)
    return bytes(ET.tostring(root, encoding="utf-8"))


def from_arguments(rules: Sequence[dict[str, Any]], where: str) -> tuple[Rule, ...]:
    """The typed form of the module's argument. Raises ValueError naming the rule."""
    found = [
        Rule(str(one["id"]), str(one.get("prefix") or ""), one.get("days"), one.get("noncurrent_days"))
        for one in rules
    ]
    names = [one.id for one in found]
    for one in found:
        place = f"{where}: lifecycle rule {one.id!r}"
        if not one.id or names.count(one.id) > 1:
            raise ValueError(f"{place}: each rule needs an id of its own")
        if not one.days and not one.noncurrent_days:
            raise ValueError(f"{place}: says neither days nor noncurrent_days, so it would delete nothing")
        if (one.days or 1) < 1 or (one.noncurrent_days or 1) < 1:
            raise ValueError(f"{place}: the minimum is 1 day")
    return tuple(sorted(found, key=lambda one: one.id))


def _rule(rule: ET.Element, name: str) -> Rule:
    one = Rule(
        name,
        _prefix(rule),
        _number(rule, "Expiration/Days"),
        _number(rule, "NoncurrentVersionExpiration/NoncurrentDays"),
        rule.findtext("Status") == "Enabled",
    )
    strange = {
        element.tag for element in rule.iter() if (element.text or "").strip() not in ("", "false")
    } - _WRITTEN
    return Rule(one.id, one.prefix, one.days, one.noncurrent_days, one.enabled, bool(strange))


def _prefix(rule: ET.Element) -> str:
    return (
        rule.findtext("Filter/Prefix") or rule.findtext("Filter/And/Prefix") or rule.findtext("Prefix") or ""
    )


def _number(rule: ET.Element, path: str) -> int | None:
    text = (rule.findtext(path) or "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else None
