# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Alertmanager's configuration: files by their absolute path, a way to try every receiver, and another way for the
alert that a receiver fails. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import paths
from .faults import Problem, refuse

FOLDER = "/etc/alertmanager"
VARIABLE = "alertmanager_config"
SECRETS = "alertmanager_secret_files"
# A test alert with this label goes to the receiver it names, and nowhere else.
TEST_LABEL = "platform_verify_receiver"
FAILING = "NotificationsFailing"


def problems(config: Any, secrets: Any) -> list[Problem]:
    """Secret files that the configuration names and nobody writes."""
    names = secrets if isinstance(secrets, Mapping) else {}
    return paths.undeclared(config, VARIABLE, FOLDER, names, SECRETS)


def integrations(receiver: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind (`slack`, `email`) a receiver has."""
    return {
        str(key)[: -len("_configs")]: len(value)
        for key, value in receiver.items()
        if str(key).endswith("_configs") and isinstance(value, (list, tuple)) and value
    }


def notifying(config: Mapping[str, Any]) -> list[str]:
    """Names of the receivers that tell somebody."""
    receivers = config.get("receivers") or []
    return [str(entry["name"]) for entry in receivers if "name" in entry and integrations(entry)]


def configuration(config: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """What the server gets. Raises ContentError."""
    refuse(problems(config, secrets))
    made: dict[str, Any] = paths.absolute(config, FOLDER)
    names = notifying(made)
    own = [*map(_test, names), *(_another_way(name) for name in names if len(names) > 1)]
    if own:
        route = made.get("route") or {}
        made["route"] = {**route, "routes": own + list(route.get("routes") or [])}
    return made


def _test(name: str) -> dict[str, Any]:
    return {
        "matchers": [f"{TEST_LABEL} = {json.dumps(name)}"],
        "receiver": name,
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "5m",
        "repeat_interval": "24h",
    }


def _another_way(name: str) -> dict[str, Any]:
    """Whoever works is told of those that do not."""
    return {
        "matchers": [f'alertname = "{FAILING}"', f"receiver_name != {json.dumps(name)}"],
        "receiver": name,
        "continue": True,
    }
