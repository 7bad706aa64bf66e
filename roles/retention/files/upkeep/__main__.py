# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""python3 -m upkeep run|report|check, from the folder of retention.json; results are one line of JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from . import archive, jobs
from .errors import JobError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="upkeep", description=__doc__)
    parser.add_argument("--folder", default=".", help="where retention.json and secrets.json are")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="do the work of a job now").add_argument(
        "job", choices=["archive", "tables"]
    )
    report = verbs.add_parser("report", help="what is kept here, and for how long")
    report.add_argument(
        "--period", action="append", default=[], help="TABLE=30d: count the rows older than this"
    )
    check = verbs.add_parser("check", help="compare the archive with its manifests")
    check.add_argument("prefix", help="such as audit/2026/01")
    for name, told in (
        ("install", "set up the timers"),
        ("remove", "take them away"),
        ("validate", "check the configuration"),
    ):
        verbs.add_parser(name, help=told)
    return parser.parse_args()


def _do(options: argparse.Namespace) -> Any:
    config, secrets = jobs.read(Path(options.folder))
    if options.verb == "run":
        return jobs.Job(config, secrets, options.job).run(
            lambda words: print(words, file=sys.stderr, flush=True)
        )
    if options.verb == "report":
        given = (one.partition("=") for one in options.period)
        return jobs.report(config, secrets, {name: int(days.rstrip("d")) for name, _, days in given})
    if options.verb == "check":
        return archive.check(jobs.Job(config, secrets, "archive").store(), options.prefix)
    if options.verb == "remove":
        return jobs.remove(config)
    return {"install": jobs.install, "validate": jobs.validate}[options.verb](config, secrets)


def main() -> int:
    # Stopped by systemd: the metrics still say that the run did not end well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        result = _do(_arguments())
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if result is not None:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
