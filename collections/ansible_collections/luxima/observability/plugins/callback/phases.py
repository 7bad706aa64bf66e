# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Prints how long each play took, when the run ends."""

from __future__ import annotations

DOCUMENTATION = r"""
name: phases
type: aggregate
short_description: Prints how long each play of a run took
version_added: 0.1.0
author: luxima.observability contributors (@luxima)
description:
  - After the recap, one line per play that took at least a tenth of a second, in the order of the run, and the total.
requirements:
  - Named in C(callbacks_enabled) of ansible.cfg.
"""

import time
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.luxima.observability.plugins.plugin_utils import forks


class CallbackModule(CallbackBase):
    """Collects the start of each play and prints the differences."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "luxima.observability.phases"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started: list[tuple[str, float]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._started:
            forks.prepare()
        self._started.append((play.get_name().strip(), time.monotonic()))
        forks.share()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._started:
            return
        end = time.monotonic()
        stops = [at for _name, at in self._started[1:]] + [end]
        rows = [(name, stop - at) for (name, at), stop in zip(self._started, stops)]
        shown = [(name, seconds) for name, seconds in rows if seconds >= 0.1]
        self._display.banner("PHASES")
        for name, seconds in [*shown, ("total", end - self._started[0][1])]:
            self._display.display(f"{seconds:8.1f} s  {name}")
