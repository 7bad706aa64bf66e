# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Counts what a run asks of Ansible."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: counter
type: aggregate
short_description: Counts plays, tasks and results
description:
  - Writes them to the file named by E(BENCH_COUNTS).
"""


class CallbackModule(CallbackBase):
    """`tasks` are callbacks of a task's start; `results` are task, host and item, skipped ones too."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "counter"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._tasks = self._results = 0
        self._changed: list[str] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._tasks += 1

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._tasks += 1

    def v2_runner_on_ok(self, result: Any) -> None:
        self._results += 1
        if result.result.get("changed"):
            self._changed.append(f"{result.host.get_name()}: {result.task_name}")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._results += 1

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._results += 1

    def v2_playbook_on_stats(self, stats: Any) -> None:
        counts = {"tasks": self._tasks, "results": self._results, "changed": self._changed}
        Path(os.environ["BENCH_COUNTS"]).write_text(json.dumps(counts))
