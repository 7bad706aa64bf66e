# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backups.repository import Repository
from jobs.stores import Directory, Lock


class Slow(Directory):
    """Long enough in every `put` for another thread to come."""

    def put(self, name: str, content: bytes, lock: Lock | None = None) -> None:
        super().put(f"{name}.begun", b"")
        time.sleep(0.2)
        super().put(name, content, lock)


def test_threads_with_the_same_content_send_it_once(tmp_path: Path) -> None:
    copies = Repository(Slow(str(tmp_path)), "host")
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(copies.add, [[b"tombstones"]] * 4))
    assert copies.added == len(b"tombstones")
    assert [b"".join(copies.read(entry)) for entry in entries] == [b"tombstones"] * 4
