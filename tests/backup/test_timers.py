# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What the services of jobs see: the program's own code, run as it runs on a guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/platform/files"


def seen(settings: dict[str, Any]) -> dict[str, str]:
    code = "import json, sys; from jobs.timers import seen; print(json.dumps(seen(json.load(sys.stdin))))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(settings),
        env={**os.environ, "PYTHONPATH": str(FILES)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("settings", "homes", "scratch", "mounts"),
    [
        ({"target": {"directory": "/mnt/copies"}}, "yes", "yes", ["/mnt/copies"]),
        ({"target": {"directory": "/home/copies"}}, "no", "yes", ["/home/copies"]),
        # Its own /tmp would end with the job, and the copies with it.
        ({"target": {"directory": "/tmp/copies"}}, "yes", "no", ["/tmp/copies"]),
        ({"target": {"url": "http://x:9000"}, "source": {"data_dir": "/home/prometheus"}}, "no", "yes", ["/home/prometheus"]),
        ({"target": {"url": "http://x:9000"}, "source": {"database": "/homes/grafana.db"}}, "yes", "yes", ["/homes/grafana.db"]),
        ({}, "yes", "yes", []),
    ],
)  # fmt: skip
def test_a_job_sees_what_it_copies_and_where_to(
    settings: dict[str, Any], homes: str, scratch: str, mounts: list[str]
) -> None:
    found = seen(settings)
    assert (found["hide_homes"], found["hide_scratch"]) == (homes, scratch)
    assert found["mounts"] == "".join(f'RequiresMountsFor="{path}"\n' for path in mounts)
