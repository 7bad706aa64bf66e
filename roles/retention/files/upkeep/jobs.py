# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The jobs of this host: lock, state, metrics, and a service and a timer for each in /run, made when retention.service starts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from . import archive, tables
from .errors import JobError

Json = dict[str, Any]
UNITS = Path("/run/systemd/system")
_SERVICE = """\
[Unit]
Description={description}
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory=/etc/retention
ExecStart=/usr/bin/python3 -B -m upkeep run {name}
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
Description=When {description} runs

[Timer]
OnCalendar={schedule}
RandomizedDelaySec={delay}
FixedRandomDelay=yes
Persistent=yes
Unit=retention-{name}.service
"""
_DESCRIPTIONS = {"archive": "Copies of logs into the archive", "tables": "Deletion of old rows"}
# Key of the state -> name and meaning of a metric.
_TOLD = {
    "since": ("since_timestamp_seconds", "When the job was set up."),
    "last_run": ("last_run_timestamp_seconds", "When the job last ended, with success or without."),
    "last_run_success": ("last_run_success", "Whether the last run did all of its work."),
    "last_success": ("last_success_timestamp_seconds", "When the job last did all of its work."),
    "duration": ("last_run_duration_seconds", "How long the last run took."),
    "rows": ("deleted_rows", "Rows that the last run deleted."),
    "partitions": ("archived_partitions", "Days or hours of a class that the last run copied."),
    "lines": ("archived_lines", "Lines that the last run copied."),
    "bytes": ("archived_bytes", "Compressed bytes that the last run wrote."),
}


def read(folder: Path) -> tuple[Json, Json]:
    """Configuration and secrets from the files the role writes."""
    try:
        config: Json = json.loads((folder / "retention.json").read_text())
        secrets: Json = json.loads((folder / "secrets.json").read_text())
    except FileNotFoundError as error:
        raise JobError(f"{error.filename} is not there: this host is not in group retention") from None
    except (OSError, ValueError) as error:
        raise JobError(f"the configuration in {folder} cannot be read: {error}") from None
    return config, secrets


class Job:
    """One job of the configuration."""

    def __init__(self, config: Json, secrets: Json, name: str) -> None:
        if name not in config["jobs"]:
            raise JobError(
                f"this host has no job {name}; it has: {', '.join(sorted(config['jobs'])) or 'none'}"
            )
        self.name = name
        self.settings: Json = config["jobs"][name]
        self.secrets: Json = secrets.get(name) or {}
        self._textfiles = Path(config["textfile_dir"])
        self._folder = Path(config["state_dir"]) / name
        self._state = self._folder / "state.json"

    def state(self) -> Json:
        try:
            found: Json = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise JobError(f"another run of {self.name} is under way") from None
            yield

    def _remember(self, **news: Any) -> None:
        _replace(self._state, json.dumps({**self.state(), **news}))
        self.tell()

    def tell(self) -> None:
        """Writes the metrics; nothing where no exporter reads."""
        if self._textfiles.is_dir():
            _replace(metrics_file(self._textfiles, self.name), self._metrics(), 0o644)

    def _metrics(self) -> str:
        state = self.state()
        told = [("max_age_seconds", "Age of the last success that is too old.", self.settings["max_age"])]
        told += [(*_TOLD[key], state[key]) for key in _TOLD if key in state]
        lines = []
        for name, meaning, value in told:
            metric = f"platform_retention_{name}"
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
            lines.append(f'{metric}{{job_name="{self.name}"}} {float(value):.15g}')
        return "\n".join(lines) + "\n"

    def begin(self) -> None:
        """From now on a run that is missing is noticed."""
        with self._locked():
            self._remember(since=self.state().get("since") or time.time())

    def run(self, say: Callable[[str], None] = print) -> Json:
        """Does the work; metrics say how it ended either way."""
        with self._locked():
            began = time.time()
            try:
                done = self._work(say)
            except BaseException:
                self._remember(last_run=time.time(), last_run_success=0, duration=time.time() - began)
                raise
            now = time.time()
            self._remember(last_run=now, last_run_success=1, last_success=now, duration=now - began, **done)
            return done

    def _work(self, say: Callable[[str], None]) -> Json:
        if self.name == "tables":
            return tables.run(self.settings, str(self.secrets.get("source") or ""), say)
        return archive.run(self.settings, str(self.secrets.get("source") or ""), self.store(), say)

    def store(self) -> archive.Store:
        from .s3 import Bucket

        return Bucket(self.settings["target"], str(self.secrets.get("target") or ""))


def report(config: Json, secrets: Json, wanted: dict[str, int]) -> Json:
    """What this host keeps and how: for the controller."""
    found: Json = {"jobs": {name: Job(config, secrets, name).state() for name in config["jobs"]}}
    if "tables" in config["jobs"]:
        job = Job(config, secrets, "tables")
        found["tables"] = tables.report(job.settings, str(job.secrets.get("source") or ""), wanted)
        found["timer"] = _systemctl("is-active", "retention-tables.timer", check=False).strip()
    return found


def install(config: Json, secrets: Json) -> None:
    """Timers for the jobs there are, and for no others."""
    _take_away()
    UNITS.mkdir(parents=True, exist_ok=True)
    for name, job in config["jobs"].items():
        fields = {**job, "name": name, "description": _DESCRIPTIONS[name]}
        for suffix, text in (("service", _SERVICE), ("timer", _TIMER)):
            (UNITS / f"retention-{name}.{suffix}").write_text(text.format(**fields))
        Job(config, secrets, name).begin()
    folder = Path(config["textfile_dir"])
    for file in set(folder.glob("retention-*.prom")) - {
        metrics_file(folder, name) for name in config["jobs"]
    }:
        file.unlink()
    _systemctl("daemon-reload")
    if config["jobs"]:
        _systemctl("start", *(f"retention-{name}.timer" for name in config["jobs"]))


def remove(config: Json) -> None:
    """Takes the timers away; when the whole guest stops they end by themselves."""
    if "stopping" in _systemctl("is-system-running", check=False):
        return
    _take_away()
    _systemctl("daemon-reload")
    for file in Path(config["textfile_dir"]).glob("retention-*.prom"):
        file.unlink()


def validate(config: Json, secrets: Json) -> None:
    """Raises JobError for a configuration that could not work."""
    for name, job in config["jobs"].items():
        Job(config, secrets, name)
        if name == "tables":
            tables.validate(job)
        elif job["partition"] not in archive.PARTITIONS:
            raise JobError(f"retention_archive_partition: {job['partition']!r} is neither day nor hour")
        done = subprocess.run(
            ["systemd-analyze", "calendar", str(job["schedule"])], capture_output=True, check=False
        )
        if done.returncode:
            raise JobError(
                f"retention_{name}_schedule: {job['schedule']!r} is no calendar event of systemd, such as *-*-* 03:00"
            )


def metrics_file(folder: Path, name: str) -> Path:
    return folder / f"retention-{name}.prom"


def _replace(file: Path, text: str, mode: int = 0o600) -> None:
    half = file.with_suffix(".new")
    half.write_text(text)
    half.chmod(mode)
    half.replace(file)


def _take_away() -> None:
    ours = sorted([*UNITS.glob("retention-*.timer"), *UNITS.glob("retention-*.service")])
    timers = [path.name for path in ours if path.suffix == ".timer"]
    if timers:
        _systemctl("stop", *timers)
    for path in ours:
        path.unlink()


def _systemctl(*words: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise JobError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
