# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Waiting for what the API does not announce."""

from __future__ import annotations

import time


class Patience:
    """The time in which something is asked for again and again, with growing pauses; ``seconds`` from now."""

    def __init__(self, seconds: float, longest: float = 2.0) -> None:
        self._end = time.monotonic() + seconds
        self._pause, self._longest = 0.1, longest

    def again(self) -> bool:
        """Whether there is time to ask once more; pauses before that."""
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._pause, left))
        self._pause = min(self._pause * 1.4, self._longest)
        return True
