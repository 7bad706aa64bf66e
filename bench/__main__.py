# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Measures what a run costs, beside the usual ways to do the same, on guests of the lab in one sitting.

``python -m bench``            everything, about 20 minutes, on a lab of its own: brought up, installed for the first time, and down at the end
``python -m bench --quick``    our own runs only, once, on the running lab: whether they still cost what they may

Prints tables and which goals are met; writes reports/bench.json. 4, 16 and 32 hosts with three components are names of
the lab's guests, each with a connection of its own.
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
from pathlib import Path

from bench import changes, memory, rest
from bench.goals import goals
from bench.runs import LAB, ROOT, Failed, Json, execute, playbook, program, say, traffic
from lab import commands, instance

REPORT = ROOT / "reports" / "bench.json"


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


def measure(options: argparse.Namespace, scratch: Path, report: Json) -> None:
    """Fills the report section by section, so that what was measured is kept when a later one fails."""
    if not options.quick:
        rest.containers(scratch)
        report["first installation"] = install()
        say("servers come to rest")
        time.sleep(30)
    mine = rest.ours(scratch)
    if options.quick:
        mine = [case for case in mine if case.hosts == rest.ONE]
    theirs = [] if options.quick else rest.others(scratch)
    cases = [*mine, *theirs]
    rest.prepare(cases, scratch)
    rest.turns(cases, scratch, options.runs, options.slow_runs)
    report["nothing to change"] = rest.summary(cases)
    changed = sorted({f"{case.name}: {what}" for case in cases for what in case.counts.get("changed", [])})
    if changed:
        report["not at rest"] = changed
    report["traffic"] = {}
    for case in cases:
        # Mitogen and pyinfra have connections of their own kind.
        wanted = case.name in ("deploy", "plain tasks", "grafana.grafana's roles")
        if wanted and case.hosts in (rest.ONE, rest.LOGS_ONE) and case.name not in report["traffic"]:
            say(f"counting: {case.name}")
            report["traffic"][case.name] = dataclasses.asdict(traffic(case, scratch))
    if not options.quick:
        many = [case for case in mine if case.name == "deploy" and case.hosts in map(rest.names, rest.NAMES)]
        report["forks"] = [memory.forks(case) for case in many]
        # The agents that only the many names needed, and what the plain tasks made.
        execute(playbook(*LAB, "playbooks/remove.yml", "bench/plain_remove.yml"))
    what = changes.QUICK if options.quick else changes.CHANGES
    report["changes"] = changes.measure(options.runs, what, taken_back=not options.quick)


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
            f"{row['runs']:>6}{row['ratio']:>7.2f}{tasks:>7}{results:>9}"
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
    options = parser.parse_args()
    if options.quick:
        options.runs = options.slow_runs = 1
    up = commands.healthy(instance.load())
    if up is not options.quick:
        print(
            "the lab is up: `make down` first, or --quick"
            if up
            else "--quick needs a running lab: `make demo`"
        )
        return 2
    start = time.monotonic()
    report: Json = {
        "machine": f"{os.cpu_count()} processors, {platform.python_implementation()} {platform.python_version()}",
        "runs": {"ours": options.runs, "usual ways": options.slow_runs},
    }
    status = 0
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        try:
            measure(options, Path(name), report)
        except Failed as error:
            print(f"\n{error}", file=sys.stderr)
            status = 1
        finally:
            if not options.quick:
                execute(program("python", "-m", "lab", "down"))
    report["minutes"] = round((time.monotonic() - start) / 60, 1)
    report["goals"] = [{**dataclasses.asdict(goal), "met": goal.met} for goal in goals(report)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2))
    show(report)
    if "not at rest" in report:
        print(f"\nthe lab was not at rest, a run changed something: {', '.join(report['not at rest'])}")
        status = 1
    print(f"\n{report['minutes']} minutes; usual ways {options.slow_runs} runs each; reports/bench.json")
    return status


if __name__ == "__main__":
    sys.exit(main())
