# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What node exporter's textfile collector reads: one file per job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Key of the job's state -> name and meaning.
_TOLD = {
    "since": ("since_timestamp_seconds", "When the job was set up."),
    "last_run": ("last_run_timestamp_seconds", "When the job last ended, with success or without."),
    "last_run_success": ("last_run_success", "Whether the last run made a complete copy."),
    "last_success": ("last_success_timestamp_seconds", "When the newest complete copy was finished."),
    "duration": ("last_run_duration_seconds", "How long the last run took."),
    "size": ("size_bytes", "What the newest copy holds."),
    "added": ("added_bytes", "What the newest copy added to the store."),
    "copies": ("copies", "Complete copies in the store."),
    "oldest": ("oldest_timestamp_seconds", "Time of the oldest complete copy."),
    "last_restore": ("last_restore_timestamp_seconds", "When a copy was last put back here."),
}


def path_of(folder: Path, job: str) -> Path:
    return folder / f"backup-{job}.prom"


def text(job: str, max_age: float, state: dict[str, Any]) -> str:
    """Lines in the exposition format; `max_age` in seconds."""
    lines = []
    values = {key: state[key] for key in _TOLD if key in state}
    for name, meaning, value in [
        ("max_age_seconds", "Age at which the newest copy is too old.", max_age),
        *((*_TOLD[key], value) for key, value in values.items()),
    ]:
        metric = f"platform_backup_{name}"
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
        lines.append(f'{metric}{{backup="{job}"}} {float(value):.15g}')
    return "\n".join(lines) + "\n"


def write(folder: Path, job: str, max_age: float, state: dict[str, Any]) -> None:
    """Nothing where no exporter reads."""
    if folder.is_dir():
        file = path_of(folder, job)
        half = file.with_suffix(".new")
        half.write_text(text(job, max_age, state))
        half.chmod(0o644)
        half.replace(file)
