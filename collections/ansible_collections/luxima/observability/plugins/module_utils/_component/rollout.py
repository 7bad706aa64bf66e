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
    def turn(self, host: str, queue: bool, position: int = 0) -> Iterator[None]:
        """Waits for a free place (not when `queue` is false); of those who wait, the lowest `position` is next.

        Whatever is raised inside stops the hosts that come later.
        """
        with contextlib.ExitStack() as stack:
            if queue:
                stack.enter_context(self._place(position))
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
    def _place(self, position: int) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            slots = [
                stack.enter_context((self.folder / f"slot-{number}").open("w"))
                for number in range(self.slots)
            ]
            with (self.folder / f"waits-{position:06d}").open("w") as mine:
                # A lock ends with its process: nobody waits for a host whose run was killed.
                fcntl.flock(mine, fcntl.LOCK_EX)
                while not (self._is_next(position) and any(_taken(slot) for slot in slots)):
                    time.sleep(0.05)
            yield

    def _is_next(self, position: int) -> bool:
        for path in self.folder.glob("waits-*"):
            if int(path.name.partition("-")[2]) < position:
                with path.open() as other:
                    if not _taken(other, fcntl.LOCK_SH):
                        return False
        return True


def _taken(stream: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
