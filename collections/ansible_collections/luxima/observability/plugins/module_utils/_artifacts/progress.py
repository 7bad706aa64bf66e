# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Lines for the operator while something takes long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

EVERY = 10.0


class Progress:
    """Says what runs, at most one line per running thing and `EVERY` seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._running: dict[str, tuple[float, str]] = {}
        self._end = threading.Event()

    def say(self, text: str) -> None:
        with self._lock:
            self._say(f"artifacts: {text}")

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._tick, daemon=True)
        self._end.clear()
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    @contextlib.contextmanager
    def running(self, what: str) -> Iterator[Callable[[str], None]]:
        """`what` runs; the function it gives sets how far it is."""
        started = time.monotonic()
        self._running[what] = (started, "")

        def at(text: str) -> None:
            self._running[what] = (started, text)

        self.say(what)
        try:
            yield at
        finally:
            self._running.pop(what, None)

    def _tick(self) -> None:
        said: dict[str, float] = {}
        while not self._end.wait(1.0):
            now = time.monotonic()
            for what, (started, text) in list(self._running.items()):
                if now - said.get(what, started) >= EVERY:
                    said[what] = now
                    self.say(f"{what}: {text + ', ' if text else ''}{now - started:.0f} s")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
