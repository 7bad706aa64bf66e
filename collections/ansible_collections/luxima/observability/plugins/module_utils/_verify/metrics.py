# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Checks of Prometheus and Alertmanager: targets, rules, the test alert, the watchdog."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .._servers.client import Client
from .model import Check, NotYet, Wanted

WATCHDOG = "Watchdog"


def checks(wanted: Wanted) -> list[Check]:
    """All of them, for each server of a pair."""
    found: list[Check] = []
    for connection in wanted.of("prometheus"):
        client = Client(connection)
        found += _target_checks(wanted, client)
        found.append(
            Check(
                "rules",
                client.url,
                frozenset({"prometheus"}),
                partial(rules, client),
                "see the page Status > Rules of this Prometheus, or `promtool check rules` on the rule files below /etc/prometheus",
            )
        )
    for connection in wanted.of("alertmanager"):
        client = Client(connection)
        found.append(
            Check(
                "watchdog",
                client.url,
                frozenset({"prometheus", "alertmanager"}),
                partial(watchdog, client, wanted.environment),
                f"the rule {WATCHDOG} must fire in Prometheus, and `alerting.alertmanagers` there must name this Alertmanager",
            )
        )
        found.append(
            Check(
                "alert",
                client.url,
                frozenset({"alertmanager"}),
                partial(test_alert, client, wanted),
                "post an alert by hand: amtool --alertmanager.url=<url> alert add x=y; then read journalctl -u alertmanager",
                active=True,
            )
        )
    return found


def _target_checks(wanted: Wanted, client: Client) -> list[Check]:
    """One check per group, so that `--tags loki` asks for Loki's targets only; and one for targets nobody expected."""
    groups = sorted({str(target["component"]) for target in wanted.expected_targets})
    hint = (
        "see /targets of this Prometheus; on the host: systemctl status <component>, and the port's firewall"
    )
    found = []
    for group in groups:
        expected = [t for t in wanted.expected_targets if t["component"] == group]
        found.append(
            Check(
                "targets",
                f"{client.url} {group}",
                frozenset({group}),
                partial(targets, client, expected),
                hint,
                server="prometheus",
            )
        )
    found.append(
        Check(
            "targets",
            f"{client.url} all",
            frozenset({"prometheus"}),
            partial(all_targets_up, client),
            hint,
        )
    )
    return found


def _active_targets(client: Client) -> list[Mapping[str, Any]]:
    return list(client.json("/api/v1/targets", {"state": "active"})["data"]["activeTargets"])


def _why(target: Mapping[str, Any]) -> str:
    if target["health"] == "unknown":
        return f"{target['scrapeUrl']} was not scraped yet"
    return f"{target['scrapeUrl']} is {target['health']}: {target.get('lastError') or 'no reason given'}"


def targets(client: Client, expected: list[Mapping[str, Any]]) -> str:
    """Every expected target (component, address as host:port, path, scheme) is scraped under its component's name, and up."""
    by_place: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for target in _active_targets(client):
        place = urlsplit(str(target["scrapeUrl"]))
        by_place.setdefault((place.netloc, place.path), []).append(target)
    faults = []
    for want in expected:
        address, path, name = (
            str(want["address"]),
            str(want.get("path") or "/metrics"),
            str(want["component"]),
        )
        there = by_place.get((address, path), [])
        mine = [t for t in there if name in (t["labels"].get("service_name"), t["labels"].get("job"))]
        if not mine:
            other = ", ".join(sorted({str(t["labels"].get("job")) for t in there}))
            faults.append(
                f"{name} {address}{path} is not scraped" + (f" (only as job {other})" if other else "")
            )
            continue
        faults += [_why(target) for target in mine if target["health"] != "up"]
        scheme = str(want.get("scheme") or "http")
        faults += [
            f"{target['scrapeUrl']} is scraped by the wrong scheme, expected {scheme}"
            for target in mine
            if urlsplit(str(target["scrapeUrl"])).scheme != scheme
        ]
    if faults:
        raise NotYet("; ".join(faults))
    return f"{len(expected)} of {len(expected)} up"


def all_targets_up(client: Client) -> str:
    """Every target of every job, ours or not, is up; there is at least one."""
    found = _active_targets(client)
    if not found:
        raise NotYet("no scrape target at all")
    down = [_why(target) for target in found if target["health"] != "up"]
    if down:
        raise NotYet(f"{len(down)} of {len(found)} not up: " + "; ".join(down))
    return f"{len(found)} targets up"


def rules(client: Client) -> str:
    """At least one rule, every rule evaluated without error."""
    groups = client.json("/api/v1/rules")["data"]["groups"]
    every = [(group["name"], rule) for group in groups for rule in group["rules"]]
    if not every:
        raise NotYet("no rule is loaded")
    bad = [
        f"{group}/{rule['name']} is {rule['health']}"
        + (f": {rule['lastError']}" if rule.get("lastError") else "")
        for group, rule in every
        if rule["health"] != "ok"
    ]
    if bad:
        raise NotYet("; ".join(bad))
    return f"{len(every)} rules in {len(groups)} groups"


def watchdog(client: Client, environment: str) -> str:
    """The alert that always fires has come through. Proves Prometheus → Alertmanager without sending anything."""
    found = client.json("/api/v2/alerts", {"filter": f'alertname="{WATCHDOG}"'})
    if not found:
        raise NotYet(f"no alert {WATCHDOG} has arrived from any Prometheus")
    environments = sorted({str(alert["labels"].get("environment", "")) for alert in found})
    if environment not in environments:
        raise NotYet(f"{WATCHDOG} arrived with environment={', '.join(environments)}, expected {environment}")
    return f"{WATCHDOG} arrived, updated {max(str(alert['updatedAt']) for alert in found)[:19]}Z"


def test_alert(client: Client, wanted: Wanted) -> str:
    """A posted alert is listed with its receivers; it ends at once, before any group wait is over."""
    labels = {
        "alertname": "PlatformVerify",
        "platform_verify": wanted.run,
        "environment": wanted.environment,
        "severity": "none",
    }
    alert = {
        "labels": labels,
        "annotations": {"summary": "Test alert of verify; it ends by itself."},
        "startsAt": _rfc3339(time.time() - 1),
        "endsAt": _rfc3339(time.time() + 60),
    }
    query = {"filter": f'platform_verify="{wanted.run}"'}
    if not client.json("/api/v2/alerts", query):
        client.text("/api/v2/alerts", body=[alert])
    found = client.json("/api/v2/alerts", query)
    if not found:
        raise NotYet("the test alert was accepted but is not listed")
    receivers = sorted({receiver["name"] for one in found for receiver in one["receivers"]})
    client.text("/api/v2/alerts", body=[{**alert, "endsAt": _rfc3339(time.time())}])
    if not receivers:
        raise NotYet("the test alert is listed, but no receiver gets it")
    return f"listed, for receiver {', '.join(receivers)}"


def _rfc3339(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
