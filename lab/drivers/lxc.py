# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Real containers: one ext4 image per guest, LXC around it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import host, templates
from lab.drivers.base import Creation, Driver, Guest, Runtime, leased, split_properties
from lab.instance import Instance
from lab.tasks import Task
from lab.templates import IDMAP_SIZE, IDMAP_START

_CGROUP = Path("/sys/fs/cgroup")
_HZ = os.sysconf("SC_CLK_TCK")
_LXCFS_FILES = (
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "sys/devices/system/cpu",
)
# What every container may touch: null, zero, full, random, urandom, tty, console, ptmx, pts; making any node.
_DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:229 rwm",
)


class LxcDriver(Driver):
    """Containers of one instance on this machine."""

    kind = "lxc"

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._lock = threading.Lock()
        self._pids: dict[int, tuple[int, int]] = {}
        self._usage: dict[int, tuple[float, int]] = {}

    # -- paths

    def _name(self, guest: Guest) -> str:
        return self.instance.container(guest.vmid)

    def _image(self, guest: Guest, disk: str = "rootfs") -> Path:
        storage, _, name = guest.volume(disk).partition(":")
        if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name) or ".." in name:
            raise RuntimeError(f"unable to parse volume ID '{guest.volume(disk)}'")
        return self.instance.state / "storage" / guest.node / storage / name

    def _disks(self, guest: Guest) -> list[str]:
        return [key for key in sorted(guest.config) if key == "rootfs" or re.fullmatch(r"mp\d+", key)]

    def _root(self, guest: Guest) -> Path:
        return self.instance.run / "rootfs" / str(guest.vmid)

    def _mountpoint(self, guest: Guest, disk: str) -> Path:
        return self._root(guest) if disk == "rootfs" else self.instance.run / "mp" / f"{guest.vmid}-{disk}"

    @staticmethod
    def _offset(guest: Guest) -> int:
        return IDMAP_START if guest.config.get("unprivileged") else 0

    # -- images

    def templates(self) -> dict[str, int]:
        return {t.file: t.archive.stat().st_size for t in templates.TEMPLATES if t.archive.exists()}

    @staticmethod
    def _golden(creation: Creation, unprivileged: bool, task: Task) -> Path:
        """The unpacked template; one that a client uploaded is unpacked when it is first used."""
        if creation.archive is None:
            return templates.find(creation.template).golden(unprivileged)
        found = templates.uploaded(creation.archive)
        templates.ensure(found, task.log, (unprivileged,))
        return found.golden(unprivileged)

    def create(self, guest: Guest, creation: Creation, task: Task) -> None:
        for disk in self._disks(guest):
            image, size = self._image(guest, disk), guest.disk_size(disk)
            image.parent.mkdir(parents=True, exist_ok=True)
            if creation.source:
                source = self._image(creation.source, disk)
                if creation.snapshot:
                    source = _kept(source, creation.snapshot)
                task.log(f"create full clone of {creation.source.volume(disk)}")
                host.run("cp", "--reflink=auto", "--sparse=auto", source, image)
            elif disk == "rootfs":
                golden = self._golden(creation, bool(self._offset(guest)), task)
                task.log(f"extracting archive '{creation.template}'")
                if golden.stat().st_size > size:
                    raise RuntimeError(
                        f"the template needs {golden.stat().st_size >> 20} MiB, rootfs has {size >> 20}"
                    )
                host.run("cp", "--reflink=auto", "--sparse=auto", golden, image)
                os.truncate(image, size)
            else:
                with image.open("wb") as stream:
                    stream.truncate(size)
                owner = f"root_owner={self._offset(guest)}:{self._offset(guest)}"
                host.run(
                    "mkfs.ext4",
                    "-q",
                    "-F",
                    "-m",
                    "0",
                    "-E",
                    f"lazy_itable_init=1,lazy_journal_init=1,{owner}",
                    image,
                )
            task.log(f"allocated '{guest.volume(disk)}' ({size >> 20} MiB)")
        with self._mounted(guest) as root:
            self._personalise(guest, creation, root, task)

    def _personalise(self, guest: Guest, creation: Creation, root: Path, task: Task) -> None:
        """What no two guests may share."""
        self._put(guest, "/etc/machine-id", secrets.token_hex(16) + "\n")
        ssh = root / "etc/ssh"
        for old in ssh.glob("ssh_host_*"):
            old.unlink()
        for kind in ("ed25519", "ecdsa"):
            key = ssh / f"ssh_host_{kind}_key"
            host.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{guest.name}", "-f", key)
            for path in (key, key.with_suffix(".pub")):
                os.chown(path, self._offset(guest), self._offset(guest))
        task.log("created SSH host keys")
        if creation.ssh_public_keys:
            keys = creation.ssh_public_keys.strip() + "\n"
            self._put(guest, "/root/.ssh/authorized_keys", keys, 0o600)
        if creation.password:
            host.run("chroot", root, "chpasswd", stdin=f"root:{creation.password}\n")
        self._put_network_files(guest)

    def _put(self, guest: Guest, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the guest; links in it are not followed out of it."""
        root = self._root(guest)
        target = root / path.lstrip("/")
        if not target.parent.resolve().is_relative_to(root):
            raise RuntimeError(f"{path} leads out of the container")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        scratch.chmod(mode)
        os.chown(scratch, self._offset(guest), self._offset(guest))
        scratch.replace(target)

    def _put_network_files(self, guest: Guest) -> None:
        name = guest.name
        short = name.split(".")[0]
        address = next(
            (
                net[key].split("/")[0]
                for key in ("ip", "ip6")
                for _, net in self._nets(guest)
                if "/" in net.get(key, "")
            ),
            "127.0.1.1",
        )
        names = f"{name} {short}" if short != name else name
        self._put(guest, "/etc/hostname", name + "\n")
        self._put(
            guest,
            "/etc/hosts",
            f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {names}\n",
        )
        lines = [f"search {guest.config['searchdomain']}"] if guest.config.get("searchdomain") else []
        lines += [
            f"nameserver {server}"
            for server in re.split(r"[;, ]+", str(guest.config.get("nameserver", "")))
            if server
        ]
        self._put(guest, "/etc/resolv.conf", "".join(line + "\n" for line in lines))

    def _mount(self, guest: Guest) -> None:
        mounted = set(host.mounts_below(self.instance.run))
        for disk in self._disks(guest):
            point = self._mountpoint(guest, disk)
            point.mkdir(parents=True, exist_ok=True)
            if point not in mounted:
                _fill(self._image(guest, disk))
                host.run("mount", "-o", "loop", self._image(guest, disk), point)

    def _unmount(self, guest: Guest) -> None:
        for disk in self._disks(guest):
            point = self._mountpoint(guest, disk)
            for attempt in range(50):
                if point not in host.mounts_below(self.instance.run):
                    break
                try:
                    host.run("umount", point)
                except RuntimeError:
                    if attempt == 49:
                        raise
                    time.sleep(0.1)
            with contextlib.suppress(OSError):
                point.rmdir()

    @contextlib.contextmanager
    def _mounted(self, guest: Guest) -> Iterator[Path]:
        self._mount(guest)
        try:
            yield self._root(guest)
        finally:
            self._unmount(guest)

    def destroy(self, guest: Guest, task: Task) -> None:
        if self._pid(guest):
            self.stop(guest, task)
        self._unmount(guest)
        for disk in self._disks(guest):
            if guest.volume(disk):
                image = self._image(guest, disk)
                image.unlink(missing_ok=True)
                for kept in image.parent.glob(f"{image.name}@*"):
                    kept.unlink()
                task.log(f"removed '{guest.volume(disk)}'")
        directory = self.instance.lxc_path / self._name(guest)
        for path in sorted(directory.glob("*")):
            path.unlink()
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()
        self._forget(guest)

    def resize(self, guest: Guest, disk: str, size: int, task: Task) -> None:
        image = self._image(guest, disk)
        os.truncate(image, size)
        loop = next((dev for dev, path in host.loops_below(image.parent).items() if path == str(image)), "")
        if not loop:
            _fill(image)
        else:
            host.run("losetup", "-c", loop)
            try:
                host.run("resize2fs", loop)
            except RuntimeError as error:
                if "Permission denied" not in str(error):
                    raise
                # Needs CAP_SYS_RESOURCE, which root of a nested machine may lack.
                task.warn(
                    "this machine may not grow a mounted file system: it grows when the container next starts"
                )
        task.log(f"{guest.volume(disk)} has {size >> 20} MiB now")

    def move(self, guest: Guest, disk: str, moved: Guest, task: Task) -> None:
        host.move(self._image(guest, disk), self._image(moved, disk))
        task.log(f"moved '{guest.volume(disk)}' to '{moved.volume(disk)}'")

    # -- snapshots: a copy of each image beside it

    @contextlib.contextmanager
    def _still(self, guest: Guest) -> Iterator[None]:
        """Nothing is written while the block runs, and what was written is in the images."""
        mounted = set(host.mounts_below(self.instance.run))
        points = [p for p in (self._mountpoint(guest, disk) for disk in self._disks(guest)) if p in mounted]
        frozen: list[Path] = []
        try:
            for point in points:
                try:
                    host.run("fsfreeze", "--freeze", point)
                    frozen.append(point)
                except RuntimeError:
                    # Root of a nested machine may lack the right to; a journal makes the copy good all the same.
                    host.run("sync", "-f", point)
            yield
        finally:
            for point in frozen:
                host.run("fsfreeze", "--unfreeze", point)

    def snapshot(self, guest: Guest, name: str, memory: bool, task: Task) -> None:
        with self._still(guest):
            for disk in guest.disks():
                image = self._image(guest, disk)
                host.run("cp", "--reflink=auto", "--sparse=always", image, _kept(image, name))
                task.log(f"snapshot '{name}' of '{guest.volume(disk)}'")

    def rollback(self, guest: Guest, name: str, task: Task) -> None:
        self._unmount(guest)
        for disk in guest.disks():
            image = self._image(guest, disk)
            scratch = image.with_name(f".{image.name}.{secrets.token_hex(4)}")
            host.run("cp", "--reflink=auto", "--sparse=always", _kept(image, name), scratch)
            scratch.replace(image)
            task.log(f"'{guest.volume(disk)}' is that of snapshot '{name}' again")

    def drop_snapshot(self, guest: Guest, name: str, task: Task) -> None:
        for disk in guest.disks():
            _kept(self._image(guest, disk), name).unlink(missing_ok=True)

    # -- configuration

    def _nets(self, guest: Guest) -> list[tuple[int, dict[str, str]]]:
        found = []
        for key in sorted(guest.config):
            if re.fullmatch(r"net\d+", key):
                net = split_properties(str(guest.config[key]))
                found.append((int(key[3:]), leased(net, guest.vmid, self.instance.subnet)))
        return found

    @staticmethod
    def _limits(guest: Guest) -> dict[str, str]:
        """cgroup files (v1) with their values."""
        cores = float(guest.config.get("cpulimit", 0)) or float(guest.config.get("cores", 0))
        return {
            "memory.limit_in_bytes": str(int(guest.config.get("memory", 512)) << 20),
            "cpu.cfs_quota_us": str(int(cores * 100000)) if cores else "-1",
            "cpu.shares": str(guest.config.get("cpuunits", 1024)),
        }

    def _config(self, guest: Guest) -> str:
        nesting = split_properties(str(guest.config.get("features", ""))).get("nesting") == "1"
        unprivileged = bool(self._offset(guest))
        lines = [
            f"lxc.uts.name = {guest.name}",
            f"lxc.rootfs.path = dir:{self._root(guest)}",
            f"lxc.log.file = {self.instance.lxc_path / self._name(guest) / 'lxc.log'}",
            "lxc.log.level = WARN",
            "lxc.arch = linux64",
            "lxc.pty.max = 1024",
            "lxc.tty.max = 0",
            "lxc.signal.halt = SIGRTMIN+3",
            "lxc.signal.stop = SIGKILL",
            "lxc.apparmor.profile = unconfined",
        ]
        if unprivileged:
            lines += [f"lxc.idmap = {kind} 0 {IDMAP_START} {IDMAP_SIZE}" for kind in "ug"]
            lines += ["lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed"]
        elif nesting:
            # A container that runs containers: it needs the machine as it is.
            lines += [
                "lxc.cap.drop =",
                "lxc.mount.auto = proc:rw sys:rw cgroup:rw",
                "lxc.cgroup.devices.allow = a",
            ]
        else:
            lines += ["lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio"]
            lines += ["lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed", "lxc.cgroup.devices.deny = a"]
            lines += [f"lxc.cgroup.devices.allow = {rule}" for rule in _DEVICES]
        seccomp = Path("/usr/share/lxc/config/common.seccomp")
        if seccomp.exists() and not (nesting and not unprivileged):
            lines.append(f"lxc.seccomp.profile = {seccomp}")
        lines += [f"lxc.cgroup.{key} = {value}" for key, value in self._limits(guest).items()]
        for index, net in self._nets(guest):
            part = f"lxc.net.{index}"
            lines += [
                f"{part}.type = veth",
                f"{part}.link = {self.instance.bridge}",
                f"{part}.veth.pair = {self.instance.veth(guest.vmid, index)}",
                f"{part}.name = {net['name']}",
                f"{part}.hwaddr = {net['hwaddr'].lower()}",
                *([] if net.get("link_down") == "1" else [f"{part}.flags = up"]),
            ]
            for version, ip, gateway in (("ipv4", "ip", "gw"), ("ipv6", "ip6", "gw6")):
                if "/" in net.get(ip, ""):
                    lines.append(f"{part}.{version}.address = {net[ip]}")
                    if net.get(gateway):
                        lines.append(f"{part}.{version}.gateway = {net[gateway]}")
        lxcfs = self.instance.run / "lxcfs"
        for name in _LXCFS_FILES:
            lines.append(f"lxc.mount.entry = {lxcfs / name} {name} none bind,optional 0 0")
        for disk in self._disks(guest):
            if disk != "rootfs":
                inside = split_properties(str(guest.config[disk]), "volume")["mp"].strip("/")
                lines.append(
                    f"lxc.mount.entry = {self._mountpoint(guest, disk)} {inside} none bind,create=dir 0 0"
                )
        return "\n".join(lines) + "\n"

    # -- power

    def _lxc(self, program: str, guest: Guest, *words: str, timeout: float = 120) -> str:
        return host.run(
            program, "-P", self.instance.lxc_path, "-n", self._name(guest), *words, timeout=timeout
        )

    def start(self, guest: Guest, task: Task) -> None:
        self._mount(guest)
        try:
            self._put_network_files(guest)
            directory = self.instance.lxc_path / self._name(guest)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "lxc.log").write_text("", encoding="utf-8")
            (directory / "config").write_text(self._config(guest), encoding="utf-8")
            self._forget(guest)
            try:
                self._lxc("lxc-start", guest)
            except RuntimeError:
                lines = (directory / "lxc.log").read_text(encoding="utf-8", errors="replace").splitlines()
                for line in lines[-20:]:
                    task.log(line)
                raise RuntimeError(f"startup for container '{guest.vmid}' failed") from None
        except BaseException:
            self._unmount(guest)
            raise

    def stop(self, guest: Guest, task: Task) -> None:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self._lxc("lxc-stop", guest, "-k", timeout=30)
        if not self._gone(guest, 20):
            raise RuntimeError(f"container '{guest.vmid}' does not end")
        self._unmount(guest)

    def shutdown(self, guest: Guest, timeout: float, task: Task) -> bool:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self._lxc("lxc-stop", guest, "--nokill", "-t", str(max(1, int(timeout))), timeout=timeout + 10)
        if not self._gone(guest, 2):
            return False
        self._unmount(guest)
        return True

    def _gone(self, guest: Guest, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._pid(guest):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        self._forget(guest)
        return True

    def _forget(self, guest: Guest) -> None:
        with self._lock:
            self._pids.pop(guest.vmid, None)
            self._usage.pop(guest.vmid, None)

    # -- what runs

    def _pid(self, guest: Guest) -> int:
        """The guest's init on this machine; 0 when it is stopped. A guest may have rebooted by itself."""
        known = self._pids.get(guest.vmid)
        if known and host.alive(known[0]) and process_start(known[0]) == known[1]:
            return known[0]
        if not (self.instance.lxc_path / self._name(guest) / "config").exists():
            return 0
        with contextlib.suppress(RuntimeError, ValueError):
            pid = int(self._lxc("lxc-info", guest, "-p", "-H").strip() or 0)
            if pid > 0 and host.alive(pid):
                with self._lock:
                    self._pids[guest.vmid] = (pid, process_start(pid))
                return pid
        return 0

    def _cgroup(self, guest: Guest, controller: str) -> Path:
        return _CGROUP / controller / f"lxc.payload.{self._name(guest)}"

    def runtime(self, guest: Guest) -> Runtime:
        pid = self._pid(guest)
        if not pid:
            return Runtime()
        now, used = time.monotonic(), _number(self._cgroup(guest, "cpuacct") / "cpuacct.usage")
        before = self._usage.get(guest.vmid)
        cores = float(guest.config.get("cores", 0)) or float(os.cpu_count() or 1)
        cpu = 0.0
        if before and now > before[0]:
            cpu = max(0.0, (used - before[1]) / 1e9 / (now - before[0]) / cores)
        self._usage[guest.vmid] = (now, used)
        memory = self._cgroup(guest, "memory")
        cached = _field(memory / "memory.stat", "total_inactive_file")
        try:
            usage = os.statvfs(self._root(guest))
            disk = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
        except OSError:
            disk = 0
        # The host's side of the pair counts the other way round.
        traffic = Path("/sys/class/net") / self.instance.veth(guest.vmid, 0) / "statistics"
        return Runtime(
            running=True,
            pid=pid,
            uptime=int(time.clock_gettime(time.CLOCK_BOOTTIME) - process_start(pid) / _HZ),
            cpu=round(cpu, 4),
            mem=max(0, _number(memory / "memory.usage_in_bytes") - cached),
            disk=disk,
            netin=_number(traffic / "tx_bytes"),
            netout=_number(traffic / "rx_bytes"),
        )

    def interfaces(self, guest: Guest) -> list[dict[str, Any]]:
        pid = self._pid(guest)
        if not pid:
            return []
        found = []
        for link in json.loads(host.run("nsenter", "-t", str(pid), "-n", "ip", "-j", "address", "show")):
            mac = link.get("address", "")
            entry: dict[str, Any] = {
                "name": link["ifname"],
                "hwaddr": mac,
                "hardware-address": mac,
                "ip-addresses": [],
            }
            for address in link.get("addr_info", []):
                text = f"{address['local']}/{address['prefixlen']}"
                entry.setdefault(address["family"], text)
                entry["ip-addresses"].append(
                    {
                        "ip-address": address["local"],
                        "ip-address-type": address["family"],
                        "prefix": str(address["prefixlen"]),
                    }
                )
            found.append(entry)
        return found

    def apply(self, guest: Guest, key: str) -> None:
        pid = self._pid(guest)
        if not pid:
            return
        if key == "hostname":
            self._put_network_files(guest)
            host.run("nsenter", "-t", str(pid), "-u", "hostname", guest.name)
        elif key.startswith("net"):
            self._apply_net(guest, int(key[3:]), pid)
        else:
            for name, value in self._limits(guest).items():
                controller = "memory" if name.startswith("memory") else "cpu"
                with contextlib.suppress(FileNotFoundError):
                    (self._cgroup(guest, controller) / name).write_text(value, encoding="ascii")

    def _apply_net(self, guest: Guest, index: int, pid: int) -> None:
        """Give a running guest's interface what its configuration says; interfaces come and go, too."""
        veth = self.instance.veth(guest.vmid, index)
        net = next((entry for number, entry in self._nets(guest) if number == index), None)
        exists = (Path("/sys/class/net") / veth).exists()
        if net is None:
            if exists:
                host.run("ip", "link", "delete", veth)
            return
        inside = ["nsenter", "-t", str(pid), "-n", "ip"]
        if not exists:
            host.run(
                "ip", "link", "add", veth, "type", "veth", "peer", "name", net["name"], "netns", str(pid)
            )
            host.run("ip", "link", "set", veth, "master", self.instance.bridge, "up")
            host.run(*inside, "link", "set", net["name"], "address", net["hwaddr"].lower(), "up")
        for version, ip, gateway in (("-4", "ip", "gw"), ("-6", "ip6", "gw6")):
            host.run(*inside, version, "address", "flush", "dev", net["name"], "scope", "global")
            if "/" in net.get(ip, ""):
                ipaddress.ip_interface(net[ip])
                host.run(*inside, "address", "add", net[ip], "dev", net["name"])
                if net.get(gateway):
                    way = ("default", "via", net[gateway], "dev", net["name"])
                    host.run(*inside, version, "route", "replace", *way)
        self._put_network_files(guest)

    def node_status(self) -> dict[str, Any]:
        return machine_status(self.instance.state)


def machine_status(directory: Path) -> dict[str, Any]:
    """The machine below, with the disk that holds a directory."""
    memory = _field(Path("/proc/meminfo"), "MemTotal:") << 10
    disk = os.statvfs(directory)
    return {
        "cores": os.cpu_count() or 1,
        "memory": memory,
        "memory_used": memory - (_field(Path("/proc/meminfo"), "MemAvailable:") << 10),
        "disk": disk.f_blocks * disk.f_frsize,
        "disk_used": (disk.f_blocks - disk.f_bavail) * disk.f_frsize,
    }


def _kept(image: Path, snapshot: str) -> Path:
    return image.with_name(f"{image.name}@{snapshot}")


def _fill(image: Path) -> None:
    """Grow the ext4 file system of an unmounted image to the image's size, if it is smaller."""
    with image.open("rb") as stream:
        stream.seek(1024)
        block = stream.read(1024)
    low, shift, high = (int.from_bytes(block[at : at + 4], "little") for at in (0x4, 0x18, 0x150))
    if ((high << 32) + low) << (10 + shift) < image.stat().st_size:
        host.run("e2fsck", "-fy", image, check=False)
        host.run("resize2fs", image)


def process_start(pid: int) -> int:
    """Start of a process in clock ticks since boot; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(text.rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    """The number after a word at the start of a line."""
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    except (OSError, ValueError):
        pass
    return 0
