"""The report that the run on the lab left is the environment's own, and says that everything works."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_report_of_the_run() -> None:
    report = json.loads((ROOT / "reports" / "verify-staging.json").read_text())
    assert report["ok"]
    assert report["environment"] == "staging"
    checks = {result["check"] for result in report["results"]}
    assert {"targets", "rules", "logs", "traces", "alert", "grafana", "buckets", "retention"} <= checks
