# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What a component cannot start without, asked from its own host before what serves is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from . import probe

Json = dict[str, Any]

# Another server may just have been restarted by the same run.
PATIENCE = 10.0
PAUSE = 0.25


def unmet(needs: Iterable[Json], patience: float = PATIENCE) -> str:
    """Why the component would not start now; empty when nothing is in the way."""
    for need in needs:
        reason = _path(need) if "path" in need else _url(need, patience)
        if reason:
            return f"{need['words']}: {reason}"
    return ""


def _path(need: Json) -> str:
    return "" if os.path.lexists(need["path"]) else f"there is no {need['path']} on this host"


def _url(need: Json, patience: float) -> str:
    """Whoever answers, even with a refusal, is there; a server that is not ready says 5xx."""
    end = time.monotonic() + patience
    while True:
        answer = probe.ask(need, timeout=max(0.5, min(5.0, end - time.monotonic())))
        if 0 < answer.status < 500:
            return ""
        if time.monotonic() > end:
            return f"{need['url']} answered {answer}" if answer.status else f"{need['url']}: {answer}"
        time.sleep(PAUSE)
