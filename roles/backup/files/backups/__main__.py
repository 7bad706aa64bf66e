# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""python3 -m backups run|restore|list|check <job>, or report, from the folder of backup.json; results are one line of JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from . import timers
from .errors import BackupError
from .job import Job


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backups", description=__doc__)
    parser.add_argument("--folder", default=".", help="where backup.json and secrets.json are")
    verbs = parser.add_subparsers(dest="verb", required=True)
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
    for name, told in (
        ("install", "set up the timers"),
        ("remove", "take them away"),
        ("validate", "check the configuration"),
        ("report", "what each job keeps, and what is known of its copies"),
    ):
        verbs.add_parser(name, help=told)
    return parser.parse_args()


def _do(options: argparse.Namespace) -> Any:
    config, secrets = timers.read(Path(options.folder))
    if options.verb == "install":
        return timers.install(config, secrets)
    if options.verb == "remove":
        return timers.remove(config)
    if options.verb == "validate":
        return timers.check(config, secrets)
    if options.verb == "report":
        return {
            name: {"keep_days": own["keep_days"], **Job(config, secrets, name).state()}
            for name, own in config["jobs"].items()
        }
    job = Job(config, secrets, options.job, lambda text: print(text, file=sys.stderr, flush=True))
    if options.verb == "run":
        return job.run(options.adopt)
    if options.verb == "restore":
        return job.restore(options.copy, options.of, options.overwrite)
    if options.verb == "list":
        return job.copies(options.of)
    return job.check(options.copy, options.of)


def _stop(_signal: int, _frame: Any) -> None:
    # So that what must be cleaned up is.
    raise SystemExit("stopped by a signal")


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = _do(options)
    except BackupError as error:
        print(f"{getattr(options, 'job', options.verb)}: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    if result is not None:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
