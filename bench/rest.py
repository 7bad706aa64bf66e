# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs that change nothing: ours, and the usual ways to do the same on the same hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

from bench.runs import LAB, OTHERS, ROOT, Case, Json, execute, playbook, run, say, spread
from lab import instance

# Every component runs on this guest of the lab.
SERVER = "obs"
GUESTS = {"obs": 11, "agent1": 21, "agent2": 22, "docker1": 31}
# Components whose files are the same on every host, so that a host may have many names.
AGENTS = ["node_exporter", "cadvisor", "blackbox_exporter"]
NAMES = (4, 16, 32)
ONE, FOUR = "1 host, 12 components", "4 hosts, all components"
LOGS_ONE, LOGS_FOUR = "1 host, 3 components", "4 hosts, logs and traces"


def facts() -> dict[str, Any]:
    """What the lab says of itself."""
    found: dict[str, Any] = instance.inventory(instance.load())["all"]["vars"]
    return found


def names(count: int) -> str:
    """How results of so many names are called."""
    return f"{count} names of {len(GUESTS)} hosts, 3 components"


def named(count: int, scratch: Path) -> list[str]:
    """An inventory in which the lab's guests have `count` names, each with its own connection, and run the agents."""
    place = scratch / f"names{count}"
    place.mkdir()
    addresses = list(GUESTS.values())
    hosts = {
        f"name{number}": {
            "ansible_host": f"{facts()['platform_subnet']}.{addresses[number % len(addresses)]}",
            "ansible_control_path": f"{scratch}/c{count}-{number}",
        }
        for number in range(count)
    }
    content = {"guests": {"hosts": hosts}, **{agent: {"children": {"guests": None}} for agent in AGENTS}}
    (place / "hosts.yml").write_text(yaml.safe_dump(content))
    sources = ["inventories/lab/00-platform.yml", "inventories/lab/10-instance", str(place / "hosts.yml")]
    return [word for source in sources for word in ("-i", source)]


def pyinfra(scratch: Path, hosts: dict[str, int]) -> list[str]:
    """The same work for pyinfra, on guests by the last number of their address."""
    told = facts()
    done = execute(playbook_inventory())[1]
    groups = json.loads(done)
    data = {
        "ssh_user": "root",
        "ssh_key": told["ansible_ssh_private_key_file"],
        "ssh_known_hosts_file": f"{told['lab_state_dir']}/known_hosts",
        "ssh_strict_host_key_checking": "accept-new",
    }
    servers = []
    for host, last in hosts.items():
        mine = [group for group in PLAIN if host in members(groups, group)]
        servers.append((f"{told['platform_subnet']}.{last}", {**data, "components": mine}))
    inventory = scratch / f"pyinfra_{len(hosts)}.py"
    inventory.write_text(f"servers = {servers!r}\n")
    return [str(OTHERS / "bin" / "pyinfra"), "-y", str(inventory), str(ROOT / "bench" / "plain_pyinfra.py")]


PLAIN = [
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
    "retention",
    "backup",
]


def playbook_inventory() -> list[str]:
    return [playbook()[0].replace("ansible-playbook", "ansible-inventory"), *LAB, "--list"]


def members(groups: Json, name: str) -> set[str]:
    entry = groups.get(name, {})
    return set(entry.get("hosts", [])).union(*(members(groups, child) for child in entry.get("children", [])))


def mitogen() -> dict[str, str]:
    """Variables that make ansible-playbook use Mitogen."""
    (strategy,) = OTHERS.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy")
    return {
        "ANSIBLE_STRATEGY_PLUGINS": str(strategy),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "PYTHONPATH": str(strategy.parents[2]),
    }


def ours(scratch: Path) -> list[Case]:
    """Our own runs and the floors below them."""
    one = (*LAB, "--limit", f"localhost,{SERVER}")
    found = [
        Case(ONE, "empty play", playbook(*one, "bench/empty.yml")),
        Case(ONE, "ping", playbook(*one, "bench/ping.yml")),
        Case(ONE, "deploy", playbook(*one, "playbooks/deploy.yml")),
        Case(FOUR, "empty play", playbook(*LAB, "bench/empty.yml")),
        Case(FOUR, "ping", playbook(*LAB, "bench/ping.yml")),
        Case(FOUR, "deploy", playbook(*LAB, "playbooks/deploy.yml")),
    ]
    for count in NAMES:
        sources = named(count, scratch)
        found.append(Case(names(count), "ping", playbook(*sources, "bench/ping.yml")))
        found.append(Case(names(count), "deploy", playbook(*sources, "playbooks/deploy.yml")))
    return found


def others(scratch: Path) -> list[Case]:
    """The usual ways. Those on four hosts come first: preparing them prepares the single host."""
    if not (OTHERS / "bin" / "pyinfra").exists():
        say("nothing to compare with is installed; `make bench` installs it")
        return []
    store = Store(str(Path("~/.cache/luxima-observability").expanduser()))
    programs = {name: store.lookup(name, "amd64") for name in ("loki", "tempo", "promtail")}
    known = {name: item for name, item in programs.items() if item is not None}
    given = json.dumps(
        {
            "rivals_objects": {name: item.path for name, item in known.items()},
            **{f"{name}_version": item.version for name, item in known.items()},
        }
    )
    rivals = compared()
    roles = playbook(*rivals, "bench/rivals.yml", "-e", given)
    (bundled,) = OTHERS.glob("lib/python*/site-packages/ansible_collections")
    paths = {"ANSIBLE_COLLECTIONS_PATH": f"{ROOT / 'collections'}:{bundled.parent}"}
    ours = ("playbooks/deploy.yml", "--tags", "loki,tempo,promtail")
    say("guests for the compared roles")
    execute(playbook(*rivals, "playbooks/provision.yml", "--limit", "localhost,rivals"))
    execute(playbook(*rivals, "bench/rivals_prepare.yml", "-e", given))
    found = []
    for hosts, logs, limit, guests in (
        (FOUR, LOGS_FOUR, [], GUESTS),
        (ONE, LOGS_ONE, ["--limit", f"localhost,{SERVER}"], {SERVER: GUESTS[SERVER]}),
    ):
        plain = playbook(*LAB, *limit, "bench/plain.yml")
        rival = [*roles, "--limit", "localhost,rival1"] if limit else roles
        found += [
            Case(hosts, "plain tasks", plain, slow=True),
            Case(hosts, "plain tasks, Mitogen", plain, mitogen(), slow=True),
            Case(hosts, "the same, pyinfra", pyinfra(scratch, guests), slow=True),
            Case(logs, "grafana.grafana's roles", rival, paths, slow=True),
            Case(logs, "deploy", playbook(*LAB, *limit, *ours)),
        ]
    return found


def compared() -> tuple[str, ...]:
    """The inventory with the guests of the compared roles."""
    return (*LAB, "-i", "bench/inventory/rivals.yml")


def remove_others() -> None:
    """Takes off the lab what the usual ways made."""
    execute(playbook(*LAB, "bench/plain_remove.yml"))
    words = ("playbooks/provision.yml", "--limit", "localhost,rivals", "-e", "rivals_state=absent")
    execute(playbook(*compared(), *words))


def prepare(cases: list[Case], scratch: Path) -> None:
    """Every case once, unmeasured: what has to be made is made, and connections stand."""
    made: set[str] = set()
    for case in cases:
        # The same on more hosts has been there already.
        if case.slow and case.name in made:
            continue
        say(f"preparing: {case.hosts}, {case.name}")
        run(case, scratch)
        made.add(case.name)
        case.seconds.clear()


def turns(cases: list[Case], scratch: Path, runs: int, slow_runs: int) -> None:
    """Cases take turns, so that other work on the machine meets all of them alike."""
    for turn in range(max(runs, slow_runs)):
        for case in cases:
            if turn < (slow_runs if case.slow else runs) and not case.failed:
                say(f"turn {turn + 1} of {max(runs, slow_runs)}: {case.hosts}, {case.name}")
                run(case, scratch)


def summary(cases: list[Case]) -> list[Json]:
    """One row per case; the ratio says how many times as long as `deploy` on the same hosts it takes."""
    table = []
    measured = [case for case in cases if case.seconds]
    for case in measured:
        bases = [other for other in measured if other.hosts == case.hosts and other.name == "deploy"]
        table.append(
            {
                "hosts": case.hosts,
                "case": case.name,
                **spread(case.seconds),
                "ratio": round(min(case.seconds) / min(bases[0].seconds), 2) if bases else None,
                "tasks": case.counts.get("tasks"),
                "results": case.counts.get("results"),
            }
        )
    return table
