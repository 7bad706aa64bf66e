"""Server x fault. Always: the old or the new release serves, no half state, the next run converges.

The guests are harmed at the same time, each by one fault after the other.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.luxima.observability.plugins.module_utils._artifacts.store import Store

from tests.platform import LAB, ROOT, Platform, Run, until

RECORDS = ROOT / "reports" / "runs" / "faults"
HOSTS = Path(__file__).parent / "inventory" / "hosts.yml"
HARM = Path(__file__).with_name("harm.py").read_text()
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "luxima-observability"
SERVERS = [
    "node_exporter",
    "prometheus",
    "loki",
    "alertmanager",
    "tempo",
    "promtail",
    "blackbox_exporter",
    "cadvisor",
    "minio",
    "grafana",
]
# What their own checkers refuse; the others have none and take no configuration file.
NONSENSE = {
    "prometheus": {"prometheus_config": {"global": {"scrape_interval": "soon"}}},
    "loki": {"loki_config": {"limits_config": {"no_such_limit": 1}}},
    "tempo": {"tempo_config": {"no_such_section": {}}},
    "promtail": {"promtail_config": {"no_such_section": {}}},
    "alertmanager": {"alertmanager_config": {"no_such_section": {}}},
    "blackbox_exporter": {"blackbox_exporter_config": {"no_such_section": {}}},
}
HEALTH = """
import json, os, subprocess, urllib.request
name = %r
base = f"/opt/luxima/{name}"
manifest = json.load(open(f"{base}/current/manifest.json"))
try:
    status = urllib.request.urlopen(manifest["service"]["ready"]["url"], timeout=2).status
except OSError as error:
    status = str(error)
shown = subprocess.run(["systemctl", "show", "-p", "ActiveState,NeedDaemonReload,MainPID", name], stdout=subprocess.PIPE, text=True)
unit = dict(line.split("=", 1) for line in shown.stdout.split())
data = {item["path"]: os.stat(item["path"]).st_ino for item in manifest["directories"]}
print(json.dumps({
    "data": data, "release": manifest["release"], "status": status, "active": unit["ActiveState"], "stale": unit["NeedDaemonReload"],
    "left": [entry for entry in os.listdir(base) + os.listdir(base + "/releases") if entry.startswith(".")],
    "unfinished": os.path.exists(base + "/journal.json"), "harmed": os.path.exists("/var/tmp/harm-done"),
}))
"""


@dataclass
class Fault:
    """How one change goes wrong, and how it must end.

    `refused`: the run fails with `words` (a pattern) and the old release serves. `fine`: the run succeeds. `any`: milliseconds decide; if
    it fails then with `words`, and the next run converges.
    """

    variables: dict[str, Any] = field(default_factory=dict)
    end: str = "any"
    words: str = ""
    step: str = ""
    harm: str = ""
    before: str = ""
    after: str = ""
    twice: bool = False


class Guest:
    """A guest that is harmed, and the store its programs come from. Nothing is shared with the other guests."""

    def __init__(self, name: str, last: int, *inventories: Path) -> None:
        self.name = name
        self.site = Platform(LAB / "00-platform.yml", LAB / "10-instance", *inventories)
        self.address = self.site.address(last)
        self.records = RECORDS / name
        self.store = self.records / "store"

    def deploy(self, server: str, variables: dict[str, Any], name: str = "changes") -> Run:
        words = ("playbooks/deploy.yml", "--tags", server, "--limit", f"localhost,{self.name}")
        words = (*words, "-e", json.dumps(variables))
        return self.site.playbook(*words, records=self.records / name)

    def health(self, server: str) -> dict[str, Any]:
        code = base64.b64encode((HEALTH % server).encode()).decode()
        found: dict[str, Any] = json.loads(self.site.on(self.address, f"echo {code} | base64 -d | python3 -"))
        return found

    def serving(self, server: str) -> dict[str, Any]:
        """The health when it serves; the last one seen when it does not."""
        last: dict[str, Any] = {}

        def fine() -> bool:
            # A host that has just been rebooted does not answer yet.
            with contextlib.suppress(AssertionError, RuntimeError):
                last.update(self.health(server))
            return last.get("status") == 200 and last["active"] == "active"

        until(fine, 60)
        return last

    def wait_for(self, server: str, step: str, harm: str) -> None:
        code = base64.b64encode(HARM.encode()).decode()
        self.site.on(
            self.address,
            f"rm -f /var/tmp/harm-done; echo {code} | base64 -d >/run/harm.py; systemctl reset-failed harm 2>/dev/null;"
            f" systemd-run --collect --quiet --unit=harm python3 /run/harm.py {server} '{step}' '{harm}'",
        )

    def program(self, server: str, make: Callable[[bytes], bytes], spoil: bool = False) -> dict[str, Any]:
        """Variables of a store in which the program of a server is another one; the shared store stays as it is."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(CACHE / "index", self.store / "index")
        for folder in ("objects", "transfer"):
            shutil.copytree(CACHE / folder, self.store / folder, copy_function=os.link)
        store = Store(str(self.store))
        real = store.lookup(server, "amd64")
        assert real is not None
        content = make(Path(real.path).read_bytes())
        file = store.scratch() / server
        file.write_bytes(content)
        made = store.put(server, "amd64", file, format="file", version="fault", tested=True, source="test")
        if spoil:
            path = Path(made.path)
            stamp = path.stat()
            path.write_bytes(content[:-2] + b"??")
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        return {"platform_cache_dir": str(self.store)}


def another(server: str) -> dict[str, Any]:
    """A harmless change that needs a restart."""
    return {f"{server}_environment": {"FAULT": str(time.time_ns())}}


def refused(guest: Guest, server: str) -> Fault:
    return Fault(NONSENSE[server], end="refused", words="Nothing was activated")


def crash_at_start(guest: Guest, server: str) -> Fault:
    # Its checkers are content with it.
    script = b"#!/bin/sh\ncase \"$*\" in *verif*|*check*) exit 0;; esac\necho 'I cannot start' >&2\nexit 3\n"
    return Fault(guest.program(server, lambda _real: script), end="refused", words="I cannot start")


def crash_late(guest: Guest, server: str) -> Fault:
    new = guest.program(server, lambda real: real + b"\n#2\n")
    return Fault(
        new,
        end="refused",
        words="the service ended by itself",
        step="proving",
        harm="crash the server after 3 s",
    )


def never_ready(guest: Guest, server: str) -> Fault:
    variables = {**another(server), f"{server}_ready_timeout": 3}
    # Grafana tells systemd when it is ready, so it is systemd that gives up.
    words = "timeout was exceeded" if server == "grafana" else "not ready after 3 s"
    return Fault(variables, end="refused", words=words, step="proving", harm="freeze the server")


def port_taken(guest: Guest, server: str) -> Fault:
    return Fault(
        {f"{server}_port": 9999},
        end="refused",
        words="in use",
        before="systemd-run --collect --quiet --unit=squatter python3 -m http.server 9999;"
        " timeout 10 sh -c 'until ss -Hltn sport = :9999 | grep -q .; do sleep 0.1; done'",
        after="systemctl stop squatter",
    )


def disk_full(guest: Guest, server: str) -> Fault:
    place = f"/opt/luxima/{server}/releases"
    return Fault(
        another(server),
        end="refused",
        words="No space left on device",
        before=f"mount -t tmpfs -o size=64k none {place}",
        after=f"umount {place}",
    )


def wrong_digest(guest: Guest, server: str) -> Fault:
    return Fault(
        guest.program(server, lambda real: real + b"\n#3\n", spoil=True), end="refused", words="expected"
    )


def disk_full_late(guest: Guest, server: str) -> Fault:
    # Of the whole guest, not of a corner: what is needed to go back must have been kept. It may be systemd that finds no
    # room first, for what it mounts for a service, and says only that.
    return Fault(
        another(server),
        words="No space left on device|step NAMESPACE",
        step="exchanging",
        harm="fill the disk",
        after="rm -f /var/tmp/harm-full",
    )


def killed(step: str) -> Callable[[Guest, str], Fault]:
    return lambda guest, server: Fault(another(server), step=step, harm="kill the module")


def connection_cut(guest: Guest, server: str) -> Fault:
    return Fault(another(server), step="activating", harm="cut the connection")


def rebooted(step: str) -> Callable[[Guest, str], Fault]:
    return lambda guest, server: Fault(another(server), step=step, harm="reboot")


def two_runs(guest: Guest, server: str) -> Fault:
    return Fault(another(server), twice=True)


def clock(seconds: int) -> Callable[[Guest, str], Fault]:
    return lambda guest, server: Fault(
        another(server), end="fine", step="proving", harm=f"set the clock {seconds}"
    )


def crash_and_clock(guest: Guest, server: str) -> Fault:
    # What the server said last must be found although its time lies before the change.
    return replace(crash_at_start(guest, server), step="exchanging", harm="set the clock -7200")


FAULTS: dict[str, Callable[[Guest, str], Fault]] = {
    "configuration refused": refused,
    "program crashes at start": crash_at_start,
    "program crashes after 3 s": crash_late,
    "never ready": never_ready,
    "port taken": port_taken,
    "disk full while staging": disk_full,
    "disk full while activating": disk_full_late,
    "wrong digest": wrong_digest,
    "module killed while staging": killed("staging"),
    "module killed while validating": killed("validating"),
    "module killed while exchanging": killed("exchanging"),
    "module killed while activating": killed("activating"),
    "module killed while proving": killed("proving"),
    "module killed while committing": killed("committing"),
    "connection cut": connection_cut,
    "host rebooted in the middle": rebooted("activating"),
    "two runs at once": two_runs,
}
# On a virtual machine: a container's clock is that of the machine below.
MACHINE_FAULTS: dict[str, Callable[[Guest, str], Fault]] = {
    "clock jumps forward": clock(7200),
    "clock jumps back": clock(-7200),
    "clock jumps back, program crashes": crash_and_clock,
}
EVERYTHING = os.environ.get("FAULTS") == "all"
PROGRAM_FAULTS = {"program crashes at start", "program crashes after 3 s", "wrong digest"}
CUT = {
    "node_exporter": {
        "program crashes at start",
        "program crashes after 3 s",
        "disk full while activating",
        "wrong digest",
        "module killed while proving",
        "two runs at once",
    },
    "prometheus": {"configuration refused", "module killed while exchanging"},
    "alertmanager": {"never ready", "port taken", "module killed while committing", "connection cut"},
    "loki": {"configuration refused", "disk full while staging"},
    # Its checker is easily started in a way in which it reads nothing.
    "tempo": {"configuration refused", "module killed while activating"},
}


def possible(fault: str, server: str) -> bool:
    if fault == "configuration refused":
        return server in NONSENSE
    # Grafana is a tree of files, not one program.
    return fault not in PROGRAM_FAULTS or server != "grafana"


CELLS = [
    (server, fault)
    for server in SERVERS
    for fault in FAULTS
    if possible(fault, server) and (EVERYTHING or fault in CUT.get(server, ()))
]
MACHINE_CELLS = [("node_exporter", fault) for fault in MACHINE_FAULTS if EVERYTHING]


@pytest.fixture(scope="module")
def guests() -> dict[str, Guest]:
    """The guest of each server."""
    made = [Guest("stores", 11, HOSTS), Guest("metrics", 12, HOSTS), Guest("agents", 13, HOSTS)]
    groups = made[0].site.groups
    return {server: guest for server in SERVERS for guest in made if groups[server] == [guest.name]}


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, guests: dict[str, Guest]
) -> Iterator[dict[tuple[str, str], Future[str]]]:
    """What becomes of every chosen cell: a guest's one after the other, the guests at the same time."""
    chosen = {item.name for item in request.session.items}
    lanes = {guest.name: ThreadPoolExecutor(1) for guest in guests.values()}
    yield {
        (server, name): lanes[guests[server].name].submit(face, guests[server], server, FAULTS[name])
        for server, name in CELLS
        if f"test_fault[{server}-{name}]" in chosen
    }
    for lane in lanes.values():
        lane.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def machine() -> Guest:
    made = Guest("vm1", 41, HOSTS, HOSTS.with_name("machine.yml"))
    for words in (
        ("playbooks/provision.yml",),
        ("playbooks/deploy.yml", "--tags", "node_exporter", "--limit", "localhost,vm1"),
    ):
        done = made.site.playbook(*words, records=RECORDS / "changes")
        assert done.code == 0, done.output
    return made


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], str]]:
    cells: dict[tuple[str, str], str] = {}
    yield cells
    servers = [server for server in SERVERS if any(key[0] == server for key in cells)]
    lines = [
        "# What went wrong, and what served afterwards",
        "",
        "Seconds are those of the run that met the fault; `-` cannot happen to this server or was not run.",
        "Every cell: the server answered, nothing was left behind, and the next run converged.",
        "",
        f"| fault | {' | '.join(servers)} |",
        f"| --- |{' --- |' * len(servers)}",
    ]
    for fault in [*FAULTS, *MACHINE_FAULTS]:
        row = [cells.get((server, fault), "-") for server in servers]
        lines.append(f"| {fault} | {' | '.join(row)} |")
    (ROOT / "reports" / "faults.md").write_text("\n".join(lines) + "\n")


def meet(guest: Guest, server: str, fault: Fault) -> list[Run]:
    """The run, or both, that meet the fault."""
    if fault.before:
        guest.site.on(guest.address, fault.before)
    if fault.step:
        guest.wait_for(server, fault.step, fault.harm)
    try:
        if not fault.twice:
            return [guest.deploy(server, fault.variables)]
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(guest.deploy, server, fault.variables, f"run{n}") for n in (1, 2)]
            return [run.result() for run in both]
    finally:
        if fault.after:
            guest.site.on(guest.address, fault.after)


def face(guest: Guest, server: str, make: Callable[[Guest, str], Fault]) -> str:
    """Meets a fault and checks all that must hold afterwards; returns what the table says."""
    for _attempt in range(3):
        fault = make(guest, server)
        before = guest.health(server)
        runs = meet(guest, server, fault)
        after = guest.serving(server)
        if not fault.step or after["harmed"]:
            break
        # A step of a millisecond was over before the harm came.
        assert runs[0].code == 0, runs[0].output
    told = runs[0].output
    assert not fault.step or after["harmed"], f"the harm was never done\n{told}"
    assert (after["status"], after["active"], after["stale"]) == (200, "active", "no"), f"{after}\n{told}"
    assert after["data"] == before["data"]
    if runs[0].code and fault.words:
        assert re.search(fault.words, told), told
    if fault.end == "refused":
        # The old release serves as if nothing had been tried.
        assert runs[0].code != 0, told
        assert after["release"] == before["release"], told
        assert (after["left"], after["unfinished"]) == ([], False)
    elif fault.end == "fine":
        assert runs[0].code == 0, told
    elif fault.twice:
        assert [run.code for run in runs].count(0) >= 1, told + runs[1].output
        assert all(run.code == 0 or "another run is changing" in run.output for run in runs)
    else:
        again = guest.deploy(server, fault.variables)
        assert again.code == 0, again.output
        converged = guest.health(server)
        assert converged["release"] != before["release"]
        assert (converged["status"], converged["left"], converged["unfinished"]) == (200, [], False)
    # What the inventory says; after a refusal that is what serves already.
    last = guest.deploy(server, {})
    assert last.code == 0, last.output
    assert bool(last.effects()) is (fault.end != "refused")
    which = "old" if after["release"] == before["release"] else "new"
    return f"{which} serves, {min(run.seconds for run in runs):.1f} s"


@pytest.mark.parametrize(("server", "name"), CELLS)
def test_fault(
    outcomes: dict[tuple[str, str], Future[str]], table: dict[tuple[str, str], str], server: str, name: str
) -> None:
    table[server, name] = "**FAILED**"
    table[server, name] = outcomes[server, name].result()


@pytest.mark.parametrize(("server", "name"), MACHINE_CELLS)
def test_fault_on_a_machine(
    machine: Guest, table: dict[tuple[str, str], str], server: str, name: str
) -> None:
    table[server, name] = "**FAILED**"
    table[server, name] = face(machine, server, MACHINE_FAULTS[name])


@pytest.mark.parametrize("server", ["loki", "tempo"])
def test_what_serves_goes_on_serving_while_its_storage_is_away(
    outcomes: dict[tuple[str, str], Future[str]], guests: dict[str, Guest], server: str
) -> None:
    guest = guests[server]
    for (other, _), future in outcomes.items():
        if guests[other] is guest:
            future.exception()
    before = guest.health(server)
    process = f"systemctl show --property=MainPID --value {server}"
    pid = guest.site.on(guest.address, process)
    guest.site.on(guest.address, "systemctl stop minio")
    try:
        refused = guest.deploy(server, another(server))
        assert refused.code != 0
        assert "starts only where object storage" in refused.output, refused.output
        assert "Nothing was activated" in refused.output, refused.output
        assert guest.site.on(guest.address, process) == pid
        assert guest.health(server) == before
    finally:
        guest.site.on(guest.address, "systemctl start minio")
    last = guest.deploy(server, {})
    assert (last.code, last.effects()) == (0, {}), last.output


def test_nothing_is_left_to_do(guests: dict[str, Guest]) -> None:
    for guest in {guest.name: guest for guest in guests.values()}.values():
        run = guest.deploy(",".join(SERVERS), {})
        assert (run.code, run.effects()) == (0, {}), run.output
