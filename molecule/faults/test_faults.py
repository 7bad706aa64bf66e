"""Server x fault. Always: the old or the new release serves, no half state, the next run converges."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    "blackbox_exporter": {"blackbox_exporter_modules": {"broken": {"prober": "no-such-prober"}}},
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
print(json.dumps({
    "release": manifest["release"], "status": status, "active": unit["ActiveState"], "stale": unit["NeedDaemonReload"],
    "left": [entry for entry in os.listdir(base) + os.listdir(base + "/releases") if entry.startswith(".")],
    "unfinished": os.path.exists(base + "/journal.json"), "harmed": os.path.exists("/run/harm-done"),
}))
"""


@dataclass
class Fault:
    """How one change goes wrong. `words` are in the message; none: the run may also succeed."""

    variables: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    step: str = ""
    harm: str = ""
    before: str = ""
    after: str = ""
    twice: bool = False


class Guest:
    """The guest that is harmed, and the stores its programs come from."""

    def __init__(self) -> None:
        self.site = Platform(LAB / "00-platform.yml", LAB / "10-instance", HOSTS)
        self.address = self.site.address(11)
        self.store = RECORDS / "store"

    def deploy(self, server: str, variables: dict[str, Any], name: str = "changes") -> Run:
        words = ("playbooks/deploy.yml", "--tags", server, "-e", json.dumps(variables))
        return self.site.playbook(*words, records=RECORDS / name)

    def health(self, server: str) -> dict[str, Any]:
        code = base64.b64encode((HEALTH % server).encode()).decode()
        found: dict[str, Any] = json.loads(self.site.on(self.address, f"echo {code} | base64 -d | python3 -"))
        return found

    def serving(self, server: str) -> dict[str, Any]:
        """The health when it serves; the last one seen when it does not."""
        last: dict[str, Any] = {}

        def fine() -> bool:
            last.update(self.health(server))
            return last["status"] == 200 and last["active"] == "active"

        until(fine, 20)
        return last

    def wait_for(self, server: str, step: str, harm: str) -> None:
        code = base64.b64encode(HARM.encode()).decode()
        self.site.on(
            self.address,
            f"rm -f /run/harm-done; echo {code} | base64 -d >/run/harm.py; systemctl reset-failed harm 2>/dev/null;"
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
    return Fault(NONSENSE[server], words="Nothing was activated")


def crash_at_start(guest: Guest, server: str) -> Fault:
    # Its checkers are content with it.
    script = b"#!/bin/sh\ncase \"$*\" in *verif*|*check*) exit 0;; esac\necho 'I cannot start' >&2\nexit 3\n"
    return Fault(guest.program(server, lambda _real: script), words="I cannot start")


def crash_late(guest: Guest, server: str) -> Fault:
    new = guest.program(server, lambda real: real + b"\n#2\n")
    return Fault(new, words="the service ended by itself", step="process", harm="crash the server after 3 s")


def never_ready(guest: Guest, server: str) -> Fault:
    variables = {**another(server), f"{server}_ready_timeout": 3}
    return Fault(variables, words="not ready after 3 s", step="process", harm="freeze the server")


def port_taken(guest: Guest, server: str) -> Fault:
    other = 9090 if server == "node_exporter" else 9100
    return Fault({f"{server}_port": other}, words="in use")


def disk_full(guest: Guest, server: str) -> Fault:
    place = f"/opt/luxima/{server}/releases"
    return Fault(
        another(server),
        words="No space left on device",
        before=f"mount -t tmpfs -o size=64k none {place}",
        after=f"umount {place}",
    )


def wrong_digest(guest: Guest, server: str) -> Fault:
    return Fault(guest.program(server, lambda real: real + b"\n#3\n", spoil=True), words="expected")


def killed(step: str) -> Callable[[Guest, str], Fault]:
    return lambda guest, server: Fault(another(server), step=step, harm="kill the module")


def connection_cut(guest: Guest, server: str) -> Fault:
    return Fault(another(server), step="activating", harm="cut the connection")


def two_runs(guest: Guest, server: str) -> Fault:
    return Fault(another(server), twice=True)


FAULTS: dict[str, Callable[[Guest, str], Fault]] = {
    "configuration refused": refused,
    "program crashes at start": crash_at_start,
    "program crashes after 3 s": crash_late,
    "never ready": never_ready,
    "port taken": port_taken,
    "disk full while staging": disk_full,
    "wrong digest": wrong_digest,
    "module killed while staging": killed("staging"),
    "module killed while exchanging": killed("exchanging"),
    "module killed while activating": killed("activating"),
    "connection cut": connection_cut,
    "two runs at once": two_runs,
}
PROGRAM_FAULTS = {"program crashes at start", "program crashes after 3 s", "wrong digest"}
CUT = {
    "node_exporter": set(FAULTS),
    "prometheus": {"configuration refused", "port taken", "module killed while activating"},
    "loki": {"configuration refused", "program crashes at start", "module killed while exchanging"},
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
    if possible(fault, server) and (os.environ.get("FAULTS") == "all" or fault in CUT.get(server, ()))
]


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


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
    for fault in FAULTS:
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


@pytest.mark.parametrize(("server", "name"), CELLS)
def test_fault(guest: Guest, table: dict[tuple[str, str], str], server: str, name: str) -> None:
    table[server, name] = "**FAILED**"
    fault = FAULTS[name](guest, server)
    before = guest.health(server)
    runs = meet(guest, server, fault)
    after = guest.serving(server)
    told = runs[0].output
    assert after["status"] == 200, told
    assert after["active"] == "active", told
    assert after["stale"] == "no", told
    if fault.step:
        assert after["harmed"], f"the harm was never done\n{told}"
    if fault.words:
        # It says so, and the old release serves as if nothing had been tried.
        assert runs[0].code != 0, told
        assert fault.words in told
        assert after["release"] == before["release"], told
        assert (after["left"], after["unfinished"]) == ([], False)
    elif fault.twice:
        assert [run.code for run in runs].count(0) >= 1, told + runs[1].output
        assert all(run.code == 0 or "another run is changing" in run.output for run in runs)
    else:
        again = guest.deploy(server, fault.variables)
        assert again.code == 0, again.output
        converged = guest.health(server)
        assert converged["release"] != before["release"]
        assert (converged["status"], converged["left"], converged["unfinished"]) == (200, [], False)
    # What the inventory says; after a revert that is what serves already.
    last = guest.deploy(server, {})
    assert last.code == 0, last.output
    assert bool(last.effects()) is not bool(fault.words)
    which = "old" if after["release"] == before["release"] else "new"
    table[server, name] = f"{which} serves, {min(run.seconds for run in runs):.1f} s"


def test_nothing_is_left_to_do(guest: Guest) -> None:
    for server in sorted({server for server, _fault in CELLS}):
        assert guest.deploy(server, {}).effects() == {}
