# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs the project's checks in order, says how long each took, and stops for nothing but the end.

``python tests/suite.py``            what CI runs
``python tests/suite.py --all``      the long scenarios too
``python tests/suite.py lint unit``  some steps only

What a step said is in reports/logs/<step>.log; why one failed is also repeated at the very end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "reports" / "logs"
COLLECTION = "collections/ansible_collections/luxima/observability"
PYTHON_PATHS = [
    f"{COLLECTION}/plugins",
    f"{COLLECTION}/tests",
    "lab",
    "tests",
    "molecule",
    "docs",
    "bench",
    "roles/backup/files",
    "roles/grafana/files",
    "roles/platform/files",
    "roles/retention/files",
]
TYPED_PATHS = [
    f"{COLLECTION}/plugins",
    "lab",
    "tests/suite.py",
    "docs/variables.py",
    "bench",
    "roles/backup/files",
    "roles/grafana/files",
    "roles/platform/files",
    "roles/retention/files",
]
Command = tuple[str, ...]
# Bytes of tests in a process; most of them wait for servers, so that more than there are cores run at a time.
PART = 40_000
AT_ONCE = 3
# Lines that say why: of pytest, Ansible, mypy and the like, ansible-lint, Python, shells.
REASON = re.compile(
    r"^(E  |FAILED |ERROR |fatal: |failed: |\[ERROR\]|CRITICAL|Traceback|\w+(\.\w+)*(Error|Exception|Expired): |Error: )"
    r"|: error: |^\S+:\d+:\d+: |command not found|is not installed"
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Molecule draws a frame around what its programs say, and breaks their lines.
FRAME = re.compile(r"^\s*│ ?", re.MULTILINE)
FAILED_TEST = re.compile(r"^(?:FAILED|ERROR)\s+(\S+::.*(?:\n  .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One named check: its commands, how many of them at once, and the seconds it may take when warm.

    One that mostly waits runs `beside` another, when both are to run.
    """

    name: str
    commands: tuple[Command, ...]
    budget: int
    long: bool = False
    at_once: int = 1
    beside: str = ""


# What of the hypervisor's tests depends on Python or on ansible-core; the rest tests plans and requests, which do not.
PROXMOX_NEWEST = {"test_documentation.py", "test_effects.py", "test_module.py", "test_playbooks.py"}


def unit(*program: str, marks: str, newest: bool = False) -> tuple[Command, ...]:
    """A process per topic, several for a big one: a module keeps its warnings in its process, and none runs beside controller code."""
    parts: list[list[Path]] = []
    for topic in sorted((ROOT / COLLECTION / "tests" / "unit").iterdir()):
        part: list[Path] = []
        for file in sorted(topic.glob("test_*.py")):
            if newest and topic.name == "proxmox" and file.name not in PROXMOX_NEWEST:
                continue
            if part and _size([*part, file]) > PART:
                parts.append(part)
                part = []
            part.append(file)
        if part:
            parts.append(part)
    # The biggest first, so that all that run at a time end together; a guess by size is good enough.
    parts.sort(key=_size, reverse=True)
    return tuple((*program, "-m", marks, *(str(file.relative_to(ROOT)) for file in part)) for part in parts)


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def properties() -> list[str]:
    """Every file with tests over generated examples."""
    files = sorted((ROOT / COLLECTION / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "@given" in file.read_text(encoding="utf-8")]


def molecule(scenario: str) -> Command:
    """The command that runs one scenario from create to destroy."""
    return ("molecule", "test", "--scenario-name", scenario)


NEWEST = ("bash", "tests/newest.sh")
STEPS = (
    Step(
        "packages", ((sys.executable, "-m", "lab.packages", "build", "containers", "machines", "tests"),), 60
    ),
    Step(
        "lint",
        (
            ("ruff", "check", *PYTHON_PATHS),
            ("ruff", "format", "--check", *PYTHON_PATHS),
            ("yamllint", "--strict", "."),
            ("ansible-lint", "--offline", "--profile", "production"),
            ("mypy", *TYPED_PATHS),
        ),
        90,
        at_once=2,
    ),
    Step(
        "artifacts",
        (("ansible-playbook", "playbooks/deploy.yml", "--tags", "artifacts", "-i", "inventories/lab"),),
        60,
    ),
    Step(
        "data",
        (
            ("pytest", "tests/data/test_bad_input.py"),
            ("pytest", "tests/data", "--ignore=tests/data/test_bad_input.py"),
            ("pytest", "tests/rules", "tests/docs"),
        ),
        240,
        at_once=AT_ONCE,
    ),
    Step(
        "unit",
        (*unit("pytest", marks="not lab"), ("pytest", "tests/lab", "tests/workload", "-m", "not lab")),
        200,
        at_once=AT_ONCE,
    ),
    Step("lab", (("pytest", "tests/lab", "-m", "lab"),), 60),
    Step("render", (("pytest", "tests/render"),), 180),
    Step("logs", (("pytest", "tests/logs"),), 90),
    # Its servers wait for their own intervals.
    Step("retention", (("pytest", "tests/retention"),), 300, beside="unit"),
    Step("servers", (("pytest", "tests/servers"),), 150, beside="scenario-guests"),
    Step("backup", (("pytest", "tests/backup", "tests/grafana"),), 200, beside="scenario-retention"),
    # The set-up first, alone: the others find it done.
    Step("newest-setup", (NEWEST,), 60),
    Step(
        "newest",
        (
            *unit(*NEWEST, "pytest", marks="not lab and not slow", newest=True),
            (*NEWEST, "pytest", "tests/docs"),
            (*NEWEST, "pytest", "tests/render"),
        ),
        180,
        at_once=AT_ONCE,
    ),
    Step("scenario-default", (molecule("default"),), 480),
    Step("scenario-staging", (molecule("staging"),), 300),
    Step("scenario-guests", (molecule("guests"),), 180),
    Step("scenario-retention", (molecule("retention"),), 180),
    Step("scenario-production_cut", (molecule("production_cut"),), 240),
    Step("scenario-day2", (molecule("day2"),), 330),
    Step("scenario-faults", (molecule("faults"),), 180),
    Step("scenario-fleet", (molecule("fleet"),), 180, long=True),
    Step("scenario-component", (molecule("component"),), 1200, long=True),
    Step("scenario-guests_long", (molecule("guests_long"),), 480, long=True),
    Step("scenario-production", (molecule("production"),), 1200, long=True),
    Step("scenario-restore", (molecule("restore"),), 300, long=True),
    Step("scenario-faults-all", (("env", "FAULTS=all", *molecule("faults")),), 3000, long=True),
    # One of its tests runs a plugin of community.proxmox, which the benchmark's packages contain.
    # Examples that nobody has seen yet.
    Step(
        "properties",
        tuple(("pytest", "--hypothesis-profile=default", file) for file in properties()),
        120,
        long=True,
        at_once=AT_ONCE,
    ),
    Step(
        "guests-all",
        (
            ("make", ".cache/bench/.installed"),
            ("env", "TESTS_LONG=1", "pytest", f"{COLLECTION}/tests/unit/proxmox"),
        ),
        900,
        long=True,
    ),
)


@dataclass(frozen=True)
class Result:
    step: Step
    passed: bool
    seconds: float

    @property
    def word(self) -> str:
        return "passed" if self.passed else "FAILED"


class Output:
    """Where lines go: the terminal and the step's log. Of commands that run together, a command's lines stay together."""

    def __init__(self, step: Step, alone: bool) -> None:
        self.step = step
        self.live = alone and step.at_once == 1
        self.file = (LOGS / f"{step.name}.log").open("w", encoding="utf-8")
        self.lock = threading.Lock()
        self.done = 0

    def write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self.file.write(COLOURS.sub("", text))
        self.file.flush()

    def run(self, command: Command) -> bool:
        """Runs one command; true when it passed."""
        words = [Path(word).name if word == sys.executable else word for word in command]
        words = [word.removeprefix(f"{COLLECTION}/tests/unit/") for word in words]
        title = f"{self.step.name}: {' '.join(words[:7])}{' ...' if len(words) > 7 else ''}"
        start = time.monotonic()
        if self.live:
            self.write(f"\n=== {title}\n")
        program = shutil.which(command[0])
        if program is None:
            with self.lock:
                self.write(f"{command[0]} is not installed; `make setup` installs it\n")
            return False
        kept: list[str] = []
        with subprocess.Popen(
            [program, *command[1:]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if self.live:
                    self.write(line)
                else:
                    kept.append(line)
        passed = process.returncode == 0
        if not self.live:
            with self.lock:
                self.done += 1
                count = f"{self.done} of {len(self.step.commands)}"
                word = "passed" if passed else "FAILED"
                seconds = time.monotonic() - start
                self.write(f"\n=== {title}: {word}, {seconds:.0f} s ({count})\n{''.join(kept)}")
        return passed


def run(step: Step, alone: bool) -> Result:
    """Runs every command of a step."""
    start = time.monotonic()
    output = Output(step, alone)
    if not output.live:
        output.write(f"\n=== {step.name}: {len(step.commands)} commands, {step.at_once} at a time\n")
    with output.file, ThreadPoolExecutor(step.at_once) as pool:
        passed = all(list(pool.map(output.run, step.commands)))
    return Result(step, passed, time.monotonic() - start)


def logged(step: str) -> str:
    """What a step said, without frames."""
    return FRAME.sub("", (LOGS / f"{step}.log").read_text(encoding="utf-8"))


def failed_tests(step: str) -> str:
    """The names of the tests of a step that failed, in one line."""
    names = (name.replace("\n  ", "").partition(" - ")[0] for name in FAILED_TEST.findall(logged(step)))
    return ", ".join(dict.fromkeys(re.sub(r"^\S*/", "", name) for name in names)) or "no test, see above"


def reason(step: str, lines: int = 40) -> str:
    """The last lines of a step's log that say why it failed, and its last lines as they are."""
    said = logged(step).splitlines()
    end = max(len(said) - lines // 4, 0)
    marked = [line for line in said[:end] if REASON.search(line)][-(lines - lines // 4) :]
    return "\n".join(f"  {line[:400]}" for line in [*marked, "...", *said[end:]] if line.strip())


def main() -> int:
    """Runs the selected steps and prints a table; 0 when every one passed."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(names))
    parser.add_argument("--all", action="store_true", help="the long steps too")
    options = parser.parse_args()
    unknown = [name for name in options.steps if name not in names]
    if unknown:
        parser.error(f"no step named {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [s for s in STEPS if (s.name in options.steps if options.steps else options.all or not s.long)]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    LOGS.mkdir(parents=True, exist_ok=True)

    start = time.monotonic()
    results: list[Result] = []
    names = [step.name for step in chosen]
    for first in [step for step in chosen if step.beside not in names]:
        together = [first, *(step for step in chosen if step.beside == first.name)]
        with ThreadPoolExecutor(len(together)) as pool:
            results += pool.map(run, together, [len(together) == 1] * len(together))
        for result in results[-len(together) :]:
            print(f"\n--- {result.step.name} {result.word} after {result.seconds:.0f} s")
        print(f"--- {len(results)} of {len(chosen)} steps, {time.monotonic() - start:.0f} s", flush=True)

    report = ROOT / "reports" / "test-times.json"
    rows = [{"step": r.step.name, "passed": r.passed, "seconds": round(r.seconds, 1)} for r in results]
    report.write_text(json.dumps(rows, indent=2))
    print("\nstep                    result    seconds")
    for result in sorted(results, key=lambda result: -result.seconds):
        late = f"  (budget {result.step.budget})" if result.seconds > result.step.budget else ""
        print(f"{result.step.name:<24}{result.word:<8}{result.seconds:9.1f}{late}")
    failed = [result.step.name for result in results if not result.passed]
    print(f"total {time.monotonic() - start:34.1f}")
    for name in failed:
        print(f"\n{name} FAILED; all it said is in reports/logs/{name}.log:\n{reason(name)}")
    print(f"\n{len(results) - len(failed)} passed, {len(failed)} failed")
    # Last, so that who sees nothing but the end of the output knows where to look.
    for name in failed:
        print(f"{name}: {failed_tests(name)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
