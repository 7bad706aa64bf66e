# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs checks in parallel, each again and again until it holds or the common deadline has passed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

from .._servers.client import Refused, Unreachable
from .model import Check, NotYet, Result, Wrong

# A check that takes longer than this says what it waits for, and again after each such time (seconds).
PROGRESS_AFTER = 5.0
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)


class Run:
    """One verification. `progress` receives lines while it lasts."""

    def __init__(self, deadline: float, selected: frozenset[str], progress: Callable[[str], None]) -> None:
        self._end = time.monotonic() + deadline
        self._deadline = deadline
        self._selected = selected
        self._progress = progress
        self._waiting: dict[Check, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def all(self, checks: list[Check]) -> list[Result]:
        """The results, in the order of the checks."""
        if not checks:
            return []
        done = threading.Event()
        teller = threading.Thread(target=self._tell, args=(done,), daemon=True)
        teller.start()
        results: dict[int, Result] = {}
        # Every check waits on its own server; more threads than checks would be idle, fewer would queue behind a deadline.
        with ThreadPoolExecutor(max_workers=min(64, len(checks))) as pool:
            futures = {pool.submit(self._one, check): index for index, check in enumerate(checks)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
        done.set()
        teller.join()
        return [results[index] for index in range(len(checks))]

    def _one(self, check: Check) -> Result:
        start = time.monotonic()
        attempt = 0
        while True:
            unreachable = final = False
            try:
                detail = check.run()
                return self._result(check, True, detail, start)
            except NotYet as error:
                reason = str(error)
            except Refused as error:
                reason = str(error)
                final = error.status in (401, 403)
            except Unreachable as error:
                reason, unreachable = str(error), True
            except Wrong as error:
                reason, final = str(error), True
            except Exception as error:
                # One check that breaks must not hide what the others found.
                reason, final = f"the check itself broke: {type(error).__name__}: {error}", True
            if unreachable and check.server and self._selected and check.server not in self._selected:
                return self._result(check, True, f"not verified: {reason}", start, verified=False)
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            attempt += 1
            if final or time.monotonic() + pause >= self._end:
                if not final and self._deadline:
                    reason += f" (waited {time.monotonic() - start:.0f} s, deadline {self._deadline:.0f} s)"
                return self._result(check, False, reason, start)
            with self._lock:
                self._waiting[check] = (start, reason)
            time.sleep(pause)

    def _result(self, check: Check, ok: bool, detail: str, start: float, verified: bool = True) -> Result:
        with self._lock:
            self._waiting.pop(check, None)
        seconds = time.monotonic() - start
        return Result(check.check, check.subject, ok, detail, seconds, check.hint, verified)

    def _tell(self, done: threading.Event) -> None:
        while not done.wait(PROGRESS_AFTER):
            now = time.monotonic()
            with self._lock:
                late = [
                    (c, at, why) for c, (at, why) in self._waiting.items() if now - at >= PROGRESS_AFTER - 1
                ]
            for check, at, why in late:
                self._progress(
                    f"{check.check} {check.subject}: waiting since {now - at:.0f} s of at most {self._deadline:.0f} s: {why}"
                )
