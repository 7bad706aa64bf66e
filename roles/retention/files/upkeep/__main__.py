# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""python3 -m upkeep run|report|check, from the folder of retention.json; results are one line of JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jobs import program
from jobs.job import Json

from . import archive
from .upkeep import Upkeep, report


def _verbs(verbs: program.Verbs) -> None:
    verbs.add_parser("run", help="do the work of a job now").add_argument("job")
    report = verbs.add_parser("report", help="what is kept here, and for how long")
    report.add_argument(
        "--period", action="append", default=[], help="TABLE=30d: count the rows older than this"
    )
    check = verbs.add_parser("check", help="compare the archive with its manifests")
    check.add_argument("prefix", help="such as audit/2026/01")


def _do(options: argparse.Namespace, config: Json, secrets: Json) -> Any:
    if options.verb == "report":
        given = (one.partition("=") for one in options.period)
        return report(config, secrets, {name: int(days.rstrip("d")) for name, _, days in given})
    if options.verb == "check":
        return archive.check(Upkeep(config, secrets, "archive").store(), options.prefix)
    return Upkeep(config, secrets, options.job, program.tell).run()


if __name__ == "__main__":
    sys.exit(program.run(Upkeep, __doc__, _verbs, _do))
