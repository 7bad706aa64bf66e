# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What people give the servers of a host: pieces of configuration, dashboards, channels. The roles ask the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._component.places import unfit
from .._content import alerting, dashboards, ini, paths, sources, texts
from .._content.faults import Problem
from .faults import Fault

KINDS = ("prometheus", "loki", "tempo", "alertmanager")
# Configurations of servers that read no files of their users.
_NO_FILES = (
    "blackbox_exporter_config",
    "promtail_config",
    "promtail_extra_scrape_configs",
    "loki_config",
    "tempo_config",
)
# Directories of what has to outlive a reboot.
_KEPT = ("_data_dir", "_textfile_dir")


def check(host: str, values: Mapping[str, Any]) -> list[Fault]:
    """Faults of one host; `values` are its evaluated variables."""
    found: list[Problem] = []
    for name in _NO_FILES:
        found += paths.relative(values.get(name), name)
    for name in values:
        if name.endswith(("_environment", "_secret_files")) and name != "platform_environment":
            found += texts.problems(values[name], name)
    found += [
        (f"{name}.directory", f"{value['directory']} {reason}")
        for name, value in values.items()
        if name.endswith("_target")
        and isinstance(value, Mapping)
        and (reason := unfit(str(value.get("directory") or "")))
    ]
    found += [
        (name, f"{value} {reason}")
        for name, value in values.items()
        if name.endswith(_KEPT) and isinstance(value, str) and (reason := unfit(value))
    ]
    if "alertmanager_config" in values:
        found += alerting.problems(values["alertmanager_config"], values.get("alertmanager_secret_files"))
    if "grafana_config" in values:
        found += ini.problems(values["grafana_config"], "grafana_config")
    if "grafana_dashboards" in values:
        given = dashboards.inspect(
            values["grafana_dashboards"], values.get("platform_dashboards") or [], _sources(values)
        )
        found += given.problems
    if "grafana_datasources" in values:
        servers = {kind: values.get(f"grafana_{kind}") or [] for kind in KINDS}
        found += sources.problems(values["grafana_datasources"], servers)
    return [Fault(where, host, text) for where, text in found]


def _sources(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The data sources of a Grafana, as far as exports are bound to them."""
    further = values.get("grafana_datasources")
    return (
        [{"type": kind, "uid": kind} for kind in KINDS if values.get(f"grafana_{kind}")]
        + [entry for entry in further if isinstance(entry, Mapping)]
        if isinstance(further, list)
        else []
    )


def untold(values: Mapping[str, Mapping[str, Any]]) -> list[Fault]:
    """Channels that nothing sends to: whoever reads the inventory believes to be called. Told once for all hosts."""
    names = sorted(
        {
            str(name)
            for having in values.values()
            if isinstance(having.get("platform_channels"), Mapping)
            for name in having["platform_channels"]
        }
    )
    if not names:
        return []
    text = (
        f"NOBODY IS TOLD by {'this channel' if len(names) == 1 else f'these {len(names)} channels'}: {', '.join(names)}. "
        "They are declared only; no role sends to them yet. Whoever must be told of alerts is a receiver in alertmanager_config"
    )
    return [Fault("platform_channels", "", text)]
