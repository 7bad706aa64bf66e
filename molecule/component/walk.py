# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Runs on the guest: a random history of wishes and disturbances through the engine's own transaction, on real systemd.

walk.py FOLDER SEED STEPS. FOLDER holds the engine's package, wishes.json and the bundle with all contents. After every step:
what check mode said is what happened, the toy serves what was wished last, and a second run changes nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

folder, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, str(folder))
from _component import state  # noqa: E402
from _component.host import HostError  # noqa: E402
from _component.transaction import Refused, Transaction, Unproven  # noqa: E402

WISHES = json.loads((folder / "wishes.json").read_text())
GOOD = sorted(name for name in WISHES if not name.startswith("bad"))
BAD = sorted(name for name in WISHES if name.startswith("bad"))
BASE = Path("/opt/luxima/toy")
choose = random.Random(seed)


def run(request: dict, check: bool = False) -> dict:
    salt = state.read_salt() or "0" * 32
    return Transaction({"name": "toy", "salt": salt, "check": check, **request}, folder / "bundle").run()


def wish(name: str) -> dict:
    return {key: value for key, value in WISHES[name].items() if key != "value"}


def shell(script: str) -> None:
    subprocess.run(["sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def killed() -> str:
    """Another run dies somewhere."""
    name, delay = choose.choice(GOOD), choose.uniform(0, 0.9)
    child = os.fork()
    if not child:
        run(wish(name))
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"run for {name} killed after {delay:.2f} s"


def failed() -> str:
    """Another run fails; what served before serves."""
    name = choose.choice(BAD)
    before = served() if installed() and not unfinished() else None
    try:
        run(wish(name))
    except (Refused, Unproven, HostError):
        pass
    else:
        raise AssertionError(f"{name} succeeded")
    if before is not None:
        assert served() == before, f"{name}: {before} served before, {served()} after"
    return f"run for {name} failed"


def gone() -> str:
    foreseen = run({"state": "absent"}, check=True)["actions"]
    done = run({"state": "absent"})["actions"]
    assert foreseen == done, f"absent: foreseen {foreseen}, done {done}"
    assert not BASE.exists()
    return "removed"


def back() -> str:
    if unfinished() or not installed():
        return "nothing to go back from"
    try:
        foreseen = run({"state": "previous"}, check=True)["actions"]
    except Refused:
        return "nothing to go back to"
    done = run({"state": "previous"})["actions"]
    assert foreseen == done, f"previous: foreseen {foreseen}, done {done}"
    return "rolled back"


HARM = [
    "echo '{\"value\": 9}' > /etc/toy/toy.json",
    "chmod 666 /etc/toy/toy.json",
    "rm /etc/toy/toy.json",
    "echo '# mine' >> /etc/systemd/system/toy.service",
    "rm /etc/systemd/system/toy.service; systemctl daemon-reload",
    "echo stray > /etc/toy/stray",
    "echo '#' >> /opt/luxima/toy/current/bin/toy",
    "rm /usr/local/bin/toy",
    "rm /etc/toy",
    "chmod 755 /var/lib/toy",
    "systemctl stop toy",
    # systemd starts it again after a moment; in that moment a prediction would be about another state than the run.
    "systemctl kill --signal=KILL toy; timeout 8 sh -c 'sleep 0.5; until systemctl is-active -q toy; do sleep 0.2; done' || true",
    "systemctl disable toy",
    "echo mine > /etc/toy/drop/ours.txt",
    "rm -rf /opt/luxima/toy/live/drop",
    "rm /opt/luxima/toy/stat.json",
    "rm -rf /opt/luxima/toy/releases/*",
]


def harmed() -> str:
    script = choose.choice(HARM)
    shell(script)
    return script


def installed() -> bool:
    return (BASE / "current/manifest.json").exists()


def activity() -> str:
    return state.show_units(["toy"])["toy"]["ActiveState"]


def unfinished() -> bool:
    return (BASE / "journal.json").exists()


def served() -> int | None:
    """What the toy says it was told; None when it is not there within a moment."""
    end = time.monotonic() + 3
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:18999/", timeout=2) as answer:
                return json.load(answer)["value"]
        except (OSError, ValueError):
            if time.monotonic() > end:
                return None
            time.sleep(0.05)


def step(number: int) -> None:
    happened = [choose.choice([harmed, harmed, harmed, killed, killed, failed, back, gone])()]
    if choose.random() < 0.4:
        happened.append(choose.choice([harmed, killed])())
    name = choose.choice(GOOD)
    print(f"{number}: {'; '.join(happened)}; then {name}", flush=True)
    interrupted = unfinished()
    active = activity()
    foreseen = run(wish(name), check=True)
    flaps = activity() != active
    done = run(wish(name))
    assert foreseen["changed"] == done["changed"], f"foreseen {foreseen['actions']}, done {done['actions']}"
    if not interrupted and not flaps:
        # What a killed run left is put right first; how much then remains to do is known only afterwards. And a service
        # that lacks its configuration comes and goes by itself: it is started or restarted, as the moment has it.
        assert foreseen["actions"] == done["actions"], (
            f"foreseen {foreseen['actions']}, done {done['actions']}"
        )
    assert served() == WISHES[name]["value"], f"{served()} is served"
    again = run(wish(name))
    assert not again["changed"], f"a second run: {again['actions']}"
    left = [entry.name for place in (BASE, BASE / "releases") for entry in place.iterdir()]
    assert not [entry for entry in left if entry.startswith(".") or entry == "journal.json"], left
    shown = state.show_units(["toy"])["toy"]
    assert (shown["UnitFileState"], shown["NeedDaemonReload"]) == ("enabled", "no"), shown


for number in range(steps):
    step(number)
