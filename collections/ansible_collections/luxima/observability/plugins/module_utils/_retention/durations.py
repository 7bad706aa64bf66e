# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Durations as Prometheus, Loki and Go write them, in whole seconds; sizes as Prometheus writes them."""

from __future__ import annotations

import re

SECONDS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
DAY = SECONDS["d"]
# What is never deleted; longer than every period.
FOREVER = 10**15
FOREVER_WORD = "forever"
_PART = re.compile(r"(\d+)(ms|[ywdhms])")
_SIZES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_WHOLE = re.compile(r"(?:\d+(?:ms|[ywdhms]))+")


def parse(text: object) -> int:
    """Seconds of `30d`, `2w`, `1d12h` or Go's `720h0m0s`. Raises ValueError with the accepted forms."""
    value = text.strip() if isinstance(text, str) else ""
    if value == "0":
        return 0
    if not _WHOLE.fullmatch(value):
        raise ValueError(f"{text!r} is no duration; write a number and a unit, for example 30d, 2w or 36h")
    return sum(int(number) * SECONDS.get(unit, 0) for number, unit in _PART.findall(value))


def period(text: object) -> int:
    """Seconds of what a policy says, which may be `forever`. Raises ValueError with the accepted forms."""
    return FOREVER if text == FOREVER_WORD else parse(text)


def days(seconds: int) -> str:
    """The spelling of the policy: `30d` or `forever`; hours or seconds where the period is not whole days."""
    if seconds >= FOREVER:
        return FOREVER_WORD
    for unit in ("d", "h", "m"):
        if seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def hours(seconds: int) -> str:
    """The spelling for servers that read Go durations, which know no days: `720h`."""
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"


def size_bytes(text: str) -> int:
    """Bytes of a size; Prometheus counts `GB` and `GiB` alike, in powers of 1024. 0 for what is no size."""
    match = re.fullmatch(r"(\d+)([KMGTPE]?)i?B", str(text))
    return int(match[1]) * 1024 ** _SIZES[match[2]] if match else 0
