# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Times making guests and finding nothing to change, beside the modules of community.proxmox in loops, in one sitting.

``python -m bench.guests [--counts 1,5,20] [--runs 3]`` prints a table and writes reports/bench-guests.json. Both meet the
lab's API with guests of memory: half containers, half virtual machines, which neither boot nor have disks, so that what is
left is what the modules cost. Every playbook starts as a process of its own; both see the same three nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import testing

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ROOT / ".cache" / "bench"
NODES = ("pve1", "pve2", "pve3")
TEMPLATE = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZvb2JhcmZv operator"
TOOLS = {"one call": "guests_ours.yml", "loops": "guests_loops.yml"}


def others() -> list[Path]:
    """Folders of collections that only the benchmark uses; empty when they are not installed."""
    return sorted(OTHERS.glob("lib/python*/site-packages"))


def records(count: int) -> list[dict[str, Any]]:
    """An environment as an inventory describes it, alternately containers and virtual machines."""
    return [
        {
            "name": f"guest-{number}",
            "kind": ("lxc", "vm")[number % 2],
            "node": NODES[number // 2 % len(NODES)],
            "template": (TEMPLATE, "debian-12-cloud")[number % 2],
            "cores": 2,
            "memory_mb": 2048,
            "rootfs": {"storage": "local-lvm", "size_gb": 8},
            "networks": [{"bridge": "vmbr0", "address": f"10.0.0.{number + 10}/24", "gateway": "10.0.0.1"}],
            "tags": ["bench"],
            "onboot": True,
            "user": "root",
            "ssh_public_keys": [KEY],
        }
        for number in range(count)
    ]


def play(server: testing.TestServer, book: str, count: int, scratch: Path) -> dict[str, Any]:
    """One run of a playbook: seconds, requests to the API, and how many of its tasks said changed."""
    values = scratch / f"guests-{count}.json"
    values.write_text(
        json.dumps({"guests": records(count), "template_ids": dict(zip(NODES, range(9001, 9004)))})
    )
    hosts = scratch / "hosts.yml"
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts.write_text(json.dumps({"all": {"hosts": {"localhost": local}}}))
    environment = {
        **os.environ,
        "PROXMOX_HOST": server.host,
        "PROXMOX_PORT": str(server.port),
        "PROXMOX_USER": server.user,
        "PROXMOX_TOKEN_ID": server.token_id,
        "PROXMOX_TOKEN_SECRET": server.token_secret,
        "PROXMOX_CA_PATH": server.ca_path,
        "REQUESTS_CA_BUNDLE": server.ca_path,
        "PROXMOX_VALIDATE_CERTS": "true",
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(map(str, [ROOT / "collections", *others()])),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }
    before, start = len(server.requests), time.monotonic()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            str(ROOT / "bench" / book),
            *("-i", str(hosts), "-e", f"@{values}"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(f"{book} with {count} guests failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    changed = re.findall(r"changed=(\d+)", done.stdout)
    return {
        "seconds": seconds,
        "requests": len(server.requests) - before,
        "changed": int(changed[-1]) if changed else -1,
    }


def measure(count: int, runs: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Both tools in turns: each makes the guests of a fresh hypervisor, then finds them there."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        for turn in range(runs):
            for tool, book in TOOLS.items():
                with testing.server(nodes=NODES, vm_templates=True) as server:
                    for case in ("create", "no change"):
                        say(f"run {turn + 1} of {runs}: {count} guests, {tool}, {case}")
                        rows.setdefault((case, tool), []).append(play(server, book, count, Path(name)))
                    made = sum(not guest.config.get("template") for guest in server.cluster.guests.values())
                    if made != count:
                        sys.exit(f"{tool} made {made} guests of {count}")
    table = []
    for (case, tool), found in rows.items():
        ours = min(row["seconds"] for row in rows[case, "one call"])
        fewest = min(row["requests"] for row in rows[case, "one call"])
        seconds, requests = min(row["seconds"] for row in found), min(row["requests"] for row in found)
        table.append(
            {
                "guests": count,
                "case": case,
                "tool": tool,
                "seconds": round(seconds, 2),
                "times": round(seconds / ours, 1),
                "requests": requests,
                "requests per guest": round(requests / count, 1),
                "times the requests": round(requests / fewest, 1),
                "changed": max(row["changed"] for row in found),
                "runs": len(found),
            }
        )
    return table


def goal(row: dict[str, Any]) -> str:
    """Nothing to change: one list of the cluster, one per node and kind, one of each node's tasks, one request per guest."""
    if (row["case"], row["tool"]) != ("no change", "one call"):
        return ""
    # There is a VM template on each node; the names of all guests are asked of their nodes.
    places = {(node, "vm") for node in NODES} | {(one["node"], one["kind"]) for one in records(row["guests"])}
    bound = 1 + len(places) + len(NODES) + row["guests"]
    met = row["requests"] <= bound and not row["changed"]
    return f"goal: {bound} requests, nothing changed: {'met' if met else 'MISSED'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.guests", description=__doc__)
    parser.add_argument("--counts", default="1,5,20", help="numbers of guests, default 1,5,20")
    parser.add_argument("--runs", type=int, default=3, help="of each, the fastest counts; default 3")
    options = parser.parse_args(arguments)
    if not any((path / "ansible_collections/community/proxmox").is_dir() for path in others()):
        parser.error(
            f"community.proxmox is not in {OTHERS}: `make bench-guests` installs bench/requirements.txt there"
        )

    def say(text: str) -> None:
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)

    table: list[dict[str, Any]] = []
    for count in map(int, options.counts.split(",")):
        table += measure(count, options.runs, say)
    print(file=sys.stderr)
    for row in table:
        row["goal"] = goal(row)
    report = ROOT / "reports" / "bench-guests.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(table, indent=2) + "\n")
    print(
        f"{'guests':>6}  {'case':<11}{'tool':<10}{'s':>7}{'x':>6}{'requests':>10}{'per guest':>11}{'x':>6}{'changed':>9}"
    )
    for row in table:
        print(
            f"{row['guests']:>6}  {row['case']:<11}{row['tool']:<10}{row['seconds']:>7}{row['times']:>6}{row['requests']:>10}"
            f"{row['requests per guest']:>11}{row['times the requests']:>6}{row['changed']:>9}  {row['goal']}"
        )
    return int(any("MISSED" in row["goal"] for row in table))


if __name__ == "__main__":
    sys.exit(main())
