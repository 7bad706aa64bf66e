# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Measures what a run costs, beside the usual ways to do the same, on guests of the lab in one sitting.

``python -m bench``            everything, about 25 minutes, on a lab of its own: brought up, installed for the first time, and down at the end
``python -m bench PART...``    some parts only, on the running lab if there is one, which stays up
``python -m bench --quick``    our own runs only, once, on the running lab: whether they still cost what they may

Parts: unchanged (our own runs that find nothing to change), usual (the usual ways beside them), traffic (requests and bytes), forks
(their memory), changes (one changed value). Prints tables and which goals are met; writes reports/bench.json. 4, 16 and 32 hosts
with three components are names of the lab's guests, each with a connection of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import changes, memory, rest
from bench.goals import goals
from bench.runs import LAB, ROOT, Case, Failed, Json, execute, playbook, program, say, traffic
from lab import commands, instance

REPORT = ROOT / "reports" / "bench.json"
PARTS = ("unchanged", "usual", "traffic", "forks", "changes")
QUICK = ("unchanged", "traffic", "changes")


def install() -> Json:
    """The first installation of everything with artifacts cached: seconds of each phase, plays of site.yml within."""
    phases: Json = {}
    for name, command in (
        ("lab", program("python", "-m", "lab", "up")),
        ("guests", playbook(*LAB, "playbooks/provision.yml")),
        ("workload", playbook(*LAB, "lab/workload.yml")),
        ("site.yml", playbook(*LAB, "site.yml")),
    ):
        say(f"first installation: {name}")
        seconds, told = execute(command)
        phases[name] = round(seconds, 1)
    listed = told.partition("PHASES ")[2]
    for seconds, play in re.findall(r"^ +([0-9.]+) s  (.+)$", listed, re.MULTILINE):
        phases[f"  {play}"] = float(seconds)
    return phases


def attempt(name: str, part: Callable[[], None], report: Json) -> None:
    """What fails is told and leaves the other parts alone."""
    try:
        part()
    except Failed as error:
        print(f"\n{name}: {error}", file=sys.stderr)
        report.setdefault("failed", []).append(name)


def unchanged(options: argparse.Namespace, scratch: Path, report: Json) -> None:
    """Parts unchanged, usual, traffic and forks: all of them need the same cases."""
    parts = options.parts
    mine = rest.ours(scratch)
    named = [case for case in mine if case.hosts in map(rest.names, rest.NAMES)]
    if "unchanged" not in parts or options.quick:
        compared = (rest.ONE, rest.FOUR) if "usual" in parts else (rest.ONE,)
        mine = [case for case in mine if case.hosts in compared]
    theirs: list[Case] = []
    if "usual" in parts:
        attempt("usual", lambda: theirs.extend(rest.others(scratch)), report)
    cases = [*mine, *theirs]
    many = [case for case in named if case.name == "deploy" and "forks" in parts]
    rest.prepare([*cases, *(case for case in many if case not in cases)], scratch)
    if parts & {"unchanged", "usual"}:
        rest.turns(cases, scratch, options.runs, options.slow_runs)
        report["nothing to change"] = rest.summary(cases)
    changed = sorted({f"{case.name}: {what}" for case in cases for what in case.counts.get("changed", [])})
    if changed:
        report["not at rest"] = changed
    if "traffic" in parts:
        report["traffic"] = {}
        for case in cases:
            # Mitogen and pyinfra have connections of their own kind.
            wanted = case.name in ("deploy", "plain tasks", "grafana.grafana's roles") and not case.failed
            if wanted and case.hosts in (rest.ONE, rest.LOGS_ONE) and case.name not in report["traffic"]:
                say(f"counting: {case.name}")
                report["traffic"][case.name] = dataclasses.asdict(traffic(case, scratch))
    if "forks" in parts:
        report["forks"] = [memory.forks(case) for case in many]
    for case in cases:
        if case.failed:
            report.setdefault("failed", []).append(f"{case.hosts}, {case.name}")
    if any(case in cases for case in named) or many:
        # The agents that only the many names needed.
        execute(playbook(*LAB, "playbooks/remove.yml"))
    if theirs:
        rest.remove_others()


def measure(options: argparse.Namespace, scratch: Path, report: Json) -> None:
    """Fills the report part by part."""
    if options.parts - {"changes"}:
        attempt("unchanged", lambda: unchanged(options, scratch, report), report)

    def changed() -> None:
        what = changes.QUICK if options.quick else changes.CHANGES
        report["changes"] = changes.measure(options.runs, what, taken_back=not options.quick)

    if "changes" in options.parts:
        attempt("changes", changed, report)


def show(report: Json) -> None:
    if "first installation" in report:
        print("\nfirst installation of everything, artifacts cached: seconds")
        for name, seconds in report["first installation"].items():
            print(f"  {seconds:7.1f}  {name}")
    print("\nnothing to change: seconds; `x` is how many times as long as deploy on the same hosts")
    head = ("hosts", "case", "min", "median", "runs", "x", "tasks", "results")
    print("{:<38}{:<25}{:>7}{:>8}{:>6}{:>7}{:>7}{:>9}".format(*head))
    for row in report.get("nothing to change", []):
        tasks, results = row["tasks"] or "", row["results"] or ""
        print(
            f"{row['hosts']:<38}{row['case']:<25}{row['minimum']:>7.2f}{row['median']:>8.2f}"
            f"{row['runs']:>6}{row['ratio'] or '':>7}{tasks:>7}{results:>9}"
        )
    for name, row in report.get("traffic", {}).items():
        print(
            f"{name}, 1 host: {row['requests']} requests, {row['modules']} modules, {row['files']} files of "
            f"{row['payload']} bytes, {row['questions']} bytes of questions"
        )
    for row in report.get("forks", []):
        print(
            f"a fork, {row['hosts']}: {row['proportional MiB']} MiB proportional, {row['private MiB']} MiB its own "
            f"({row['forks at once']} at once)"
        )
    found = report.get("changes", {})
    if found:
        print(f"\none changed value: median seconds (ansible -m ping: {found['ping']['median']:.2f})")
        print(f"{'change':<44}{'shows':>8}{'run':>8}{'silence':>9}{'bare':>8}{'silence':>9}")
        for row in found["changes"]:
            numbers = [row[key]["median"] for key in ("until it shows", "whole run", "longest silence")]
            numbers += [row[key]["median"] for key in ("bare restart", "its silence") if key in row]
            widths = (8, 8, 9, 8, 9)
            print(
                f"{row['change']:<44}"
                + "".join(f"{n:>{w}.2f}" for n, w in zip(numbers, widths, strict=False))
            )
        if "revert" in found:
            row = found["revert"]
            silence = row["longest silence"]["median"]
            print(
                f"{'node exporter, taken back':<44}{'':>8}{row['whole run']['median']:>8.2f}{silence:>9.2f}"
            )
    print(f"\n{'goal':<72}{'value':>10}{'limit':>10}")
    for goal in goals(report):
        sign, word = (">=" if goal.least else "<="), ("met" if goal.met else "MISSED")
        print(f"{goal.text:<72}{goal.value:>10.2f}{sign:>4}{goal.limit:>6.2f}  {word}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="of ours and of the floors (default 5)")
    parser.add_argument(
        "--slow-runs", type=int, default=3, help="of the usual ways, which are slow (default 3)"
    )
    parser.add_argument("--quick", action="store_true", help="our own runs only, once")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part named {', '.join(unknown)}; there are {', '.join(PARTS)}")
    complete = not options.parts and not options.quick
    if options.quick:
        options.runs = options.slow_runs = 1
    options.parts = set(options.parts or (QUICK if options.quick else PARTS))
    up = commands.healthy(instance.load())
    if (up and complete) or (options.quick and not up):
        print(
            "the lab is up: `make down` first, or name parts, or --quick"
            if up
            else "--quick needs a running lab: `make demo`"
        )
        return 2
    start = time.monotonic()
    report: Json = {
        "machine": f"{os.cpu_count()} processors, {platform.python_implementation()} {platform.python_version()}",
        "runs": {"ours": options.runs, "usual ways": options.slow_runs},
    }
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        try:
            if not up:
                report["first installation"] = install()
                say("servers come to rest")
                time.sleep(30)
            measure(options, Path(name), report)
        except Failed as error:
            print(f"\n{error}", file=sys.stderr)
            report["failed"] = ["first installation"]
        finally:
            if not up:
                execute(program("python", "-m", "lab", "down"))
    status = 1 if "failed" in report else 0
    report["minutes"] = round((time.monotonic() - start) / 60, 1)
    report["goals"] = [{**dataclasses.asdict(goal), "met": goal.met} for goal in goals(report)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2))
    show(report)
    if "failed" in report:
        print(f"\nfailed, and left out: {'; '.join(report['failed'])}")
    if "not at rest" in report:
        print(f"\nthe lab was not at rest, a run changed something: {', '.join(report['not at rest'])}")
        status = 1
    print(f"\n{report['minutes']} minutes; usual ways {options.slow_runs} runs each; reports/bench.json")
    return status


if __name__ == "__main__":
    sys.exit(main())
