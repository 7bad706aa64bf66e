# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The names of the checks."""

from __future__ import annotations

NAMES = (
    "targets",
    "rules",
    "watchdog",
    "alert",
    "receivers",
    "logs",
    "traces",
    "grafana",
    "buckets",
    "retention",
)
