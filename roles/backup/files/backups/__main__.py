# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""python3 -m backups run|restore|list|check <job>, or report, from the folder of backup.json; results are one line of JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jobs import program

from .job import Backup
from .source import Json


def _verbs(verbs: program.Verbs) -> None:
    run = verbs.add_parser("run", help="take a copy now")
    run.add_argument("--adopt", action="store_true", help="go on after the copies of another guest")
    restore = verbs.add_parser("restore", help="put a copy in place")
    restore.add_argument("--overwrite", action="store_true", help="replace what is there")
    listing = verbs.add_parser("list", help="the complete copies")
    check = verbs.add_parser("check", help="read a copy through and compare every digest")
    for verb in (restore, check):
        verb.add_argument("--copy", default="", help="id of the copy; the newest when not given")
    for verb in (restore, listing, check):
        verb.add_argument("--of", default="", help="host whose copies are meant; this one when not given")
    for verb in (run, restore, listing, check):
        verb.add_argument("job")
    verbs.add_parser("report", help="what each job keeps, and what is known of its copies")


def _do(options: argparse.Namespace, config: Json, secrets: Json) -> Any:
    if options.verb == "report":
        jobs = [Backup(config, secrets, name) for name in config["jobs"]]
        return {job.name: {"keep_days": job.settings["keep_days"], **job.state()} for job in jobs}
    job = Backup(config, secrets, options.job, program.tell)
    if options.verb == "run":
        return job.run(options.adopt)
    if options.verb == "restore":
        return job.restore(options.copy, options.of, options.overwrite)
    if options.verb == "list":
        return job.copies(options.of)
    return job.check(options.copy, options.of)


if __name__ == "__main__":
    sys.exit(program.run(Backup, __doc__, _verbs, _do))
