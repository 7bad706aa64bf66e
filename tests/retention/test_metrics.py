# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Prometheus: blocks made by promtool with old samples; the period of the rendered configuration decides which go."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
from pathlib import Path

from .conftest import Platform, ask, until

DAY = 86400
PERIOD = 30


def samples(platform: Platform, age_days: float, now: float) -> int:
    query = urllib.parse.urlencode({"query": "retention_probe", "time": str(now - age_days * DAY)})
    answer = json.loads(ask(f"{platform.urls['prometheus']}/api/v1/query?{query}"))
    return len(answer["data"]["result"])


def test_blocks_past_the_period_are_deleted_and_no_others(platform: Platform) -> None:
    # Whole seconds: a sample that is rounded up would be later than the question.
    now = float(int(time.time()))
    # The newest block is the clock of the store.
    ages = (1.0, PERIOD - 2.0, PERIOD + 2.0, PERIOD + 20.0)
    data = Path(platform.variables["prometheus_data_dir"])
    text = "# TYPE retention_probe gauge\n" + "".join(
        f'retention_probe{{age="{age}"}} 1 {now - age * DAY:.0f}\n' for age in sorted(ages, reverse=True)
    )
    source = platform.folder / "samples.txt"
    source.write_text(text + "# EOF\n")
    subprocess.run(
        [platform.programs["promtool"], "tsdb", "create-blocks-from", "openmetrics", str(source), str(data)],
        check=True,
        capture_output=True,
    )
    made = {path.parent.name for path in data.glob("*/meta.json")}
    assert len(made) == len(ages)
    prometheus = platform.processes["prometheus"]
    prometheus.start()
    assert platform.plan["prometheus"]["time"] == f"{PERIOD}d"
    until(
        "two blocks are left",
        lambda: len({path.parent.name for path in data.glob("*/meta.json")} & made) <= 2,
        60,
    )
    assert len({path.parent.name for path in data.glob("*/meta.json")} & made) == 2
    assert [samples(platform, age, now) for age in ages] == [1, 1, 0, 0]
    prometheus.stop()
