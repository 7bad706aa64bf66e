# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs the project's checks in order, says how long each took, and stops for nothing but the end.

``python tests/suite.py``            what CI runs
``python tests/suite.py --all``      the long scenarios too
``python tests/suite.py lint unit``  some steps only
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "collections/ansible_collections/luxima/observability"
PYTHON_PATHS = [f"{COLLECTION}/plugins", f"{COLLECTION}/tests", "lab", "tests", "molecule", "docs"]
TYPED_PATHS = [f"{COLLECTION}/plugins", "lab", "tests/suite.py", "docs/variables.py"]
# Debian packages of the build and the lab that are not part of a minimal installation.
PACKAGES = [
    "golang-1.19-go",
    "gcc",
    "libc6-dev",
    "libsystemd-dev",
    "openssh-client",
    "lxc",
    "lxcfs",
    "mmdebstrap",
    "uidmap",
    "iproute2",
    "zstd",
    "qemu-system-x86",
    "qemu-utils",
    "xorriso",
]


@dataclass(frozen=True)
class Step:
    """One named check: commands that run one after the other, and the seconds it may take when warm."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    budget: int
    long: bool = False


def unit() -> tuple[tuple[str, ...], ...]:
    """A process per topic: a module keeps its warnings in its process, and no module runs beside controller code."""
    topics = sorted(
        path for path in (ROOT / COLLECTION / "tests" / "unit").iterdir() if any(path.glob("test_*.py"))
    )
    folders = [str(path.relative_to(ROOT)) for path in topics] + ["tests/lab", "tests/workload"]
    return tuple(("pytest", folder, "-m", "not lab") for folder in folders)


def molecule(scenario: str) -> tuple[str, ...]:
    """The command that runs one scenario from create to destroy."""
    return ("molecule", "test", "--scenario-name", scenario)


STEPS = (
    Step("packages", (("bash", "tests/packages.sh", *PACKAGES),), 60),
    Step(
        "lint",
        (
            ("ruff", "check", *PYTHON_PATHS),
            ("ruff", "format", "--check", *PYTHON_PATHS),
            ("mypy", *TYPED_PATHS),
            ("yamllint", "--strict", "."),
            ("ansible-lint", "--offline", "--profile", "production"),
        ),
        120,
    ),
    Step(
        "artifacts",
        (("ansible-playbook", "playbooks/deploy.yml", "--tags", "artifacts", "-i", "inventories/lab"),),
        60,
    ),
    Step("data", (("pytest", "tests/data", "tests/rules", "tests/docs"),), 120),
    Step("unit", unit(), 300),
    Step("lab", (("pytest", "tests/lab", "-m", "lab"),), 60),
    Step("render", (("pytest", "tests/render"),), 120),
    Step("retention", (("pytest", "tests/retention"),), 240),
    Step("newest", (("bash", "tests/newest.sh"),), 240),
    Step("scenario-default", (molecule("default"),), 480),
    Step("scenario-staging", (molecule("staging"),), 300),
    Step("scenario-guests", (molecule("guests"),), 180),
    Step("scenario-day2", (molecule("day2"),), 180, long=True),
    Step("scenario-faults", (molecule("faults"),), 180, long=True),
    Step("scenario-faults-all", (("env", "FAULTS=all", *molecule("faults")),), 900, long=True),
)


def run(step: Step) -> bool:
    """Runs every command of a step; true when all passed."""
    passed = True
    for command in step.commands:
        print(f"\n=== {step.name}: {' '.join(command[:6])}{' ...' if len(command) > 6 else ''}", flush=True)
        program = shutil.which(command[0])
        if program is None:
            print(f"{command[0]} is not installed; `make setup` installs it", flush=True)
            passed = False
        elif subprocess.run([program, *command[1:]], cwd=ROOT, check=False).returncode != 0:
            passed = False
    return passed


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

    results = []
    for step in chosen:
        start = time.monotonic()
        passed = run(step)
        results.append((step, passed, time.monotonic() - start))

    report = ROOT / "reports" / "test-times.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(
        json.dumps([{"step": s.name, "passed": ok, "seconds": round(t, 1)} for s, ok, t in results], indent=2)
    )
    print("\nstep                    result    seconds")
    for step, passed, seconds in sorted(results, key=lambda row: -row[2]):
        late = f"  (budget {step.budget})" if seconds > step.budget else ""
        print(f"{step.name:<24}{'passed' if passed else 'FAILED':<8}{seconds:9.1f}{late}")
    failed = sum(not passed for _, passed, _ in results)
    print(f"total {sum(seconds for *_, seconds in results):34.1f}")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
