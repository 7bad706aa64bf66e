# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Ids and nodes for new guests. Nothing reserves an id on the server, so a taken one is answered by the next."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping


class Ids:
    """Hands out each id once; shared by all workers."""

    def __init__(self, first: int, taken: Iterable[int]) -> None:
        self._lock = threading.Lock()
        self._taken = set(taken)
        self._next = first

    def taken(self, ids: Iterable[int]) -> None:
        """More ids that are given away already."""
        with self._lock:
            self._taken.update(ids)

    def foreign(self, ids: Iterable[int]) -> set[int]:
        """Those of these ids that were neither there nor handed out."""
        with self._lock:
            return set(ids) - self._taken

    def take(self, at_least: int = 0) -> int:
        """The lowest id that is neither seen on the server nor handed out."""
        with self._lock:
            self._next = max(self._next, at_least)
            while self._next in self._taken:
                self._next += 1
            self._taken.add(self._next)
            return self._next


def spread(candidates: Iterable[str], counts: Mapping[str, int]) -> str:
    """The node with the fewest guests, the first by name among equals."""
    return min(sorted(candidates), key=lambda node: counts.get(node, 0))
