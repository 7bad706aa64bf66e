# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""On request: a test message to each receiver of each Alertmanager, counted as delivered by Alertmanager itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import yaml

from .._component.probe import metric_value
from .._content.alerting import TEST_LABEL, integrations
from .._servers.client import Client
from .model import Check, NotYet, Wanted, Wrong

_REQUESTS = "alertmanager_notification_requests_total"
_FAILED = "alertmanager_notification_requests_failed_total"


def checks(wanted: Wanted) -> list[Check]:
    if not wanted.receivers:
        return []
    return [
        Check(
            "receivers",
            str(connection["url"]),
            frozenset({"alertmanager"}),
            Messages(Client(connection), wanted).run,
            "journalctl -u alertmanager on its host says what the other side answered; receivers are in alertmanager_config",
            active=True,
        )
        for connection in wanted.of("alertmanager")
    ]


class Messages:
    """Sends once, then looks until every message was delivered."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client, self._wanted = client, wanted
        self._receivers: dict[str, dict[str, int]] = {}
        self._before: dict[tuple[str, str], float] = {}

    def run(self) -> str:
        if not self._before:
            self._receivers = self._configured()
            if not any(self._receivers.values()):
                raise Wrong(
                    "no receiver tells anybody; name one with its way of telling in alertmanager_config"
                )
            text = self._client.text("/metrics")
            self._before = {key: self._delivered(text, *key) for key in self._ways()}
            self._client.text(
                "/api/v2/alerts",
                body=[self._alert(name) for name in self._receivers if self._receivers[name]],
            )
        text, late = self._client.text("/metrics"), []
        for name, way in self._ways():
            missing = self._receivers[name][way] - (
                self._delivered(text, name, way) - self._before[name, way]
            )
            if missing > 0:
                failed = self._value(text, _FAILED, name, way)
                late.append(
                    f"receiver {name}: {way} did not take the message"
                    + (f", {failed:g} requests failed so far" if failed else "")
                )
        if late:
            raise NotYet("; ".join(late))
        told = ", ".join(f"{name} ({', '.join(ways)})" for name, ways in self._receivers.items() if ways)
        silent = ", ".join(name for name, ways in self._receivers.items() if not ways)
        return f"delivered to {told}" + (f"; {silent} tells nobody" if silent else "")

    def _configured(self) -> dict[str, dict[str, int]]:
        shown = yaml.safe_load(self._client.json("/api/v2/status")["config"]["original"]) or {}
        tried = {
            str(route.get("receiver"))
            for route in (shown.get("route") or {}).get("routes") or []
            if any(str(matcher).startswith(TEST_LABEL) for matcher in route.get("matchers") or [])
        }
        found = {str(entry["name"]): integrations(entry) for entry in shown.get("receivers") or []}
        lost = sorted(name for name, ways in found.items() if ways and name not in tried)
        if lost:
            raise Wrong(
                f"no route tries {', '.join(lost)}; run site.yml --tags alertmanager, which adds them"
            )
        return found

    def _ways(self) -> list[tuple[str, str]]:
        return [(name, way) for name, ways in self._receivers.items() for way in ways]

    def _delivered(self, text: str, name: str, way: str) -> float:
        return self._value(text, _REQUESTS, name, way) - self._value(text, _FAILED, name, way)

    def _value(self, text: str, metric: str, name: str, way: str) -> float:
        return metric_value(text, metric, {"receiver_name": name, "integration": way}) or 0.0

    def _alert(self, name: str) -> Mapping[str, Any]:
        labels = {
            "alertname": "PlatformVerify",
            TEST_LABEL: name,
            # A group of its own on each server and in each run: it is told at once.
            "platform_verify": f"{self._wanted.run} {self._client.url}",
            "environment": self._wanted.environment,
            "severity": "none",
        }
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 300))
        summary = f"Test message to receiver {name}: it arrived. Nothing is wrong; this alert ends by itself."
        return {"labels": labels, "annotations": {"summary": summary, "description": summary}, "endsAt": end}
