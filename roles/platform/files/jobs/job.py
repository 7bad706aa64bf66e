# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One job of this host: its lock, what is known of earlier runs, and the metrics that tell it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, ClassVar

from .errors import Busy, JobError

Json = dict[str, Any]
# Key of the state -> name and meaning of a metric.
_TOLD = {
    "since": ("since_timestamp_seconds", "When the job was set up."),
    "last_run": ("last_run_timestamp_seconds", "When the job last ended, with success or without."),
    "last_run_success": ("last_run_success", "Whether the last run did all of its work."),
    "last_success": ("last_success_timestamp_seconds", "When the job last did all of its work."),
    "duration": ("last_run_duration_seconds", "How long the last run took."),
}


class Job:
    """`config` and `secrets` are the files that the role writes; `say` tells people what is done."""

    # Module that systemd runs; the role, whose name begins those of its folder, units, metrics and variables.
    program: ClassVar[str]
    role: ClassVar[str]
    # What a metric calls the job's name, and metrics of this role's own.
    label: ClassVar[str]
    told: ClassVar[Mapping[str, tuple[str, str]]]

    def __init__(self, config: Json, secrets: Json, name: str, say: Callable[[str], None] = print) -> None:
        if name not in config["jobs"]:
            there = ", ".join(sorted(config["jobs"])) or "none"
            raise JobError(f"this host has no job {name}; it has: {there}")
        self.name, self.say = name, say
        self.settings: Json = config["jobs"][name]
        self._secrets: Json = secrets.get(name) or {}
        self._textfiles = Path(config["textfile_dir"])
        self._folder = Path(config["state_dir"]) / name
        self._state_file = self._folder / "state.json"

    @property
    def description(self) -> str:
        """For the unit."""
        raise NotImplementedError

    def check_settings(self) -> None:
        """Raises JobError for settings that could not work."""

    def secret(self, of: str) -> str:
        """Of the `source` or of the `target`; empty without one."""
        return str(self._secrets.get(of) or "")

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._make_folder()
        with (self._folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise Busy(
                    f"another run of {self.name} is under way (process {file.read().strip()})"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @contextlib.contextmanager
    def _counted(self) -> Iterator[Json]:
        """A run, alone; what is put into the mapping is remembered with its success. Metrics say how it ended either way."""
        with self._locked():
            began = time.time()
            news: Json = {}
            try:
                yield news
            except BaseException:
                self._remember(last_run=time.time(), last_run_success=0, duration=time.time() - began)
                raise
            now = time.time()
            done = {"last_run": now, "last_run_success": 1, "last_success": now, "duration": now - began}
            self._remember(**{**done, **news})

    def state(self) -> Json:
        """What is known of earlier runs."""
        try:
            found: Json = json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _remember(self, **news: Any) -> None:
        _replace(self._state_file, json.dumps({**self.state(), **news}), 0o600)
        # Nothing where no exporter reads.
        if self._textfiles.is_dir():
            _replace(self.metrics_file, self._metrics(), 0o644)

    @property
    def metrics_file(self) -> Path:
        return self._textfiles / f"{self.role}-{self.name}.prom"

    def _metrics(self) -> str:
        state, told = self.state(), {**_TOLD, **self.told}
        rows = [("max_age_seconds", "Age of the last success that is too old.", self.settings["max_age"])]
        rows += [(*told[key], state[key]) for key in told if key in state]
        lines = []
        for name, meaning, value in rows:
            metric = f"platform_{self.role}_{name}"
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
            lines.append(f'{metric}{{{self.label}="{self.name}"}} {float(value):.15g}')
        return "\n".join(lines) + "\n"

    def begin(self) -> None:
        """From now on a success that is missing is noticed. A run that is under way tells the metrics itself."""
        with contextlib.suppress(Busy), self._locked():
            self._remember(since=self.state().get("since") or time.time())


def _replace(file: Path, text: str, mode: int) -> None:
    half = file.with_suffix(".new")
    half.write_text(text)
    half.chmod(mode)
    half.replace(file)
