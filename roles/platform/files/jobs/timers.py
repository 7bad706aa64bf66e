# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The timers: a service and a timer per job in /run, made when the role's service starts and taken away when it stops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .commands import command, said
from .errors import JobError
from .job import Job, Json

UNITS = Path("/run/systemd/system")
_SERVICE = """\
[Unit]
Description={description}
After=network-online.target
{mounts}
[Service]
Type=oneshot
WorkingDirectory=/etc/{role}
ExecStart=/usr/bin/python3 -B -m {program} run {name}
Nice=10
IOSchedulingClass=idle
UMask=0077
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome={hide_homes}
PrivateTmp={hide_scratch}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""
# Persistent: what was due while the guest was down is done when it is up again.
_TIMER = """\
[Unit]
Description={description}: when it is due

[Timer]
OnCalendar={schedule}
RandomizedDelaySec={delay}
FixedRandomDelay=yes
Persistent=yes
Unit={role}-{name}.service
"""


def read(kind: type[Job], folder: Path) -> tuple[Json, Json]:
    """Configuration and secrets from the files the role writes."""
    try:
        config: Json = json.loads((folder / f"{kind.role}.json").read_text())
        secrets: Json = json.loads((folder / "secrets.json").read_text())
    except FileNotFoundError as error:
        raise JobError(f"{error.filename} is not there: this host is not in group {kind.role}") from None
    except (OSError, ValueError) as error:
        raise JobError(f"the configuration in {folder} cannot be read: {error}") from None
    return config, secrets


def install(kind: type[Job], config: Json, secrets: Json) -> None:
    """Timers for the jobs there are, and for no others."""
    _take_away(kind)
    UNITS.mkdir(parents=True, exist_ok=True)
    jobs = [kind(config, secrets, name) for name in config["jobs"]]
    for job in jobs:
        fields = {
            "role": kind.role,
            "program": kind.program,
            "name": job.name,
            "description": job.description,
            "schedule": job.settings["schedule"],
            "delay": job.settings.get("delay") or "0",
            **seen(job.settings),
        }
        (UNITS / f"{kind.role}-{job.name}.service").write_text(_SERVICE.format(**fields))
        (UNITS / f"{kind.role}-{job.name}.timer").write_text(_TIMER.format(**fields))
        job.begin()
    for file in _metrics(kind, config) - {job.metrics_file for job in jobs}:
        file.unlink()
    command(["systemctl", "daemon-reload"])
    if jobs:
        command(["systemctl", "start", *(f"{kind.role}-{job.name}.timer" for job in jobs)])


def seen(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a job reads and writes is mounted before, and is not hidden from it."""
    given = {**(settings.get("source") or {}), **(settings.get("target") or {})}
    paths = [
        str(given[key])
        for key in ("directory", "data_dir", "database")
        if str(given.get(key) or "").startswith("/")
    ]

    def below(*folders: str) -> bool:
        return any(f"{path}/".startswith(f"{folder}/") for path in paths for folder in folders)

    return {
        "mounts": "".join(f'RequiresMountsFor="{path}"\n' for path in paths),
        "hide_homes": "no" if below("/home", "/root", "/run/user") else "yes",
        "hide_scratch": "no" if below(*(f"/{name}" for name in ("tmp", "var/tmp"))) else "yes",
    }


def remove(kind: type[Job], config: Json, _secrets: Json) -> None:
    """Takes the timers away; when the whole guest stops, what is in /run ends by itself."""
    if "stopping" in said("systemctl", "is-system-running"):
        return
    _take_away(kind)
    command(["systemctl", "daemon-reload"])
    for file in _metrics(kind, config):
        file.unlink()


def check(kind: type[Job], config: Json, secrets: Json) -> None:
    """Raises JobError for a configuration that could not work."""
    for name in config["jobs"]:
        job = kind(config, secrets, name)
        job.check_settings()
        schedule = str(job.settings["schedule"])
        try:
            command(["systemd-analyze", "calendar", schedule])
        except JobError:
            raise JobError(
                f"{kind.role}_{name}_schedule: {schedule!r} is no calendar event of systemd, such as *-*-* 03:00"
            ) from None


def _metrics(kind: type[Job], config: Json) -> set[Path]:
    return set(Path(config["textfile_dir"]).glob(f"{kind.role}-*.prom"))


def _take_away(kind: type[Job]) -> None:
    ours = sorted([*UNITS.glob(f"{kind.role}-*.timer"), *UNITS.glob(f"{kind.role}-*.service")])
    timers = [path.name for path in ours if path.suffix == ".timer"]
    if timers:
        command(["systemctl", "stop", *timers])
    for path in ours:
        path.unlink()
