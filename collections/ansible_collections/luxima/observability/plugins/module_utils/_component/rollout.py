# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""One host after the other, on the controller: places in a queue that all forks of one run share."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class Stopped(Exception):
    """An earlier host failed; the message names it."""


class Rollout:
    """The roll-out of one component in one run. `folder` belongs to the run and dies with it."""

    def __init__(self, folder: Path, component: str, slots: int) -> None:
        self.folder = folder / component
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.slots = max(1, slots)
        self.stop_file = self.folder / "stopped"

    @contextlib.contextmanager
    def turn(self, host: str, queue: bool) -> Iterator[None]:
        """Waits for a free place (not when `queue` is false). Whatever is raised inside stops the hosts that come later."""
        with contextlib.ExitStack() as stack:
            if queue:
                stack.enter_context(self._place())
            self._check(host)
            try:
                yield
            except BaseException:
                self.stop(host)
                raise

    def stop(self, host: str) -> None:
        self.stop_file.write_text(host, encoding="utf-8")

    def _check(self, host: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            by = self.stop_file.read_text(encoding="utf-8")
            if by == host:  # a second attempt of the host that failed
                self.stop_file.unlink()
            else:
                raise Stopped(f"not attempted: roll-out stopped by {by}")

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        streams = [(self.folder / f"slot-{number}").open("w") for number in range(self.slots)]
        try:
            while True:
                if any(_taken(stream) for stream in streams):
                    yield
                    return
                time.sleep(0.05)
        finally:
            for stream in streams:
                stream.close()


def _taken(stream: TextIO) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
