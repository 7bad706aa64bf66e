# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""`up`, `down`, `status` and the server's own process."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import host, images, packages, templates
from lab.errors import LabError
from lab.instance import CHECKOUT, Instance, load, prefix6

NODES = ("pve1", "pve2", "pve3")
# The word by which the server's process is known, followed by the instance's name.
_SERVE = "serve"
# What the lab itself keeps in its state folder.
_OWN_STATE = (
    "api",
    "daemon.pid",
    "instance.json",
    "known_hosts",
    "lxcfs.log",
    "secrets.json",
    "ssh",
    "storage",
    "tls",
)


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


class Phases:
    """Names and durations of what was done."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        begun, notes = time.monotonic(), list[str]()
        yield notes
        note = f" ({'; '.join(notes)})" if notes else ""
        say(f"{name:<12} {time.monotonic() - begun:6.1f} s{note}")


# -- looking


def daemon_pids(instance: Instance) -> list[int]:
    """Server processes of this instance, by their exact command line."""
    return [
        pid
        for pid, words in host.processes()
        if words[-4:] == ["-m", "lab", _SERVE, instance.name] and pid != os.getpid()
    ]


def monitors(instance: Instance) -> dict[int, str]:
    """Processes that watch over this instance's containers, with the containers' names."""
    found = {}
    for pid, words in host.processes():
        # LXC writes this as one string: `[lxc monitor] PATH NAME`.
        prefix = f"[lxc monitor] {instance.lxc_path} "
        if words[0].startswith(prefix):
            found[pid] = words[0][len(prefix) :].strip()
    return found


def machines(instance: Instance) -> dict[int, str]:
    """Virtual machines of this instance: process and name."""
    return {
        pid: words[2]
        for pid, words in host.processes()
        if Path(words[0]).name == "qemu-system-x86_64"
        and words[1:2] == ["-name"]
        and words[2].startswith(f"{instance.name}-")
    }


def lxcfs_pids(instance: Instance) -> list[int]:
    return [
        pid
        for pid, words in host.processes()
        if Path(words[0]).name == "lxcfs" and words[-1] == str(instance.run / "lxcfs")
    ]


def api(instance: Instance, path: str, timeout: float = 5, base: str = "/api2/json", data: Any = None) -> Any:
    """GET, or POST of `data`, of the running server with the lab's own token."""
    token = json.loads(instance.secrets_path.read_text(encoding="utf-8"))["token"]
    request = urllib.request.Request(
        f"https://127.0.0.1:{instance.port}{base}{path}",
        data=None if data is None else urllib.parse.urlencode(data).encode(),
        headers={"Authorization": f"PVEAPIToken=root@pam!lab={token}"},
    )
    context = ssl.create_default_context(cafile=str(instance.ca_path))
    with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:  # noqa: S310
        return json.load(answer)["data"]


def healthy(instance: Instance) -> bool:
    """Everything of a lab that is up is there and answers."""
    try:
        return (
            bool(daemon_pids(instance))
            and bool(lxcfs_pids(instance))
            and (instance.run / "lxcfs/proc/meminfo").exists()
            and Path(f"/sys/class/net/{instance.bridge}").exists()
            and "version" in api(instance, "/version")
        )
    except (OSError, ValueError, KeyError):
        return False


# -- down


def _cgroups(instance: Instance) -> list[Path]:
    found = []
    for base in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        if not base.is_dir():
            continue
        for kind in ("payload", "monitor"):
            found += [path for path in base.glob(f"lxc.{kind}.{instance.name}-*") if path.is_dir()]
    return found


def _remove_cgroup(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # noqa: PTH106


def _kill(instance: Instance, name: str) -> None:
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        host.run("lxc-stop", "-P", instance.lxc_path, "-n", name, "-k", timeout=30)


def clean(instance: Instance, everything: bool = True) -> list[str]:
    """Remove all that this instance has on this machine; what was removed, in words.

    Not `everything`: what others keep in the state folder stays.
    """
    removed = templates.clean()
    for pid in daemon_pids(instance):
        host.end(pid, 15)
        removed.append(f"API server {pid}")
    containers = monitors(instance)
    names = sorted(set(containers.values()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _kill(instance, name), names))
    removed += [f"container {name}" for name in names]
    for pid, name in containers.items():
        # A monitor that lost its configuration obeys no lxc-stop.
        if host.alive(pid) and monitors(instance).get(pid) == name:
            for child in host.run("pgrep", "-P", str(pid), check=False).split():
                host.end(int(child), 0.1)
            host.end(pid, 2)
    for pid, name in machines(instance).items():
        host.end(pid, 1)
        removed.append(f"virtual machine {name}")
    deadline = time.monotonic() + 5
    while monitors(instance) and time.monotonic() < deadline:
        time.sleep(0.05)
    for link in host.links(instance.name):
        if link != instance.bridge and (Path("/sys/class/net") / link).exists():
            host.run("ip", "link", "delete", link, check=False)
            removed.append(f"link {link}")
    if Path(f"/sys/class/net/{instance.bridge}").exists():
        host.run("ip", "link", "delete", instance.bridge)
        removed.append(f"bridge {instance.bridge}")
    for pid in lxcfs_pids(instance):
        host.run("umount", "-l", instance.run / "lxcfs", check=False)
        host.end(pid)
        removed.append(f"lxcfs {pid}")
    for base in (instance.run, instance.state):
        for point in host.mounts_below(base):
            for attempt in range(40):
                try:
                    host.run("umount", point)
                    break
                except RuntimeError:
                    if point not in host.mounts_below(base):
                        break
                    if attempt == 39:
                        host.run("umount", "-l", point)
                    time.sleep(0.05)
            removed.append(f"mount {point}")
    for loop, image in host.loops_below(instance.state).items():
        host.run("losetup", "-d", loop, check=False)
        removed.append(f"loop device {loop} ({Path(image).name})")
    for path in _cgroups(instance):
        _remove_cgroup(path)
    if any(host.mounts_below(base) for base in (instance.run, instance.state)):
        raise LabError(
            f"something is still mounted below {instance.run} or {instance.state}; nothing was deleted there"
        )
    if instance.run.exists():
        shutil.rmtree(instance.run)
        removed.append(f"folder {instance.run}")
    if everything and instance.state.exists():
        shutil.rmtree(instance.state)
        removed.append(f"state {instance.state}")
    for name in _OWN_STATE:
        path = instance.state / name
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(f"state {path}")
    return removed


def down() -> int:
    instance = load()
    begun = time.monotonic()
    if os.geteuid() != 0 and not instance.state.exists():
        say("nothing to remove")
        return 0
    host.require_root()
    with host.locked(_lock_path(instance)):
        removed = clean(instance)
    for item in removed:
        say(f"removed {item}")
    left = leftovers(instance)
    if left:
        raise LabError("could not remove: " + ", ".join(left))
    say(f"{instance.name} is down ({time.monotonic() - begun:.1f} s)" if removed else "nothing to remove")
    _lock_path(instance).unlink(missing_ok=True)
    return 0


def leftovers(instance: Instance) -> list[str]:
    """What of this instance is on the machine now."""
    return [
        *(f"API server {pid}" for pid in daemon_pids(instance)),
        *(f"container {name}" for name in monitors(instance).values()),
        *(f"virtual machine {name}" for name in machines(instance).values()),
        *(f"link {name}" for name in host.links(instance.name)),
        *(f"lxcfs {pid}" for pid in lxcfs_pids(instance)),
        *(f"mount {point}" for base in (instance.run, instance.state) for point in host.mounts_below(base)),
        *(f"loop device {loop}" for loop in host.loops_below(instance.state)),
        *(f"cgroup {path}" for path in _cgroups(instance)),
        *(str(path) for path in (instance.run, instance.state) if path.exists()),
    ]


# -- up


def _lock_path(instance: Instance) -> Path:
    return Path("/run/lock") / f"lab-{instance.name}.lock"


def _choose(instance: Instance) -> Instance:
    """The first subnet and port of this instance that nobody else uses."""
    subnet = next((candidate for candidate in instance.subnets() if not host.routed(candidate)), None)
    if subnet is None:
        raise LabError(
            "no free 10.x.y.0/24 range: every candidate of this lab overlaps with a route of this machine"
        )
    for port in instance.ports():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return replace(instance, subnet=subnet, port=port)
    raise LabError("no free port for the API between 18000 and 29999")


def _wait(ready: Callable[[], bool], what: str, seconds: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            where = f"; see {log}" if log else ""
            raise LabError(f"{what} is not ready after {seconds:.0f} s{where}")
        time.sleep(0.05)


def _start_lxcfs(instance: Instance) -> None:
    point = instance.run / "lxcfs"
    point.mkdir(parents=True, exist_ok=True)
    with (instance.state / "lxcfs.log").open("ab") as log:
        subprocess.Popen(
            ["lxcfs", "-f", "-l", "--enable-cfs", "-p", str(instance.run / "lxcfs.pid"), str(point)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _wait((point / "proc/meminfo").exists, "lxcfs", 10, instance.state / "lxcfs.log")


def _start_daemon(instance: Instance) -> int:
    with instance.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", _SERVE, instance.name],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    instance.pid_path.write_text(f"{process.pid}\n", encoding="ascii")

    def ready() -> bool:
        if process.poll() is not None:
            raise LabError(f"the API server ended with {process.returncode}; see {instance.log_path}")
        try:
            return "version" in api(instance, "/version")
        except OSError:
            return False

    _wait(ready, "the API server", 20, instance.log_path)
    return process.pid


def _make_secrets(instance: Instance) -> None:
    path = instance.secrets_path
    path.touch(mode=0o600)
    document = {"password": secrets.token_urlsafe(18), "token": str(uuid.uuid4())}
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    instance.ssh_key.parent.mkdir(mode=0o700, exist_ok=True)
    host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", instance.name, "-f", instance.ssh_key)


def up(vms: bool = False, rare: bool = False) -> int:
    """Start the lab. `vms`: with all that virtual machines need; else that is made when the first one is cloned.

    `rare`: with the templates that few need.
    """
    host.require_root()
    instance = load()
    wanted = [template for template in templates.TEMPLATES if rare or not template.rare]
    phases = Phases()
    with host.locked(_lock_path(instance)):
        if healthy(instance):
            if vms:
                images.ensure(say)
            for template in wanted if rare else []:
                templates.ensure(template, say)
            say(
                f"{instance.name} is up already: https://127.0.0.1:{instance.port}, guests in {instance.subnet}.0/24"
            )
            return 0
        with phases.phase("packages") as notes:
            installed = packages.ensure(["containers"], say)
            if installed:
                notes.append(f"installed {' '.join(installed)}")
            if host.allow_idmap(templates.IDMAP_START, templates.IDMAP_SIZE):
                notes.append(f"root may map {templates.IDMAP_START} and up: /etc/subuid, /etc/subgid")
            if host.allow_inotify():
                notes.append(f"fs.inotify.max_user_instances = {host.INOTIFY_INSTANCES}")
        with phases.phase("clean") as notes:
            removed = clean(instance, everything=False)
            if removed:
                notes.append(f"a killed run had left {len(removed)} things")
        with phases.phase("templates") as notes, ThreadPoolExecutor(2) as pool:
            work = [functools.partial(templates.ensure, template, say) for template in wanted]
            work += [functools.partial(images.ensure, say)] if vms else []
            built = [future.result() for future in [pool.submit(call) for call in work]]
            notes.append(f"{sum(built)} built, {len(built) - sum(built)} cached")
            if vms:
                notes.append(f"virtual machines by {images.accelerator()}")
        with phases.phase("network") as notes:
            instance = _choose(instance)
            instance.save()
            instance.run.mkdir(parents=True, exist_ok=True)
            host.run("ip", "link", "add", instance.bridge, "type", "bridge")
            host.run("ip", "address", "add", f"{instance.subnet}.1/24", "dev", instance.bridge)
            host.run("ip", "link", "set", instance.bridge, "up")
            notes.append(f"{instance.bridge} {instance.subnet}.1/24")
            # A machine may be without IPv6; guests that want it are then refused by LXC.
            if Path("/proc/sys/net/ipv6").exists():
                address = f"{prefix6(instance.subnet)}1/64"
                host.run("ip", "address", "add", address, "dev", instance.bridge, "nodad", check=False)
        with phases.phase("server") as notes:
            _make_secrets(instance)
            instance.lxc_path.mkdir(exist_ok=True)
            _start_lxcfs(instance)
            pid = _start_daemon(instance)
            notes.append(f"https://127.0.0.1:{instance.port}, process {pid}")
    say(f"{instance.name} is up ({time.monotonic() - phases.start:.1f} s); state and log in {instance.state}")
    return 0


def status() -> int:
    instance = load()
    if not (instance.state / "instance.json").exists() and not daemon_pids(instance):
        say(f"{instance.name} is down")
        return 1
    if not healthy(instance):
        say(f"{instance.name} is broken: `down` or `up` cleans it; log in {instance.log_path}")
        return 1
    say(
        f"{instance.name} is up: https://127.0.0.1:{instance.port}, guests in {instance.subnet}.0/24 on {instance.bridge}"
    )
    rows = [
        {**guest, "node": node}
        for node in NODES
        for kind in ("lxc", "qemu")
        for guest in api(instance, f"/nodes/{node}/{kind}", timeout=30)
    ]
    for guest in sorted(rows, key=lambda row: int(row["vmid"])):
        memory = f"{guest['mem'] >> 20}/{guest['maxmem'] >> 20} MiB"
        disk = f"{guest['disk'] >> 20}/{guest['maxdisk'] >> 20} MiB"
        say(
            f"  {guest['vmid']:>6}  {guest['node']:<6} {guest['status']:<8} {guest['name']:<24} memory {memory}  disk {disk}"
        )
    return 0


def fault(words: list[str]) -> int:
    """Switch a fault of the running server: NAME key=value ..., --off; without words list what is on."""
    off = "--off" in words
    names = [word for word in words if "=" not in word and word != "--off"]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    if len(names) > 1:
        raise LabError(f"one fault at a time: {' '.join(names)}")
    data = {**values, "name": "".join(names), "on": int(not off)} if words else None
    try:
        found = api(load(), "/faults", base="/lab", data=data)
    except urllib.error.HTTPError as error:
        raise LabError(str(error.reason)) from None
    except (OSError, KeyError, ValueError) as error:
        raise LabError(f"the lab does not answer ({error}): is it up?") from None
    for line in found or ["no fault is on"]:
        say(line)
    return 0


# -- the server's own process


def serve(name: str) -> int:
    """Run the API in the foreground until told to end."""
    from lab.access import Access, Token, User
    from lab.cluster import Cluster
    from lab.drivers.lxc import LxcDriver
    from lab.drivers.qemu import QemuDriver
    from lab.server import Server

    instance = load()
    if instance.name != name:
        raise LabError(f"this checkout's lab is {instance.name}, not {name}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    known = json.loads(instance.secrets_path.read_text(encoding="utf-8"))
    access = Access(state=instance.state / "api" / "access.json")
    root = access.users.setdefault("root@pam", User(""))
    root.password = known["password"]
    root.tokens["lab"] = Token(known["token"], privsep=False)
    drivers = {"lxc": LxcDriver(instance), "qemu": QemuDriver(instance)}
    cluster = Cluster(NODES, drivers, access, state=instance.state / "api")
    cluster.provide_templates()
    # Nobody else can be at work on a guest when the server has just started.
    for guest in cluster.guests.values():
        if guest.config.pop("lock", None):
            cluster.save(guest)
    cluster.faults.auth_delay = 3.0
    server = Server(cluster, instance.state / "tls", instance.port)

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        cluster.tasks.wait_idle(10)
    return 0
