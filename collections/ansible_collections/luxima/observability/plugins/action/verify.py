# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs the module verify and shows its progress and its summary while and after it runs."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

_EVERY = 0.5


class ActionModule(ActionBase):
    """The module does the work; a module cannot write to the operator's terminal, this can."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        display = Display()
        with tempfile.TemporaryDirectory(prefix="luxima-verify-") as folder:
            shown = Path(folder) / "progress"
            shown.touch(mode=0o600)
            done = threading.Event()
            teller = threading.Thread(target=_follow, args=(shown, done, display), daemon=True)
            teller.start()
            arguments = {**self._task.args}
            if self._connection.transport == "local" and not self._task.async_val:
                arguments["progress_file"] = str(shown)
            try:
                result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
            finally:
                done.set()
                teller.join()
        for line in result.get("summary", []):
            display.display(f"  {line}", color=_colour(line))
        if "summary" in result:
            display.display(f"  {str(result.get('msg', '')).splitlines()[0]}")
        return result


def _colour(line: str) -> str:
    return "red" if line.startswith("FAILED") else "yellow" if line.startswith("open") else "green"


def _follow(path: Path, done: threading.Event, display: Display) -> None:
    """Shows the lines appended to a file until told to stop."""
    with path.open(encoding="utf-8") as file:
        while True:
            last = done.wait(_EVERY)
            for line in file.read().splitlines():
                display.display(f"  {line}")
            if last:
                return
