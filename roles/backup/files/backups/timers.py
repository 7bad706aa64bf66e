# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The timers: a service and a timer per job in /run, made when backup.service starts and taken away when it stops."""

from __future__ import annotations

import json
from pathlib import Path

from . import metrics
from .errors import BackupError
from .job import Job
from .source import Json, command

UNITS = Path("/run/systemd/system")

_SERVICE = """\
[Unit]
Description=Backup of {name}
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory=/etc/backup
ExecStart=/usr/bin/python3 -B -m backups run {name}
Nice=10
IOSchedulingClass=idle
UMask=0077
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""
# Persistent: what was due while the guest was down is done when it is up again.
_TIMER = """\
[Unit]
Description=When the backup of {name} is taken

[Timer]
OnCalendar={schedule}
RandomizedDelaySec={delay}
FixedRandomDelay=yes
Persistent=yes
Unit=backup-{name}.service
"""


def _ours() -> list[Path]:
    return sorted([*UNITS.glob("backup-*.timer"), *UNITS.glob("backup-*.service")])


def install(config: Json, secrets: Json) -> None:
    _take_away()
    UNITS.mkdir(parents=True, exist_ok=True)
    for name, job in config["jobs"].items():
        fields = {"name": name, "schedule": job["schedule"], "delay": job.get("delay") or "0"}
        (UNITS / f"backup-{name}.service").write_text(_SERVICE.format(**fields))
        (UNITS / f"backup-{name}.timer").write_text(_TIMER.format(**fields))
        Job(config, secrets, name).begin()
    for file in Path(config["textfile_dir"]).glob("backup-*.prom"):
        if file not in [metrics.path_of(file.parent, name) for name in config["jobs"]]:
            file.unlink()
    command(["systemctl", "daemon-reload"])
    if config["jobs"]:
        command(["systemctl", "start", *(f"backup-{name}.timer" for name in config["jobs"])])


def remove(config: Json) -> None:
    try:
        state = command(["systemctl", "is-system-running"])
    except BackupError as error:
        state = str(error)
    if "stopping" in state:
        return  # what is in /run ends by itself
    _take_away()
    command(["systemctl", "daemon-reload"])
    for file in Path(config["textfile_dir"]).glob("backup-*.prom"):
        file.unlink()


def _take_away() -> None:
    timers = [path.name for path in _ours() if path.suffix == ".timer"]
    if timers:
        command(["systemctl", "stop", *timers])
    for path in _ours():
        path.unlink()


def check(config: Json, secrets: Json) -> None:
    """Raises BackupError for a configuration that could not work."""
    for name, job in config["jobs"].items():
        Job(config, secrets, name)
        try:
            command(["systemd-analyze", "calendar", str(job["schedule"])])
        except BackupError:
            raise BackupError(
                f"backup_{name}_schedule: {job['schedule']!r} is no calendar event of systemd, such as *-*-* 03:00"
            ) from None


def read(folder: Path) -> tuple[Json, Json]:
    """Configuration and secrets from the files the role writes."""
    try:
        config: Json = json.loads((folder / "backup.json").read_text())
        secrets: Json = json.loads((folder / "secrets.json").read_text())
    except FileNotFoundError as error:
        raise BackupError(f"{error.filename} is not there: this host is not in group backup") from None
    except (OSError, ValueError) as error:
        raise BackupError(f"the configuration in {folder} cannot be read: {error}") from None
    return config, secrets
