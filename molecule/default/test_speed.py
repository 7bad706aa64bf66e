"""What our own runs may cost, counted; how long they take is for `make bench` on a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.platform import ROOT


def test_a_run_without_changes_stays_within_its_bounds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((ROOT / "reports" / "bench.json").read_text())
    met = {goal["text"]: goal["met"] for goal in report["goals"]}
    counted = ["1 host, 12 components: task callbacks", "requests per host", "bytes of payload"]
    reload = "Prometheus, a label (reload): questions unanswered"
    assert {text: met[text] for text in [*counted, reload]} == dict.fromkeys([*counted, reload], True), (
        done.stdout
    )
