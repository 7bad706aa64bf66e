# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the nodes tell each other of their guests: names, power and numbers, every ten seconds.

Which guest is where, its lock, its tags and its pool stand in files that all nodes share, and are known at once. The rest
each node's pvestatd tells the others from time to time, and what was told is forgotten after five minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from lab.drivers.base import Guest

LOG = logging.getLogger("lab.statd")
#: Seconds between two broadcasts, and how many of these pass before a silent node's words are forgotten.
PERIOD = 10.0
LIFETIME = 30


class Statd:
    """The words of all nodes, by the guest's id: like the real list, it does not know that an id was given away again."""

    def __init__(self, period: float = PERIOD) -> None:
        self.period = period
        self.silent: set[str] = set()
        self._lock = threading.Lock()
        self._told: dict[int, tuple[float, dict[str, Any]]] = {}
        self._skipped = 0.0
        self._end = threading.Event()

    def _now(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        """So much later, nobody having said anything meanwhile."""
        with self._lock:
            self._skipped += seconds

    def tell(self, guests: Iterable[Guest], facts: Callable[[Guest], dict[str, Any]]) -> None:
        """One broadcast of every node that is not silent."""
        for guest in guests:
            if guest.node in self.silent:
                continue
            try:
                words = facts(guest)
            except Exception as error:
                # Made or destroyed at this moment, or unreadable; the others are told all the same, now and later.
                LOG.debug("no word of %s: %s", guest.vmid, error)
                continue
            with self._lock:
                self._told[guest.vmid] = (self._now(), words)

    def told(self, vmid: int) -> dict[str, Any] | None:
        """What was last said of a guest; None: nothing, or too long ago."""
        with self._lock:
            at, words = self._told.get(vmid, (0.0, None))
            return words if words is not None and self._now() - at < LIFETIME * self.period else None

    def run(self, broadcast: Callable[[], None]) -> None:
        """Broadcast in every period, until :meth:`stop`."""
        while not self._end.wait(self.period):
            broadcast()

    def stop(self) -> None:
        self._end.set()
