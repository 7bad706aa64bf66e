# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The command line of a role's jobs, from the folder of its configuration; results are one line of JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Callable

from . import timers
from .errors import JobError
from .job import Job, Json

Verbs = Any  # what argparse calls _SubParsersAction
_COMMON = {
    "install": (timers.install, "set up the timers"),
    "remove": (timers.remove, "take them away"),
    "validate": (timers.check, "check the configuration"),
}


def tell(words: str) -> None:
    """To people, beside the result."""
    print(words, file=sys.stderr, flush=True)


def _stop(_signal: int, _frame: Any) -> None:
    # So that what must be cleaned up is, and the metrics say that the run did not end well.
    raise SystemExit("stopped by a signal")


def run(
    kind: type[Job],
    about: str | None,
    verbs: Callable[[Verbs], None],
    do: Callable[[argparse.Namespace, Json, Json], Any],
) -> int:
    """Exit status of the command; `verbs` adds those that the jobs have beside the common ones, `do` does them."""
    parser = argparse.ArgumentParser(prog=kind.program, description=about)
    parser.add_argument("--folder", default=".", help=f"where {kind.role}.json and secrets.json are")
    found = parser.add_subparsers(dest="verb", required=True)
    verbs(found)
    for name, (_work, told) in _COMMON.items():
        found.add_parser(name, help=told)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        config, secrets = timers.read(kind, Path(options.folder))
        if options.verb in _COMMON:
            result: Any = _COMMON[options.verb][0](kind, config, secrets)
        else:
            result = do(options, config, secrets)
    except JobError as error:
        print(f"{getattr(options, 'job', options.verb)}: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    if result is not None:
        print(json.dumps(result))
    return 0
