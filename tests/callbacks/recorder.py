# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Writes what a run did, task by task and host by host, for tests that compare runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: aggregate
short_description: Writes what a run did to a JSON file
description:
  - One file per run in the folder named by E(RUN_RECORDS), called C(<time>-<check|run>.json).
"""


class CallbackModule(CallbackBase):
    """One row per task result: play, task, host, status, changed, actions, seconds, and what was answered of guests."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[dict[str, Any]] = []
        self._play = ""
        self._begun: dict[tuple[str, str], float] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play.get_name().strip()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._begun[host.get_name(), task._uuid] = time.monotonic()

    def _row(self, result: Any, status: str) -> None:
        answer = result.result
        self._rows.append(
            {
                "play": self._play,
                "task": result.task_name,
                # Of an action that answers for one component.
                "component": answer.get("component", ""),
                "action": result.task.action,
                "host": result.host.get_name(),
                "status": status,
                "changed": bool(answer.get("changed", False)),
                "actions": answer.get("actions", []),
                "seconds": round(
                    time.monotonic() - self._begun.get((result.host.get_name(), result.task._uuid), 0), 2
                ),
                "guests": answer.get("guests", {}),
            }
        )

    def v2_runner_on_ok(self, result: Any) -> None:
        # Of a loop each item was a row already.
        if not result.task.loop:
            self._row(result, "ok")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._row(result, "ok")

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._row(result, "failed")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not result.task.loop:
            self._row(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._row(result, "unreachable")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        folder = Path(os.environ["RUN_RECORDS"])
        folder.mkdir(parents=True, exist_ok=True)
        mode = "check" if context.CLIARGS.get("check") else "run"
        (folder / f"{time.time_ns()}-{mode}.json").write_text(json.dumps(self._rows))
