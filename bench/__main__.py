# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Times runs that change nothing, beside the usual ways to do the same, on the guests of a running lab in one sitting.

``python -m bench [--runs 5]`` prints a table and writes reports/bench.json. Cases take turns, so that other work on
the machine meets all of them alike. 4, 16 and 32 hosts are names of the lab's guests, each with a connection of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab import instance

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ROOT / ".cache" / "bench"
LAB = ["-i", "inventories/lab"]
# Every component runs on this guest of the lab.
SERVER = "obs"
GUESTS = {"obs": 11, "agent1": 21, "agent2": 22, "docker1": 31}
# Components whose files are the same on every host, so that a host may have many names.
AGENTS = ["node_exporter", "cadvisor", "blackbox_exporter"]
NAMES = (4, 16, 32)


@dataclass
class Case:
    """One command. `hosts` is what its ratios are formed within."""

    hosts: str
    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def playbook(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), *words]


def run(case: Case, records: Path) -> None:
    """Runs the case once and keeps its time and what the recorder wrote of it."""
    for old in records.glob("*.json"):
        old.unlink()
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "RUN_RECORDS": str(records),
        **case.environment,
    }
    start = time.monotonic()
    done = subprocess.run(
        case.command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    case.seconds.append(time.monotonic() - start)
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(case.command)} failed; is the lab up (`make demo`)?\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    case.rows = [row for file in records.glob("*.json") for row in json.loads(file.read_text())]


def names(count: int, scratch: Path) -> Path:
    """An inventory in which the lab's guests have `count` names, each with its own connection, and run the agents."""
    place = scratch / f"names{count}"
    place.mkdir()
    subnet = instance.inventory(instance.load())["all"]["vars"]["platform_subnet"]
    addresses = list(GUESTS.values())
    hosts = {
        f"name{number}": {
            "ansible_host": f"{subnet}.{addresses[number % len(addresses)]}",
            "ansible_control_path": f"{scratch}/c{count}-{number}",
        }
        for number in range(count)
    }
    content = {"guests": {"hosts": hosts}, **{agent: {"children": {"guests": None}} for agent in AGENTS}}
    (place / "hosts.yml").write_text(yaml.safe_dump(content))
    return place / "hosts.yml"


def pyinfra(scratch: Path) -> list[str]:
    """The same for pyinfra, or nothing when it is not installed."""
    program = OTHERS / "bin" / "pyinfra"
    if not program.exists():
        return []
    facts = instance.inventory(instance.load())["all"]["vars"]
    data = {
        "ssh_user": "root",
        "ssh_key": facts["ansible_ssh_private_key_file"],
        "ssh_known_hosts_file": f"{facts['lab_state_dir']}/known_hosts",
        "ssh_strict_host_key_checking": "accept-new",
        "components": [
            "minio",
            "loki",
            "tempo",
            "prometheus",
            "alertmanager",
            "grafana",
            "blackbox_exporter",
            "node_exporter",
            "cadvisor",
            "promtail",
        ],
    }
    inventory = scratch / "pyinfra_hosts.py"
    inventory.write_text(f"servers = [({facts['platform_subnet'] + '.11'!r}, {data!r})]\n")
    return [str(program), "-y", str(inventory), str(ROOT / "bench" / "plain_pyinfra.py")]


def mitogen() -> dict[str, str]:
    """Variables that make ansible-playbook use Mitogen, or nothing when it is not installed."""
    found = sorted(OTHERS.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
    if not found:
        return {}
    return {
        "ANSIBLE_STRATEGY_PLUGINS": str(found[0]),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "PYTHONPATH": str(found[0].parents[2]),
    }


def cases(scratch: Path) -> list[Case]:
    one = ["--limit", f"localhost,{SERVER}"]
    group = "1 host, 10 components"
    found = [
        Case(group, "empty play", playbook(*LAB, *one, "bench/empty.yml")),
        Case(group, "ping", playbook(*LAB, *one, "bench/ping.yml")),
        Case(group, "deploy", playbook(*LAB, *one, "playbooks/deploy.yml")),
        Case(group, "plain tasks", playbook(*LAB, *one, "bench/plain.yml")),
    ]
    if mitogen():
        found.append(Case(group, "plain tasks, Mitogen", playbook(*LAB, *one, "bench/plain.yml"), mitogen()))
    if pyinfra(scratch):
        found.append(Case(group, "the same, pyinfra", pyinfra(scratch)))
    found.append(Case("lab, 4 hosts", "ping", playbook(*LAB, "bench/ping.yml")))
    found.append(Case("lab, 4 hosts", "deploy", playbook(*LAB, "playbooks/deploy.yml")))
    found.append(Case("lab, 4 hosts", "site", playbook(*LAB, "site.yml")))
    for count in NAMES:
        sources = ["-i", "inventories/lab/00-platform.yml", "-i", "inventories/lab/10-instance"]
        sources += ["-i", str(names(count, scratch))]
        group = f"{count} names of {len(GUESTS)} hosts, 3 components"
        found.append(Case(group, "ping", playbook(*sources, "bench/ping.yml")))
        found.append(Case(group, "deploy", playbook(*sources, "playbooks/deploy.yml")))
    return found


def requests(case: Case) -> dict[str, int]:
    """Commands over SSH and files sent in one more run."""
    told = subprocess.run(
        [*case.command, "-vvv"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return {"requests": told.count("SSH: EXEC"), "files sent": told.count("PUT /")}


def summary(found: list[Case]) -> list[dict[str, Any]]:
    """One row per case; the ratio says how many times as long as `deploy` on the same hosts it takes."""
    table = []
    for case in found:
        ours = next(other for other in found if other.hosts == case.hosts and other.name == "deploy")
        table.append(
            {
                "hosts": case.hosts,
                "case": case.name,
                "minimum": round(min(case.seconds), 2),
                "median": round(statistics.median(case.seconds), 2),
                "ratio": round(min(case.seconds) / min(ours.seconds), 2),
                "tasks": len({(row["play"], row["task"]) for row in case.rows}),
                "results": len(case.rows),
                "runs": len(case.seconds),
            }
        )
    return table


def prepare(found: list[Case], records: Path, say: Callable[[str], None]) -> None:
    """Every case once, unmeasured: what has to be made is made, and connections stand."""
    for case in found:
        say(f"preparing: {case.hosts}, {case.name}")
        run(case, records)
        case.seconds.clear()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()

    def say(text: str) -> None:
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench") as name:
        scratch, records = Path(name), Path(name) / "records"
        records.mkdir()
        found = cases(scratch)
        try:
            prepare(found, records, say)
            for turn in range(options.runs):
                for case in found:
                    say(f"run {turn + 1} of {options.runs}: {case.hosts}, {case.name}")
                    run(case, records)
            counted = requests(next(case for case in found if case.name == "deploy"))
        finally:
            # The agents that only this benchmark put on every guest, and what the plain tasks made.
            subprocess.run(
                playbook(*LAB, "playbooks/remove.yml", "bench/plain_remove.yml"),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                check=False,
            )
    print(file=sys.stderr)
    changed = sorted({f"{case.name}: {row['task']}" for case in found for row in case.rows if row["changed"]})
    if changed:
        sys.exit(f"the lab was not at rest, a run changed something: {', '.join(changed)}")
    table = summary(found)
    report = ROOT / "reports" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"nothing to change": table, "one host": counted}, indent=2))
    print(f"{'hosts':<38}{'case':<22}{'min s':>8}{'median s':>10}{'x deploy':>10}{'tasks':>7}{'results':>9}")
    for row in table:
        print("{hosts:<38}{case:<22}{minimum:>8}{median:>10}{ratio:>10}{tasks:>7}{results:>9}".format(**row))
    print(f"one host: {counted['requests']} requests, {counted['files sent']} files sent")


if __name__ == "__main__":
    main()
