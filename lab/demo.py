# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""``make demo``: the lab, the whole site on it, a workload, and the proof, with the time of each phase."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = "inventories/lab"


class Phases:
    """Runs commands one after the other and remembers how long each took."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float]] = []

    def run(self, name: str, *command: str) -> int:
        """Runs one command in the project's folder with its output shown; returns the exit code."""
        print(f"\n── {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        self.rows.append((name, time.monotonic() - start))
        return code

    def table(self) -> str:
        """One line per phase and the total, in seconds."""
        rows = [*self.rows, ("total", sum(seconds for _name, seconds in self.rows))]
        return "\n".join(f"{seconds:8.1f} s  {name}" for name, seconds in rows)


def playbook(name: str, *options: str) -> tuple[str, ...]:
    """The command line of one playbook on the lab."""
    return ("ansible-playbook", name, "-i", INVENTORY, *options)


def addresses() -> dict[str, str]:
    """URL of every server with a page or an API, from the inventory's own wiring."""
    names = ("grafana", "prometheus", "alertmanager", "loki", "tempo", "minio")
    urls = ", ".join(f"'{name}': hostvars[groups.{name} | first].{name}_url" for name in names)
    run = subprocess.run(
        [
            "ansible",
            "localhost",
            "-i",
            INVENTORY,
            "-m",
            "ansible.builtin.debug",
            "-a",
            f"msg={{{{ {{ {urls} }} }}}}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    answer, _end = json.JSONDecoder().raw_decode(run.stdout, run.stdout.index("=> ") + 3)
    return dict(answer["msg"])


def main() -> int:
    """Runs every phase; verify runs even when the deployment failed, so that there is a report."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    phases = Phases()
    if phases.run("Debian packages", sys.executable, "-m", "lab.packages", "build"):
        return 1
    if phases.run("lab", sys.executable, "-m", "lab", "up", "--vms"):
        return 1
    failed = (
        phases.run("guests", *playbook("playbooks/provision.yml"))
        or phases.run("workload", *playbook("lab/workload.yml"))
        or phases.run("platform (site.yml)", *playbook("site.yml"))
    )
    if failed:
        phases.run("verify", *playbook("playbooks/verify.yml"))
    print(f"\n{phases.table()}")
    if failed:
        print(
            f"\nThe demo failed; reports/verify-*.json and the lines above say where. {INVENTORY} stays up for a look; `make down` removes it."
        )
        return 1
    print("\nWhere to look (from this machine):")
    for name, url in addresses().items():
        print(f"  {name:<13} {url}")
    secrets = Path(".lab/secrets")
    print(f"\nLog in to Grafana as admin; the password is in {secrets / 'grafana_admin_password'}")
    print(f"Log in to MinIO as admin; the password is in {secrets / 'minio_root_password'}")
    print("\nAgain:   .venv/bin/ansible-playbook site.yml -i inventories/lab      (0 changed)")
    print("Remove:  make down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
